"""What the gateway does when it starts in the wrong place, and when it is asked to stop."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.e2e.gateway import Gateway, GatewayFailed, hilum, prepare
from tests.e2e.senders import (
    SMALL,
    Crowd,
    Ledger,
    check,
    image,
    open_association,
    send,
    store,
)

from hilum.errors import AssociationError

pytestmark = pytest.mark.crash


def refused(data: Path, *words: str) -> str:
    """Start a gateway that must not come up; returns the line that says why."""
    with Gateway(data, words=words, wait=False) as gateway:
        code = gateway.process.wait(30)
        line = gateway.log.splitlines()[-1]
        assert code == 1, gateway.log
        assert "Traceback" not in gateway.log
        assert line.startswith("hilum: ")
        return line


def test_an_empty_directory_may_be_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    line = refused(data)
    assert str(data) in line and "mounted" in line and "--init" in line
    assert list(data.iterdir()) == []
    with Gateway(data, words=["--init"]) as gateway:
        assert gateway.stop() == 0
    with Gateway(data) as gateway:  # it is a store now
        assert gateway.stop() == 0


def test_a_new_directory_is_made(tmp_path: Path) -> None:
    with Gateway(tmp_path / "new" / "data") as gateway:
        assert gateway.stop() == 0


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    assert "neither empty nor a store" in refused(tmp_path, "--init")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


async def test_a_database_without_marker(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    await _stored(data, ledger)
    marker = (data / "hilum-store.json").read_bytes()
    (data / "hilum-store.json").unlink()
    line = refused(data, "--init")
    assert "hilum-store.json" in line and "mounted" in line
    (data / "hilum-store.json").write_bytes(marker)
    check(data, ledger)


async def test_objects_without_a_database(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    await _stored(data, ledger)
    for path in data.glob("hilum.db*"):
        path.unlink()
    assert "hilum reindex" in refused(data)
    hilum("reindex", "--yes", "--data", data)
    with Gateway(data) as gateway:
        check(data, ledger)
        assert gateway.stop() == 0


async def test_the_marker_of_another_store(tmp_path: Path) -> None:
    data, other, ledger = tmp_path / "data", tmp_path / "other", Ledger()
    await _stored(data, ledger)
    prepare(other)
    mine, theirs = (
        json.loads((place / "hilum-store.json").read_text())["id"] for place in (data, other)
    )
    marker = (data / "hilum-store.json").read_bytes()
    shutil.copy(other / "hilum-store.json", data)
    line = refused(data)
    assert mine in line and theirs in line
    (data / "hilum-store.json").write_bytes(marker)
    with Gateway(data):
        check(data, ledger)


@pytest.mark.parametrize(
    "marker", ["", "{}", '{"id": "no", "format": 1}', '{"id": "%s", "format": 99}']
)
def test_a_marker_that_cannot_be_read(tmp_path: Path, marker: str) -> None:
    data = tmp_path / "data"
    prepare(data)
    store = json.loads((data / "hilum-store.json").read_text())["id"]
    (data / "hilum-store.json").write_text(marker % store if "%" in marker else marker)
    line = refused(data)
    assert ("newer version" if "99" in marker else "cannot be read") in line


def test_one_gateway_per_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(data)
    with Gateway(data) as first:
        assert f"process {first.process.pid}" in refused(data)
        assert first.process.poll() is None
        first.kill()
    with Gateway(data) as gateway:  # the kernel has dropped the lock
        assert gateway.stop() == 0


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    prepare(tmp_path / "a")
    prepare(tmp_path / "b")
    with Gateway(tmp_path / "a") as first:
        line = refused(tmp_path / "b", "--dicom", f"127.0.0.1:{first.port}")
        assert str(first.port) in line


def test_killed_while_the_store_is_made(tmp_path: Path) -> None:
    """Nothing was there before and nothing is lost: the next start makes what is missing."""
    data = tmp_path / "data"
    (data / "objects").mkdir(parents=True)
    (data / "hilum-store.json.new").write_text('{"id":')
    with Gateway(data, words=["--init"]) as gateway:
        assert gateway.stop() == 0


def test_killed_while_the_database_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(data)
    for path in data.glob("hilum.db*"):
        path.unlink()
    sqlite3.connect(data / "hilum.db").close()
    with Gateway(data) as gateway:
        assert gateway.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_under_load_finishes_what_is_in_flight(
    tmp_path: Path, number: signal.Signals
) -> None:
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data) as gateway:
        crowd = Crowd(gateway.port, ledger, limit=10_000)
        await crowd.answered(100)
        before = len(ledger.sent)
        gateway.process.send_signal(number)
        await crowd.over()  # every sender has its answer or an end: nobody hangs
        assert await asyncio.to_thread(gateway.process.wait, 30) == 0
        assert "Traceback" not in gateway.log
    assert len(ledger.ends) == 8
    assert len(ledger.sent) < before + 1000, "senders that go on were served until the grace ended"
    check(data, ledger)
    with Gateway(data) as gateway:
        assert gateway.reconciled == {}  # there was nothing left to put in order
        check(data, ledger)


async def test_a_stop_waits_for_a_message_in_progress(tmp_path: Path) -> None:
    """Half of an image is there when the signal comes: the rest is taken, kept and acknowledged."""
    data, ledger, one = tmp_path / "data", Ledger(), image(3_000_000)
    prepare(data)
    with Gateway(data) as gateway:

        async def slowly() -> AsyncIterator[bytes]:
            yield one.data[:2_000_000]
            yield one.data[2_000_000:2_500_000]  # only now the first part is sent
            await begun(data)
            gateway.process.send_signal(signal.SIGTERM)
            await no_longer_accepting(gateway.port)
            yield one.data[2_500_000:]

        async with await open_association(gateway.port, "RVU-alice") as association:
            assert await store(association, "RVU-alice", one, ledger, slowly()) == 0
            with pytest.raises(AssociationError):
                await store(association, "RVU-alice", image(SMALL), ledger)
        assert await asyncio.to_thread(gateway.process.wait, 30) == 0
    assert len(check(data, ledger)) == 1


async def begun(data: Path) -> None:
    """The image that is being sent has a file."""
    async with asyncio.timeout(10):
        while not any((data / "objects").rglob("*.dcm")):
            await asyncio.sleep(0.005)


async def no_longer_accepting(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()


async def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A peer that goes on too slowly is aborted when the grace is over; nothing of it is kept."""
    data, ledger, one = tmp_path / "data", Ledger(), image(3_000_000)
    prepare(data)
    with Gateway(data, settings={"HILUM_STOP_WITHIN": "0.5"}) as gateway:

        async def never() -> AsyncIterator[bytes]:
            yield one.data[:2_000_000]
            yield one.data[2_000_000:2_500_000]  # only now the first part is sent
            await begun(data)
            gateway.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(gateway.process.wait, 30)
            yield one.data[2_500_000:]

        with pytest.raises(AssociationError):
            async with await open_association(gateway.port, "RAIVEN") as association:
                await store(association, "RAIVEN", one, ledger, never())
        assert gateway.process.wait(30) == 0
    assert check(data, ledger) == []


