from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from tests.unit.gateway.store.index_world import (
    IMPLICIT,
    MR,
    assert_counts_are_a_recount,
    make,
    make_database,
    put,
    rows,
    soon,
)

from hilum.errors import StorageFailed
from hilum.gateway.store.database import open_database
from hilum.gateway.store.index import CommitUnknown, IndexWriter, OutcomeKind
from hilum.gateway.store.keys import PATIENT_KEYS, STUDY_KEYS, pack_raw, unpack_raw
from hilum.gateway.store.removal import Scope, files_deleted, files_to_delete, remove
from hilum.gateway.store.states import DuplicatePolicy, InstanceFlag


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


def kinds(outcomes):
    return [outcome.kind for outcome in outcomes]


# ── placing ───────────────────────────────────────────────────────────────────────────────────


def test_one_instance_makes_its_whole_tree(database, writer):
    (outcome,) = put(
        writer,
        make(
            "1.1.1.1",
            values={
                "PatientBirthDate": b"19700101",
                "StudyTime": b"101112.5",
                "SeriesNumber": b" 7 ",
                "TimezoneOffsetFromUTC": b"+0100 ",
                "ContentDate": b"not a date",
            },
            sending_ae="CT1",
            receiving_ae="RAIVEN",
            peer="10.0.0.1",
        ),
    )
    assert outcome.kind is OutcomeKind.STORED
    assert rows(database, "SELECT patient_id, patient_name, patient_name_folded, birth_date, "
                "lone_study_uid, raw_header FROM patient") == [
        ("P1", "Doe^Jane", "doe^jane", "19700101", "", None)
    ]  # fmt: skip
    assert rows(database, "SELECT study_uid, study_date, study_time, timezone_offset, modalities, "
                "n_series, n_instances, conflict FROM study") == [
        ("1.1", "20240229", "101112.5", "+0100", "CT", 1, 1, 0)
    ]  # fmt: skip
    assert rows(database, "SELECT series_uid, series_number FROM series") == [("1.1.1", 7)]
    assert rows(database, "SELECT id, sop_uid, instance_number, content_date, sending_ae, "
                "receiving_ae, peer, superseded FROM instance") == [
        (outcome.instance_id, "1.1.1.1", 1, "", "CT1", "RAIVEN", "10.0.0.1", 0)
    ]  # fmt: skip
    assert_counts_are_a_recount(database)


def test_one_batch_of_mixed_studies_is_counted_right(database, writer):
    batch = [
        make(f"1.{n}", study=f"9.{n % 3}", series=f"9.{n % 3}.{n % 5}", patient=f"P{n % 3}")
        for n in range(60)
    ]
    assert set(kinds(put(writer, *batch))) == {OutcomeKind.STORED}
    put(writer, *(make(f"2.{n}", study="9.0", series="9.0.0", patient="P0") for n in range(10)))
    put(writer, make("3", study="9.0", series="9.0.9", patient="P0", sop_class_uid=MR,
                     values={"Modality": b"MR"}))  # fmt: skip
    assert rows(database, "SELECT study_uid, n_series, n_instances, modalities FROM study "
                "ORDER BY study_uid") == [
        ("9.0", 6, 31, "CT\\MR"), ("9.1", 5, 20, "CT"), ("9.2", 5, 20, "CT")
    ]  # fmt: skip
    assert_counts_are_a_recount(database)


def test_empty_patient_ids_never_merge(database, writer):
    put(
        writer,
        make("1", patient="", study="1.1", series="1.1.1"),
        make("2", patient=" ", study="1.1", series="1.1.2"),
        make("3", patient="", study="1.2", series="1.2.1"),
    )
    put(writer, make("4", patient="", study="1.2", series="1.2.1"))
    assert rows(database, "SELECT patient_id, lone_study_uid FROM patient ORDER BY id") == [
        ("", "1.1"),
        ("", "1.2"),
    ]
    assert rows(database, "SELECT n_instances FROM study ORDER BY id") == [(2,), (2,)]
    assert_counts_are_a_recount(database)


def test_a_patient_is_id_and_issuer(database, writer):
    put(
        writer,
        make("1", study="1.1", values={"IssuerOfPatientID": b"A"}),
        make("2", study="1.2", values={"IssuerOfPatientID": b"B"}),
        make("3", study="1.3"),
        make("4", study="1.4", values={"IssuerOfPatientID": b"A "}),
    )
    assert rows(database, "SELECT issuer, count(*) FROM patient JOIN study ON patient_ref = "
                "patient.id GROUP BY issuer ORDER BY issuer") == [("", 1), ("A", 2), ("B", 1)]  # fmt: skip


