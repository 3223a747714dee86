"""Storage that fails: every image is answered A700H or its association ends, never 0000H.

What was refused never becomes visible, not after a restart either; what is sent afterwards is kept.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import pytest
from tests.conftest import require
from tests.e2e.gateway import Gateway, hilum, prepare, traced
from tests.e2e.senders import (
    LARGE,
    OUT_OF_RESOURCES,
    SMALL,
    TITLES,
    Ledger,
    check,
    image,
    send,
)

pytestmark = [pytest.mark.crash, pytest.mark.slow]

CALLS = {
    "create_file": "EMFILE",
    "mkdir": "ENOSPC",
    "write_all": "ENOSPC",
    "write_at": "EIO",
    "data_sync": "EIO",
    "fsync_directory": "EIO",
    "syncfs": "EIO",
    "commit-before": "EIO",
    "commit-after": "EIO",
}
ABSENT = {"fsync": {"syncfs"}, "syncfs": {"data_sync", "fsync_directory"}}
"""Calls that a strategy does not make for images."""

N = range(1, 5)
# A call may not come N times for one group of images; then the next group is sent.
GROUPS = 12


class Faults:
    """Makes the n-th call of a kind fail in a gateway that runs with ``sitecustomize``."""

    def __init__(self, folder: Path) -> None:
        self._plan = folder / "plan"
        self._fired = folder / "plan.fired"
        self._plan.touch()
        self._fired.touch()
        self._ids = count(1)
        self._id = ""
        self.environment = {"HILUM_TEST_PLAN": str(self._plan)}

    def arm(self, call: str, n: int, error: str) -> None:
        """From now on, the n-th of these calls fails, once."""
        self._id = f"plan-{next(self._ids)}"
        changed = self._plan.with_suffix(".new")
        changed.write_text(f"{self._id} {call} {n} {error}\n")
        changed.replace(self._plan)

    @property
    def fired(self) -> bool:
        """Whether it did."""
        return self._id in self._fired.read_text().split()

    def disarm(self) -> None:
        """No call fails any more."""
        self._plan.write_text("")


async def send_group(port: int, ledger: Ledger) -> list[int | None]:
    """Four senders at once: small and large, everyone's and a user's."""
    sizes = (SMALL, LARGE, SMALL, LARGE)
    titles = ("RAIVEN", "RVU-alice", "RVU-bob", "RAIVEN")
    answers = await asyncio.gather(
        *(
            send(port, title, [image(size)], ledger)
            for size, title in zip(sizes, titles, strict=True)
        )
    )
    return [answer[0] for answer in answers]


@pytest.mark.parametrize(("strategy", "spool"), [("fsync", 0), ("syncfs", 0), ("fsync", 1000)])
async def test_an_error_at_any_call_is_answered(tmp_path: Path, strategy: str, spool: int) -> None:
    data, ledger, faults = tmp_path / "data", Ledger(), Faults(tmp_path)
    prepare(data)
    settings = {"HILUM_STORE_STRATEGY": strategy, "HILUM_STORE_SPOOL": str(spool)}
    refused = 0
    with Gateway(data, settings=settings, faults=faults.environment) as gateway:
        for call, error in CALLS.items():
            if call in ABSENT[strategy]:
                continue
            for n in N:
                faults.arm(call, n, error)
                answers: list[int | None] = []
                for _ in range(GROUPS):
                    answers += await send_group(gateway.port, ledger)
                    if faults.fired:
                        break
                assert faults.fired, f"{call} was not called {n} times"
                assert set(answers) <= {0, OUT_OF_RESOURCES}
                if call != "commit-after":  # its transaction was carried out: a success
                    refused += answers.count(OUT_OF_RESOURCES)
                    # Where there is a spool it may have been the mover's call, which tries again.
                    told = spool or OUT_OF_RESOURCES in answers
                    assert told, f"{call} failed and nobody was told"
                faults.disarm()
                assert await send(gateway.port, "RAIVEN", [image(SMALL)], ledger) == [0]
                check_refused(data, ledger)
        check(data, ledger)
        assert gateway.process.poll() is None
        gateway.kill()
    with Gateway(data) as gateway:
        check(data, ledger)
        check_refused(data, ledger)
    assert refused


def check_refused(data: Path, ledger: Ledger) -> None:
    """What was answered A700H is not listed."""
    refused = {uid for uid, sent in ledger.sent.items() if sent.status == OUT_OF_RESOURCES}
    assert not refused & {row.sop_uid for row in check(data, ledger, quiet=False)}


# ── errors of the system under SQLite ───────────────────────────────────────────────────────


def injected(
    gateway: Gateway, path: Path, call: str, when: str, error: str
) -> AbstractContextManager[None]:
    """Calls of the running gateway on one file fail."""
    inject = f"inject={call}:error={error}:when={when}"
    log = gateway.data.parent / "strace.log"
    return traced(gateway, "-P", path, "-e", f"trace={call}", "-e", inject, "-o", log)


@pytest.mark.parametrize(
    ("call", "error"), [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO")]
)
async def test_an_error_below_sqlite_is_answered(tmp_path: Path, call: str, error: str) -> None:
    require("strace")
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data) as gateway:
        await send_group(gateway.port, ledger)
        for n in (1, 2, 3):
            with injected(gateway, data / "hilum.db-wal", call, str(n), error):
                answers: list[int | None] = []
                for _ in range(GROUPS):
                    answers += await send_group(gateway.port, ledger)
                    if OUT_OF_RESOURCES in answers:
                        break
            assert OUT_OF_RESOURCES in answers
            assert set(answers) <= {0, OUT_OF_RESOURCES}
            assert await send(gateway.port, "RAIVEN", [image(SMALL)], ledger) == [0]
            check_refused(data, ledger)
        gateway.kill()
    with Gateway(data):
        check(data, ledger)
        check_refused(data, ledger)


# ── full ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of a given size; root only."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs Linux and root")
    point = folder / "disk"
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", point]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


NO_RESERVE = {"HILUM_STORE_RESERVE": "0", "HILUM_STORE_RESERVE_INODES": "0"}


async def fill(gateway: Gateway, ledger: Ledger, size: int) -> int:
    """Send until something is refused; returns how many were kept."""
    for kept in range(4000):
        if kept % 10 == 0:
            title, first = list(TITLES)[kept // 10 % len(TITLES)], image(size)
        one = first if kept % 10 == 0 else image(size, first.study_instance_uid)
        if await send(gateway.port, title, [one], ledger) != [0]:
            return kept
    raise AssertionError("the disk never became full")


async def make_room(gateway: Gateway, ledger: Ledger, count: int) -> None:
    """Remove the first studies, ten images each, with the command; then more is taken."""
    for study in list(dict.fromkeys(sent.study for sent in ledger.acknowledged.values()))[:count]:
        gone = {uid for uid, sent in ledger.acknowledged.items() if sent.study == study}
        ledger.removed |= gone
        done = hilum("rm", "--yes", "--study", study, "--data", gateway.data)
        assert done["instances"] == len(gone)
    async with asyncio.timeout(20):  # removed files are deleted within a second or two
        while await send(gateway.port, "RAIVEN", [image(SMALL)], ledger) != [0]:
            await asyncio.sleep(0.1)


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    ledger = Ledger()
    with small_disk(tmp_path, "size=16m") as disk:
        data = disk / "data"
        prepare(data)
        ballast = disk / "of-another-program"
        ballast.write_bytes(bytes(2 << 20))
        with Gateway(data, settings=NO_RESERVE) as gateway:
            kept = await fill(gateway, ledger, LARGE)
            assert kept > 10
            # Small ones and the index use up what large ones leave.
            while await send(gateway.port, "RAIVEN", [image(SMALL)], ledger) == [0]:
                continue
            for _ in range(3):
                assert set(await send_group(gateway.port, ledger)) <= {0, OUT_OF_RESOURCES}
            check_refused(data, ledger)
            ballast.unlink()
            await make_room(gateway, ledger, 1)
            assert await send_group(gateway.port, ledger) == [0, 0, 0, 0]
            gateway.kill()
        with Gateway(data):
            check(data, ledger)


async def test_the_reserve_is_never_touched(tmp_path: Path) -> None:
    ledger, reserve = Ledger(), 24 << 20
    with small_disk(tmp_path, "size=64m") as disk:
        data = disk / "data"
        prepare(data)
        with Gateway(data, settings={"HILUM_STORE_RESERVE": str(reserve)}) as gateway:
            assert await fill(gateway, ledger, LARGE) > 10
            assert await send(gateway.port, "RAIVEN", [image(SMALL)], ledger) == [OUT_OF_RESOURCES]
            free = os.statvfs(disk)
            # What arrives between two looks may go below it, by some megabytes.
            assert free.f_bavail * free.f_frsize > reserve / 2
            await make_room(gateway, ledger, 3)
            check(data, ledger, quiet=False)


@pytest.mark.parametrize("reserve", [0, 1000])
async def test_out_of_inodes(tmp_path: Path, reserve: int) -> None:
    ledger = Ledger()
    with small_disk(tmp_path, f"size=64m,nr_inodes={reserve + 300}") as disk:
        data = disk / "data"
        prepare(data)
        settings = NO_RESERVE | {"HILUM_STORE_RESERVE_INODES": str(reserve)}
        settings |= {"HILUM_STORE_SPOOL": "0"}  # which needs no inodes
        with Gateway(data, settings=settings) as gateway:
            assert await fill(gateway, ledger, SMALL) > 10
            assert set(await send_group(gateway.port, ledger)) == {OUT_OF_RESOURCES}
            # What arrives between two looks may go below it; an image in a new study takes four.
            assert os.statvfs(disk).f_favail >= reserve / 2
            await make_room(gateway, ledger, 4)
            gateway.kill()
        with Gateway(data):
            check(data, ledger)


# ── locked ──────────────────────────────────────────────────────────────────────────────────

_LOCK = """
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
raw.execute("ROLLBACK")
"""


@contextmanager
def locked(data: Path) -> Iterator[None]:
    """Another process holds the database's write lock."""
    child = subprocess.Popen(
        [sys.executable, "-c", _LOCK, data / "hilum.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    try:
        yield
    finally:
        child.communicate("")


async def test_a_database_that_is_locked_for_seconds(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data) as gateway:
        await send_group(gateway.port, ledger)
        with locked(data):
            waiting = asyncio.create_task(send_group(gateway.port, ledger))
            await asyncio.wait([waiting], timeout=4.0)
            assert not waiting.done()  # nobody is told that it is kept
        assert await waiting == [0, 0, 0, 0]
        check(data, ledger)


async def test_a_database_that_stays_locked(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data, faults={"HILUM_TEST_PATIENCE": "1.5"}) as gateway:
        await send_group(gateway.port, ledger)
        with locked(data):
            assert set(await send_group(gateway.port, ledger)) == {OUT_OF_RESOURCES}
        assert await send_group(gateway.port, ledger) == [0, 0, 0, 0]
        check(data, ledger)
        check_refused(data, ledger)
        gateway.kill()
    with Gateway(data):
        check(data, ledger)
        check_refused(data, ledger)


async def test_a_commit_whose_outcome_stays_unknown_ends_associations(tmp_path: Path) -> None:
    """The flush of SQLite's log fails for good: nobody hangs, and later senders are refused."""
    require("strace")
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data, settings={"HILUM_STORE_ANSWER_WITHIN": "2"}) as gateway:
        await send_group(gateway.port, ledger)
        with injected(gateway, data / "hilum.db-wal", "fdatasync", "1+", "EIO"):
            answers = await send_group(gateway.port, ledger)
            assert None in answers
            assert set(answers) <= {None, OUT_OF_RESOURCES}
            assert set(await send_group(gateway.port, ledger)) == {OUT_OF_RESOURCES}
            assert ledger.ends
        # The disk works again: the gateway goes on by itself.
        async with asyncio.timeout(20):
            while await send(gateway.port, "RAIVEN", [image(SMALL)], ledger) != [0]:
                await asyncio.sleep(0.1)
        check(data, ledger)
        check_refused(data, ledger)
        gateway.kill()
    with Gateway(data):
        check(data, ledger)
        check_refused(data, ledger)
