"""The same schema and statements on PostgreSQL; see `tests.postgresql`."""

from __future__ import annotations

import json
import threading
from time import monotonic

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from bench import archive
from sqlalchemy import text
from tests.unit.gateway.store.index_world import (
    MR,
    assert_counts_are_a_recount,
    make,
    put,
    rows,
    soon,
)
from tests.unit.gateway.store.test_find_plans import statements_of

from hilum.errors import StorageFailed
from hilum.gateway.store.bucket_list import BucketList
from hilum.gateway.store.claims import End, NewWork, Swept, Wanted, done
from hilum.gateway.store.clock import moment
from hilum.gateway.store.database import Checkpointer, migrate, open_database, revision, upgrade
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
from hilum.gateway.store.work import WorkTable, enqueue


@pytest.fixture
def url(postgresql):
    return postgresql()


@pytest.fixture
def database(url):
    database = open_database(url, role="receiver")
    yield database
    database.close()


@pytest.fixture
def writer(database):
    writer = IndexWriter(database)
    yield writer
    writer.close()


def test_migrations_make_the_tables_of_the_schema(database, url):
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
    made_at_once = rows(database, indexes)
    with database.write() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        migrate(connection)
    assert rows(database, indexes) == made_at_once
    upgrade(database)
    assert revision(database) == HEAD
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    open_database(url, role="web").close()


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


def test_receivers_beside_each_other_agree(database, url):
    errors = []

    def receive(number):
        try:
            own = open_database(url, role="receiver")
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


# ── the work table ────────────────────────────────────────────────────────────────────────────


def test_leases_are_timed_by_the_servers_clock(database, monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 0)
    monkeypatch.setattr("time.monotonic_ns", lambda: 0)
    with database.write() as connection:
        (number,) = enqueue(connection, [NewWork("send")])
        at = moment(connection)
        assert (at.lease, at.boot) == (at.now, "")
        assert at.now > 1_700_000_000_000_000
    table = WorkTable(database, "worker:one")
    (job,) = table.claim([Wanted("send", 1, lease=0.001, max_attempts=2)])
    deadline = monotonic() + 20
    while not table.due(["send"]).expired:
        assert monotonic() < deadline
    assert table.sweep() == Swept(again=1)
    (again,) = WorkTable(database, "worker:two").claim([Wanted("send", 1, 60, 2)])
    assert (again.id, again.token) == (number, job.token + 1)
    assert not table.finish(End(job.id, job.token, done()))
    assert table.finish(End(again.id, again.token, done()))


def test_a_claim_passes_over_what_another_is_taking(database, url):
    with database.write() as connection:
        first, second = enqueue(connection, [NewWork("send"), NewWork("send")])
    other = open_database(url, role="worker")
    with other.write() as connection:
        connection.execute(text("SELECT id FROM work WHERE id = :id FOR UPDATE"), {"id": first})
        (job,) = WorkTable(database, "worker:one").claim([Wanted("send", 5, 60, 2)])
        assert job.id == second
    (job,) = WorkTable(database, "worker:one").claim([Wanted("send", 5, 60, 2)])
    assert job.id == first
    other.close()


# ── plans ─────────────────────────────────────────────────────────────────────────────────────


def plan_of(database, statement, parameters=()):
    """The indexes and scans of a plan, as if tables were too large to be read through."""
    with database.read() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        (found,) = connection.exec_driver_sql(
            f"EXPLAIN (FORMAT JSON) {statement}", parameters
        ).one()
    nodes = [json.loads(found)[0]["Plan"]] if isinstance(found, str) else [found[0]["Plan"]]
    steps = []
    for node in nodes:
        nodes += node.get("Plans", [])
        steps.append(f"{node['Node Type']} {node.get('Index Name', node.get('Relation Name', ''))}")
    return steps


def test_claims_read_through_the_partial_indexes(database):
    steps = plan_of(
        database,
        "SELECT id FROM work WHERE state = 'ready' AND kind = 'a' AND key = 'b' "
        "ORDER BY priority, id LIMIT 5",
    )
    assert any("ix_work_ready" in step for step in steps), steps
    assert not any(step.startswith("Sort") for step in steps), steps


INDEXES = {
    "Study Instance UID": "uq_study_study_uid_owner_id_patient_ref",
    "Accession Number": "ix_study_accession",
    "Patient ID": "uq_patient_patient_id_issuer_lone_study_uid_owner_id",
    "name, whole prefix": "ix_patient_name",
    "name, family": "ix_patient_name",
    "a week": "ix_study_date",
    "a year": "ix_study_date",
}


def test_queries_go_by_an_index(database):
    archive.store(database, 2500)
    with database.write() as connection:
        connection.execute(text("ANALYZE"))
    for name, query in archive.queries(2500 // archive.PER_STUDY).items():
        statements, count = statements_of(database, lambda q=query: archive.answer(database, q))
        assert count > 0 or name.startswith("a "), name
        for statement, parameters in statements:
            steps = plan_of(database, statement, parameters)
            assert not any(step.startswith("Seq Scan") for step in steps), (name, steps)
            if name in INDEXES:
                assert any(INDEXES[name] in step for step in steps), (name, steps)