@pytest.mark.parametrize("together", [True, False])
def test_one_study_under_two_patients_is_kept_twice_and_flagged(database, writer, together):
    items = [make("1", patient="P1"), make("2", patient="P2"), make("3", patient="P1", study="8")]
    if together:
        put(writer, *items)
    else:
        for item in items:
            put(writer, item)
            writer.close()
    found = rows(database, "SELECT study_uid, patient_id, conflict, study.n_instances FROM study "
                 "JOIN patient ON patient_ref = patient.id ORDER BY study.id")  # fmt: skip
    assert found == [("1.1", "P1", 1, 1), ("1.1", "P2", 1, 1), ("8", "P1", 0, 1)]
    assert_counts_are_a_recount(database)
    remove(database, Scope(patient_id="P2"), by="test", reason="wrong patient")
    assert_counts_are_a_recount(database)
    assert rows(database, "SELECT sum(conflict) FROM study") == [(0,)]


def test_owners_are_apart(database, writer):
    put(writer, make("1", owner=0), make("1", owner=7), make("1", owner=8))
    assert rows(database, "SELECT owner_id, n_instances, conflict FROM study ORDER BY 1") == [
        (0, 1, 0), (7, 1, 0), (8, 1, 0),
    ]  # fmt: skip
    assert_counts_are_a_recount(database)


def test_the_quarantine_has_an_identity_of_its_own(database, writer):
    first, second = put(
        writer,
        make("1", owner=7),
        make("1", owner=7, flags=InstanceFlag.QUARANTINED, content=b"other",
             values={"StudyInstanceUID": b"", "SeriesInstanceUID": b""}),
    )  # fmt: skip
    assert kinds([first, second]) == [OutcomeKind.STORED] * 2
    assert rows(database, "SELECT owner_id, flags FROM instance ORDER BY id") == [(7, 0), (-8, 2)]


def test_gaps_are_filled_and_first_values_stand(database, writer):
    put(writer, make("1", values={"PatientName": b"", "StudyDescription": b"", "Modality": b""}))
    put(writer, make("2", values={"StudyDescription": b"Thorax", "PatientSex": b"F "}))
    writer.close()
    put(writer, make("3", values={"StudyDescription": b"Abdomen", "AccessionNumber": b"A1"}))
    assert rows(database, "SELECT patient_name, patient_name_folded, sex FROM patient") == [
        ("Doe^Jane", "doe^jane", "F")
    ]
    assert rows(database, "SELECT description, accession_number, modalities FROM study") == [
        ("Thorax", "A1", "CT")
    ]
    assert_counts_are_a_recount(database)


def test_gaps_are_filled_within_one_batch(database, writer):
    put(writer, make("1", values={"StudyID": b""}), make("2", values={"StudyID": b"77"}))
    assert rows(database, "SELECT study_id, n_instances FROM study") == [("77", 2)]


# ── text ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("charset", "raw", "text_", "folded"),
    [
        (b"ISO_IR 100", b"M\xfcller^J\xf6rg", "Müller^Jörg", "muller^jorg"),
        (b"ISO_IR 192", "Müller^Jörg".encode(), "Müller^Jörg", "muller^jorg"),
        (b"GB18030", "王^小东".encode("gb18030"), "王^小东", "王^小东"),
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
            "yamada^tarou=山田^太郎",
        ),
    ],
)
def test_names_are_decoded_and_their_bytes_kept(database, writer, charset, raw, text_, folded):
    put(writer, make("1", values={"SpecificCharacterSet": charset, "PatientName": raw}))
    ((name, fold, packed),) = rows(
        database, "SELECT patient_name, patient_name_folded, raw_header FROM patient"
    )
    assert (name, fold) == (text_, folded)
    assert list(unpack_raw(packed)) == [("SpecificCharacterSet", charset), ("PatientName", raw)]


def test_the_fallback_character_set_is_used_where_none_is_said(database, writer):
    raw = "Иванов".encode("iso8859_5")
    values = {"PatientName": raw}
    items = [make("1", values=values, fallback_charset="ISO_IR 144")]
    del items[0].values["SpecificCharacterSet"]
    put(writer, *items)
    ((name, packed),) = rows(database, "SELECT patient_name, raw_header FROM patient")
    assert name == "Иванов"
    assert list(unpack_raw(packed)) == [("SpecificCharacterSet", b""), ("PatientName", raw)]


