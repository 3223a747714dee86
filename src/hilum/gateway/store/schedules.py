"""Schedules: what is to become work again and again.

A run is a work row, written in the transaction that moves the schedule on: a crash between the two
cannot be. Missed runs are made up for once; a run that is still going on has no second one beside
it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.store import schema
from hilum.gateway.store.claims import NewWork
from hilum.gateway.store.clock import moment
from hilum.gateway.store.database import Database
from hilum.gateway.store.jobs import UNFINISHED
from hilum.gateway.store.work import enqueue, state_is

__all__ = ["Due", "Plan", "Schedule", "Schedules", "origin_of"]

log = logging.getLogger("hilum.work")

LATE = 120 * 1_000_000
"""A run is a missed one when it is so late: the gateway looks every second, but it may be busy."""

_schedule, _work = schema.schedule, schema.work


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule; times are µs since 1970.

    Args:
        id: number.
        name: unique; how people call it.
        kind: of the work rows.
        payload: of the work rows.
        cron: when, in five fields.
        time_zone: IANA name; "" for the machine's.
        time_window: part of the day in which runs begin; "" for always.
        catch_up: a run that was missed, because nothing ran then, is made up for, once.
        enabled: False: no runs.
        next_at: the next run; None when there is none.
        last_at: the last one.
        last_result: what became of it.
    """

    id: int
    name: str
    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    cron: str = ""
    time_zone: str = ""
    time_window: str = ""
    catch_up: bool = True
    enabled: bool = True
    next_at: int | None = None
    last_at: int | None = None
    last_result: str = ""


def origin_of(schedule_id: int) -> str:
    """The origin of a schedule's work rows."""
    return f"schedule:{schedule_id}"


