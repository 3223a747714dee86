"""The database for a process that only looks: connections that cannot write, and recent events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event, select

from hilum.gateway.store import schema
from hilum.gateway.store.database import Database, open_database

__all__ = ["Event", "open_to_look", "recent_events"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that someone changed; without its subject, which may be a patient's.

    Args:
        at: µs since 1970.
        action: what was done: "add account", "remove" …
        actor: who did it.
    """

    at: int
    action: str
    actor: str


def open_to_look(url_or_path: str | Path) -> Database:
    """Open a database for reading; the database itself refuses writes.

    Raises:
        ConfigurationError: not a URL of SQLite or PostgreSQL.
        StoreUnavailable: not there, or its tables are of another version.
        StorageFailed: the database cannot be read.
    """
    database = open_database(url_or_path, role="web")
    refusal = (
        "PRAGMA query_only=ON" if database.is_sqlite else "SET default_transaction_read_only = on"
    )

    @event.listens_for(database.engine, "connect")
    def refuse_writes(raw: Any, _record: object) -> None:
        cursor = raw.cursor()
        cursor.execute(refusal)
        cursor.close()
        if not database.is_sqlite:
            raw.commit()

    # The connection that looked at the version was made before this.
    database.engine.dispose()
    return database


def recent_events(database: Database, limit: int) -> list[Event]:
    """The last events, newest first."""
    table = schema.event
    statement = (
        select(table.c.at, table.c.action, table.c.actor).order_by(table.c.id.desc()).limit(limit)
    )
    with database.read() as connection:
        return [Event(*row) for row in connection.execute(statement)]
