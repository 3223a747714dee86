from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from hilum.errors import NotFound, StorageFailed
from hilum.gateway.store.claims import NewWork, dead, done, later, retry
from hilum.gateway.store.database import Commits, Database
from hilum.gateway.store.jobs import Steering, counts, find, listed
from hilum.gateway.store.states import WorkState
from hilum.gateway.store.work import WorkTable, enqueue
from hilum.gateway.work.kinds import Backoff, Kind, Kinds, Program
from hilum.gateway.work.pool import Pool
from hilum.gateway.work.runner import Runner

NOW = Backoff(first=0, jitter=0)


class World:
    """A runner over a database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.table = WorkTable(self.database, "receiver:test")
        self.commits = Commits(database)
        self.runner: Runner | None = None
        self.task: asyncio.Task[None] | None = None

    def start(self, *kinds: Kind, **more) -> None:
        options = {"poll": 0.02, "version": self.commits.version, **more}
        self.runner = Runner(self.table, Kinds(kinds), Pool(1), **options)
        self.task = asyncio.create_task(self.runner.run())

    def add(self, *new: NewWork) -> list[int]:
        with self.database.write() as connection:
            ids = enqueue(connection, new)
        if self.runner is not None:
            self.runner.wake()
        return ids

    def state(self, number: int) -> WorkState:
        return find(self.database, number).state

    async def until(self, condition) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            assert self.task is None or not self.task.done() or self.task.exception() is None
            await asyncio.sleep(0.005)

    async def until_state(self, number: int, *states: WorkState) -> None:
        await self.until(lambda: self.state(number) in states)

    async def stop(self, grace: float = 0.0) -> None:
        if self.runner is not None:
            await self.runner.stop(grace)
            await self.task
            self.runner = None


@pytest.fixture
async def world(new_database):
    world = World(new_database())
    yield world
    await world.stop()
    world.commits.close()
    world.database.close()


async def test_the_table_is_read_when_something_has_changed_or_its_time_has_come(world):
    looks, ran = [], []
    due = world.table.due

    def counted(kinds):
        looks.append(time.monotonic())
        return due(kinds)

    async def run(job):
        ran.append(job.id)
        return done()

    world.table.due = counted
    polls = []

    def version():
        polls.append(time.monotonic())
        return world.commits.version()

    world.start(Kind(name="later", run=run), version=version)
    await world.until(lambda: len(polls) > 20)
    if world.database.is_sqlite:
        assert len(looks) < 5
    with world.database.write() as connection:  # by another process: nobody wakes us
        in_a_moment = time.time_ns() // 1000 + 300_000
        (number,) = enqueue(connection, [NewWork("later", {}, ready_at=in_a_moment)])
    await world.until_state(number, WorkState.DONE)
    assert ran == [number]
    assert time.time_ns() // 1000 >= in_a_moment


async def test_rows_run_and_what_follows_runs(world):
    seen = []

    async def first(job):
        seen.append(("first", job.payload))
        return done(new=[NewWork("second", {"from": job.id})])

    async def second(job):
        seen.append(("second", job.payload))
        return done()

    world.start(Kind(name="first", run=first), Kind(name="second", run=second))
    (number,) = world.add(NewWork("first", {"a": 1}))
    await world.until(lambda: counts(world.database).get("second", {}).get(WorkState.DONE))
    assert seen == [("first", {"a": 1}), ("second", {"from": number})]
    await world.until(lambda: world.runner.running == 0)


async def test_failures_are_tried_again_within_bounds(world, caplog):
    tries = []

    async def handler(job):
        tries.append(job.attempt)
        if job.payload["how"] == "ours":
            raise NotFound("it is away")
        if job.payload["how"] == "unexpected":
            raise ZeroDivisionError("oh")
        if job.payload["how"] == "dead":
            return dead("it will never be")
        return done() if job.attempt == 3 else retry("not yet")

    world.start(Kind(name="k", run=handler, backoff=NOW, max_attempts=3))
    with caplog.at_level(logging.CRITICAL, "hilum.work"):
        for how, state, cause, attempts in (
            ("ours", WorkState.DEAD, "it is away", [1, 2, 3]),
            ("unexpected", WorkState.DEAD, "ZeroDivisionError: oh", [1, 2, 3]),
            ("dead", WorkState.DEAD, "it will never be", [1]),
            ("well", WorkState.DONE, "", [1, 2, 3]),
        ):
            (number,) = world.add(NewWork("k", {"how": how}))
            await world.until_state(number, WorkState.DEAD, WorkState.DONE)
            entry = find(world.database, number)
            assert (entry.state, entry.cause, tries) == (state, cause, attempts)
            tries.clear()


async def test_concurrency_is_kept_in_all_and_by_key(world):
    running, most, most_of_a = [], 0, 0

    async def handler(job):
        nonlocal most, most_of_a
        running.append(job.key)
        most, most_of_a = max(most, len(running)), max(most_of_a, running.count("a"))
        await asyncio.sleep(0.005)
        running.remove(job.key)
        return done()

    world.start(Kind(name="k", run=handler, concurrency=3, per_key=1))
    world.add(*(NewWork("k", key=key) for key in "aaaaaabcdefg"))
    await world.until(lambda: counts(world.database)["k"] == {WorkState.DONE: 12})
    assert (most, most_of_a) == (3, 1)


async def test_what_waits_until_its_time_runs_then(world):
    async def handler(job):
        return done() if job.payload else later(30, "soon")

    world.start(Kind(name="k", run=handler))
    (number,) = world.add(NewWork("k", {"x": 1}, ready_at=time.time_ns() // 1000 + 1_000_000))
    assert world.state(number) is WorkState.WAITING
    await world.until_state(number, WorkState.DONE)
    (number,) = world.add(NewWork("k"))
    await world.until(lambda: world.state(number) is WorkState.WAITING)
    assert find(world.database, number).cause == "soon"


@pytest.mark.parametrize("how", ["cancel", "hold"])
async def test_an_operator_stops_what_runs(world, how):
    started, stopped = asyncio.Event(), asyncio.Event()

    async def handler(job):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    world.start(Kind(name="k", run=handler))
    (number,) = world.add(NewWork("k"))
    await started.wait()
    steering = Steering(world.database, actor="test")
    assert getattr(steering, how)([number]) == 1
    await asyncio.wait_for(stopped.wait(), 10)
    await world.until(lambda: world.runner.running == 0)
    assert world.state(number) is (WorkState.CANCELLED if how == "cancel" else WorkState.HELD)


async def test_long_jobs_keep_their_lease_and_are_not_run_twice(world):
    runs = []

    async def handler(job):
        runs.append(job.token)
        await asyncio.sleep(2.5)
        return done()

    world.start(Kind(name="k", run=handler, lease=1.0))
    (number,) = world.add(NewWork("k"))
    await world.until_state(number, WorkState.DONE)
    assert runs == [1]


async def test_a_time_limit_ends_a_job(world):
    async def handler(job):
        await asyncio.Event().wait()

    world.start(Kind(name="k", run=handler, time_limit=0.05, max_attempts=1))
    (number,) = world.add(NewWork("k"))
    await world.until_state(number, WorkState.DEAD)
    assert find(world.database, number).cause == "it took longer than 0.05 s"


async def test_stopping_gives_back_what_runs_and_records_what_ended(world):
    started = asyncio.Event()

    async def handler(job):
        if job.payload:
            return done()
        started.set()
        return await asyncio.Event().wait()

    world.start(Kind(name="k", run=handler))
    quick, endless = world.add(NewWork("k", {"x": 1}), NewWork("k"))
    await started.wait()
    await world.stop()
    assert world.state(quick) is WorkState.DONE
    entry = find(world.database, endless)
    assert (entry.state, entry.attempts, entry.worker) == (WorkState.READY, 0, "")


async def test_stopping_lets_end_what_ends_soon(world):
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(job):
        started.set()
        await go.wait()
        return done()

    world.start(Kind(name="k", run=handler))
    (number,) = world.add(NewWork("k"))
    await started.wait()
    stopping = asyncio.create_task(world.stop(grace=20))
    await asyncio.sleep(0)
    go.set()
    await stopping
    assert world.state(number) is WorkState.DONE


async def test_ends_are_recorded_when_the_database_is_back(world, monkeypatch, caplog):
    failures = iter([True, True])
    finish_all = world.table.finish_all

    def sometimes(ends):
        if next(failures, False):
            raise StorageFailed("the database is away")
        return finish_all(ends)

    async def handler(job):
        return done()

    monkeypatch.setattr(world.table, "finish_all", sometimes)
    monkeypatch.setattr("hilum.gateway.work.runner.RECORD_AGAIN", 0.01)
    world.start(Kind(name="k", run=handler))
    (number,) = world.add(NewWork("k"))
    await world.until_state(number, WorkState.DONE)
    assert next(failures, None) is None
    assert "could not be recorded yet" in caplog.text


async def test_without_a_recorder_nothing_goes_on_as_if_it_were_there(world, monkeypatch, caplog):
    async def run(job):
        return done()

    def broken(ends):
        raise ValueError("no such column")

    monkeypatch.setattr(world.table, "finish_all", broken)
    world.start(Kind(name="work", run=run))
    world.add(NewWork("work"))
    with pytest.raises(ValueError, match="no such column"):
        await asyncio.wait_for(world.task, 20)
    await world.runner.stop()
    assert "claims are not given back" in caplog.text
    world.runner = None


async def test_what_cannot_be_written_with_an_end_is_a_failure(world, caplog):
    def also(connection):
        raise ZeroDivisionError("wrong")

    async def handler(job):
        return done(also=also)

    world.start(Kind(name="k", run=handler, backoff=NOW, max_attempts=2))
    with caplog.at_level(logging.CRITICAL, "hilum.work"):
        (number,) = world.add(NewWork("k"))
        await world.until_state(number, WorkState.DEAD)
    assert find(world.database, number).cause == "ZeroDivisionError: wrong"


async def test_chores_come_before_claims_and_their_failures_stop_nothing(world, caplog):
    made = []

    def chore():
        if not made:
            with world.database.write() as connection:
                made.extend(enqueue(connection, [NewWork("k")]))
            return
        raise NotFound("nothing to do")

    async def handler(job):
        return done()

    world.start(Kind(name="k", run=handler), chores=[chore])
    await world.until(lambda: bool(made) and find(world.database, made[0]) is not None)
    await world.until_state(made[0], WorkState.DONE)


async def test_rows_that_are_done_are_forgotten_after_a_while(world, monkeypatch):
    async def handler(job):
        return done()

    monkeypatch.setattr("hilum.gateway.work.runner.FORGET", 0.01)
    world.start(Kind(name="k", run=handler), keep=0.0)
    world.add(NewWork("k"))
    await world.until(lambda: listed(world.database) == [])


async def test_a_process_runs_a_job_and_its_result_is_concluded(world, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
    results = []

    def conclude(job, result):
        results.append(result["payload"])
        return done()

    program = Program("tests.unit.gateway.work.programs:echo", conclude)
    world.start(Kind(name="k", run=program))
    (number,) = world.add(NewWork("k", {"x": 1}))
    await world.until_state(number, WorkState.DONE)
    assert results == [{"x": 1}]
