"""Queries of an archive of 50,000 instances go by an index: nothing is read through."""

from __future__ import annotations

import pytest
from bench.archive import (
    CT,
    PER_STUDY,
    answer,
    asked,
    attributes,
    queries,
    questions,
    store,
    uid_of,
)
from sqlalchemy import event

from hilum.gateway.store.database import open_database, upgrade
from hilum.gateway.store.find import Finder
from hilum.gateway.store.results import Viewer
from hilum.gateway.store.retrieval import Retrieval
from hilum.services.matching import Level
from hilum.services.query_model import (
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
)

INSTANCES = 50_000
STUDIES = INSTANCES // PER_STUDY
STUDY, SERIES, IMAGES = 0x0020000D, 0x00201206, 0x00201208


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    database = open_database(
        tmp_path_factory.mktemp("archive") / "hilum.db", role="receiver", create=True
    )
    upgrade(database)
    store(database, INSTANCES)
    yield database
    database.close()


def statements_of(database, run):
    """The statements that `run` executes, with their parameters, and what it returns."""
    statements = []

    def note(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        result = run()
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return statements, result


def plans(database, run):
    """How SQLite goes about each statement that `run` executes, and what it returns."""
    statements, result = statements_of(database, run)
    found = []
    with database.engine.connect() as connection:
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.append([row[3] for row in rows])
    return found, result


def found_by(database, query):
    """UIDs and counts of the studies, page by page."""
    finder = Finder(database, Viewer(), query, Level.STUDY)
    at = [tag for tag, _ in finder.columns].index
    found, after = [], None
    while True:
        page = finder.page(after, limit=300)
        found += [(row[at(STUDY)], row[at(SERIES)], row[at(IMAGES)]) for row in page.rows]
        after = page.next
        if after is None:
            return found


def expected(keys):
    """The UIDs of the studies whose attributes fit, read through one by one."""
    fits = {
        "uid": lambda has, asked: has("StudyInstanceUID") == asked,
        "accession": lambda has, asked: has("AccessionNumber") == asked,
        "patient": lambda has, asked: has("PatientID") == asked,
        "name": lambda has, asked: has("PatientName").lower().startswith(asked[:-1].lower()),
        "date": lambda has, asked: asked[:8] <= has("StudyDate") <= asked[9:],
    }
    found = set()
    for study in range(STUDIES):
        values = attributes(study, 0, 0)
        if all(fits[key](lambda name, v=values: v[name].decode("latin-1"), asked)
               for key, asked in keys.items()):  # fmt: skip
            found.add(values["StudyInstanceUID"].decode())
    return found


@pytest.mark.parametrize("name", [*questions(100)])
def test_answers(archive, name):
    keys = questions(STUDIES)[name]
    found = found_by(archive, asked(**keys))
    assert {uid for uid, _, _ in found} == expected(keys) != set()
    assert len(found) == len(expected(keys))
    assert {(series, images) for _, series, images in found} == {(2, PER_STUDY)}


@pytest.mark.parametrize("name", [*questions(100)])
def test_plans(archive, name):
    query = queries(STUDIES)[name]
    found, count = plans(archive, lambda: answer(archive, query))
    assert count > 0
    for plan in found:
        steps = " / ".join(plan)
        if name == "all studies":
            assert "TEMP B-TREE" not in steps, "nothing is sorted"
        else:
            assert "SCAN" not in steps, steps
        if name in ("a week", "a year"):
            assert "ix_study_date" in steps and "TEMP B-TREE" not in steps, steps


@pytest.mark.parametrize("level", ["study", "series", "image", "images of a study"])
def test_retrievals(archive, level):
    study, series, image = uid_of(7), uid_of(7, 1), uid_of(7, 1, 30)
    named = {
        "study": {STUDY_INSTANCE_UID: [study]},
        "series": {STUDY_INSTANCE_UID: [study], SERIES_INSTANCE_UID: [series]},
        "image": {STUDY_INSTANCE_UID: [study], SOP_INSTANCE_UID: [image]},
        "images of a study": {
            STUDY_INSTANCE_UID: [study],
            SOP_INSTANCE_UID: [uid_of(7, n // 25, n) for n in range(50)],
        },
    }[level]
    retrieval = Retrieval(archive, Viewer(), named)
    found, (count, places) = plans(archive, lambda: (retrieval.count(), retrieval.page()))
    assert count == len(places) == {"study": 50, "series": 25, "image": 1}.get(level, 50)
    assert {place.sop_class for place in places} == {CT}
    for plan in found:
        assert "SCAN" not in " / ".join(plan), plan


def test_many_pages_are_one_after_another(archive):
    assert answer(archive, asked()) == STUDIES
