from __future__ import annotations

import pytest
from sqlalchemy import event, text
from tests.unit.gateway.store.index_world import (
    MR,
    assert_counts_are_a_recount,
    make,
    make_database,
    put,
    rows,
)

from hilum.errors import LocalProtocolError
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.queries import (
    Filters,
    Viewer,
    find_instances,
    list_instances,
    list_patients,
    list_series,
    list_studies,
    statistics,
    versions,
)
from hilum.gateway.store.removal import PIECE, Scope, files_deleted, files_to_delete, remove
from hilum.gateway.store.states import InstanceFlag

EVERYONE = Viewer()
ALL = Viewer(all=True)
ALICE, BOB = Viewer(7), Viewer(8)


@pytest.fixture
def database(tmp_path):
    database = make_database(tmp_path)
    yield database
    database.close()


@pytest.fixture
def writer(database):
    writer = IndexWriter(database)
    yield writer
    writer.close()


def uids(page):
    return [row.study_uid for row in page.rows]


def all_pages(read, **options):
    found, after = [], None
    while True:
        page = read(after=after, **options)
        found += page.rows
        if page.next is None:
            return found
        after = page.next


# ── who sees what ─────────────────────────────────────────────────────────────────────────────


def test_a_viewer_sees_what_is_everyones_and_his_own(database, writer):
    put(
        writer,
        make("1", study="1", series="1.1"),
        make("2", study="2", series="2.1", owner=7, patient="P7"),
        make("3", study="3", series="3.1", owner=8, patient="P8"),
        make("4", study="4", series="4.1", owner=8, patient="P8",
             flags=InstanceFlag.QUARANTINED),
    )  # fmt: skip
    for viewer, seen in [
        (EVERYONE, {"1"}),
        (ALICE, {"1", "2"}),
        (BOB, {"1", "3"}),
        (ALL, {"1", "2", "3"}),
        (Viewer(quarantine=True), {"4"}),
    ]:
        assert set(uids(list_studies(database, viewer))) == seen
        assert {row.study_uid for row in list_series(database, viewer).rows} == seen
        assert {row.study_uid for row in list_instances(database, viewer).rows} == seen
        assert {f.sop_uid for f in find_instances(database, viewer, sop_uids=list("1234"))} == seen
        assert sum(row.n_studies for row in list_patients(database, viewer).rows) == len(seen)
        totals = statistics(database, viewer)
        assert (totals.studies, totals.instances) == (len(seen), len(seen))
        for sop in "1234":
            assert len(versions(database, viewer, sop)) == (sop in seen)


def test_what_two_owners_have_is_found_for_each_alone(database, writer):
    put(writer, make("1"), make("1", owner=7), make("2", owner=7))
    for owner, seen in [(0, ["1"]), (7, ["1", "2"]), (8, [])]:
        viewer = Viewer(only=owner)
        assert sorted(row.sop_uid for row in list_instances(database, viewer).rows) == seen
        assert [row.n_instances for row in list_studies(database, viewer).rows] == [len(seen)] * (
            seen != []
        )
        assert len(list_patients(database, viewer).rows) == bool(seen)
        found = find_instances(database, viewer, sop_uids=["1"])
        assert [file.owner_id for file in found] == [owner] * ("1" in seen)


