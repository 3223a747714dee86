from __future__ import annotations

import sqlite3
import threading
import traceback

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from tests.unit.gateway.store.index_world import make_database, rows, soon

from hilum.errors import ConfigurationError, StorageFailed, StoreUnavailable
from hilum.gateway.store import database as database_module
from hilum.gateway.store.bucket_list import BucketList
from hilum.gateway.store.database import (
    Checkpointer,
    Commits,
    _raw_sqlite,
    migrate,
    open_database,
    revision,
    upgrade,
)
from hilum.gateway.store.keys import INDEX_KEYS
from hilum.gateway.store.schema import HEAD, metadata, prepare_for_postgresql
from hilum.gateway.store.statements import Statements
from hilum.gateway.store.states import quarantine_owner
from hilum.services.header import HeaderScanner


def test_migrations_make_the_tables_of_the_schema(tmp_path):
    database = make_database(tmp_path)
    folder = tmp_path / "migrated"
    folder.mkdir()
    migrated = open_database(folder / "m.db", role="command", create=True)
    with migrated.write() as connection:
        migrate(connection)
    with migrated.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    shape = (
        "SELECT name, replace(replace(replace(sql, char(10), ''), char(9), ''), ' ', '') "
        "FROM sqlite_master ORDER BY name"
    )
    ours = [(name, "".join(sorted(str(sql)))) for name, sql in rows(database, shape)]
    theirs = [(name, "".join(sorted(str(sql)))) for name, sql in rows(migrated, shape)]
    assert ours == theirs
    for table in (*metadata.tables, "alembic_version"):
        everything = f"SELECT * FROM {table}"
        assert rows(database, everything) == rows(migrated, everything)


def test_head_is_the_newest_revision():
    folder = database_module.__file__.replace("database.py", "migrations")
    assert ScriptDirectory(folder).get_heads() == [HEAD]


def test_upgrade_is_repeatable_and_sets_wal_and_full(tmp_path):
    database = make_database(tmp_path)
    upgrade(database)
    assert revision(database) == HEAD
    assert rows(database, "PRAGMA journal_mode") == [("wal",)]
    assert rows(database, "PRAGMA synchronous") == [(2,)]
    assert rows(database, "PRAGMA foreign_keys") == [(1,)]
    assert rows(database, "PRAGMA busy_timeout") == [(0,)]
    assert rows(database, "PRAGMA wal_autocheckpoint") == [(0,)]


def test_two_processes_may_upgrade_at_once(tmp_path):
    path = tmp_path / "hilum.db"
    errors = []

    def run():
        try:
            upgrade(open_database(path, role="receiver", create=True))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert revision(open_database(path, role="web")) == HEAD


def test_a_newer_database_is_refused(tmp_path):
    database = make_database(tmp_path)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match="9999, newer"):
        upgrade(database)
    with pytest.raises(StoreUnavailable, match="9999, newer"):
        open_database(tmp_path / "hilum.db", role="web")


def test_what_is_not_there_is_not_made(tmp_path):
    with pytest.raises(StoreUnavailable, match="hilum serve"):
        open_database(tmp_path / "none.db", role="web")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreUnavailable, match="version none"):
        open_database(tmp_path / "empty.db", role="web")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "hilum.db").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(StorageFailed, match="not a database"):
        open_database(tmp_path / "hilum.db", role="web")


@pytest.mark.parametrize(
    "url", ["mysql://user:secret@host/db", "sqlite://", "sqlite:///:memory:", "://", "a b://c"]
)
def test_urls_that_cannot_work(url):
    with pytest.raises(ConfigurationError) as raised:
        open_database(url, role="receiver", create=True)
    assert "secret" not in str(raised.value)


def test_a_failed_transaction_changes_nothing(tmp_path):
    database = make_database(tmp_path)
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute(text("UPDATE change SET value = 7"))
        raise ZeroDivisionError
    with pytest.raises(StorageFailed, match="no such table"), database.write() as connection:
        connection.execute(text("UPDATE change SET value = 8"))
        connection.execute(text("UPDATE absent SET value = 8"))
    assert rows(database, "SELECT value FROM change") == [(0,)]


def test_no_traceback_shows_what_was_asked_for(new_database):
    """Failures are logged with their causes, and the values of a query are a patient's."""
    database = new_database()
    name = "^".join(("Doe", "J"))  # not to be found in this line
    for access in (database.read, database.write):
        with pytest.raises(StorageFailed) as raised, access() as connection:
            connection.execute(text("SELECT 1 FROM absent WHERE name = :name"), {"name": name})
        assert name not in "".join(traceback.format_exception(raised.value))
    database.close()


