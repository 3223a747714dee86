"""What the work table and its executors say to each other: rows to come, claims, ends.

Values only; what is done with them is in `work.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

__all__ = [
    "Also",
    "Due",
    "End",
    "EndKind",
    "Held",
    "Job",
    "NewWork",
    "Outcome",
    "Swept",
    "Wanted",
    "dead",
    "done",
    "later",
    "retry",
]


# ── what goes in ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class NewWork:
    """A work row to be written.

    Args:
        kind: which handler runs it.
        payload: what the handler needs; JSON.
        key: what the kind's concurrency is limited by, such as a destination; "" for nothing.
        origin: who wanted it, such as ``fetch:12``; what is cancelled together. "" for nobody.
        priority: smaller first, among rows of one kind and key.
        ready_at: when it may begin, µs since 1970; 0 for at once.
        instance_id: the instance that it is about: the row goes when the instance is removed.
    """

    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    origin: str = ""
    priority: int = 0
    ready_at: int = 0
    instance_id: int | None = None


# ── what an executor holds ────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an executor can take on now.

    Args:
        kind: see `NewWork`.
        limit: rows at most.
        lease: seconds until the claim is void without a heartbeat.
        max_attempts: claims of a row in all; then it is dead.
        per_key: rows of one key that may run at once, of all executors; 0 for any number.
    """

    kind: str
    limit: int
    lease: float
    max_attempts: int
    per_key: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed row.

    Args:
        id: of the row; never used twice.
        kind: see `NewWork`.
        payload: see `NewWork`.
        token: fences this claim.
        attempt: 1 for the first.
        max_attempts: the last one.
        key: see `NewWork`.
        origin: see `NewWork`.
        instance_id: see `NewWork`.
        created_at: µs since 1970.
    """

    id: int
    kind: str
    payload: Mapping[str, Any]
    token: int
    attempt: int
    max_attempts: int
    key: str = ""
    origin: str = ""
    instance_id: int | None = None
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A claim that goes on.

    Args:
        id: of the row.
        token: of the claim.
        lease: seconds from now.
    """

    id: int
    token: int
    lease: float


class EndKind(StrEnum):
    """How a job ended."""

    DONE = "done"
    RETRY = "retry"
    """Failed; again later, and dead when that was the last attempt."""
    LATER = "later"
    """Not yet; the attempt does not count."""
    DEAD = "dead"
    """Failed for good."""


Also = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended, and what is written with it; see `done`, `retry`, `later`, `dead`.

    Args:
        kind: how.
        cause: why, for people.
        after: seconds until the next attempt; None for the kind's back-off.
        new: follow-up rows.
        also: further writes of the same transaction. Nothing of it all happens when the claim
            is lost, or when it raises.
    """

    kind: EndKind
    cause: str = ""
    after: float | None = None
    new: Sequence[NewWork] = ()
    also: Also | None = None


def done(*, new: Sequence[NewWork] = (), also: Also | None = None) -> Outcome:
    """It has happened."""
    return Outcome(EndKind.DONE, "", None, new, also)


def retry(
    cause: str,
    after: float | None = None,
    *,
    new: Sequence[NewWork] = (),
    also: Also | None = None,
) -> Outcome:
    """It failed and may go well another time; None: after the kind's back-off."""
    return Outcome(EndKind.RETRY, cause, after, new, also)


def later(
    after: float, cause: str = "", *, new: Sequence[NewWork] = (), also: Also | None = None
) -> Outcome:
    """It is not time yet; this attempt does not count."""
    return Outcome(EndKind.LATER, cause, after, new, also)


def dead(cause: str, *, new: Sequence[NewWork] = (), also: Also | None = None) -> Outcome:
    """It failed, and will not go well by trying again."""
    return Outcome(EndKind.DEAD, cause, None, new, also)


@dataclass(frozen=True, slots=True)
class End:
    """The end of a claim, to be recorded.

    Args:
        id: of the row.
        token: of the claim.
        outcome: how; `after` is a number where it is RETRY or LATER.
    """

    id: int
    token: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Due:
    """What a look at the table says.

    Args:
        ready: a claim may find something.
        expired: a sweep will.
        next_in: seconds until the first row that waits becomes ready; infinite where none does.
    """

    ready: bool
    expired: bool
    next_in: float


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: leases that ran out.

    Args:
        again: rows that are ready again.
        dead: rows whose attempts are used up.
    """

    again: int = 0
    dead: int = 0
