"""Connections: SQLite with one patient way of taking its write lock, or PostgreSQL by URL.

SQLite runs in WAL mode at synchronous=FULL. Writers take the lock with ``BEGIN IMMEDIATE`` and,
when another has it, try again after a random fraction of a millisecond until their deadline:
SQLite's own busy handler backs off to 100 ms and starves whoever uses it. Checkpoints happen on
a connection of their own, never in a commit (`Checkpointer`).
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from hilum.errors import ConfigurationError, StorageFailed, StoreUnavailable
from hilum.gateway.store.schema import (
    HEAD,
    change,
    id_block,
    metadata,
    prepare_for_postgresql,
)

__all__ = ["Checkpoint", "Checkpointer", "Commits", "Database", "Role", "open_database", "upgrade"]

Role = Literal["receiver", "web", "worker", "command"]

WRITE_PATIENCE = 5.0
"""Seconds that a writer without a deadline of its own waits for the write lock."""

# Between 50 and 500 µs: shorter than any transaction that is worth waiting for, and random so
# that two waiters do not meet again and again.
_RETRY_SECONDS = (0.000_05, 0.000_5)

# As Alembic makes it.
_VERSION_TABLE = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)

# KiB of pages; the receiver touches the ends of a dozen B-trees with every instance.
_CACHE_KIB = {"receiver": 65536, "web": 16384, "worker": 8192, "command": 8192}


@dataclass(frozen=True, slots=True)
class Database:
    """An open database; may be shared by threads.

    Args:
        engine: SQLAlchemy's engine.
        role: which kind of process this is.
    """

    engine: Engine
    role: Role

    @property
    def is_sqlite(self) -> bool:
        """True for SQLite, False for PostgreSQL."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection in a read transaction: everything read in it is of one moment.

        Keep it under a second; a longer one keeps the write-ahead log from being emptied.

        Raises:
            StorageFailed: the database cannot be read.
        """
        try:
            with self.engine.connect() as connection:
                if not self.is_sqlite:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                with connection.begin():
                    yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise StorageFailed(f"the database cannot be read: {cause(error)}") from error

    @contextmanager
    def write(self, *, deadline: float | None = None) -> Iterator[Connection]:
        """A connection in a write transaction, committed at the end, rolled back on an exception.

        On SQLite nobody else can write meanwhile: keep it under 5 ms.

        Args:
            deadline: monotonic seconds until which the lock is waited for; None: 5 s from now.

        Raises:
            StorageFailed: locked until the deadline, or not writable; nothing was changed.
        """
        try:
            with self.engine.connect() as connection:
                begin_write(connection, deadline)
                with connection.get_transaction() or connection.begin():
                    yield connection
        except (DBAPIError, sqlite3.Error) as error:
            raise StorageFailed(f"the database cannot be written: {cause(error)}") from error

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.engine.dispose()


def open_database(url_or_path: str | Path, *, role: Role, create: bool = False) -> Database:
    """Open a database.

    Args:
        url_or_path: a file for SQLite, or a URL (``postgresql+psycopg://…``, ``sqlite:///…``).
        role: which kind of process this is.
        create: it may be new or old; the caller runs `upgrade` next. Otherwise it has to be
            there with the tables of this version.

    Raises:
        ConfigurationError: not a URL of SQLite or PostgreSQL.
        StoreUnavailable: not there, or its tables are of another version.
        StorageFailed: the database cannot be read.
    """
    url = _url(url_or_path)
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigurationError("the database has to be a file, to survive this process")
        if not create and not Path(url.database).exists():
            raise StoreUnavailable(f"no database at {url.database}; start 'hilum serve' once")
        engine = _sqlite_engine(url, role)
    else:
        engine = _postgresql_engine(url)
    database = Database(engine, role)
    if not create:
        try:
            _check_revision(database)
        except BaseException:
            database.close()
            raise
    return database


def upgrade(database: Database) -> None:
    """Bring the tables to this version, in one transaction; set WAL mode on SQLite.

    Called by the composition root, which alone creates databases.

    Raises:
        StoreUnavailable: the database is newer than this program.
        StorageFailed: it cannot be written; its tables are as they were.
    """
    if database.is_sqlite:
        _set_wal(database)
    found = revision(database)
    if found == HEAD:
        return
    if _newer(found):
        _refuse_newer(found)
    # Another process may be upgrading; that takes longer than an ordinary transaction.
    with database.write(deadline=time.monotonic() + 60) as connection:
        if _revision(connection):
            migrate(connection)
        else:
            _create(connection)


def migrate(connection: Connection) -> None:
    """Run the migrations, from the first where there are no tables."""
    # 12 MB that only a start with something to upgrade needs.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _create(connection: Connection) -> None:
    """What the migrations would make of nothing."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(id_block).values(id=1, next_id=1))
    connection.execute(insert(change).values(id=1, value=0))
    connection.execute(text(_VERSION_TABLE))
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def revision(database: Database) -> str:
    """The Alembic revision of the tables; "" for a database without tables."""
    with database.read() as connection:
        return _revision(connection)


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")) or "")


def begin_write(connection: Connection, deadline: float | None) -> None:
    """Begin a write transaction on a connection that has none; see `Database.write`.

    Raises:
        StorageFailed: locked until the deadline.
    """
    until = time.monotonic() + WRITE_PATIENCE if deadline is None else deadline
    connection.execution_options(hilum_write_until=until)
    try:
        connection.begin()
        if connection.dialect.name == "postgresql":
            patience = max(1, int((until - time.monotonic()) * 1000))
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {patience}")
    finally:
        connection.execution_options(hilum_write_until=None)


def cause(error: BaseException) -> str:
    """What the driver said, in one line and without the statement's values."""
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split()) or type(original).__name__


