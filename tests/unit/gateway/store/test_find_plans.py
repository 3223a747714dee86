"""Queries of an archive of 50,000 instances go by an index: nothing is read through."""

from __future__ import annotations

import pytest
from bench.archive import PER_STUDY, answer, asked, queries, store
from sqlalchemy import event

from hilum.gateway.store.database import open_database, upgrade

INSTANCES = 50_000


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    database = open_database(
        tmp_path_factory.mktemp("archive") / "hilum.db", role="receiver", create=True
    )
    upgrade(database)
    store(database, INSTANCES)
    yield database
    database.close()


def statements_of(database, query):
    """The statements of a query with their parameters, and how many answers there are."""
    statements = []

    def note(connection, cursor, statement, parameters, context, many):
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        count = answer(database, query)
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return statements, count


def plans(database, query):
    """How SQLite goes about each statement of a query, and how many answers there are."""
    statements, count = statements_of(database, query)
    found = []
    with database.engine.connect() as connection:
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.append([row[3] for row in rows])
    return found, count


EXPECTED = {
    "Study Instance UID": 1,
    "Accession Number": 1,
    "Patient ID": 2,
    "name, whole prefix": 2,
}


@pytest.mark.parametrize("name", [*queries(100)])
def test_plans(archive, name):
    query = queries(INSTANCES // PER_STUDY)[name]
    found, count = plans(archive, query)
    assert count == EXPECTED.get(name, count) and count > 0
    for plan in found:
        steps = " / ".join(plan)
        if name == "all studies":
            assert "TEMP B-TREE" not in steps, "nothing is sorted"
        else:
            assert "SCAN" not in steps, steps
        if name in ("a week", "a year"):
            assert "ix_study_date" in steps and "TEMP B-TREE" not in steps, steps


def test_many_pages_are_one_after_another(archive):
    assert answer(archive, asked()) == INSTANCES // PER_STUDY
