from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.gateway.store.index_world import rows
from tests.unit.gateway.store.test_work import Clock

from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.store import schedules as module
from hilum.gateway.store import work
from hilum.gateway.store.claims import End, Wanted, done
from hilum.gateway.store.jobs import listed
from hilum.gateway.store.schedules import Schedule, Schedules
from hilum.gateway.store.work import WorkTable
from hilum.gateway.work.schedule import checked, decide

HOUR = 3600


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


@pytest.fixture
def database(new_database):
    database = new_database()
    yield database
    database.close()


@pytest.fixture
def time(monkeypatch):
    stands = Clock()
    stands.now = at("2026-01-10 12:00")
    monkeypatch.setattr(work, "moment", stands)
    monkeypatch.setattr(module, "moment", stands)
    return stands


@pytest.fixture
def schedules(database, time):
    return Schedules(database, actor="someone")


def nightly(**more) -> Schedule:
    values = {"name": "nightly", "cron": "0 2 * * *", "time_zone": "UTC", **more}
    return Schedule(id=0, kind="fetch", payload={"peer": "PACS"}, **values)


def put(schedules, time, schedule) -> Schedule:
    schedules.put(checked(schedule, time.now))
    return schedules.find(schedule.name)


def finish_all(database):
    table = WorkTable(database, "w:1")
    for job in table.claim([Wanted("fetch", 100, 60, 3)]):
        table.finish(End(job.id, job.token, done()))


def test_a_run_is_a_work_row(database, schedules, time):
    added = put(schedules, time, nightly())
    assert added.next_at == at("2026-01-11 02:00")
    assert schedules.start_due(decide) == 0
    time.now = at("2026-01-11 02:00") + 1
    assert schedules.start_due(decide) == 1
    assert schedules.start_due(decide) == 0
    (row,) = listed(database)
    assert (row.kind, row.payload, row.origin) == (
        "fetch",
        {"peer": "PACS"},
        f"schedule:{added.id}",
    )
    after = schedules.find("nightly")
    assert (after.last_at, after.next_at) == (time.now, at("2026-01-12 02:00"))
    assert after.last_result == "begun"


def test_missed_runs_are_made_up_for_once(database, schedules, time):
    put(schedules, time, nightly())
    put(schedules, time, nightly(name="strict", catch_up=False))
    time.now = at("2026-01-20 09:00")
    assert schedules.start_due(decide) == 1
    assert schedules.start_due(decide) == 0
    assert schedules.find("nightly").last_result == "begun late"
    strict = schedules.find("strict")
    assert strict.last_result == "missed: nothing ran at that time"
    assert strict.last_at is None
    assert {one.next_at for one in schedules.all()} == {at("2026-01-21 02:00")}


def test_a_run_that_goes_on_has_none_beside_it(database, schedules, time):
    put(schedules, time, nightly(cron="*/10 * * * *"))
    time.pass_(600)
    assert schedules.start_due(decide) == 1
    time.pass_(600)
    assert schedules.start_due(decide) == 0
    assert schedules.find("nightly").last_result == "passed over: the run before was not over"
    with pytest.raises(ConfigurationError, match="going on"):
        schedules.run_now("nightly")
    finish_all(database)
    time.pass_(600)
    assert schedules.start_due(decide) == 1


def test_runs_begin_in_their_window(database, schedules, time):
    put(schedules, time, nightly(cron="0 * * * *", time_window="22:00-05:00"))
    time.now = at("2026-01-10 13:00")
    assert schedules.start_due(decide) == 0
    waiting = schedules.find("nightly")
    assert waiting.next_at == at("2026-01-10 22:00")
    assert waiting.last_result == "waits for its time window"
    time.now = at("2026-01-10 22:00")
    assert schedules.start_due(decide) == 1
    (row,) = listed(database)
    assert row.payload == {"peer": "PACS", "time_window": "22:00-05:00", "time_zone": "UTC"}


def test_by_hand_and_disabled(database, schedules, time):
    put(schedules, time, nightly(enabled=False, time_window="22:00-05:00"))
    time.now = at("2026-01-20 09:00")
    assert schedules.start_due(decide) == 0
    number = schedules.run_now("nightly")
    (row,) = listed(database)
    assert (row.id, row.payload) == (number, {"peer": "PACS"})
    assert schedules.find("nightly").last_result == "begun by hand"


def test_add_change_remove(database, schedules, time):
    first = put(schedules, time, nightly())
    assert put(schedules, time, nightly(cron="0 4 * * *")).id == first.id
    assert schedules.find("nightly").next_at == at("2026-01-11 04:00")
    schedules.remove("nightly")
    with pytest.raises(NotFound):
        schedules.remove("nightly")
    with pytest.raises(NotFound):
        schedules.run_now("nightly")
    with pytest.raises(ConfigurationError):
        schedules.put(nightly(name=""))
    assert rows(database, "SELECT action, actor FROM event") == [
        ("put schedule", "someone"),
        ("put schedule", "someone"),
        ("remove schedule", "someone"),
    ]


def test_a_zone_that_is_no_longer_known_stops_the_schedule_visibly(schedules, time, monkeypatch):
    put(schedules, time, nightly())

    def unknown(name):
        raise ConfigurationError(f"time zone {name!r} is not known")

    monkeypatch.setattr("hilum.gateway.work.schedule.zone", unknown)
    time.now = at("2026-01-11 02:00")
    assert schedules.start_due(decide) == 0
    stopped = schedules.find("nightly")
    assert stopped.next_at is None and "'UTC' is not known" in stopped.last_result