# ── SQLite ────────────────────────────────────────────────────────────────────────────────────


def _url(url_or_path: str | Path) -> URL:
    if isinstance(url_or_path, Path) or "://" not in url_or_path:
        return URL.create("sqlite", database=str(url_or_path))
    try:
        url = make_url(url_or_path)
    except ArgumentError:
        # The text may hold a password.
        raise ConfigurationError("the database URL cannot be read; write a path or "
                                 "postgresql+psycopg://user:password@host/name") from None  # fmt: skip
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigurationError(
            f"the database URL begins with {url.drivername!r}; "
            "only sqlite and postgresql+psycopg are supported"
        )
    return url


def _sqlite_engine(url: URL, role: Role) -> Engine:
    # hide_parameters: they are a patient's, and an error is logged with its causes.
    engine = create_engine(
        url, hide_parameters=True, connect_args={"timeout": 0, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def configure(raw: sqlite3.Connection, _record: object) -> None:
        # None: the driver begins no transactions by itself; ours begin below.
        raw.isolation_level = None
        # The first of these reads the file. Whoever closes it last, or is the first after a crash,
        # has it for itself meanwhile, some milliseconds.
        raw.execute(f"PRAGMA busy_timeout={int(WRITE_PATIENCE * 1000)}")
        raw.execute("PRAGMA synchronous=FULL")
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA case_sensitive_like=ON")  # as on PostgreSQL
        raw.execute("PRAGMA temp_store=MEMORY")
        raw.execute(f"PRAGMA cache_size=-{_CACHE_KIB[role]}")
        if role != "command":  # a command may run where no gateway does
            raw.execute("PRAGMA wal_autocheckpoint=0")
        raw.execute("PRAGMA busy_timeout=0")  # writers are patient in a way of their own

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        until = connection.get_execution_options().get("hilum_write_until")
        if until is None:
            raw.execute("BEGIN")
        else:
            _begin_immediate(raw, until)

    return engine


def _begin_immediate(raw: sqlite3.Connection, until: float) -> None:
    while True:
        try:
            raw.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if time.monotonic() >= until:
                raise StorageFailed(
                    "the database is locked by another process and did not come free in time"
                ) from error
        time.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311


def is_busy(error: sqlite3.Error) -> bool:
    """SQLITE_BUSY or one of its extended codes: someone else has the lock."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_full(error: BaseException) -> bool:
    """SQLITE_FULL: a page did not fit on the disk, so what it belonged to is not committed.

    The page that makes a transaction valid is written last of all, and what comes after it, the
    flush, fails with other codes.
    """
    code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", 0)
    return bool(code & 0xFF == sqlite3.SQLITE_FULL)


def _set_wal(database: Database) -> None:
    until = time.monotonic() + WRITE_PATIENCE
    while True:
        try:
            with _raw_sqlite(database) as raw:
                mode = raw.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.Error as error:
            if is_busy(error) and time.monotonic() < until:
                time.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311
                continue
            raise StorageFailed(f"the database cannot be written: {cause(error)}") from error
        if mode != "wal":
            raise StoreUnavailable(
                f"SQLite stays in journal mode {mode!r} where WAL is needed; "
                "keep the data directory on a local file system"
            )
        return


@contextmanager
def _raw_sqlite(database: Database) -> Iterator[sqlite3.Connection]:
    pooled = database.engine.raw_connection()
    try:
        raw = pooled.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        yield raw
    finally:
        pooled.close()


def _check_revision(database: Database) -> None:
    found = revision(database)
    if _newer(found):
        _refuse_newer(found)
    if found != HEAD:
        raise StoreUnavailable(
            f"the database's tables are of version {found or 'none'}, this program needs {HEAD}; "
            "start 'hilum serve' once to upgrade them"
        )


def _newer(found: str) -> bool:
    return found > HEAD  # revisions are numbered: 0001, 0002 …


def _refuse_newer(found: str) -> None:
    raise StoreUnavailable(
        f"the database's tables are of version {found}, newer than this program's {HEAD}; "
        "install the version of Hilum that wrote it, or a later one"
    )


def _postgresql_engine(url: URL) -> Engine:
    prepare_for_postgresql()
    try:
        return create_engine(
            url,
            paramstyle="format",
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5},
        )
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigurationError(
            "PostgreSQL needs psycopg; install it with: pip install 'hilum[cluster]'"
        ) from error


class Commits:
    """Tells, for a hundredth of what a query costs, that nothing has been committed meanwhile.

    May be shared by threads.
    """

    def __init__(self, database: Database) -> None:
        self._lock = threading.Lock()
        self._pooled: Any = database.engine.raw_connection() if database.is_sqlite else None

    def version(self) -> object:
        """The same as before as long as nobody has committed; where that is unknown, never.

        Raises:
            StorageFailed: the database cannot be read.
        """
        with self._lock:
            if self._pooled is None:
                return object()
            try:
                found = self._pooled.driver_connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error as error:
                raise StorageFailed(f"the database cannot be read: {cause(error)}") from error
        return found[0]

    def close(self) -> None:
        """Give the connection back."""
        with self._lock:
            if self._pooled is not None:
                self._pooled.close()
                self._pooled = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What one checkpoint did.

    Args:
        pages: in the write-ahead log.
        moved: of them, in the database file by now.
        truncated: the log is empty now.
    """

    pages: int
    moved: int
    truncated: bool


class Checkpointer:
    """Moves the write-ahead log into the database file, beside the writers.

    Owned by one thread. Does nothing on PostgreSQL.

    Args:
        database: see `open_database`.
        limit: bytes of log over which writers are held for a moment to empty it. Until then
            the log is moved but its file not shortened, which holds nobody.
    """

    def __init__(self, database: Database, *, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._pooled: Any = database.engine.raw_connection() if database.is_sqlite else None

    def run(self, *, patience: float = 0.1) -> Checkpoint:
        """Do one checkpoint.

        Args:
            patience: seconds to try for the lock when the log is over its limit.

        Raises:
            StorageFailed: the log could not be moved; it still holds every commit.
        """
        if self._pooled is None:
            return Checkpoint(0, 0, False)
        try:
            done = self._pragma("PASSIVE")
            page_size = self._raw.execute("PRAGMA page_size").fetchone()[0]
            until = time.monotonic() + patience
            while done.pages * page_size > self._limit and not done.truncated:
                done = self._pragma("TRUNCATE")
                if done.truncated or time.monotonic() >= until:
                    break
                time.sleep(random.uniform(*_RETRY_SECONDS))  # noqa: S311
            return done
        except sqlite3.Error as error:
            raise StorageFailed(f"the checkpoint failed: {cause(error)}") from error

    def close(self) -> None:
        """Give the connection back."""
        if self._pooled is not None:
            self._pooled.close()
            self._pooled = None

    @property
    def _raw(self) -> sqlite3.Connection:
        raw = self._pooled.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        return raw

    def _pragma(self, mode: str) -> Checkpoint:
        busy, pages, moved = self._raw.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        return Checkpoint(max(pages, 0), max(moved, 0), mode == "TRUNCATE" and not busy)
