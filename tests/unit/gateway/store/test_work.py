from __future__ import annotations

import threading
from collections import Counter

import pytest
from sqlalchemy import text
from tests.unit.gateway.store.index_world import make, put, rows

from hilum.errors import StorageFailed
from hilum.gateway.store import clock, work
from hilum.gateway.store.claims import End, Held, NewWork, Swept, Wanted, dead, done, later, retry
from hilum.gateway.store.clock import Moment, boot_id
from hilum.gateway.store.database import open_database
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.jobs import Steering, cancel_origin, counts, find, listed
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.states import WorkState
from hilum.gateway.store.work import WorkTable, enqueue

SECOND = 1_000_000

SQLITE = pytest.mark.parametrize("new_database", ["SQLite"], indirect=True)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now, self.lease, self.boot = 1_700_000_000 * SECOND, 1000 * SECOND, "first boot"

    def __call__(self, _connection) -> Moment:
        return Moment(self.now, self.lease, self.boot)

    def pass_(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)
        self.lease += int(seconds * SECOND)

    def reboot(self) -> None:
        self.lease, self.boot = 0, "second boot"


@pytest.fixture
def time(monkeypatch):
    stands = Clock()
    monkeypatch.setattr(work, "moment", stands)
    return stands


@pytest.fixture
def database(new_database):
    database = new_database()
    yield database
    database.close()


@pytest.fixture
def table(database, time):
    return WorkTable(database, "receiver:one")


def add(database, *new: NewWork) -> list[int]:
    with database.write() as connection:
        return enqueue(connection, new)


def want(kind="send", limit=10, *, per_key=0, lease=60.0, attempts=3) -> Wanted:
    return Wanted(kind, limit, lease, attempts, per_key)


def state(database, number) -> tuple[str, int, str]:
    entry = find(database, number)
    return entry.state.value, entry.attempts, entry.cause


def test_a_row_is_claimed_once_and_finished_with_what_follows(database, table):
    (number,) = add(database, NewWork("send", {"to": "Zoë"}, key="a", origin="test"))
    (job,) = table.claim([want()])
    assert (job.id, job.payload, job.attempt, job.token, job.key) == (
        number,
        {"to": "Zoë"},
        1,
        1,
        "a",
    )
    assert table.claim([want()]) == []
    assert table.finish(End(job.id, job.token, done(new=[NewWork("report", {"of": number})])))
    assert state(database, number) == ("done", 1, "")
    assert [entry.kind for entry in listed(database, states=[WorkState.READY])] == ["report"]
    assert not table.finish(End(job.id, job.token, done(new=[NewWork("report")])))
    assert counts(database) == {"report": {WorkState.READY: 1}, "send": {WorkState.DONE: 1}}


def test_enqueueing_belongs_to_the_callers_transaction(database, table):
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        enqueue(connection, [NewWork("send")])
        raise ZeroDivisionError
    assert table.claim([want()]) == []


def test_what_is_fenced_off_changes_nothing(database, table, time):
    (number,) = add(database, NewWork("send"))
    (slow,) = table.claim([want()])
    time.pass_(61)
    assert table.due(["send"]).expired
    assert table.sweep() == Swept(again=1)
    (fast,) = WorkTable(database, "receiver:two").claim([want()])
    assert (fast.id, fast.token, fast.attempt) == (number, 2, 2)
    assert table.heartbeat([Held(number, slow.token, 60)]) == set()
    assert table.still_held({number: slow.token}) == set()
    assert table.still_held({number: fast.token}) == {number}
    assert table.give_back({number: slow.token}) == 0
    ends = [End(number, slow.token, outcome) for outcome in (done(), dead("no"), retry("no", 1))]
    assert table.finish_all(ends) == [False] * 3
    assert table.finish_all([End(number, fast.token, done())]) == [True]


def test_a_heartbeat_keeps_a_lease(database, table, time):
    add(database, NewWork("send"))
    (job,) = table.claim([want()])
    for _ in range(5):
        time.pass_(40)
        assert table.heartbeat([Held(job.id, job.token, 60)]) == {job.id}
        assert table.sweep() == Swept()
    time.pass_(61)
    assert table.sweep() == Swept(again=1)


def test_setting_the_time_moves_no_lease(database, table, time):
    add(database, NewWork("send"))
    table.claim([want()])
    time.now += 86400 * SECOND
    assert not table.due(["send"]).expired
    assert table.sweep() == Swept()