def test_filled_text_is_kept_with_its_own_character_set(database, writer):
    latin, utf8 = b"Universit\xe4t", "Thorax für Köln".encode()
    put(writer, make("1", values={"InstitutionName": latin}))
    put(
        writer,
        make("2", values={"SpecificCharacterSet": b"ISO_IR 192", "StudyDescription": utf8}),
    )
    ((institution, description, packed),) = rows(
        database, "SELECT institution, description, raw_header FROM study"
    )
    assert (institution, description) == ("Universität", "Thorax für Köln")
    assert list(unpack_raw(packed)) == [
        ("SpecificCharacterSet", b"ISO_IR 100"),
        ("InstitutionName", latin),
        ("SpecificCharacterSet", b"ISO_IR 192"),
        ("StudyDescription", utf8),
    ]


@given(
    st.dictionaries(
        st.sampled_from([key.keyword for key in (*PATIENT_KEYS, *STUDY_KEYS)]),
        st.binary(max_size=60),
    ),
    st.one_of(st.none(), st.binary(max_size=20)),
)
def test_packed_bytes_come_out_as_they_went_in(values, charset):
    packed = pack_raw(STUDY_KEYS, values, charset)
    texts = {
        key.keyword: values[key.keyword]
        for key in STUDY_KEYS
        if key.text and values.get(key.keyword)
    }
    unusual = {k: v for k, v in texts.items() if not v.isascii() or b"\x1b" in v}
    if packed is None:
        assert not unusual
    else:
        assert dict(unpack_raw(packed)) == {"SpecificCharacterSet": charset or b"", **unusual}


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from([key.keyword for key in (*PATIENT_KEYS, *STUDY_KEYS)]),
        st.binary(max_size=600),
    ),
    st.binary(max_size=30),
)
def test_no_bytes_of_a_peer_stop_the_writer(database, writer, values, charset):
    put(writer, make("1", values={"SpecificCharacterSet": charset, **values}))
    remove(database, Scope(sop_uid="1"), by="test", reason="next")
    assert_counts_are_a_recount(database)


# ── the same again ────────────────────────────────────────────────────────────────────────────


def test_the_same_content_is_one_copy(database, writer):
    (first,) = put(writer, make("1", work=[("forward", {"to": "A"})]))
    (again,) = put(writer, make("1", path="elsewhere", work=[("forward", {"to": "A"})]))
    assert (again.kind, again.instance_id) == (OutcomeKind.SAME, first.instance_id)
    in_one_batch = put(writer, make("2"), make("2", path="elsewhere"))
    assert kinds(in_one_batch) == [OutcomeKind.STORED, OutcomeKind.SAME]
    assert rows(database, "SELECT count(*) FROM instance") == [(2,)]
    assert rows(database, "SELECT count(*) FROM work") == [(1,)]
    assert_counts_are_a_recount(database)


def test_a_sender_that_says_it_is_the_same_is_believed_only_of_that_row(database, writer):
    (first,) = put(writer, make("1"))
    (other,) = put(writer, make("2"))
    same, different = put(
        writer,
        make("1", content=b"recoded", transfer_syntax_uid=IMPLICIT, same_as=first.instance_id),
        make("1", content=b"new", same_as=other.instance_id),
    )
    assert (same.kind, same.instance_id) == (OutcomeKind.SAME, first.instance_id)
    assert different.kind is OutcomeKind.KEPT_AS_VERSION


@pytest.mark.parametrize("equal", [True, False])
def test_versions_are_compared_while_the_lock_is_free(database, writer, equal):
    (first,) = put(writer, make("1"))
    asked = []

    def compare(existing, incoming):
        with database.write(deadline=0) as connection:
            connection.execute(text("UPDATE change SET value = value + 1"))
        asked.append((existing.id, incoming.path))
        return equal

    batch = [make("0"), make("1", content=b"other", transfer_syntax_uid=IMPLICIT), make("3")]
    outcomes = writer.commit(batch, deadline=soon(), compare=compare)
    assert asked == [(first.instance_id, batch[1].path)]
    expected = OutcomeKind.SAME if equal else OutcomeKind.KEPT_AS_VERSION
    assert kinds(outcomes) == [OutcomeKind.STORED, expected, OutcomeKind.STORED]
    assert_counts_are_a_recount(database)


