"""What the index writer is given, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hilum.errors import StoreError
from hilum.gateway.store.states import DuplicatePolicy, InstanceFlag, quarantine_owner

__all__ = ["CommitUnknown", "Existing", "Incoming", "Outcome", "OutcomeKind"]


@dataclass(slots=True)
class Incoming:
    """An instance whose file is durable and that is to become visible.

    Args:
        owner_id: 0 for everyone's, else the account's.
        sop_class_uid: SOP Class UID.
        sop_instance_uid: SOP Instance UID.
        transfer_syntax_uid: what it was sent with.
        path: of the file, relative to the data directory.
        data_offset: where in the file the data set begins.
        size: bytes of the data set.
        digest: 16 bytes over the data set.
        values: raw header values by keyword, at least those of `INDEX_KEYS` that were there.
        received_at: µs since 1970.
        flags: what is known about it. QUARANTINED moves it to the owner's quarantine.
        sending_ae: calling AE title.
        receiving_ae: called AE title.
        peer: the sender's address.
        duplicates: what to do when other content has the same UID.
        fallback_charset: for text without (0008,0005) that is not ASCII; None for the default.
        work: kind and payload of each work row to be written with the instance. Not written
            when no instance row is (SAME, REFUSED).
        same_as: id of a version that the caller found to be equal, though encoded otherwise.
    """

    owner_id: int
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str
    data_offset: int
    size: int
    digest: bytes
    values: Mapping[str, bytes]
    received_at: int
    flags: InstanceFlag = InstanceFlag(0)  # noqa: RUF009
    sending_ae: str = ""
    receiving_ae: str = ""
    peer: str = ""
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP_BOTH
    fallback_charset: str | None = None
    work: Sequence[tuple[str, Mapping[str, Any]]] = ()
    same_as: int | None = None

    @property
    def identity(self) -> tuple[int, str]:
        """Owner, as the index knows it, and SOP Instance UID: what `IndexWriter.lookup` takes."""
        owner = self.owner_id
        if self.flags & InstanceFlag.QUARANTINED and owner >= 0:
            owner = quarantine_owner(owner)
        return owner, self.sop_instance_uid


class OutcomeKind(Enum):
    """What became of one incoming instance."""

    STORED = "stored"
    """A new row."""
    SAME = "same"
    """The content is here already: delete the new file; this is a success."""
    KEPT_AS_VERSION = "kept as version"
    """A new row, current from now on; the one before it became an older version."""
    REPLACED = "replaced"
    """A new row in place of the current one, whose file is to be deleted."""
    REFUSED = "refused"
    """Other content is here and stays: delete the new file; this is a failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one incoming instance.

    Args:
        kind: see there.
        instance_id: the row that holds the content; when REFUSED, the row that stays.
        replaced_path: the file to delete when REPLACED (it has a tombstone until then).
    """

    kind: OutcomeKind
    instance_id: int
    replaced_path: str | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """A version of an instance that is in the index."""

    id: int
    digest: bytes
    size: int
    transfer_syntax_uid: str
    path: str
    superseded: int  # 0 for the current version


class CommitUnknown(StoreError):
    """COMMIT failed: whether the batch is in the index is known only to `IndexWriter.resolve`.

    Args:
        message: what the driver said.
        batch: what was to be committed.
        outcomes: what became of it if it was.
    """

    def __init__(
        self, message: str, batch: Sequence[Incoming], outcomes: Sequence[Outcome]
    ) -> None:
        super().__init__(message)
        self.batch, self.outcomes = tuple(batch), list(outcomes)