def test_leases_of_an_earlier_boot_are_void(database, table, time):
    add(database, NewWork("send"))
    (job,) = table.claim([want()])
    time.reboot()
    assert table.due(["send"]).expired
    assert table.sweep() == Swept(again=1)
    assert not table.finish(End(job.id, job.token, done()))


def test_a_new_receiver_voids_what_the_one_before_held(database, table):
    add(database, NewWork("send"), NewWork("send"))
    table.claim([want(limit=1)])
    elsewhere = WorkTable(database, "worker:on another machine")
    elsewhere.claim([want(limit=1)])
    again = WorkTable(database, "receiver:two")
    assert again.void_leases_of("receiver") == Swept(again=1)
    assert again.void_leases_of("receiver") == Swept()
    assert [job.attempt for job in again.claim([want()])] == [2]


def test_attempts_are_bounded_whatever_ends_them(database, table, time):
    failing, dying = add(database, NewWork("send"), NewWork("send"))
    for _ in range(3):
        jobs = {job.id: job for job in table.claim([want()])}
        table.finish(End(failing, jobs[failing].token, retry("it is away", 5)))
        time.pass_(61)
        table.sweep()
    assert table.claim([want()]) == []
    assert state(database, failing) == ("dead", 3, "it is away")
    assert state(database, dying) == ("dead", 3, "its lease ran out at the last attempt")
    assert counts(database) == {"send": {WorkState.DEAD: 2}}
    assert Steering(database, actor="test").retry([failing, dying]) == 2
    assert {job.attempt for job in table.claim([want()])} == {1}


def test_a_retry_waits_and_a_later_one_does_not_count(database, table, time):
    (number,) = add(database, NewWork("send"))
    for _ in range(10):
        (job,) = table.claim([want()])
        assert job.attempt == 1
        table.finish(End(number, job.token, later(30, "night only")))
        assert state(database, number) == ("waiting", 0, "night only")
        assert table.claim([want()]) == []
        assert not table.due(["send"]).ready
        time.pass_(31)
        assert table.due(["send"]).ready
    (job,) = table.claim([want()])
    table.finish(End(number, job.token, retry("refused", 100)))
    time.pass_(99)
    assert table.claim([want()]) == []
    time.pass_(1)
    assert [job.attempt for job in table.claim([want()])] == [2]


def test_a_cause_is_kept_whatever_a_peer_has_put_into_it(database, table):
    ids = add(database, *(NewWork("send") for _ in range(3)))
    jobs = table.claim([Wanted("send", 3, 60.0, 5)])
    causes = ["PACS said A700H (no\0 room)", "\0", "é" * 3000]
    ends = [
        End(job.id, job.token, retry(cause, 1.0)) for job, cause in zip(jobs, causes, strict=True)
    ]
    assert table.finish_all(ends) == [True] * 3
    kept = [find(database, number).cause for number in ids]
    assert kept == ["PACS said A700H (no  room)", " ", "é" * 2000]


def test_what_is_given_back_is_ready_at_once_and_has_lost_no_attempt(database, table):
    add(database, NewWork("send"))
    (job,) = table.claim([want()])
    assert table.give_back({job.id: job.token}) == 1
    (job,) = table.claim([want()])
    assert (job.attempt, job.token) == (1, 2)