def test_a_study_of_two_owners_is_shown_once_with_distinct_counts(database, writer):
    put(
        writer,
        make("1", content=b"12345"),
        make("2", content=b"1234"),
        make("2", content=b"1234567", owner=7),
        make("3", content=b"1", owner=7, series="1.1.2", sop_class_uid=MR,
             values={"Modality": b"MR", "StudyDescription": b"mine"}),
        make("9", owner=8),
    )  # fmt: skip
    (everyone,) = list_studies(database, EVERYONE).rows
    assert (everyone.n_series, everyone.n_instances, everyone.total_bytes) == (1, 2, 9)
    (mine,) = list_studies(database, ALICE).rows
    assert (mine.n_series, mine.n_instances, mine.total_bytes) == (2, 3, 13)
    assert (mine.owner_id, mine.modalities) == (7, ("CT", "MR"))
    assert len(mine.sop_classes) == 2
    assert [(row.series_uid, row.n_instances) for row in list_series(database, ALICE).rows] == [
        ("1.1.1", 2),
        ("1.1.2", 1),
    ]
    found = {
        (f.sop_uid, f.owner_id, f.size) for f in find_instances(database, ALICE, study_uids=["1.1"])
    }
    assert found == {("1", 0, 5), ("2", 7, 7), ("3", 7, 1)}
    assert {row.id for row in list_instances(database, ALICE).rows} == {
        f.id for f in find_instances(database, ALICE, study_uids=["1.1"])
    }
    (patient,) = list_patients(database, ALICE).rows
    assert (patient.patient_id, patient.n_studies) == ("P1", 1)
    (everything,) = list_studies(database, ALL).rows
    assert everything.n_instances == 4


def test_one_study_of_two_patients_is_shown_twice_and_flagged(database, writer):
    put(writer, make("1", patient="P1"), make("2", patient="P2"), make("3", study="3"))
    page = list_studies(database, EVERYONE, Filters(conflict=True))
    assert {(row.patient_id, row.study_uid, row.conflict) for row in page.rows} == {
        ("P1", "1.1", True),
        ("P2", "1.1", True),
    }


def test_older_versions_are_not_listed_and_not_found_but_known(database, writer):
    put(writer, make("1", content=b"old"))
    put(writer, make("1", content=b"newer"))
    (row,) = list_instances(database, EVERYONE).rows
    (found,) = find_instances(database, EVERYONE, sop_uids=["1"])
    assert row.size == found.size == 5
    assert [(v.current, v.size) for v in versions(database, EVERYONE, "1")] == [
        (True, 5),
        (False, 3),
    ]


def test_rows_carry_attributes_by_keyword(database, writer):
    put(writer, make("1", values={"StudyDescription": b"Thorax", "PatientSex": b"F",
                                  "SeriesNumber": b"3", "ContentTime": b"1011"}))  # fmt: skip
    (study,) = list_studies(database, EVERYONE).rows
    assert study.attributes["StudyDescription"] == "Thorax"
    assert study.attributes["PatientSex"] == "F"
    assert list_series(database, EVERYONE).rows[0].attributes["SeriesNumber"] == 3
    assert list_instances(database, EVERYONE).rows[0].attributes["ContentTime"] == "1011"
    assert list_patients(database, EVERYONE).rows[0].attributes["PatientSex"] == "F"


# ── filters ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(), "1234"),
        (Filters(patient_name="müller*"), "1"),
        (Filters(patient_name="MULLER^JÖRG"), "1"),
        (Filters(patient_name="*o*"), "123"),
        (Filters(patient_name="d?e^jane"), "23"),
        (Filters(patient_name="doe"), ""),
        (Filters(patient_id="P_1"), "1"),
        (Filters(patient_id="P%"), ""),
        (Filters(patient_id="P*1"), "13"),
        (Filters(patient_id="p_1"), ""),
        (Filters(patient_id="P1", issuer="A"), ""),
        (Filters(accession_number="A-1"), "1"),
        (Filters(accession_number="A*"), "12"),
        (Filters(accession_number="?-2"), "2"),
        (Filters(description="*100%*"), "4"),
        (Filters(description="*THORAX*"), "12"),
        (Filters(description="*\\*"), "3"),
        (Filters(modality="MR"), "2"),
        (Filters(modality="M"), ""),
        (Filters(modality="M_"), ""),
        (Filters(date_from="20240101", date_to="20240131"), "1"),
        (Filters(date_to="20240131"), "1"),
        (Filters(date_from="20240201"), "23"),
        (Filters(received_since=300), "34"),
        (Filters(study_uid="2"), "2"),
        (Filters(series_uid="3.1"), "3"),
        (Filters(sop_uid="4.1.1"), "4"),
    ],
    ids=repr,
)
def test_studies_are_filtered(database, writer, filters, found):
    facts = [
        ("P_1", "Müller^Jörg", b"20240115", b"A-1", "CT Thorax", b"CT"),
        ("PX2", "Doe^Jane", b"20240229", b"A-2", "MR thorax", b"MR"),
        ("P11", "Doe^Jane", b"20240301", b"", "Knee\\left", b"CT"),
        ("Q", "Xu", b"", b"B", "100% zoom", b"CT"),
    ]
    put(
        writer,
        *(
            make(
                f"{n}.1.1", patient=patient, study=str(n), series=f"{n}.1", received_at=n * 100,
                values={
                    "SpecificCharacterSet": b"ISO_IR 192", "PatientName": name.encode(),
                    "StudyDate": date, "AccessionNumber": accession,
                    "StudyDescription": description.encode(), "Modality": modality,
                },
            )
            for n, (patient, name, date, accession, description, modality) in enumerate(facts, 1)
        ),
    )  # fmt: skip
    assert sorted(uids(list_studies(database, EVERYONE, filters))) == list(found)
    patients = list_patients(database, EVERYONE, filters).rows
    if not (filters.modality or filters.series_uid or filters.sop_uid):
        assert len(patients) == len(found)