def test_versions_in_one_batch_are_compared_too(database, writer):
    contents = [b"a", b"b", b"c"]
    outcomes = writer.commit(
        [make("1", content=content) for content in contents],
        deadline=soon(),
        compare=lambda existing, incoming: existing.size != incoming.size,
    )
    assert kinds(outcomes) == [OutcomeKind.STORED, *[OutcomeKind.KEPT_AS_VERSION] * 2]
    assert_counts_are_a_recount(database)


def test_both_are_kept_and_the_newest_is_current(database, writer):
    (first,) = put(writer, make("1", content=b"one"))
    (second,) = put(writer, make("1", content=b"two", series="1.1.2"))
    (third,) = put(writer, make("1", content=b"three"))
    (again,) = put(writer, make("1", content=b"one"))
    assert kinds([second, third]) == [OutcomeKind.KEPT_AS_VERSION] * 2
    assert (again.kind, again.instance_id) == (OutcomeKind.SAME, first.instance_id)
    found = rows(database, "SELECT id, superseded FROM instance ORDER BY id")
    assert found == [
        (first.instance_id, first.instance_id),
        (second.instance_id, second.instance_id),
        (third.instance_id, 0),
    ]
    assert rows(database, "SELECT n_series, n_instances, total_bytes FROM study") == [(1, 1, 5)]
    assert_counts_are_a_recount(database)
    known = writer.lookup([(0, "1"), (0, "2")])
    assert [version.id for version in known[0, "1"]] == [
        third.instance_id,
        first.instance_id,
        second.instance_id,
    ]
    assert list(known) == [(0, "1")]


def test_the_first_is_kept_and_the_rest_refused(database, writer):
    keep = DuplicatePolicy.KEEP_FIRST
    (first,) = put(writer, make("1", content=b"one", duplicates=keep))
    (second,) = put(writer, make("1", content=b"two", duplicates=keep, patient="P9", study="9"))
    assert (second.kind, second.instance_id) == (OutcomeKind.REFUSED, first.instance_id)
    assert rows(database, "SELECT count(*) FROM patient") == [(1,)]  # nothing of it is here
    assert_counts_are_a_recount(database)


def test_the_first_is_replaced(database, writer):
    replace = DuplicatePolicy.REPLACE
    first = make("1", content=b"one", work=[("forward", {"to": "A"})])
    put(writer, first)
    second = make("1", content=b"two", duplicates=replace, study="2", patient="P2",
                  work=[("forward", {"to": "B"})])  # fmt: skip
    (outcome,) = put(writer, second)
    assert (outcome.kind, outcome.replaced_path) == (OutcomeKind.REPLACED, first.path)
    assert rows(database, "SELECT patient_id FROM patient") == [("P2",)]
    assert rows(database, "SELECT payload FROM work") == [('{"to": "B"}',)]
    assert files_to_delete(database) == [first.path]
    files_deleted(database, [first.path])
    assert files_to_delete(database) == []
    assert_counts_are_a_recount(database)


def test_after_a_removal_nothing_stands_against_a_new_one(database, writer):
    put(writer, make("1", content=b"one"))
    put(writer, make("1", content=b"two", study="2", series="2.1"))
    remove(database, Scope(study_uid="2"), by="test", reason="wrong")
    assert rows(database, "SELECT sum(n_instances) FROM study") == [(0,)]
    (outcome,) = put(writer, make("1", content=b"three", duplicates=DuplicatePolicy.KEEP_FIRST))
    assert outcome.kind is OutcomeKind.STORED
    assert_counts_are_a_recount(database)


# ── work ──────────────────────────────────────────────────────────────────────────────────────


def test_work_rows_come_with_their_instance(database, writer):
    (outcome,) = put(
        writer, make("1", work=[("forward", {"to": "Köln"}), ("extract", {"deep": [1, None]})])
    )
    found = rows(database, "SELECT kind, state, payload, attempts, token, instance_ref FROM work")
    assert [(row[0], row[1], json.loads(str(row[2])), *row[3:]) for row in found] == [
        ("forward", "ready", {"to": "Köln"}, 0, 0, outcome.instance_id),
        ("extract", "ready", {"deep": [1, None]}, 0, 0, outcome.instance_id),
    ]


# ── failures ──────────────────────────────────────────────────────────────────────────────────