def test_what_follows_is_written_with_the_end_or_not_at_all(database, table):
    (number,) = add(database, NewWork("send"))
    (job,) = table.claim([want()])

    def note(connection):
        connection.execute(text("UPDATE change SET value = value + 1"))

    def fail(connection):
        note(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        table.finish(End(number, job.token, done(new=[NewWork("x")], also=fail)))
    assert state(database, number)[0] == "running"
    assert table.finish(End(number, job.token, done(also=note)))
    assert not table.finish(End(number, job.token, done(also=note)))
    assert rows(database, "SELECT value FROM change") == [(1,)]
    assert "x" not in counts(database)


def test_keys_are_served_in_turn_and_within_their_limit(database, table):
    add(database, *(NewWork("send", key="busy") for _ in range(20)))
    add(database, NewWork("send", key="quiet"), NewWork("send"))
    jobs = table.claim([want(limit=6, per_key=2)])
    assert Counter(job.key for job in jobs) == {"": 1, "busy": 2, "quiet": 1}
    assert table.claim([want(limit=6, per_key=2)]) == []
    (busy, *_) = (job for job in jobs if job.key == "busy")
    table.finish(End(busy.id, busy.token, done()))
    assert [job.key for job in table.claim([want(limit=6, per_key=2)])] == ["busy"]


def test_one_busy_key_does_not_starve_the_others(database, table):
    add(database, *(NewWork("send", key=key) for key in "aaaabbbbcccc"))
    served = [table.claim([want(limit=1)])[0].key for _ in range(12)]
    assert served == list("abc" * 4)


def test_within_a_key_priority_goes_before_age(database, table):
    ids = add(database, *(NewWork("send", priority=p) for p in (5, 0, 5, -1)))
    assert [job.id for job in table.claim([want()])] == [ids[3], ids[1], ids[0], ids[2]]


def test_kinds_have_their_own_limits(database, table):
    add(database, *(NewWork(kind) for kind in ("a", "a", "b", "b", "c")))
    jobs = table.claim([want("a", 1), want("b", 5)])
    assert [job.kind for job in jobs] == ["a", "b", "b"]
    assert table.due(["c"]).ready
    assert not table.due(["b"]).ready


def test_hold_release_cancel(database, table):
    first, second, third = add(database, *(NewWork("send", origin="fetch:1") for _ in range(3)))
    (job,) = table.claim([want(limit=1)])
    steering = Steering(database, actor="someone")
    assert steering.hold([first, second]) == 2
    assert table.still_held({first: job.token}) == set()
    assert not table.finish(End(first, job.token, done()))
    assert [job.id for job in table.claim([want()])] == [third]
    assert steering.release([first]) == 1
    assert steering.release([first]) == 0
    assert [job.id for job in table.claim([want()])] == [first]
    with database.write() as connection:
        assert cancel_origin(connection, "fetch:1") == 3
    assert {entry.state for entry in listed(database)} == {WorkState.CANCELLED}
    assert steering.cancel([first]) == 0
    events = rows(database, "SELECT action, actor, subject FROM event ORDER BY id")
    assert events == [
        ("hold job", "someone", f"{first},{second}"),
        ("release job", "someone", str(first)),
    ]


def test_what_is_over_is_forgotten_in_time_but_never_what_is_dead(database, table, time):
    ids = add(database, *(NewWork("send") for _ in range(3)))
    jobs = table.claim([want()])
    for job, outcome in zip(jobs, (done(), dead("broken"), done()), strict=True):
        table.finish(End(job.id, job.token, outcome))
        time.pass_(100)
    assert table.forget(keep=250) == 1
    assert table.forget(keep=250) == 0
    time.pass_(10_000)
    table.forget(keep=250)
    assert [entry.id for entry in listed(database)] == [ids[1]]


def test_rows_of_an_instance_come_with_it_and_go_with_it(database, table):
    writer = IndexWriter(database)
    put(writer, make("1.2.3", work=[("send", {"to": "a"})]))
    (job,) = table.claim([want()])
    assert job.instance_id is not None
    remove(database, Scope(sop_uid="1.2.3"), by="test", reason="test")
    assert not table.finish(End(job.id, job.token, done()))
    assert listed(database) == []
    writer.close()


def test_many_executors_claim_every_row_once(database):
    url = database.engine.url.render_as_string(hide_password=False)
    for start in range(0, 300, 50):
        add(
            database, *(NewWork("send", {"n": n}, key=str(n % 7)) for n in range(start, start + 50))
        )
    seen: list[int] = []
    errors: list[Exception] = []

    def run(name: str) -> None:
        try:
            own = open_database(url, role="worker")
            table = WorkTable(own, name)
            while jobs := table.claim([want(limit=7)]):
                seen.extend(job.payload["n"] for job in jobs)
                assert all(table.finish_all([End(job.id, job.token, done()) for job in jobs]))
            own.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(f"w:{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(seen) == list(range(300))


@SQLITE
def test_a_locked_database_changes_nothing(database, table, monkeypatch):
    add(database, NewWork("send"))
    monkeypatch.setattr("hilum.gateway.store.database.WRITE_PATIENCE", 0.0)
    with database.write(), pytest.raises(StorageFailed, match="locked"):
        table.claim([want()])
    assert len(table.claim([want()])) == 1


def test_the_boot_has_an_id_that_stays():
    assert boot_id() == boot_id() != ""
    clock.boot_id.cache_clear()
    assert boot_id() == boot_id()


@SQLITE
def test_claims_read_through_the_partial_indexes(database, table):
    statement = (
        "EXPLAIN QUERY PLAN SELECT id FROM work WHERE state = 'ready' AND kind = 'a' "
        "AND key = 'b' ORDER BY priority, id LIMIT 5"
    )
    plan = " ".join(str(row) for row in rows(database, statement))
    assert "ix_work_ready" in plan and "TEMP B-TREE" not in plan