def test_lower_levels_are_filtered_too(database, writer):
    put(
        writer,
        make("1", series="a"),
        make("2", series="a"),
        make("3", series="b", values={"Modality": b"MR"}),
        make("4", study="2", series="c"),
    )
    series = list_series(database, EVERYONE, Filters(study_uid="1.1")).rows
    assert [row.series_uid for row in series] == ["a", "b"]
    assert [r.series_uid for r in list_series(database, EVERYONE, Filters(modality="MR")).rows] == [
        "b"
    ]
    assert [r.series_uid for r in list_series(database, EVERYONE, Filters(sop_uid="4")).rows] == [
        "c"
    ]
    assert [
        r.sop_uid for r in list_instances(database, EVERYONE, Filters(series_uid="a")).rows
    ] == [
        "1",
        "2",
    ]
    assert [r.sop_uid for r in list_instances(database, EVERYONE, Filters(sop_uid="4")).rows] == [
        "4"
    ]


def test_finding_needs_a_uid(database):
    with pytest.raises(LocalProtocolError):
        find_instances(database, ALL)
    with pytest.raises(LocalProtocolError):
        remove(database, Scope(owner_id=0), by="test", reason="all")


# ── pages ─────────────────────────────────────────────────────────────────────────────────────


def fill(writer, count):
    put(
        writer,
        *(
            make(
                f"{n}.1.1", study=f"{n}", series=f"{n}.1", patient=f"P{n}",
                values={"StudyDate": b"2024010%d" % (n % 3 + 1), "PatientName": b"N%d" % (n % 4)},
            )
            for n in range(count)
        ),
    )  # fmt: skip


@pytest.mark.parametrize("order", ["date", "received", "name"])
@pytest.mark.parametrize("limit", [1, 4, 11, 12])
def test_pages_make_the_whole_in_order(database, writer, order, limit):
    fill(writer, 11)
    whole = list_studies(database, EVERYONE, order=order, limit=100)
    assert whole.next is None
    paged = all_pages(
        lambda **options: list_studies(database, EVERYONE, **options), order=order, limit=limit
    )
    assert paged == list(whole.rows)
    keys = {
        "date": lambda row: (row.attributes["StudyDate"], row.id),
        "received": lambda row: row.id,
        "name": lambda row: row.patient_name,
    }
    ordered = sorted(paged, key=keys[order], reverse=order != "name")
    assert [keys[order](row) for row in paged] == [keys[order](row) for row in ordered]


def test_the_lower_lists_have_pages_too(database, writer):
    put(
        writer,
        *(
            make(f"{n}", series=f"s{n % 3}", values={"InstanceNumber": b"%d" % (n % 4),
                                                     "SeriesNumber": b""})
            for n in range(12)
        ),
    )  # fmt: skip
    for read in (list_series, list_instances, list_patients):
        whole = list(read(database, EVERYONE).rows)
        assert all_pages(lambda read=read, **o: read(database, EVERYONE, **o), limit=2) == whole
    numbers = [row.attributes["InstanceNumber"] for row in list_instances(database, EVERYONE).rows]
    assert numbers == sorted(numbers)