def test_a_writer_waits_until_its_deadline_and_no_longer(tmp_path):
    database = make_database(tmp_path)
    other = sqlite3.connect(tmp_path / "hilum.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailed, match="locked"), database.write(deadline=0) as connection:
        connection.execute(text("UPDATE change SET value = 1"))
    assert rows(database, "SELECT value FROM change") == [(0,)]  # readers are not held
    other.execute("COMMIT")
    other.close()
    with database.write(deadline=soon()) as connection:
        connection.execute(text("UPDATE change SET value = 1"))
    assert rows(database, "SELECT value FROM change") == [(1,)]


def test_many_writers_all_come_through(tmp_path):
    make_database(tmp_path).close()
    path, each, errors = tmp_path / "hilum.db", 60, []

    def run():
        try:
            database = open_database(path, role="worker")
            for _ in range(each):
                with database.write(deadline=soon()) as connection:
                    connection.execute(text("UPDATE change SET value = value + 1"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows(open_database(path, role="web"), "SELECT value FROM change") == [(6 * each,)]


def test_opening_waits_for_whoever_has_the_file_for_itself(tmp_path):
    """As the last one who closes it has, and the first one after a crash."""
    make_database(tmp_path).close()
    other = sqlite3.connect(tmp_path / "hilum.db", isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE change SET value = 3")
    other.execute("COMMIT")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(tmp_path / "hilum.db", timeout=0).execute("SELECT value FROM change")
    leaving = threading.Timer(0.1, other.close)
    leaving.start()
    database = open_database(tmp_path / "hilum.db", role="command")
    assert rows(database, "SELECT value FROM change") == [(3,)]
    leaving.join()
    with _raw_sqlite(database) as raw:
        assert raw.execute("PRAGMA busy_timeout").fetchone() == (0,)


def test_a_checkpoint_moves_the_log_and_truncates_a_long_one(tmp_path):
    database = make_database(tmp_path)
    with database.write() as connection:
        connection.execute(text("UPDATE change SET value = 5"))
    log = tmp_path / "hilum.db-wal"
    assert log.stat().st_size > 0
    checkpointer = Checkpointer(database, limit=1 << 40)
    done = checkpointer.run()
    assert done.pages == done.moved > 0 and not done.truncated
    assert log.stat().st_size > 0
    checkpointer.close()
    checkpointer = Checkpointer(database, limit=0)
    assert checkpointer.run().truncated
    assert log.stat().st_size == 0
    checkpointer.close()
    assert rows(database, "SELECT value FROM change") == [(5,)]


def test_a_checkpoint_gives_way_to_a_writer(tmp_path):
    database = make_database(tmp_path)
    checkpointer = Checkpointer(database, limit=0)
    with database.write() as connection:
        connection.execute(text("UPDATE change SET value = 5"))
        assert not checkpointer.run(patience=0.01).truncated
    checkpointer.close()
    assert rows(database, "SELECT value FROM change") == [(5,)]


def test_the_schema_compiles_for_postgresql():
    prepare_for_postgresql()
    dialect = postgresql.psycopg.dialect(paramstyle="format")
    for table in metadata.sorted_tables:
        ddl = str(CreateTable(table).compile(dialect=dialect))
        assert 'VARCHAR COLLATE "C"' in ddl or table.name in ("id_block", "change")
        for index in table.indexes:
            on_sqlite, on_postgresql = (
                str(CreateIndex(index).compile(dialect=each))
                for each in (sqlite.dialect(), dialect)
            )
            assert on_postgresql.startswith("CREATE INDEX")
            assert (" WHERE " in on_postgresql) == (" WHERE " in on_sqlite)
    statements = Statements(dialect)
    assert "FOR UPDATE" in statements.find_study
    assert "RETURNING" not in statements.insert_work


def test_the_scanner_knows_every_key():
    assert set(HeaderScanner(INDEX_KEYS).paths) == set(INDEX_KEYS)
    assert len(set(INDEX_KEYS)) == len(INDEX_KEYS)


def test_the_quarantine_of_an_owner_is_its_own_inverse():
    assert quarantine_owner(0) == -1
    assert [quarantine_owner(quarantine_owner(owner)) for owner in range(5)] == list(range(5))


def test_open_buckets_are_listed_until_they_are_closed(tmp_path):
    database = make_database(tmp_path)
    buckets = BucketList(database)
    buckets.opened("2026/11/21-001")
    buckets.opened("2026/11/21-002")
    buckets.opened("2026/11/21-002")
    buckets.closed("2026/11/21-001")
    assert BucketList(database).open_names() == ["2026/11/21-002"]
    buckets.opened("2026/11/21-001")
    assert buckets.open_names() == ["2026/11/21-001", "2026/11/21-002"]


def test_whether_anything_was_committed_is_told(tmp_path):
    database = make_database(tmp_path)
    commits = Commits(database)
    before = commits.version()
    assert commits.version() == before
    with database.read() as connection:
        connection.execute(text("SELECT * FROM change"))
    assert commits.version() == before
    with pytest.raises(RuntimeError), database.write() as connection:
        connection.execute(text("UPDATE change SET value = 9"))
        raise RuntimeError
    assert commits.version() == before
    with database.write() as connection:
        connection.execute(text("UPDATE change SET value = 9"))
    after = commits.version()
    assert after != before
    with open_database(tmp_path / "hilum.db", role="command").write() as connection:
        connection.execute(text("UPDATE change SET value = 10"))
    assert commits.version() not in (before, after)
    commits.close()
    assert commits.version() != commits.version(), "not known"
    database.close()
