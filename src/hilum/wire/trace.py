"""Reading along: PDUs and messages out of the bytes of one direction of an association.

For observers: logs, tests, programs that want to see PDUs. Nothing here decides anything; what
cannot be read is passed over.

Standard: PS3.8 9.3, annex E.2; PS3.7 6.3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hilum.errors import RemoteProtocolError
from hilum.wire.command import Command

__all__ = ["KEPT_MAXIMUM", "Messages", "Splitter", "TracedMessage"]

KEPT_MAXIMUM = 64 << 20
"""A PDU, or a message's data set, over so many bytes is not kept, only counted."""

_HEADER = 6
_PDATA = 0x04


class Splitter:
    """Cuts one direction's bytes into PDUs."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._kept: bytearray | None = None

    def feed(self, data: bytes | bytearray | memoryview, *, keep: bool) -> Iterator[bytes]:
        """Take bytes as they come.

        Args:
            data: the next bytes.
            keep: whether the PDUs are wanted. One that began unwanted, or is over
                ``KEPT_MAXIMUM``, is left out.

        Returns:
            The whole PDUs, headers included.
        """
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end:
            if not self._left:
                taken = min(_HEADER - len(self._header), end - position)
                self._header += view[position : position + taken]
                position += taken
                if len(self._header) < _HEADER:
                    return
                self._begin(keep)
            else:
                taken = min(self._left, end - position)
                if self._kept is not None:
                    self._kept += view[position : position + taken]
                self._left -= taken
                position += taken
            if not self._left:
                if self._kept is not None:
                    yield bytes(self._kept)
                self._kept = None

    def _begin(self, keep: bool) -> None:
        header, self._header = self._header, bytearray()
        self._left = int.from_bytes(header[2:6], "big")
        self._kept = header if keep and self._left <= KEPT_MAXIMUM else None


class TracedMessage(NamedTuple):
    """A message that has passed.

    Args:
        context_id: of its presentation context.
        command: its command set.
        data: its data set; None where it has none, or one over ``KEPT_MAXIMUM``.
    """

    context_id: int
    command: Command
    data: bytes | None


class Messages:
    """Puts messages together from the P-DATA-TF PDUs of one direction."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._command: Command | None = None
        self._data = bytearray()
        self._too_long = False

    def feed(self, pdu: bytes) -> Iterator[TracedMessage]:
        """The messages that a PDU completes; none for one that is no P-DATA-TF."""
        if pdu[0] != _PDATA:
            return
        position, end = _HEADER, len(pdu)
        while position + _HEADER <= end:
            length = int.from_bytes(pdu[position : position + 4], "big")
            context_id, control = pdu[position + 4], pdu[position + 5]
            fragment = memoryview(pdu)[position + _HEADER : position + 4 + length]
            position += 4 + max(2, length)
            message = self._fragment(context_id, fragment, control)
            if message is not None:
                yield message

    def _fragment(
        self, context_id: int, fragment: memoryview, control: int
    ) -> TracedMessage | None:
        is_command, is_last = control & 1, control & 2
        if is_command:
            self._raw += fragment
            if not is_last:
                return None
            raw, self._raw = bytes(self._raw), bytearray()
            try:
                command = Command.decode(raw)
            except RemoteProtocolError:
                return None
            if not command.has_data_set:
                return TracedMessage(context_id, command, None)
            self._command, self._data, self._too_long = command, bytearray(), False
            return None
        if self._command is None:
            return None  # reading along began within the message
        self._too_long = self._too_long or len(self._data) + len(fragment) > KEPT_MAXIMUM
        if self._too_long:
            self._data.clear()
        else:
            self._data += fragment
        if not is_last:
            return None
        command, self._command = self._command, None
        return TracedMessage(context_id, command, None if self._too_long else bytes(self._data))
