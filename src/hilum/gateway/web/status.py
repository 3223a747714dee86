"""What the gateway is doing: gathered from the heartbeat, the data directory and the database.

Nothing here asks the receiver anything: it writes its heartbeat whether someone looks or not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hilum.errors import HilumError
from hilum.gateway import heartbeat
from hilum.gateway.heartbeat import Heartbeat
from hilum.gateway.store.blobs import MARKER
from hilum.gateway.store.database import Database
from hilum.gateway.store.directory import Directory
from hilum.gateway.store.entries import Snapshot
from hilum.gateway.store.jobs import counts
from hilum.gateway.store.observe import Event, open_to_look, recent_events
from hilum.gateway.store.queries import statistics
from hilum.gateway.store.results import Statistics, Viewer
from hilum.gateway.store.states import WorkState
from hilum.gateway.web.refreshed import Refreshed

__all__ = ["ANSWER_WITHIN", "Report", "Watch"]

T = TypeVar("T")

ANSWER_WITHIN = 2.0
"""Seconds within which disk and database have to answer for the gateway to be ready."""

# A page that is reloaded by ten people costs one look a second.
_EVERY = 1.0
# Totals walk all studies; nobody needs them to the second.
_TOTALS_EVERY = 5.0
_EVENTS = 10
_EVERYTHING = Viewer(all=True)


@dataclass(frozen=True, slots=True)
class Report:
    """The gateway at one moment.

    Args:
        beat: the receiver's last heartbeat, fresh or not.
        directory: listeners and called titles; None when the database does not answer.
        events: the last ones, newest first.
        totals: what is stored, without the quarantine; None until they were counted.
        totals_age: seconds since they were.
        work: jobs by kind and state; None until they were counted.
        problems: why the gateway is not ready, for people; empty when it is.
        database_answers: it answered within `ANSWER_WITHIN`.
        reserve: bytes of free space below which nothing is taken; None when not known.
        looked: when this was gathered, seconds since 1970.
    """

    beat: Heartbeat | None = None
    directory: Snapshot | None = None
    events: tuple[Event, ...] = ()
    totals: Statistics | None = None
    totals_age: float = 0.0
    work: Mapping[str, Mapping[WorkState, int]] | None = None
    problems: tuple[str, ...] = ()
    database_answers: bool = False
    reserve: int | None = None
    looked: float = field(default_factory=time.time)

    @property
    def receiving(self) -> bool:
        """Whether the receiver is alive."""
        return self.beat is not None and self.beat.is_fresh

    @property
    def ready(self) -> bool:
        """Whether C-STORE requests are answered with success."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the database said at the last look."""

    directory: Snapshot | None
    events: tuple[Event, ...]
    problem: str


class Watch:
    """Gathers `Report`s, at most one a second whatever is asked.

    Args:
        data: the data directory.
        database: SQLite file or PostgreSQL URL; it may come later, and go.
        reserve: see `Report`.
        patience: seconds for which an answer of disk or database is waited for.
    """

    def __init__(
        self,
        data: Path,
        database: str | Path,
        *,
        reserve: int | None = None,
        patience: float = ANSWER_WITHIN,
    ) -> None:
        self._data = data
        self._where = database
        self._reserve = reserve
        self._patience = patience
        self._opened: Database | None = None
        self._opening = threading.Lock()  # two looks may come first at once
        self._files = Refreshed(self._look_at_files, every=_EVERY, patience=patience)
        self._looks = Refreshed(self._look_at_database, every=_EVERY, patience=patience)
        self._totals = Refreshed(self._count, every=_TOTALS_EVERY, patience=patience)
        self._work = Refreshed(self._count_work, every=_EVERY, patience=patience)

    async def report(self) -> Report:
        """The state of the gateway, at most a second old; totals may be older."""
        files, looked, totals, work = await asyncio.gather(
            self._files.get(), self._looks.get(), self._totals.get(), self._work.get()
        )
        beat, problems = files.value or (None, ())
        if not files.in_time:
            problems = (f"the data directory did not answer within {self._patience:g} s",)
        if beat is not None and self._reserve is not None and beat.free_bytes <= self._reserve:
            problems += (
                f"no more than the reserve is free ({beat.free_bytes} of {self._reserve} bytes); "
                "free some space or lower store.reserve",
            )
        at_last = looked.value
        if not looked.in_time:
            problems += (f"the database did not answer within {self._patience:g} s",)
        elif at_last is not None and at_last.problem:
            problems += (at_last.problem,)
        return Report(
            beat=beat,
            directory=at_last.directory if at_last else None,
            events=at_last.events if at_last else (),
            totals=totals.value,
            totals_age=totals.age,
            work=work.value,
            problems=problems,
            database_answers=looked.in_time and at_last is not None and not at_last.problem,
            reserve=self._reserve,
        )

    def close(self) -> None:
        """Close the database; does not wait for a look that goes on."""
        if self._opened is not None:
            self._opened.close()

    # ── in threads ────────────────────────────────────────────────────────────────────────────

    def _look_at_files(self) -> tuple[Heartbeat | None, tuple[str, ...]]:
        problems = []
        beat = heartbeat.read(self._data)
        if beat is None:
            problems.append("no receiver has reported; is 'hilum serve' running?")
        elif not beat.is_fresh:
            silent = time.time() - beat.written
            problems.append(f"the receiver has been silent for {silent:.0f} s")
        elif not beat.accepting:
            problems.append("the receiver accepts no associations; it is starting or stopping")
        if not (self._data / MARKER).is_file():
            problems.append(f"{MARKER} is missing; is the volume with the objects mounted?")
        return beat, tuple(problems)

    def _look_at_database(self) -> _Looked:
        def look(database: Database) -> _Looked:
            events = recent_events(database, _EVENTS)
            return _Looked(Directory(database).snapshot(), tuple(events), "")

        try:
            return self._ask(look)
        except HilumError as error:
            return _Looked(None, (), str(error))

    def _count(self) -> Statistics | None:
        try:
            return self._ask(lambda database: statistics(database, _EVERYTHING))
        except HilumError:
            return None  # the other look says why

    def _count_work(self) -> Mapping[str, Mapping[WorkState, int]] | None:
        try:
            return self._ask(counts)
        except HilumError:
            return None

    def _ask(self, question: Callable[[Database], T]) -> T:
        with self._opening:
            if self._opened is None:
                self._opened = open_to_look(self._where)
        return question(self._opened)
