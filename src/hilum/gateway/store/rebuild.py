"""The database made anew, for ``hilum reindex``.

The index comes from the files alone. What only a database can know (accounts with their ids,
titles, listeners, peers, settings, tombstones) is taken over from the old one as far as that can
still be read; accounts that it cannot give are made from the owners in the files.

The new database takes the old one's place when it is whole, in one step: a rebuild that was
interrupted has changed nothing.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from sqlalchemy import URL, Engine, Table, create_engine, delete, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from hilum.errors import StorageFailed
from hilum.gateway.store import posix, schema
from hilum.gateway.store.database import Database
from hilum.gateway.store.states import InstanceFlag

__all__ = ["put_in_place", "take_over", "take_over_promises", "unfinished"]

log = logging.getLogger("hilum.store")

_TABLES = (
    "account", "called_title", "listener", "peer", "setting", "tombstone", "event", "commitment",
    "commitment_request",
)  # fmt: skip
_PIECE = 500


def unfinished(database: Path) -> Path:
    """Where the new database grows; what an interrupted rebuild left there is removed."""
    new = database.with_name(database.name + ".new")
    for part in _parts(new):
        part.unlink(missing_ok=True)
    return new


def put_in_place(database: Path) -> Path | None:
    """Put the finished new database, which nobody has open, in the place of the old one.

    Returns:
        Where the old one is now; None where there was none.

    Raises:
        StorageFailed: it could not be done; the old one is where it was.
    """
    new, *log_files = _parts(database.with_name(database.name + ".new"))
    aside = database.with_name(f"{database.name}.before-{time.strftime('%Y%m%dT%H%M%S')}")
    if any(part.exists() and part.stat().st_size for part in log_files[:1]):
        raise StorageFailed(f"{new} is still open; its log is not written back")
    existed = database.exists()
    try:
        # The log first: beside the new database it would be applied to it.
        for part, other in zip(_parts(database)[1:], _parts(aside)[1:], strict=True):
            if part.exists():
                part.replace(other)
        if existed:
            _link(database, aside)
        new.replace(database)
        posix.fsync_directory(str(database.parent))
    except OSError as error:
        raise StorageFailed(f"the new database cannot be put in place: {error}") from error
    return aside if existed else None


def _parts(database: Path) -> tuple[Path, Path, Path]:
    return (
        database,
        database.with_name(database.name + "-wal"),
        database.with_name(database.name + "-shm"),
    )


def _link(database: Path, aside: Path) -> None:
    """A second name for the old database, so that its first is never without one."""
    try:
        os.link(database, aside)
    except OSError:  # a file system without hard links
        database.replace(aside)


def take_over(old: Path, database: Database) -> dict[str, int]:
    """Copy the directory from the old database; returns the rows per table.

    A table that cannot be read is passed over with an error in the log.
    """
    copied: dict[str, int] = {}
    engine = create_engine(URL.create("sqlite", database=str(old)))
    try:
        for name in _TABLES:
            try:
                copied[name] = _copy(engine, database, schema.metadata.tables[name])
            except (SQLAlchemyError, StorageFailed, ValueError) as error:
                log.error("%s could not be taken over from %s: %s", name, old, type(error).__name__)
    finally:
        engine.dispose()
    return copied


def take_over_promises(old: Path, database: Database) -> int:
    """Flag the instances that were committed, by us or to us; returns how many.

    Once the instances are there again; what cannot be read is passed over with an error in the
    log. The content has to be the same.
    """
    instance = schema.instance
    promised = int(InstanceFlag.COMMITTED | InstanceFlag.COMMITTED_ELSEWHERE)
    columns = (instance.c.sop_uid, instance.c.owner_id, instance.c.digest, instance.c.flags)
    engine = create_engine(URL.create("sqlite", database=str(old)))
    found = 0
    try:
        with engine.connect() as source:
            rows = source.execute(
                select(*columns).where(instance.c.flags.op("&")(promised) != 0)
            ).all()
        for start in range(0, len(rows), _PIECE):
            with database.write() as connection:
                for sop_uid, owner_id, digest, flags in rows[start : start + _PIECE]:
                    found += connection.execute(
                        update(instance)
                        .where(
                            instance.c.sop_uid == sop_uid,
                            instance.c.owner_id == owner_id,
                            instance.c.digest == digest,
                        )
                        .values(flags=instance.c.flags.op("|")(flags & promised))
                    ).rowcount
    except (SQLAlchemyError, StorageFailed) as error:
        log.error("commitments could not be taken over from %s: %s", old, type(error).__name__)
    finally:
        engine.dispose()
    return found


def _copy(engine: Engine, database: Database, table: Table) -> int:
    # The old one may be of an earlier version: what it has no column for gets its default.
    there = {column["name"] for column in inspect(engine).get_columns(table.name)}
    columns = [column for column in table.c if column.name in there]
    if not columns:
        return 0
    with engine.connect() as source:
        rows = [dict(row) for row in source.execute(select(*columns)).mappings()]
    with database.write() as connection:
        connection.execute(delete(table))
        for start in range(0, len(rows), _PIECE):
            connection.execute(insert(table), rows[start : start + _PIECE])
    return len(rows)
