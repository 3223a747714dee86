"""Work as people see and steer it: counts, lists, hold, release, retry, cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update

from hilum.gateway.store import schema
from hilum.gateway.store.database import Database
from hilum.gateway.store.states import WorkState
from hilum.gateway.store.work import PIECE, state_is

__all__ = ["Entry", "Steering", "UNFINISHED", "cancel_origin", "counts", "find", "listed"]

UNFINISHED = (WorkState.WAITING, WorkState.READY, WorkState.RUNNING, WorkState.HELD)
"""States of what is still to come to an end by itself or by an operator's release."""

_work = schema.work


@dataclass(frozen=True, slots=True)
class Entry:
    """A work row for people; times are µs since 1970."""

    id: int
    kind: str
    state: WorkState
    key: str
    origin: str
    attempts: int
    max_attempts: int
    ready_at: int
    created_at: int
    began_at: int | None
    finished_at: int | None
    worker: str
    cause: str
    payload: Mapping[str, Any] = field(default_factory=dict)


_COLUMNS = (
    *(_work.c.id, _work.c.kind, _work.c.state, _work.c.key, _work.c.origin, _work.c.attempts),
    *(_work.c.max_attempts, _work.c.ready_at, _work.c.created_at, _work.c.began_at),
    *(_work.c.finished_at, _work.c.worker, _work.c.cause, _work.c.payload),
)


def counts(database: Database) -> dict[str, dict[WorkState, int]]:
    """How many rows there are by kind and state; done and cancelled ones as long as they are kept."""
    found: dict[str, dict[WorkState, int]] = {}
    with database.read() as connection:
        for state in WorkState:
            # One state at a time: each count walks a partial index.
            rows = connection.execute(
                select(_work.c.kind, func.count()).where(_indexed(state)).group_by(_work.c.kind)
            )
            for kind, count in rows:
                found.setdefault(kind, {})[state] = count
    return {kind: found[kind] for kind in sorted(found)}


def _indexed(state: WorkState) -> ColumnElement[bool]:
    """A state, said so that its partial index applies."""
    for group in (
        (WorkState.DEAD, WorkState.HELD),
        (WorkState.DONE, WorkState.CANCELLED),
    ):
        if state in group:
            return state_is(*group) & state_is(state)
    return state_is(state)


def listed(
    database: Database,
    *,
    states: Sequence[WorkState] = (),
    kind: str = "",
    origin: str = "",
    limit: int = 100,
    before: int | None = None,
) -> list[Entry]:
    """Rows, newest first.

    Args:
        database: see `open_database`.
        states: of these; empty for all.
        kind: of this one; "" for all.
        origin: of this one; "" for all.
        limit: rows at most.
        before: ids below this one, for the next page.
    """
    statement = select(*_COLUMNS).order_by(_work.c.id.desc()).limit(limit)
    if states:
        statement = statement.where(state_is(*states))
    if kind:
        statement = statement.where(_work.c.kind == kind)
    if origin:
        statement = statement.where(_work.c.origin == origin)
    if before is not None:
        statement = statement.where(_work.c.id < before)
    with database.read() as connection:
        return [_entry(row) for row in connection.execute(statement)]


def find(database: Database, number: int) -> Entry | None:
    """One row."""
    with database.read() as connection:
        row = connection.execute(select(*_COLUMNS).where(_work.c.id == number)).one_or_none()
        return None if row is None else _entry(row)


def _entry(row: Row[*tuple[Any, ...]]) -> Entry:
    values = dict(row._mapping)
    values["state"] = WorkState(values["state"])
    values["payload"] = json.loads(values["payload"])
    return Entry(**values)


class Steering:
    """What an operator does with rows; each change leaves an event.

    Every method returns how many of the rows it changed, and raises StorageFailed when the
    database cannot be written. What runs is stopped within a second or two: its claim is void.

    Args:
        database: see `open_database`.
        actor: who does it.
    """

    def __init__(self, database: Database, *, actor: str) -> None:
        self._database = database
        self._actor = actor

    def hold(self, numbers: Sequence[int]) -> int:
        """Keep rows from running until they are released."""
        states = (WorkState.WAITING, WorkState.READY, WorkState.RUNNING)
        return self._change("hold job", numbers, states, {"state": WorkState.HELD})

    def release(self, numbers: Sequence[int]) -> int:
        """Let held rows run."""
        values = {"state": WorkState.READY, "ready_at": _now()}
        return self._change("release job", numbers, (WorkState.HELD,), values)

    def retry(self, numbers: Sequence[int]) -> int:
        """Run dead, cancelled, held or waiting rows now, with all their attempts before them."""
        states = (WorkState.DEAD, WorkState.CANCELLED, WorkState.HELD, WorkState.WAITING)
        values = {
            "state": WorkState.READY,
            "attempts": 0,
            "ready_at": _now(),
            "finished_at": None,
        }
        return self._change("retry job", numbers, states, values)

    def cancel(self, numbers: Sequence[int]) -> int:
        """End rows for good, dead ones too: they count as seen to."""
        states = (*UNFINISHED, WorkState.DEAD)
        values = {"state": WorkState.CANCELLED, "finished_at": _now()}
        return self._change("cancel job", numbers, states, values)

    def _change(
        self,
        action: str,
        numbers: Sequence[int],
        states: Sequence[WorkState],
        values: Mapping[str, Any],
    ) -> int:
        changed = 0
        for start in range(0, len(numbers), PIECE):
            piece = numbers[start : start + PIECE]
            with self._database.write() as connection:
                count = _set_state(connection, _work.c.id.in_(piece) & state_is(*states), values)
                if count:
                    connection.execute(
                        insert(schema.event).values(
                            at=_now(),
                            action=action,
                            actor=self._actor,
                            subject=",".join(map(str, piece)),
                            detail="{}",
                        )
                    )
                changed += count
        return changed


def cancel(connection: Connection, condition: ColumnElement[bool]) -> int:
    """Cancel what is unfinished of some rows, in the caller's transaction."""
    values = {"state": WorkState.CANCELLED, "finished_at": _now()}
    return _set_state(connection, condition & state_is(*UNFINISHED), values)


def cancel_origin(connection: Connection, origin: str) -> int:
    """Cancel all that is unfinished of an origin, in the caller's transaction."""
    return cancel(connection, _work.c.origin == origin)


def _set_state(
    connection: Connection, condition: ColumnElement[bool], values: Mapping[str, Any]
) -> int:
    return connection.execute(
        update(_work)
        .where(condition)
        .values(token=_work.c.token + 1, lease_until=None, lease_boot="", worker="", **values)
    ).rowcount


def _now() -> int:
    return time.time_ns() // 1000
