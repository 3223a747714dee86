"""The rows of fetches: one work row a study, ends, what is known, cancelling, trying again."""

from __future__ import annotations

from functools import partial

import pytest
from tests.unit.gateway.store.index_world import MR, make, put

from hilum.errors import NotFound
from hilum.gateway.store.claims import End, Wanted, dead, done
from hilum.gateway.store.fetches import FETCH, STUDY, Fetches, Named, Report
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.jobs import Steering
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.states import FetchState, StudyState, WorkState
from hilum.gateway.store.work import WorkTable

NAMED = [
    Named("1.1", {"description": "Schädel"}),
    Named("1.2", {}),
    Named("1.3", {}, dropped="its description has none of it"),
]


@pytest.fixture
def database(new_database):
    database = new_database()
    yield database
    database.close()


@pytest.fixture
def fetches(database):
    return Fetches(database)


@pytest.fixture
def table(database):
    return WorkTable(database, "receiver:one")


def claim(table, kind, limit=10):
    return table.claim([Wanted(kind, limit, 60, 1)])


def planned(fetches, table, named=NAMED, duplicates=0):
    """A fetch whose studies are known."""
    number = fetches.create("PACS", {"peer": "PACS"}, "command line")
    (job,) = claim(table, FETCH)
    assert (job.key, job.payload) == ("PACS", {"request": {"peer": "PACS"}})
    fetch = fetches.of_work(job.id, "PACS", {"peer": "PACS"}, "command line")
    assert (fetch.id, fetch.state) == (number, FetchState.PLANNING)
    fetches.add_studies(fetch, named, window={})
    also = partial(fetches.planned, fetch_id=number, duplicates=duplicates)
    assert table.finish(End(job.id, job.token, done(also=also)))
    return fetches.find(number)


def end(fetches, table, job, state, **more):
    also = partial(fetches.ended, study_id=job.payload["study"], state=state, **more)
    assert table.finish(End(job.id, job.token, done(also=also)))


def test_from_the_wish_to_the_last_study(fetches, table):
    fetch = planned(fetches, table, [*NAMED, NAMED[0]], duplicates=1)
    assert (fetch.state, fetch.duplicates) == (FetchState.RUNNING, 1)
    assert fetch.studies == {StudyState.PLANNED: 2, StudyState.DROPPED: 1}
    first, second = claim(table, STUDY)
    report = Report(
        wanted={"1.1.1": ["a", "b"], "1.1.2": ["c"]}, whole=["1.1.1"],
        dropped=[("series", "1.1.3", "a reason: ü")], modalities=["CT"],
    )  # fmt: skip
    assert fetches.report(first.payload["study"]) is None
    fetches.keep_report(first.payload["study"], report, here=1)
    kept = fetches.report(first.payload["study"])
    assert kept is not None and kept.uids == ["a", "b", "c"]
    assert [list(each) for each in kept.dropped] == [["series", "1.1.3", "a reason: ü"]]
    fetches.arrived(first.payload["study"], 1)
    fetch = fetches.find(fetch.id)
    assert (fetch.n_wanted, fetch.n_here, fetch.n_arrived) == (3, 1, 1)
    assert all(type(n) is int for n in (fetch.n_wanted, fetch.n_here, fetch.n_arrived))
    end(fetches, table, first, StudyState.FETCHED, arrived=2)
    assert not fetches.find(fetch.id).is_over
    end(fetches, table, second, StudyState.HERE)
    fetch = fetches.find(fetch.id)
    assert (fetch.state, fetch.is_over) == (FetchState.DONE, True)
    of_first = fetches.studies(fetch.id, study_id=first.payload["study"])[0]
    assert of_first.about == {"description": "Schädel", "modalities": ["CT"]}
    assert (of_first.state, of_first.n_dropped) == (StudyState.FETCHED, 1)
    assert [study.study_uid for study in fetches.studies(fetch.id)] == ["1.1", "1.2", "1.3"]
    assert [one.id for one in fetches.listed()] == [fetch.id]


def test_a_fetch_of_which_nothing_is_wanted_is_done(fetches, table):
    assert planned(fetches, table, NAMED[2:]).state is FetchState.DONE
    assert planned(fetches, table, []).state is FetchState.DONE


def test_a_study_that_fails_is_a_problem_until_it_is_tried_again(database, fetches, table):
    fetch = planned(fetches, table)
    first, second = claim(table, STUDY)
    end(fetches, table, first, StudyState.FETCHED)
    assert table.finish(End(second.id, second.token, dead("1 of 2 instances are missing")))
    failed = fetches.find(fetch.id)
    assert failed.is_over and failed.state is FetchState.RUNNING
    assert (failed.problem, failed.failed) == ("1 of 2 instances are missing", 1)
    assert fetches.studies(fetch.id)[1].work is WorkState.DEAD
    assert Steering(database, actor="test").retry(fetches.retry(fetch.id)) == 1
    assert fetches.find(fetch.id).problem == ""
    (again,) = claim(table, STUDY)
    assert (again.id, again.attempt) == (second.id, 1)
    end(fetches, table, again, StudyState.FETCHED)
    assert fetches.find(fetch.id).state is FetchState.DONE


def test_cancelling_fences_off_what_runs(database, fetches, table):
    fetch = planned(fetches, table)
    (running,) = claim(table, STUDY, limit=1)
    assert fetches.cancel(fetch.id)
    assert not fetches.cancel(fetch.id)
    assert table.still_held({running.id: running.token}) == set()
    assert claim(table, STUDY) == []
    assert fetches.find(fetch.id).state is FetchState.CANCELLED
    assert Steering(database, actor="test").retry(fetches.retry(fetch.id)) == 2
    assert len(claim(table, STUDY)) == 2
    with pytest.raises(NotFound, match="no fetch 404"):
        fetches.cancel(404)


def test_what_was_here_is_known_by_its_tombstone(database, fetches):
    writer = IndexWriter(database)
    put(writer, make("a"), make("b", sop_class_uid=MR), make("c", owner=7), make("d"))
    writer.close()
    remove(database, Scope(sop_uid="b"), by="test", reason="extracted")
    many = [f"none.{n}" for n in range(1000)]
    assert fetches.known(0, ["a", "b", "c", *many, "d"], removed=True) == {"a", "b", "d"}
    assert fetches.known(0, ["a", "b", "c", *many, "d"], removed=False) == {"a", "d"}
    assert fetches.known(7, ["a", "c"], removed=True) == {"c"}
    assert fetches.sop_classes(0, ["b", "x"]) == {"b": MR}


def test_a_schedules_run_is_one_fetch_however_often_it_is_begun(fetches, table):
    fetch = planned(fetches, table, NAMED[2:])
    work = fetches.of_work(999, "PACS", {"peer": "PACS"}, "schedule:1")
    assert fetches.of_work(999, "PACS", {"peer": "PACS"}, "schedule:1").id == work.id != fetch.id


def test_what_is_long_over_is_forgotten(fetches, table):
    planned(fetches, table, NAMED[2:])
    going_on = planned(fetches, table)
    assert fetches.forget(keep=3600) == 0
    while fetches.forget(keep=-1):
        pass
    assert [one.id for one in fetches.listed()] == [going_on.id]
