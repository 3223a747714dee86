from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from hilum.gateway.work.pool import JobFailed, Pool

PROGRAMS = "tests.unit.gateway.work.programs"
GIB = 1 << 30


@pytest.fixture
async def pool(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
    pool = Pool(2)
    yield pool
    await pool.close()
    assert pool.processes == []


async def run(pool, name, payload=None, **more):
    return await pool.run(f"{PROGRAMS}:{name}", payload or {}, **{"memory_limit": 2 * GIB, **more})


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_process_runs_one_job_after_the_other(pool):
    first = await run(pool, "echo", {"text": "Zoë"})
    second = await run(pool, "echo")
    assert first["payload"] == {"text": "Zoë"}
    assert first["pid"] == second["pid"] != os.getpid()
    assert len(pool.processes) == 1


async def test_no_more_run_at_once_than_there_is_room_for(pool):
    answers = await asyncio.gather(*(run(pool, "echo") for _ in range(8)))
    assert 1 <= len({answer["pid"] for answer in answers}) <= 2


async def test_what_a_job_raises_is_told_and_the_process_goes_on(pool):
    for how, text in (("badly", "ValueError: it cannot be done"), ("well", "not here")):
        with pytest.raises(JobFailed) as raised:
            await run(pool, "fail", {"how": how})
        assert str(raised.value) == text
    assert len(pool.processes) == 1
    with pytest.raises(JobFailed, match="AttributeError"):
        await run(pool, "absent")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
async def test_a_process_that_dies_takes_its_own_job_and_no_other(pool):
    dying = run(pool, "die", {"signal": signal.SIGKILL})
    results = await asyncio.gather(dying, run(pool, "echo"), return_exceptions=True)
    assert str(results[0]) == "its process ended (signal 9)"
    assert "pid" in results[1]
    with pytest.raises(JobFailed, match="signal 11"):
        await run(pool, "crash")
    assert (await run(pool, "echo"))["payload"] == {}


async def test_a_process_that_was_killed_while_idle_is_replaced(pool):
    pid = (await run(pool, "echo"))["pid"]
    os.kill(pid, 9)
    await until(lambda: not alive(pid))
    try:
        assert (await run(pool, "echo"))["pid"] != pid
    except JobFailed:  # nobody had told us yet: the attempt is lost, the next one is not
        assert (await run(pool, "echo"))["pid"] != pid


async def test_what_takes_too_long_is_killed(pool, tmp_path):
    with pytest.raises(JobFailed, match="longer than 2 s"):
        await run(pool, "hang", {"started": str(tmp_path / "pids")}, time_limit=2.0)
    pid = int((tmp_path / "pids").read_text())
    await until(lambda: not alive(pid))


async def test_what_is_cancelled_is_killed(pool, tmp_path):
    started = tmp_path / "pids"
    job = asyncio.create_task(run(pool, "hang", {"started": str(started)}))
    await until(lambda: started.exists() and started.read_text().endswith("\n"))
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    pid = int(started.read_text())
    await until(lambda: not alive(pid))
    assert (await run(pool, "echo"))["pid"] != pid


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
async def test_memory_is_limited(pool):
    with pytest.raises(JobFailed, match="more memory than its limit"):
        await run(pool, "eat", {"bytes": GIB}, memory_limit=GIB)
    assert await run(pool, "eat", {"bytes": GIB // 4}, memory_limit=GIB) == GIB // 4


async def test_idle_processes_end(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[4]))
    pool = Pool(1, idle=0.05)
    pid = (await run(pool, "echo"))["pid"]
    await until(lambda: not alive(pid))
    assert pool.processes == []
    assert (await run(pool, "echo"))["pid"] != pid
    await pool.close()