def test_a_study_that_arrives_meanwhile_moves_none_between_pages(database, writer):
    fill(writer, 6)
    first = list_studies(database, EVERYONE, limit=3)
    put(writer, make("new", study="99", patient="P99", values={"StudyDate": b"20250101"}))
    second = list_studies(database, EVERYONE, limit=3, after=first.next)
    assert len(set(uids(first)) | set(uids(second))) == 6


def test_the_cursor_of_another_order_is_refused(database, writer):
    fill(writer, 3)
    page = list_studies(database, EVERYONE, order="received", limit=1)
    with pytest.raises(LocalProtocolError):
        list_studies(database, EVERYONE, order="date", after=page.next)


# ── removal ───────────────────────────────────────────────────────────────────────────────────


def test_a_removal_takes_rows_and_work_and_leaves_tombstone_and_event(database, writer):
    work = [("forward", {"to": "A"})]
    items = [make("1", work=work), make("2", work=work), make("3", study="2", work=work)]
    put(writer, *items)
    removal = remove(database, Scope(study_uid="1.1"), by="alice", reason="wrong patient")
    assert removal.instances == 2
    assert set(removal.paths) == {items[0].path, items[1].path}
    assert rows(database, "SELECT sop_uid FROM instance") == [("3",)]
    assert rows(database, "SELECT count(*) FROM work") == [(1,)]
    assert rows(database, "SELECT sop_uid, study_uid, series_uid, size, reason FROM tombstone "
                "ORDER BY id") == [
        ("1", "1.1", "1.1.1", 1, "wrong patient"),
        ("2", "1.1", "1.1.1", 1, "wrong patient"),
    ]  # fmt: skip
    assert rows(database, "SELECT action, actor, subject FROM event") == [
        ("remove", "alice", "1.1")
    ]
    assert_counts_are_a_recount(database)
    assert set(files_to_delete(database)) == set(removal.paths)
    files_deleted(database, removal.paths[:1])
    assert files_to_delete(database) == [removal.paths[1]]


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (Scope(sop_uid="1"), {("2", 0), ("3", 0), ("1", 7)} - {("1", 7)}),
        (Scope(sop_uid="1", owner_id=0), {("2", 0), ("3", 0), ("1", 7)}),
        (Scope(series_uid="1.1.2"), {("1", 0), ("3", 0), ("1", 7)}),
        (Scope(patient_id="P2"), {("1", 0), ("2", 0), ("1", 7)}),
        (Scope(patient_id="P2", issuer="A"), {("1", 0), ("2", 0), ("3", 0), ("1", 7)}),
        (Scope(owner_id=7, study_uid="1.1"), {("1", 0), ("2", 0), ("3", 0)}),
        (Scope(study_uid="none"), {("1", 0), ("2", 0), ("3", 0), ("1", 7)}),
    ],
    ids=lambda value: repr(value if isinstance(value, Scope) else sorted(value)),
)
def test_scopes(database, writer, scope, left):
    put(
        writer,
        make("1"),
        make("2", series="1.1.2"),
        make("3", patient="P2", study="2"),
        make("1", owner=7),
    )
    remove(database, scope, by="test", reason="scope")
    assert set(rows(database, "SELECT sop_uid, owner_id FROM instance")) == left
    assert_counts_are_a_recount(database)
    assert rows(database, "SELECT count(*) FROM event") == [(1 if len(left) < 4 else 0,)]


def test_a_large_removal_goes_in_pieces(database, writer):
    count = 2 * PIECE + 1
    put(writer, *(make(f"{n}", series=f"s{n % 7}") for n in range(count)))
    put(writer, make("stays", study="2"))
    begun = []
    event.listen(database.engine, "commit", lambda connection: begun.append(connection))
    removal = remove(database, Scope(study_uid="1.1"), by="test", reason="large")
    assert removal.instances == count == len(set(removal.paths))
    assert len(begun) >= 3
    assert rows(database, "SELECT count(*) FROM event") == [(1,)]
    assert_counts_are_a_recount(database)
    assert uids(list_studies(database, EVERYONE)) == ["2"]


