"""Fetches as rows: cancelled at any moment, taken up again, over when everything is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hilum.errors import NotFound
from hilum.gateway.store.claims import End, Job, Wanted, done
from hilum.gateway.store.database import Database
from hilum.gateway.store.fetches import FETCH, STUDY, Fetch, Fetches, Named
from hilum.gateway.store.jobs import Steering
from hilum.gateway.store.states import FetchState, StudyState
from hilum.gateway.store.work import WorkTable

NAMED = [Named(f"1.{number}", {}) for number in range(1, 4)]


@pytest.fixture
def database(new_database: Callable[[], Database]) -> Iterator[Database]:
    made = new_database()
    yield made
    made.close()


def claimed(table: WorkTable, kind: str) -> list[Job]:
    return table.claim([Wanted(kind, 10, 60.0, 3)])


def planning(database: Database) -> tuple[Fetches, WorkTable, Fetch, Job]:
    """A fetch whose peer is being asked, and has named one study."""
    fetches, table = Fetches(database), WorkTable(database, "test:1")
    number = fetches.create("pacs", {}, "test")
    (job,) = claimed(table, FETCH)
    fetch = fetches.find(number)
    fetches.add_studies(fetch, NAMED[:1], window={})
    return fetches, table, fetch, job


def retry(database: Database, fetches: Fetches, number: int) -> int:
    return Steering(database, actor="test").retry(fetches.retry(number))


def end(fetches: Fetches, table: WorkTable, job: Job, fetch: Fetch) -> None:
    """The peer has named all studies."""
    outcome = done(also=lambda c: fetches.planned(c, fetch.id, duplicates=0))
    assert table.finish(End(job.id, job.token, outcome))


def fetched(fetches: Fetches, table: WorkTable) -> None:
    for job in claimed(table, STUDY):
        number = job.payload["study"]
        outcome = done(also=lambda c, n=number: fetches.ended(c, n, StudyState.FETCHED))
        assert table.finish(End(job.id, job.token, outcome))


def test_one_that_was_cancelled_while_studies_were_named_asks_for_them_again(
    database: Database,
) -> None:
    fetches, table, fetch, job = planning(database)
    assert fetches.cancel(fetch.id)
    assert retry(database, fetches, fetch.id) == 2
    fetched(fetches, table)
    # The peer has more, of which nobody knows yet.
    assert fetches.find(fetch.id).state is FetchState.PLANNING
    (job,) = claimed(table, FETCH)
    fetches.add_studies(fetches.find(fetch.id), NAMED, window={})
    end(fetches, table, job, fetch)
    assert fetches.find(fetch.id).state is FetchState.RUNNING
    fetched(fetches, table)
    found = fetches.find(fetch.id)
    assert (found.state, found.studies) == (FetchState.DONE, {StudyState.FETCHED: 3})


def test_one_that_was_cancelled_later_goes_on_with_its_studies(database: Database) -> None:
    fetches, table, fetch, job = planning(database)
    end(fetches, table, job, fetch)
    assert fetches.cancel(fetch.id)
    assert retry(database, fetches, fetch.id) == 1
    assert fetches.find(fetch.id).state is FetchState.RUNNING
    fetched(fetches, table)
    assert fetches.find(fetch.id).state is FetchState.DONE


def test_what_a_peer_names_after_the_cancellation_is_not_added(database: Database) -> None:
    fetches, table, fetch, _ = planning(database)
    assert fetches.cancel(fetch.id)
    with pytest.raises(NotFound):
        fetches.add_studies(fetch, NAMED, window={})
    assert claimed(table, STUDY) == []
    assert len(fetches.studies(fetch.id)) == 1
