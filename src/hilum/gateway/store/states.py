"""What the words and numbers in the tables mean: owners, policies, states, flags."""

from __future__ import annotations

from enum import IntFlag, StrEnum

__all__ = [
    "GLOBAL_OWNER",
    "CommitmentState",
    "DuplicatePolicy",
    "FetchState",
    "InstanceFlag",
    "MissingUidPolicy",
    "StudyState",
    "TitleKind",
    "WorkState",
    "quarantine_owner",
]

GLOBAL_OWNER = 0
"""Owner of what everyone may see."""


def quarantine_owner(owner_id: int) -> int:
    """The owner of what came for `owner_id` and is in quarantine; its own inverse.

    A negative number: no viewer but an administrator of the quarantine sees it, and what is in
    quarantine never meets what is not, in identity or counts.
    """
    return ~owner_id


class DuplicatePolicy(StrEnum):
    """What happens to other content under a SOP Instance UID that is here already."""

    KEEP_BOTH = "keep_both"
    KEEP_FIRST = "keep_first"
    REPLACE = "replace"


class MissingUidPolicy(StrEnum):
    """What happens to a data set without Study or Series Instance UID."""

    REFUSE = "refuse"
    QUARANTINE = "quarantine"


class TitleKind(StrEnum):
    """To whom belongs what arrives for a called AE title."""

    GLOBAL = "global"
    ACCOUNT = "account"
    QUARANTINE = "quarantine"


class WorkState(StrEnum):
    """States of a work row.

    ::

        waiting → ready        ready_at is reached
        ready → running        claimed: token + 1, attempts + 1, lease_until set
        running → done         finished with the current token
        running → waiting      failed, to be tried again at ready_at
        running → ready        the lease ran out, or the executor stopped and gave it back
        running → dead         failed, or the lease ran out, with attempts = max_attempts
        any but final ↔ held   an operator holds and releases; token + 1
        any but final → cancelled   an operator cancels; token + 1
        dead, cancelled → ready     an operator has it tried again
    """

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    HELD = "held"
    CANCELLED = "cancelled"


class CommitmentState(StrEnum):
    """States of a request for storage commitment that was made of us.

    ::

        asked → judged        the result is known, and will not change
        judged → delivered    the peer has answered the report
        judged → given up     it could not be delivered in days; `cause` says why
        delivered, given up → judged   the same request again
    """

    ASKED = "asked"
    JUDGED = "judged"
    DELIVERED = "delivered"
    GIVEN_UP = "given up"


class FetchState(StrEnum):
    """States of a fetch: a person's or schedule's wish to have studies of a peer.

    ::

        planning → running     the peer was asked which studies there are
        running → done         each of them is whole here, or was dropped with a reason
        planning, running → cancelled
        cancelled → planning, running      tried again
    """

    PLANNING = "planning"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class StudyState(StrEnum):
    """States of a study of a fetch."""

    PLANNED = "planned"
    """A work row fetches it, or has failed to."""
    FETCHED = "fetched"
    HERE = "here"
    """Nothing was missing."""
    DROPPED = "dropped"


class InstanceFlag(IntFlag):
    """What is known about an instance beyond its attributes."""

    MISLABELLED = 1
    """The bytes contradict the transfer syntax they were sent with; they are kept as they came."""
    QUARANTINED = 2
    """Kept out of sight because an identifying UID is missing or not valid."""
    DEFLATED = 4
    """The data set is deflated (PS3.5 A.5)."""
    GROUP_2 = 8
    """File meta elements stood inside the data set."""
    MALFORMED = 16
    """The header could not be read to its end."""
    COMMITTED = 32
    """Storage commitment was given: exempt from automatic deletion."""
    COMMITTED_ELSEWHERE = 64
    """Another archive has given us storage commitment for it: it may be deleted here."""