@dataclass(frozen=True, slots=True)
class Due:
    """What is known when a schedule is due.

    Args:
        schedule: which.
        now: µs since 1970.
        busy: a run before is not over.
    """

    schedule: Schedule
    now: int
    busy: bool

    @property
    def is_late(self) -> bool:
        """Nobody looked when it was due."""
        return self.schedule.next_at is not None and self.now - self.schedule.next_at > LATE


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about a schedule that is due.

    Args:
        run: begin a run now.
        next_at: when it is due again; None for never.
        result: what to note.
    """

    run: bool
    next_at: int | None
    result: str


class Schedules:
    """Reads and changes schedules; safe to use from any thread.

    Raises StorageFailed when the database cannot be read or written; nothing is changed then.

    Args:
        database: see `open_database`.
        actor: who makes the changes, for the events.
    """

    def __init__(self, database: Database, *, actor: str = "system") -> None:
        self._database = database
        self._actor = actor

    def all(self) -> list[Schedule]:
        """Every schedule, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(_schedule).order_by(_schedule.c.name))
            return [_read(row) for row in rows]

    def find(self, name: str) -> Schedule:
        """One by its name.

        Raises:
            NotFound: there is none.
        """
        for one in self.all():
            if one.name == name:
                return one
        raise NotFound(f"no schedule {name!r}; 'hilum schedule ls' lists them")

    def put(self, schedule: Schedule) -> int:
        """Add a schedule, or set one of the same name anew; returns its number.

        Args:
            schedule: checked, with its next run; its id is not looked at.

        Raises:
            ConfigurationError: no name.
        """
        if not schedule.name or not schedule.name.isprintable():
            raise ConfigurationError("a schedule needs a name of printable characters")
        values: dict[str, object] = {
            "kind": schedule.kind,
            "payload": json.dumps(schedule.payload, ensure_ascii=False),
            "cron": schedule.cron,
            "time_zone": schedule.time_zone,
            "time_window": schedule.time_window,
            "catch_up": int(schedule.catch_up),
            "enabled": int(schedule.enabled),
            "next_at": schedule.next_at if schedule.enabled else None,
        }
        with self._database.write() as connection:
            self._note(connection, "put schedule", schedule.name)
            number = connection.scalar(
                update(_schedule)
                .where(_schedule.c.name == schedule.name)
                .values(values)
                .returning(_schedule.c.id)
            )
            if number is None:
                values |= {
                    "name": schedule.name,
                    "last_result": "",
                    "created_at": moment(connection).now,
                }
                number = connection.scalar(
                    insert(_schedule).values(values).returning(_schedule.c.id)
                )
            return int(number or 0)

    def remove(self, name: str) -> None:
        """Remove a schedule; a run that goes on goes on.

        Raises:
            NotFound: there is none.
        """
        with self._database.write() as connection:
            self._note(connection, "remove schedule", name)
            if not connection.execute(delete(_schedule).where(_schedule.c.name == name)).rowcount:
                raise NotFound(f"no schedule {name!r}; 'hilum schedule ls' lists them")

    def run_now(self, name: str) -> int:
        """Begin a run at once, whatever the window; returns the number of its job.

        Raises:
            NotFound: there is no such schedule.
            ConfigurationError: a run of it is not over.
        """
        schedule = self.find(name)
        with self._database.write() as connection:
            if _is_busy(connection, schedule.id):
                raise ConfigurationError(f"a run of schedule {name!r} is going on")
            now = moment(connection).now
            self._note(connection, "run schedule", name)
            _record(connection, schedule, now, "begun by hand")
            return _begin(connection, schedule, by_hand=True)

    def start_due(self, decide: Callable[[Due], Plan]) -> int:
        """Begin the runs that are due; returns how many.

        Args:
            decide: what to do about one; no SQL, no waiting.
        """
        with self._database.read() as connection:
            now = moment(connection).now
            due = select(_schedule).where(_schedule.c.next_at <= now, _schedule.c.enabled == 1)
            found = [_read(row) for row in connection.execute(due)]
        begun = 0
        for schedule in found:
            with self._database.write() as connection:
                plan = decide(Due(schedule, now, _is_busy(connection, schedule.id)))
                moved = connection.execute(
                    update(_schedule)
                    # Another process may have been first, or someone changed it.
                    .where(_schedule.c.id == schedule.id, _schedule.c.next_at == schedule.next_at)
                    .values(next_at=plan.next_at)
                )
                if not moved.rowcount:
                    continue
                _record(connection, schedule, now if plan.run else None, plan.result)
                if plan.run:
                    _begin(connection, schedule, by_hand=False)
                    begun += 1
            log.info("schedule %r: %s", schedule.name, plan.result)
        return begun

    def _note(self, connection: Connection, action: str, subject: str) -> None:
        connection.execute(
            insert(schema.event).values(
                at=moment(connection).now,
                action=action,
                actor=self._actor,
                subject=subject,
                detail="{}",
            )
        )


def _is_busy(connection: Connection, schedule_id: int) -> bool:
    going_on = select(_work.c.id).where(
        _work.c.origin == origin_of(schedule_id), state_is(*UNFINISHED)
    )
    return connection.scalar(going_on.limit(1)) is not None


def _record(connection: Connection, schedule: Schedule, at: int | None, result: str) -> None:
    values: dict[str, object] = {"last_result": result}
    if at is not None:
        values["last_at"] = at
    connection.execute(update(_schedule).where(_schedule.c.id == schedule.id).values(values))


def _begin(connection: Connection, schedule: Schedule, *, by_hand: bool) -> int:
    payload = dict(schedule.payload)
    if schedule.time_window and not by_hand:
        payload |= {"time_window": schedule.time_window, "time_zone": schedule.time_zone}
    row = NewWork(schedule.kind, payload, origin=origin_of(schedule.id))
    return enqueue(connection, [row])[0]


def _read(row: Row[*tuple[Any, ...]]) -> Schedule:
    values = {name: row._mapping[name] for name in Schedule.__dataclass_fields__}
    values["payload"] = json.loads(values["payload"])
    values["catch_up"], values["enabled"] = bool(values["catch_up"]), bool(values["enabled"])
    return Schedule(**values)
