"""The work table: what must happen is a row, and stays one until it has happened.

A claim gives a lease and a *fencing token*. Whoever is slow, dead or cut off loses the lease; the
row is claimed again with a higher token, and a finish or heartbeat with the old one is refused.
So a job is executed at least once, a bounded number of times, and finished once; what follows from
it is written in the transaction that finishes it.

Every transaction here is short (100 rows at most), because on SQLite nobody else writes meanwhile.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from hilum.gateway.store import schema
from hilum.gateway.store.claims import Due, End, EndKind, Held, Job, NewWork, Outcome, Swept, Wanted
from hilum.gateway.store.clock import Moment, moment
from hilum.gateway.store.database import Database
from hilum.gateway.store.states import WorkState

__all__ = ["PIECE", "WorkTable", "enqueue", "state_is"]

PIECE = 100
"""Rows that one transaction touches at most: some 20 µs each, of the 5 ms that it may take."""

LONGEST_CAUSE = 2000
"""Characters of a cause that are kept: a message, not a novel."""

_work = schema.work


def enqueue(connection: Connection, rows: Sequence[NewWork]) -> list[int]:
    """Write work rows in the caller's transaction; they are there when it is committed.

    Args:
        connection: in a write transaction.
        rows: a hundred at most where others wait for the lock.

    Returns:
        Their ids, in order.
    """
    if not rows:
        return []
    now = moment(connection).now
    statement = insert(_work).returning(_work.c.id, sort_by_parameter_order=True)
    return list(connection.scalars(statement, [_new_row(row, now) for row in rows]))


def _new_row(row: NewWork, now: int) -> dict[str, object]:
    return {
        "kind": row.kind,
        "state": WorkState.WAITING if row.ready_at > now else WorkState.READY,
        "payload": json.dumps(row.payload, ensure_ascii=False),
        "key": row.key,
        "origin": row.origin,
        "priority": row.priority,
        "ready_at": row.ready_at or now,
        "attempts": 0,
        "max_attempts": 0,  # the kind's, from the first claim on
        "token": 0,
        "instance_ref": row.instance_id,
        "created_at": now,
        "cause": "",
    }


def state_is(*states: WorkState) -> ColumnElement[bool]:
    """A condition on the state that both databases match with the partial indexes."""
    texts: list[Any] = [literal_column(f"'{state}'") for state in states]
    return _work.c.state == texts[0] if len(texts) == 1 else _work.c.state.in_(texts)


_READY = state_is(WorkState.READY)
_WAITING = state_is(WorkState.WAITING)
_RUNNING = state_is(WorkState.RUNNING)
_LEFT: dict[str, Any] = {"lease_until": None, "lease_boot": "", "worker": ""}


class WorkTable:
    """Claims, heartbeats and ends; safe to use from any thread.

    Every method raises StorageFailed when the database cannot be read or written; nothing is
    changed then.

    Args:
        database: see `open_database`.
        worker: who claims; unique among processes.
    """

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker
        # After which key the next claim of a kind goes on: one busy key does not starve others.
        self._cursors: dict[str, str] = {}

    def due(self, kinds: Collection[str]) -> Due:
        """Whether there is anything to claim or to sweep; reads only, a fraction of a ms."""
        with self._database.read() as connection:
            at = moment(connection)

            def found(*condition: ColumnElement[bool]) -> bool:
                return connection.scalar(select(_work.c.id).where(*condition).limit(1)) is not None

            first = connection.scalar(select(func.min(_work.c.ready_at)).where(_WAITING))
            next_in = math.inf if first is None else (first - at.now) / 1e6
            return Due(
                ready=next_in <= 0 or found(_READY, _work.c.kind.in_(kinds)),
                expired=found(_RUNNING, _expired(at)),
                next_in=next_in,
            )

    def claim(self, wanted: Sequence[Wanted]) -> list[Job]:
        """Take rows that are ready; fairly by key, within a key by priority and age."""
        with self._database.write() as connection:
            at = moment(connection)
            self._ripen(connection, at)
            jobs: list[Job] = []
            for want in wanted:
                ids = self._choose(connection, want, min(want.limit, PIECE - len(jobs)))
                if ids:
                    jobs += self._take(connection, want, ids, at)
            return jobs

    def _ripen(self, connection: Connection, at: Moment) -> None:
        """What waited until now is ready."""
        ripe = (
            select(_work.c.id)
            .where(_WAITING, _work.c.ready_at <= at.now)
            .order_by(_work.c.ready_at)
            .limit(PIECE)
        )
        ids = list(connection.scalars(_unlocked(connection, ripe)))
        if ids:
            connection.execute(
                update(_work).where(_work.c.id.in_(ids), _WAITING).values(state=WorkState.READY)
            )

    def _choose(self, connection: Connection, want: Wanted, limit: int) -> list[int]:
        """Ids of ready rows, key by key from where the last claim ended."""
        running: dict[str, int] = {}
        if want.per_key:
            counts = select(_work.c.key, func.count()).where(_RUNNING, _work.c.kind == want.kind)
            running = dict(connection.execute(counts.group_by(_work.c.key)).all())
        chosen: list[int] = []
        # Keys without room are at most as many as jobs that run: the walk is short.
        for key in self._keys(connection, want.kind, self._cursors.get(want.kind)):
            if len(chosen) >= limit:
                break
            room = limit - len(chosen)
            if want.per_key:
                room = min(room, want.per_key - running.get(key, 0))
            if room > 0:
                ready = select(_work.c.id).where(
                    _READY, _work.c.kind == want.kind, _work.c.key == key
                )
                ready = ready.order_by(_work.c.priority, _work.c.id).limit(room)
                chosen += connection.scalars(_unlocked(connection, ready))
            self._cursors[want.kind] = key
        return chosen

    def _keys(self, connection: Connection, kind: str, cursor: str | None) -> Iterator[str]:
        """Keys that have ready rows: those after the cursor, then from the first to the cursor."""
        key = _work.c.key
        ranges = [[]] if cursor is None else [[key > cursor], [key <= cursor]]
        for limits in ranges:
            beyond: list[ColumnElement[bool]] = []
            while True:
                found: str | None = connection.scalar(
                    select(key).where(_READY, _work.c.kind == kind, *limits, *beyond)
                    .order_by(key).limit(1)
                )  # fmt: skip
                if found is None:
                    break
                yield found
                beyond = [key > found]

    def _take(
        self, connection: Connection, want: Wanted, ids: Sequence[int], at: Moment
    ) -> list[Job]:
        rows = connection.execute(
            update(_work)
            .where(_work.c.id.in_(ids), _READY)
            .values(
                state=WorkState.RUNNING,
                token=_work.c.token + 1,
                attempts=_work.c.attempts + 1,
                max_attempts=want.max_attempts,
                lease_until=at.lease + _micro(want.lease),
                lease_boot=at.boot,
                worker=self._worker,
                began_at=at.now,
            )
            .returning(*_JOB_COLUMNS)
        ).all()
        order = {number: place for place, number in enumerate(ids)}
        return [_job(row) for row in sorted(rows, key=lambda row: order[row.id])]

    # ── while it runs ─────────────────────────────────────────────────────────────────────────

    def still_held(self, claims: Mapping[int, int]) -> set[int]:
        """Which of these claims (token by id) are not lost; reads only."""
        if not claims:
            return set()
        with self._database.read() as connection:
            rows = connection.execute(
                select(_work.c.id, _work.c.token).where(_work.c.id.in_(claims), _RUNNING)
            )
            return {row.id for row in rows if row.token == claims[row.id]}

    def heartbeat(self, claims: Sequence[Held]) -> set[int]:
        """Prolong leases.

        Returns:
            Ids of the claims that are still held; the others are lost: stop what runs for them.
        """
        held: set[int] = set()
        for start in range(0, len(claims), PIECE):
            with self._database.write() as connection:
                at = moment(connection)
                for claim in claims[start : start + PIECE]:
                    changed = connection.execute(
                        update(_work)
                        .where(_work.c.id == claim.id, _work.c.token == claim.token, _RUNNING)
                        .values(lease_until=at.lease + _micro(claim.lease), lease_boot=at.boot)
                    )
                    if changed.rowcount:
                        held.add(claim.id)
        return held

    # ── how it ends ───────────────────────────────────────────────────────────────────────────

    def finish(self, end: End) -> bool:
        """Record how a job ended, with all that follows from it, in one transaction.

        Returns:
            False: the claim was lost; nothing was written.

        Raises:
            Exception: what `Outcome.also` raised; nothing was written.
        """
        with self._database.write() as connection:
            return _finish(connection, end, moment(connection))

    def finish_all(self, ends: Sequence[End]) -> list[bool]:
        """Record several ends without `Outcome.also`; a hundred in one transaction."""
        recorded: list[bool] = []
        for start in range(0, len(ends), PIECE):
            with self._database.write() as connection:
                at = moment(connection)
                recorded += [_finish(connection, end, at) for end in ends[start : start + PIECE]]
        return recorded

    def give_back(self, claims: Mapping[int, int]) -> int:
        """Return claims (token by id) that nothing came of: others may take them at once.

        The attempts do not count.
        """
        with self._database.write() as connection:
            return sum(
                connection.execute(
                    update(_work)
                    .where(_work.c.id == number, _work.c.token == token, _RUNNING)
                    .values(state=WorkState.READY, attempts=_work.c.attempts - 1, **_LEFT)
                ).rowcount
                for number, token in claims.items()
            )

    # ── upkeep ────────────────────────────────────────────────────────────────────────────────

    def sweep(self) -> Swept:
        """Void the leases that ran out; what used up its attempts that way is dead."""
        with self._database.write() as connection:
            return _void(connection, _expired(moment(connection)), "its lease ran out")

    def void_leases_of(self, role: str) -> Swept:
        """Void what earlier processes of a role held; this process is the only one of that role.

        For the start of a receiver, which is alone by its lock: whoever held a lease is dead.

        Args:
            role: what the workers' names begin with, ``role:``.
        """
        others = and_(
            _work.c.worker.startswith(role + ":", autoescape=True), _work.c.worker != self._worker
        )
        with self._database.write() as connection:
            return _void(connection, others, "its executor ended")

    def forget(self, *, keep: float) -> int:
        """Delete rows that were done or cancelled more than `keep` seconds ago, a hundred at most.

        Returns:
            How many.
        """
        with self._database.write() as connection:
            over = (
                select(_work.c.id)
                .where(
                    state_is(WorkState.DONE, WorkState.CANCELLED),
                    _work.c.finished_at < moment(connection).now - _micro(keep),
                )
                .limit(PIECE)
            )
            ids = list(connection.scalars(over))
            if ids:
                connection.execute(delete(_work).where(_work.c.id.in_(ids)))
            return len(ids)


def _finish(connection: Connection, end: End, at: Moment) -> bool:
    outcome = end.outcome
    held = and_(_work.c.id == end.id, _work.c.token == end.token, _RUNNING)
    changed = connection.execute(update(_work).where(held).values(**_after(outcome, at), **_LEFT))
    if not changed.rowcount:
        return False
    if outcome.also is not None:
        outcome.also(connection)
    enqueue(connection, outcome.new)
    return True


def _after(outcome: Outcome, at: Moment) -> dict[str, Any]:
    # A peer may have put anything into it; PostgreSQL takes no NUL.
    cause = outcome.cause[:LONGEST_CAUSE].replace("\0", " ")
    match outcome.kind:
        case EndKind.DONE:
            return {"state": WorkState.DONE, "finished_at": at.now, "cause": cause}
        case EndKind.DEAD:
            return {"state": WorkState.DEAD, "finished_at": at.now, "cause": cause}
    assert outcome.after is not None
    again: dict[str, Any] = {"ready_at": at.now + _micro(outcome.after), "cause": cause}
    if outcome.kind is EndKind.LATER:
        return again | {"state": WorkState.WAITING, "attempts": _work.c.attempts - 1}
    return again | {
        "state": case((_USED_UP, WorkState.DEAD), else_=WorkState.WAITING),
        "finished_at": case((_USED_UP, at.now), else_=None),
    }


_USED_UP = _work.c.attempts >= _work.c.max_attempts


def _void(connection: Connection, condition: ColumnElement[bool], why: str) -> Swept:
    rows = connection.execute(
        select(_work.c.id, _USED_UP.label("used_up")).where(_RUNNING, condition).limit(PIECE)
    ).all()
    for used_up in (False, True):
        ids = [row.id for row in rows if bool(row.used_up) is used_up]
        if not ids:
            continue
        values: dict[str, Any] = {"state": WorkState.READY, "cause": why}
        if used_up:
            values = {
                "state": WorkState.DEAD,
                "cause": f"{why} at the last attempt",
                "finished_at": moment(connection).now,
            }
        connection.execute(
            update(_work).where(_work.c.id.in_(ids), _RUNNING, condition).values(**values, **_LEFT)
        )
    dead_count = sum(bool(row.used_up) for row in rows)
    return Swept(again=len(rows) - dead_count, dead=dead_count)


def _expired(at: Moment) -> ColumnElement[bool]:
    return or_(_work.c.lease_until < at.lease, _work.c.lease_boot != at.boot)


def _unlocked(connection: Connection, statement: Select[Any]) -> Select[Any]:
    """What no other executor is about to take (PostgreSQL; SQLite has one writer)."""
    if connection.dialect.name == "sqlite":
        return statement
    return statement.with_for_update(skip_locked=True)


_JOB_COLUMNS = (
    _work.c.id,
    _work.c.kind,
    _work.c.payload,
    _work.c.token,
    _work.c.attempts,
    _work.c.max_attempts,
    _work.c.key,
    _work.c.origin,
    _work.c.instance_ref,
    _work.c.created_at,
)


def _job(row: Sequence[Any]) -> Job:
    number, kind, payload, *rest = row
    return Job(number, kind, json.loads(payload), *rest)


def _micro(seconds: float) -> int:
    return int(seconds * 1_000_000)