def test_a_failing_row_rolls_the_whole_batch_back(database, writer):
    put(writer, make("0"))
    with database.write() as connection:
        connection.execute(text(
            "CREATE TRIGGER broken BEFORE INSERT ON instance WHEN NEW.sop_uid = '13' "
            "BEGIN SELECT RAISE(ABORT, 'injected'); END"
        ))  # fmt: skip
    batch = [make(str(n), study=str(n), patient=str(n)) for n in (11, 12, 13, 14)]
    with pytest.raises(StorageFailed, match="injected"):
        put(writer, *batch)
    assert rows(database, "SELECT count(*) FROM study") == [(1,)]
    assert_counts_are_a_recount(database)
    batch.pop(2)
    assert kinds(put(writer, *batch)) == [OutcomeKind.STORED] * 3
    assert_counts_are_a_recount(database)


def test_a_full_disk_is_an_error_and_passes(database, writer):
    put(writer, make("0"))
    ((pages,),) = rows(database, "PRAGMA page_count")

    @event.listens_for(database.engine, "connect")
    def limit(raw, _record):
        raw.execute(f"PRAGMA max_page_count={pages}")

    writer.close()
    database.engine.dispose()
    long = {"StudyDescription": b"x" * 500, "SeriesDescription": b"y" * 500}
    batch = [make(f"1.{n}", study=f"1.{n}", values=long) for n in range(50)]
    with pytest.raises(StorageFailed, match="full"):
        put(writer, *batch)
    assert rows(database, "SELECT count(*) FROM instance") == [(1,)]
    event.remove(database.engine, "connect", limit)
    writer.close()
    database.engine.dispose()
    put(writer, *batch)
    assert rows(database, "SELECT count(*) FROM instance") == [(51,)]
    assert_counts_are_a_recount(database)


def test_what_the_database_cannot_hold_is_a_failure_of_the_batch(database, writer):
    for bad in (make("1", path="\udcff"), make("1", size=1 << 70)):
        with pytest.raises(StorageFailed):
            put(writer, bad)
    assert kinds(put(writer, make("1"))) == [OutcomeKind.STORED]


