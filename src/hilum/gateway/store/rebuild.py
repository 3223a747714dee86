"""The database made anew, for ``hilum reindex``.

The index comes from the files alone. What only a database can know (accounts with their ids,
titles, listeners, peers, settings, tombstones) is taken over from the old one as far as that can
still be read; accounts that it cannot give are made from the owners in the files.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from sqlalchemy import Engine, Table, create_engine, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from hilum.gateway.store import schema
from hilum.gateway.store.database import Database

__all__ = ["set_aside", "take_over"]

log = logging.getLogger("hilum.store")

_TABLES = ("account", "called_title", "listener", "peer", "setting", "tombstone", "event")
_PIECE = 500


def set_aside(database: Path) -> Path | None:
    """Rename a SQLite database and its log; returns the new name, None where there was none."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.before-{time.strftime('%Y%m%dT%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        part = database.with_name(database.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def take_over(old: Path, database: Database) -> dict[str, int]:
    """Copy the directory from a set-aside database; returns the rows per table.

    A table that cannot be read is passed over with an error in the log.
    """
    copied: dict[str, int] = {}
    engine = create_engine(f"sqlite:///{old}")
    try:
        for name in _TABLES:
            try:
                copied[name] = _copy(engine, database, schema.metadata.tables[name])
            except SQLAlchemyError as error:
                log.error("%s could not be taken over from %s: %s", name, old, type(error).__name__)
    finally:
        engine.dispose()
    return copied


def _copy(engine: Engine, database: Database, table: Table) -> int:
    with engine.connect() as source:
        rows = [dict(row) for row in source.execute(select(table)).mappings()]
    with database.write() as connection:
        connection.execute(delete(table))
        for start in range(0, len(rows), _PIECE):
            connection.execute(insert(table), rows[start : start + _PIECE])
    return len(rows)