@pytest.mark.slow
async def test_a_start_after_a_crash_looks_only_at_what_was_in_flight(tmp_path: Path) -> None:
    """20,000 objects in the archive, and a start that reads the files of one bucket."""
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data, settings={"HILUM_STORE_SPOOL": "0"}) as gateway:
        # 20,000 and some, so that two buckets of 10,000 are closed and a third is open.
        crowd = Crowd(gateway.port, ledger, senders=12, limit=1700, size=200, share_series=1.0)
        await crowd.over(180)
        assert set(ledger.statuses()) == {0}
        gateway.kill()
    with Gateway(data) as gateway:
        report = gateway.reconciled
        assert len(ledger.acknowledged) == 20_400
        assert report["files"] == 400 + report["duplicates"] + report["incomplete"]
        assert report["known"] == 400
        check(data, ledger)
        gateway.kill()
    with Gateway(data) as gateway:  # and what has been put in order is not looked at again
        assert gateway.reconciled == {}


async def _stored(data: Path, ledger: Ledger) -> None:
    """A store with three images, stopped."""
    prepare(data)
    with Gateway(data) as gateway:
        for title in ("RAIVEN", "RVU-alice", "RVU-bob"):
            assert await send(gateway.port, title, [image(SMALL)], ledger) == [0]
        assert gateway.stop() == 0


def test_a_gateway_that_fails_to_start_says_so(tmp_path: Path) -> None:
    """The tests' own waiting: a process that ended is not waited for."""
    (tmp_path / "file").write_text("")
    with pytest.raises(GatewayFailed):
        Gateway(tmp_path, settings={"HILUM_LOG_LEVEL": "LOUD"})
    assert os.listdir(tmp_path) == ["file"]
