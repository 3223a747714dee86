"""A gateway with kinds of work that a test can make fail; run by `test_work_kill`.

``python -m tests.e2e.work_process DATA LOG``: every run of a job appends a line to LOG.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from typing import Any

from hilum.gateway.app import Gateway
from hilum.gateway.config import load
from hilum.gateway.store.claims import Job, NewWork, Outcome, done, retry
from hilum.gateway.work.kinds import Backoff, Kind, Program

LOG = ""
SOON = Backoff(first=0.05, cap=0.2)


def note(text: str, log: str = "") -> None:
    descriptor = os.open(log or LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


async def on_the_loop(job: Job) -> Outcome:
    note(f"run {job.payload['n']}")
    await asyncio.sleep(random.uniform(0, 0.05))
    if random.random() < 0.1:
        return retry("bad luck")
    return done(new=[NewWork("follow", {"n": job.payload["n"]})])


def in_a_process(payload: Any) -> Any:
    note(f"run {payload['n']}", payload["log"])
    time.sleep(random.uniform(0, 0.05))
    return payload["n"]


def kill_the_process(_payload: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def kill_the_gateway(job: Job) -> Outcome:
    note(f"deadly {job.attempt}")
    os.kill(os.getpid(), signal.SIGKILL)
    return done()


async def follow(job: Job) -> Outcome:
    note(f"follow {job.payload['n']}")
    return done()


KINDS = (
    Kind(name="loop", run=on_the_loop, max_attempts=1000, backoff=SOON),
    Kind(
        name="process",
        run=Program(
            "tests.e2e.work_process:in_a_process",
            lambda _job, n: done(new=[NewWork("follow", {"n": n})]),
        ),
        max_attempts=1000,
        backoff=SOON,
    ),
    Kind(name="follow", run=follow, max_attempts=1000),
    Kind(
        name="poison",
        run=Program("tests.e2e.work_process:kill_the_process"),
        max_attempts=3,
        backoff=SOON,
    ),
    Kind(name="deadly", run=kill_the_gateway, max_attempts=3, backoff=SOON),
)


async def main(data: str) -> None:
    gateway = await Gateway.start(
        load().with_options(data=data, dicom="127.0.0.1:0", web="off", store__reserve=0)
    )
    for kind in KINDS:
        gateway.kinds.add(kind)
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    note("started")
    await asked.wait()
    await gateway.stop()


if __name__ == "__main__":
    LOG = sys.argv[2]
    asyncio.run(main(sys.argv[1]))
