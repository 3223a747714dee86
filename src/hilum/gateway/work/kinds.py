"""Kinds of work: what runs a row, and within which bounds."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hilum.errors import LocalProtocolError
from hilum.gateway.store.claims import Job, Outcome, Wanted, done

__all__ = ["Backoff", "Handler", "Kind", "Kinds", "Program"]

Handler = Callable[[Job], Awaitable[Outcome]]
"""Runs a job on the event loop: network work.

It may be cancelled at any await, when the claim is lost, an operator cancels or holds the row, or
the gateway stops. An exception of ours is a failure with its text as cause; any other is logged
and is a failure too.
"""


@dataclass(frozen=True, slots=True)
class Program:
    """Runs a job in a process of the local pool: work for the CPU, or that may crash.

    Args:
        target: ``module:function``; it is given the payload and returns something for JSON.
        conclude: makes the outcome of what the function returned, in the receiver.
        memory_limit: bytes of address space (where the system has such a limit).
    """

    target: str
    conclude: Callable[[Job, Any], Outcome] = lambda _job, _result: done()
    memory_limit: int = 2 << 30


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a failed job waits.

    Args:
        first: seconds after the first failure.
        factor: by which each wait is longer than the one before.
        cap: seconds at most.
        jitter: share of the wait by which it may be longer or shorter, so that what failed
            together does not come again together.
    """

    first: float = 5.0
    factor: float = 2.0
    cap: float = 3600.0
    jitter: float = 0.25

    def after(self, attempt: int) -> float:
        """Seconds to wait after the failure of an attempt; 1 is the first."""
        # 2 to the 64th second is over any cap; beyond it numbers overflow.
        wait = min(self.cap, self.first * self.factor ** min(attempt - 1, 64))
        return wait * random.uniform(1 - self.jitter, 1 + self.jitter)  # noqa: S311


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of work.

    Args:
        name: as in the rows.
        run: what runs it, and so where.
        lease: seconds after which a silent executor loses a row; heartbeats come at a third.
        max_attempts: then the row is dead.
        backoff: between attempts.
        concurrency: rows that run at once in this process.
        per_key: of them, rows of one key; 0 for any number.
        time_limit: seconds that one attempt may take; None: as long as it takes.
    """

    name: str
    run: Handler | Program
    lease: float = 60.0
    max_attempts: int = 20
    backoff: Backoff = field(default_factory=Backoff)
    concurrency: int = 4
    per_key: int = 0
    time_limit: float | None = None

    def wanted(self, limit: int) -> Wanted:
        """What is asked of the table when so many more may run."""
        return Wanted(self.name, limit, self.lease, self.max_attempts, self.per_key)


class Kinds:
    """The kinds that a process runs, by name."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._kinds: dict[str, Kind] = {}
        for kind in kinds:
            self.add(kind)

    def add(self, kind: Kind) -> None:
        """Register a kind.

        Raises:
            LocalProtocolError: the name is taken.
        """
        if kind.name in self._kinds:
            raise LocalProtocolError(f"work of kind {kind.name!r} is run by something already")
        self._kinds[kind.name] = kind

    def __getitem__(self, name: str) -> Kind:
        return self._kinds[name]

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all kinds."""
        return tuple(self._kinds)
