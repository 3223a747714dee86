"""The same schema and statements on PostgreSQL, where one is at hand.

``HILUM_TEST_POSTGRES=postgresql://user@host/name`` names a database whose schema ``public`` is
emptied for every test.
"""

from __future__ import annotations

import os
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from tests.unit.gateway.store.index_world import (
    MR,
    assert_counts_are_a_recount,
    make,
    put,
    rows,
    soon,
)

from hilum.errors import StorageFailed
from hilum.gateway.store.bucket_list import BucketList
from hilum.gateway.store.database import Checkpointer, open_database, revision, upgrade
from hilum.gateway.store.directory import CalledTitle, Directory
from hilum.gateway.store.index import IndexWriter, OutcomeKind
from hilum.gateway.store.queries import (
    Filters,
    Viewer,
    find_instances,
    list_instances,
    list_patients,
    list_series,
    list_studies,
    statistics,
)
from hilum.gateway.store.removal import Scope, files_to_delete, remove
from hilum.gateway.store.schema import HEAD, metadata
from hilum.gateway.store.states import DuplicatePolicy, TitleKind

URL = os.environ.get("HILUM_TEST_POSTGRES", "")
pytestmark = pytest.mark.skipif(not URL, reason="HILUM_TEST_POSTGRES is not set")


@pytest.fixture
def database():
    database = open_database(URL, role="receiver", create=True)
    with database.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def writer(database):
    writer = IndexWriter(database)
    yield writer
    writer.close()


def test_migrations_make_the_tables_of_the_schema(database):
    upgrade(database)
    assert revision(database) == HEAD
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    open_database(URL, role="web").close()


def test_every_policy_and_the_counts(database, writer):
    first = make("1", work=[("forward", {"to": "A"})])
    put(writer, first, make("2", patient="P2"), make("3", patient=""), make("1", owner=7))
    outcomes = put(
        writer,
        make("1"),
        make("1", content=b"other", series="s", sop_class_uid=MR, values={"Modality": b"MR"}),
        make("2", patient="P2", content=b"x", duplicates=DuplicatePolicy.KEEP_FIRST),
        make("3", patient="", content=b"y", duplicates=DuplicatePolicy.REPLACE),
        make("4", values={"StudyDescription": "für".encode("latin1")}),
    )
    assert [outcome.kind for outcome in outcomes] == [
        OutcomeKind.SAME,
        OutcomeKind.KEPT_AS_VERSION,
        OutcomeKind.REFUSED,
        OutcomeKind.REPLACED,
        OutcomeKind.STORED,
    ]
    assert rows(database, "SELECT description FROM study WHERE description <> ''") == [("für",)]
    assert_counts_are_a_recount(database)
    viewer = Viewer(7)
    assert len(list_studies(database, viewer, Filters(conflict=True)).rows) == 2
    for order in ("date", "received", "name"):
        page = list_studies(database, viewer, order=order, limit=1)
        assert len(list_studies(database, viewer, order=order, after=page.next).rows) == 2
    assert len(list_patients(database, viewer, Filters(patient_name="d*")).rows) == 3
    assert list_series(database, viewer, Filters(modality="MR")).rows
    assert {row.sop_uid for row in list_instances(database, viewer).rows} == set("1234")
    assert {row.sop_uid for row in find_instances(database, viewer, study_uids=["1.1"])} == set(
        "1234"
    )
    assert statistics(database, Viewer(all=True)).instances == 5
    remove(database, Scope(study_uid="1.1"), by="test", reason="all")
    assert_counts_are_a_recount(database)
    assert rows(database, "SELECT count(*) FROM patient") == [(0,)]
    assert first.path in files_to_delete(database)


def test_receivers_beside_each_other_agree(database):
    errors = []

    def receive(number):
        try:
            own = open_database(URL, role="receiver")
            writer = IndexWriter(own)
            for n in range(25):
                put(
                    writer,
                    make(f"{number}.{n}", series=f"{n % 3}"),
                    make(f"both.{n}", series=f"{n % 3}", path=f"{number}/{n}"),
                    make(f"{number}.x.{n}", study=f"s{n}", patient=f"P{number}"),
                )
            writer.close()
            own.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=receive, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows(database, "SELECT count(*) FROM instance") == [(25 * 7,)]
    assert_counts_are_a_recount(database)


def test_a_failing_row_rolls_back_and_the_writer_goes_on(database, writer):
    with pytest.raises(StorageFailed):
        put(writer, make("1"), make("2", path="\x00"))
    assert rows(database, "SELECT count(*) FROM instance") == [(0,)]
    assert put(writer, make("1"))[0].kind is OutcomeKind.STORED
    assert_counts_are_a_recount(database)


def test_a_held_row_is_waited_for_until_the_deadline(database, writer):
    put(writer, make("1"))
    with database.write() as connection:
        connection.execute(text("SELECT id FROM study FOR UPDATE"))
        with pytest.raises(StorageFailed, match="lock"):
            writer.commit([make("2")], deadline=soon() - 19.8)
    assert put(writer, make("2"))[0].kind is OutcomeKind.STORED


def test_the_directory_and_the_rest(database):
    directory = Directory(database)
    directory.create_defaults()
    directory.add_account("alice", alias_title="ALICE")
    directory.put_called_title(CalledTitle("RAIVEN", enabled=False))
    snapshot = directory.snapshot()
    assert snapshot.resolve("RAIVEN") is None
    assert snapshot.resolve("ALICE") == CalledTitle(
        "ALICE", TitleKind.ACCOUNT, snapshot.accounts[0].id
    )
    BucketList(database).opened("2026/11/21-001")
    assert BucketList(database).open_names() == ["2026/11/21-001"]
    checkpointer = Checkpointer(database)
    assert checkpointer.run().pages == 0
    checkpointer.close()