def test_a_locked_database_fails_at_the_deadline(database, writer, tmp_path):
    put(writer, make("0"))
    other = sqlite3.connect(tmp_path / "hilum.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageFailed, match="locked"):
        writer.commit([make("1")], deadline=0)
    other.execute("COMMIT")
    other.close()
    assert kinds(put(writer, make("1"))) == [OutcomeKind.STORED]


class FailingConnection(sqlite3.Connection):
    """Says once that COMMIT failed, before or after it was done."""

    fail = None

    def commit(self):
        fail, FailingConnection.fail = FailingConnection.fail, None
        if fail == "before":
            self.rollback()
        else:
            super().commit()
        if fail:
            raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def failing(database):
    @event.listens_for(database.engine, "do_connect")
    def connect(_dialect, _record, arguments, options):
        options["factory"] = FailingConnection

    database.engine.dispose()
    yield FailingConnection
    FailingConnection.fail = None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failed_commit_is_looked_up(database, failing, when):
    writer = IndexWriter(database)
    put(writer, make("0"))
    failing.fail = when
    batch = [make("0", path="again"), make("1"), make("0", content=b"other")]
    with pytest.raises(CommitUnknown, match="disk I/O error") as raised:
        put(writer, *batch)
    if when == "after":
        outcomes = writer.resolve(raised.value, deadline=soon())
        assert kinds(outcomes) == [
            OutcomeKind.SAME, OutcomeKind.STORED, OutcomeKind.KEPT_AS_VERSION,
        ]  # fmt: skip
    else:
        with pytest.raises(StorageFailed, match="not written"):
            writer.resolve(raised.value, deadline=soon())
    assert_counts_are_a_recount(database)
    put(writer, make("9"))
    assert_counts_are_a_recount(database)
    writer.close()


def test_what_cannot_be_looked_up_stays_unknown(database, failing, tmp_path):
    writer = IndexWriter(database)
    put(writer, make("0"))
    failing.fail = "after"
    with pytest.raises(CommitUnknown) as raised:
        put(writer, make("1"))
    other = sqlite3.connect(tmp_path / "hilum.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CommitUnknown, match="locked") as again:
        writer.resolve(raised.value, deadline=0)
    other.execute("ROLLBACK")
    other.close()
    assert kinds(writer.resolve(again.value, deadline=soon())) == [OutcomeKind.STORED]
    writer.close()


def test_a_constraint_that_fails_at_commit_is_not_committed(database, writer):
    put(writer, make("0"))
    with database.write() as connection:
        connection.execute(text(
            "CREATE TABLE late (id INTEGER REFERENCES bucket(name) DEFERRABLE INITIALLY DEFERRED)"
        ))  # fmt: skip
        connection.execute(text(
            "CREATE TRIGGER late_one AFTER INSERT ON instance WHEN NEW.sop_uid = '1' "
            "BEGIN INSERT INTO late VALUES ('none'); END"
        ))  # fmt: skip
    with pytest.raises(CommitUnknown, match="FOREIGN KEY") as raised:
        put(writer, make("1"))
    with pytest.raises(StorageFailed, match="not written"):
        writer.resolve(raised.value, deadline=soon())
    assert kinds(put(writer, make("2"))) == [OutcomeKind.STORED]
    assert_counts_are_a_recount(database)


# ── beside others ─────────────────────────────────────────────────────────────────────────────


def test_what_another_removed_is_not_remembered(database, writer):
    put(writer, make("1"))
    remove(database, Scope(study_uid="1.1"), by="test", reason="gone")
    put(writer, make("2"))
    assert rows(database, "SELECT count(*) FROM study") == [(1,)]
    assert_counts_are_a_recount(database)


def test_ids_are_never_used_twice(database, writer):
    (first,) = put(writer, make("1"))
    remove(database, Scope(sop_uid="1"), by="test", reason="gone")
    writer.close()
    (second,) = put(IndexWriter(database), make("1"))
    assert second.instance_id > first.instance_id


def test_the_writer_and_administration_do_not_starve_each_other(database, writer, tmp_path):
    stop, errors, written = threading.Event(), [], []

    def administer():
        try:
            other = open_database(tmp_path / "hilum.db", role="web")
            while not stop.is_set():
                with other.write(deadline=soon()) as connection:
                    connection.execute(text("UPDATE change SET value = value + 1"))
                written.append(1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=administer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(60):
        put(writer, *(make(f"{n}.{k}") for k in range(8)))
    while len(written) < 3 and not errors:
        put(writer, make(f"more.{len(written)}", content=b"%d" % len(written)))
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert rows(database, "SELECT value FROM change") == [(len(written),)]
    assert_counts_are_a_recount(database)


def test_another_process_writes_meanwhile(database, writer, tmp_path):
    program = """
import sys
from sqlalchemy import text
from hilum.gateway.store.database import open_database
database = open_database(sys.argv[1], role="worker")
for _ in range(100):
    with database.write() as connection:
        connection.execute(text("UPDATE change SET value = value + 1"))
    print(flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "hilum.db")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    for n in range(80):
        put(writer, *(make(f"{n}.{k}") for k in range(4)))
    process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    assert rows(database, "SELECT value FROM change") == [(100,)]
    assert rows(database, "SELECT n_instances FROM study") == [(320,)]


# ── any sequence ──────────────────────────────────────────────────────────────────────────────

_few = st.integers(0, 2)
_item = st.tuples(
    _few, _few, _few, st.integers(0, 5), st.integers(0, 2), st.sampled_from(list(DuplicatePolicy))
)
_step = st.one_of(
    st.lists(_item, min_size=1, max_size=6),
    st.tuples(st.sampled_from(["study_uid", "series_uid", "sop_uid", "patient_id"]), _few),
    st.just("another writer"),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(_step, max_size=12))
def test_counts_equal_a_recount_after_any_sequence(tmp_path_factory, steps):
    database = make_database(tmp_path_factory.mktemp("any"))
    writer = IndexWriter(database)
    for step in steps:
        if step == "another writer":
            writer.close()
            writer = IndexWriter(database)
        elif isinstance(step, tuple):
            name, number = step
            value = {"patient_id": f"P{number}"}.get(name, f"{number}.1")
            remove(database, Scope(**{name: value}), by="test", reason="any")
        else:
            put(writer, *(
                make(
                    f"{sop}.1", owner=owner, patient=f"P{patient}" if patient else "",
                    study=f"{study}.1", series=f"{patient + study}.1", duplicates=policy,
                    content=b"x" * (content + 1),
                    sop_class_uid=f"1.2.{content}", values={"Modality": b"M%d" % sop},
                )
                for owner, patient, study, sop, content, policy in step
            ))  # fmt: skip
        assert_counts_are_a_recount(database)
    writer.close()
    database.close()