def test_a_removal_that_fails_removes_nothing(database, writer):
    put(writer, make("1"), make("2"))
    with database.write() as connection:
        connection.execute(text(
            "CREATE TRIGGER broken BEFORE DELETE ON study BEGIN SELECT RAISE(ABORT, 'injected'); END"
        ))  # fmt: skip
    with pytest.raises(Exception, match="injected"):
        remove(database, Scope(study_uid="1.1"), by="test", reason="fails")
    assert rows(database, "SELECT count(*) FROM instance") == [(2,)]
    assert rows(database, "SELECT count(*) FROM tombstone") == [(0,)]
    assert rows(database, "SELECT count(*) FROM event") == [(0,)]
    assert_counts_are_a_recount(database)


# ── plans ─────────────────────────────────────────────────────────────────────────────────────


def plans(database, read):
    """The query plans of every statement that `read` runs."""
    statements = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    read()
    event.remove(database.engine, "before_cursor_execute", note)
    found = []
    with database.read() as connection:
        for statement, parameters in statements:
            if statement.startswith("SELECT"):
                plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
                found += [row[3] for row in plan]
    return found


@pytest.mark.parametrize("viewer", [EVERYONE, ALICE, ALL], ids=repr)
@pytest.mark.parametrize(
    ("read", "uses"),
    [
        (lambda d, v: list_studies(d, v), "ix_study_date"),
        (lambda d, v: list_studies(d, v, order="name"), "ix_patient_name"),
        (lambda d, v: list_studies(d, v, order="received"), "study"),
        (lambda d, v: list_studies(d, v, Filters(date_from="20240101")), "ix_study_date"),
        (
            lambda d, v: list_studies(d, v, Filters(patient_name="d*"), order="name"),
            "ix_patient_name",
        ),
        (lambda d, v: list_studies(d, v, Filters(study_uid="1"), order="received"), "study_uid=?"),
        (lambda d, v: list_patients(d, v), "ix_patient_name"),
        (lambda d, v: list_series(d, v, Filters(study_uid="1")), "study_uid=?"),
        (lambda d, v: list_instances(d, v, Filters(series_uid="1")), "series_uid=?"),
        (lambda d, v: find_instances(d, v, study_uids=["1"]), "study_uid=?"),
        (lambda d, v: find_instances(d, v, series_uids=["1"]), "series_uid=?"),
        (lambda d, v: find_instances(d, v, sop_uids=["1"]), "sop_uid=?"),
        (lambda d, v: versions(d, v, "1"), "sop_uid=?"),
        (lambda d, v: files_to_delete(d), "ix_tombstone_path"),
    ],
)
def test_lists_walk_indexes(database, viewer, read, uses):
    found = plans(database, lambda: read(database, viewer))
    assert any(uses in step for step in found), found
    walks_all = [
        step for step in found
        if step.startswith("SCAN") and "INDEX" not in step and "CONSTANT" not in step
    ]  # fmt: skip
    # In order of arrival the table itself is the index.
    assert all(step == "SCAN study" for step in walks_all) and (not walks_all or uses == "study"), (
        found
    )


@pytest.mark.parametrize("viewer", [EVERYONE, ALICE, ALL], ids=repr)
@pytest.mark.parametrize(
    ("order", "after", "uses"),
    [
        ("date", ("20240101", "10", 5), "ix_study_date"),
        ("received", (5,), "INTEGER PRIMARY KEY (rowid<?)"),
        ("name", ("doe", 3, 5), "ix_patient_name"),
    ],
)
def test_pages_are_sought_and_not_sorted(database, viewer, order, after, uses):
    first = plans(database, lambda: list_studies(database, viewer, order=order))
    later = plans(database, lambda: list_studies(database, viewer, order=order, after=after))
    # Studies of one patient are few; those alone are sorted in the order of names.
    whole = [step for step in first + later if "TEMP B-TREE" in step and "LAST TERM" not in step]
    assert not whole, whole
    assert any(uses in step and "SEARCH" in step for step in later), later
