"""kill -9 of the gateway and of pool processes in the middle of jobs: nothing lost, nothing doubled.

What counts as done once is what is in the database: follow-up rows. A handler itself may run more
often than once, never less.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.e2e.gateway import hilum, prepare

from hilum.gateway.store.claims import NewWork
from hilum.gateway.store.database import Database, open_database
from hilum.gateway.store.jobs import counts, listed
from hilum.gateway.store.states import WorkState
from hilum.gateway.store.work import enqueue

pytestmark = [pytest.mark.crash, pytest.mark.slow]

JOBS = 300
ROUNDS = 6
ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("HILUM_STORM_SEED", str(random.SystemRandom().randrange(10**6))))


class Executor:
    """A gateway with the kinds of `work_process`, as a process."""

    def __init__(self, data: Path, log: Path) -> None:
        self.log = log
        before = self.lines("started")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.work_process", data, log],
            cwd=ROOT,
            # The pool's processes do not look for modules where they are started.
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        until(lambda: self.lines("started") > before, self)

    def lines(self, prefix: str) -> int:
        return sum(line.startswith(prefix) for line in read(self.log))

    @property
    def children(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.process.pid).children()
            if "hilum.gateway.work.process" in child.cmdline()
        ]

    def end(self, how: str = "kill") -> None:
        getattr(self.process, how)()
        self.process.wait(60)


def read(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def until(condition: Callable[[], bool], executor: Executor) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        assert executor.process.poll() is None
        time.sleep(0.01)


@contextmanager
def executing(data: Path, log: Path) -> Iterator[Executor]:
    executor = Executor(data, log)
    try:
        yield executor
    finally:
        executor.end()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def database(data: Path) -> Iterator[Database]:
    database = open_database(data / "hilum.db", role="worker")
    yield database
    database.close()


def add(database: Database, *rows: NewWork) -> None:
    for start in range(0, len(rows), 100):
        with database.write() as connection:
            enqueue(connection, rows[start : start + 100])


def test_kills_lose_nothing_and_double_nothing(tmp_path, data, database):
    choose, log = random.Random(SEED), tmp_path / "log"
    print(f"HILUM_STORM_SEED={SEED}")
    rows = [
        NewWork(choose.choice(("loop", "process")), {"n": n, "log": str(log)}) for n in range(JOBS)
    ]
    add(database, *rows)
    kills: Counter[str] = Counter()
    for _ in range(ROUNDS):
        with executing(data, log) as executor:
            goal = executor.lines("run") + choose.randrange(5, 40)
            until(lambda it=executor, n=goal: it.lines("run") >= n or finished(database), executor)
            orphans = executor.children
            if orphans and choose.random() < 0.7:
                choose.choice(orphans).kill()
                kills["process"] += 1
                time.sleep(choose.uniform(0, 0.1))
            orphans = executor.children
            executor.end()
            kills["gateway"] += 1
            psutil.wait_procs(orphans, timeout=10)
            assert not any(orphan.is_running() for orphan in orphans), "a process outlived us"
    with executing(data, log) as executor:
        until(lambda: finished(database), executor)
        executor.end("terminate")
    assert counts(database) == {
        "follow": {WorkState.DONE: JOBS},
        "loop": {WorkState.DONE: sum(row.kind == "loop" for row in rows)},
        "process": {WorkState.DONE: sum(row.kind == "process" for row in rows)},
    }
    followed = [entry.payload["n"] for entry in listed(database, kind="follow", limit=10 * JOBS)]
    assert sorted(followed) == list(range(JOBS))
    runs = Counter(line for line in read(log) if line.startswith("run"))
    assert len(runs) == JOBS
    print(f"{dict(kills)}; {runs.total()} runs of {JOBS} jobs")


def finished(database: Database) -> bool:
    return not listed(
        database, states=[WorkState.READY, WorkState.WAITING, WorkState.RUNNING], limit=1
    )


def test_what_kills_its_process_is_dead_after_its_attempts(tmp_path, data, database):
    add(database, NewWork("poison"), NewWork("process", {"n": 1, "log": str(tmp_path / "log")}))
    with executing(data, tmp_path / "log") as executor:
        until(lambda: finished(database), executor)
    (entry,) = listed(database, kind="poison")
    assert (entry.state, entry.attempts) == (WorkState.DEAD, 3)
    assert entry.cause == "its process ended (signal 9)"
    assert listed(database, kind="process")[0].state is WorkState.DONE
    (shown,) = hilum("jobs", "ls", "--data", data)
    assert (shown["id"], shown["state"], shown["cause"]) == (entry.id, "dead", entry.cause)


def test_what_kills_the_gateway_does_so_a_bounded_number_of_times(tmp_path, data, database):
    log = tmp_path / "log"
    add(database, NewWork("deadly"), NewWork("loop", {"n": 1}))
    for attempt in (1, 2, 3):
        executor = Executor(data, log)
        assert executor.process.wait(60) == -9
        assert f"deadly {attempt}" in read(log)
    with executing(data, log) as executor:
        until(lambda: finished(database), executor)
        (entry,) = listed(database, kind="deadly")
        assert (entry.state, entry.cause) == (
            WorkState.DEAD,
            "its executor ended at the last attempt",
        )
        executor.end("terminate")
    assert listed(database, kind="loop")[0].state is WorkState.DONE
