"""The sub-operations of a C-GET or C-MOVE: how many there are, how they went, what is said of them.

Standard: PS3.4 C.4.2.1.4.2 to C.4.2.2 (C-MOVE), C.4.3.1.3.2 to C.4.3.2 (C-GET), Y.4, Z.4;
PS3.7 9.1.3, 9.1.4; PS3.5 6.2.2 (values too long for a 16-bit length).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from hilum.services.status import Category, Status, category
from hilum.services.transfer_syntaxes import properties

if TYPE_CHECKING:
    from hilum.wire.command import Command

__all__ = ["COUNTER_MAXIMUM", "Counts", "SubOperations", "encode_failed_uids"]

COUNTER_MAXIMUM = 0xFFFF
"""The counters of a response are US elements: more sub-operations than that are shown as that."""

_NAMES = ("remaining", "completed", "failed", "warning")


class Counts(NamedTuple):
    """The counters of a response; None where it has none.

    Standard: PS3.4 C.4.2.1.6 to C.4.2.1.9.
    """

    remaining: int | None
    completed: int | None
    failed: int | None
    warning: int | None

    @classmethod
    def of(cls, command: Command) -> Counts:
        """The counters that a C-GET or C-MOVE response carries.

        Raises:
            RemoteProtocolError: one of them is no US element.
        """
        return cls(*(command.get(f"number_of_{name}_suboperations") for name in _NAMES))


class SubOperations:
    """The counters of one C-GET or C-MOVE while it is performed.

    They count on behind 65,535; only what a response carries stops there.

    Args:
        total: how many C-STORE sub-operations there will be.
    """

    __slots__ = ("_failed_uids", "completed", "failed", "remaining", "warning")

    def __init__(self, total: int = 0) -> None:
        self.remaining = total
        self.completed = 0
        self.failed = 0
        self.warning = 0
        # A dict keeps the order of failures and each UID once.
        self._failed_uids: dict[str, None] = {}

    def expect(self, count: int) -> None:
        """More sub-operations were found."""
        self.remaining += count

    def ended(self, status: int, sop_instance_uid: str) -> None:
        """A sub-operation got its C-STORE response.

        Standard: PS3.4 C.4.2.1.7 to C.4.2.1.9: success completes it, a warning is counted apart,
        everything else has failed.
        """
        kind = category(status)
        if kind is Category.SUCCESS:
            self.remaining -= 1
            self.completed += 1
        elif kind is Category.WARNING:
            self.remaining -= 1
            self.warning += 1
        else:
            self.lost(sop_instance_uid)

    def lost(self, sop_instance_uid: str) -> None:
        """A sub-operation failed, or could not be begun: no context, no file, no association."""
        self.remaining -= 1
        self.failed += 1
        self._failed_uids[sop_instance_uid] = None

    @property
    def failed_uids(self) -> tuple[str, ...]:
        """The SOP instances that failed, each once, in the order of their first failures."""
        return tuple(self._failed_uids)

    def final_status(self, *, cancelled: bool = False) -> Status:
        """The status of the final response.

        Success when there was nothing to do too; cancelled only when something was left undone
        because of that. A request that could not be performed at all has another status of its
        own, such as A701H or A801H.

        Standard: PS3.4 Table C.4-2, Table C.4-3.
        """
        if cancelled and self.remaining > 0:
            return Status.CANCEL
        if self.failed and not self.completed and not self.warning:
            return Status.CANNOT_PERFORM_SUBOPERATIONS
        if self.failed or self.warning:
            return Status.SUBOPERATIONS_COMPLETE_WITH_FAILURES
        return Status.SUCCESS

    def elements(self, status: int) -> dict[str, int]:
        """The counters as command elements of a response, by name.

        Number of Remaining Sub-operations belongs into pending and cancelled responses only.

        Standard: PS3.4 C.4.2.1.6 to C.4.2.1.9, C.4.3.1.5 to C.4.3.1.8.
        """
        names = _NAMES if category(status) in (Category.PENDING, Category.CANCEL) else _NAMES[1:]
        return {
            f"number_of_{name}_suboperations": min(getattr(self, name), COUNTER_MAXIMUM)
            for name in names
        }

    def identifier(self, status: int, transfer_syntax: str) -> bytes | None:
        """The data set of a response: None while pending, after success, and without failures.

        Standard: PS3.4 C.4.2.1.4.2, C.4.3.1.3.2.
        """
        if not self._failed_uids or category(status) in (Category.PENDING, Category.SUCCESS):
            return None
        return encode_failed_uids(self._failed_uids, transfer_syntax)


def encode_failed_uids(uids: Iterable[str], transfer_syntax: str) -> bytes:
    """A data set of nothing but Failed SOP Instance UID List (0008,0058).

    A list too long for the 16-bit length of UI, about 1,000 UIDs, becomes UN where VRs are
    written; explicit ones of other systems are read so too.

    Standard: PS3.4 C.4.2.1.4.2; PS3.5 6.2.2.

    Args:
        uids: one or more SOP Instance UIDs.
        transfer_syntax: an uncompressed one, deflated included; of a compressed one what it does
            to elements other than Pixel Data.
    """
    value = "\\".join(uids).encode("latin-1", "replace")
    if len(value) % 2:
        value += b"\0"
    syntax = properties(transfer_syntax)
    order = "<" if syntax.little_endian else ">"
    if not syntax.explicit:
        data = struct.pack("<HHI", 0x0008, 0x0058, len(value)) + value
    elif len(value) < 0xFFFF:
        data = struct.pack(f"{order}HH2sH", 0x0008, 0x0058, b"UI", len(value)) + value
    else:
        data = struct.pack(f"{order}HH2s2xI", 0x0008, 0x0058, b"UN", len(value)) + value
    if not syntax.deflated:
        return data
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    stream = deflater.compress(data) + deflater.flush()
    return stream + b"\0" * (len(stream) % 2)
