"""After a power cut under load, everything the gateway acknowledged is there and its owner's.

The data directory is on an image; the senders are on the other side of a socket and keep what they
were told. The same is asked once more of an index made anew from the files alone.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from tests.e2e.gateway import Gateway, hilum, prepare
from tests.e2e.powercut import FILE_SYSTEMS, PowerDisk
from tests.e2e.senders import TITLES, Crowd, Ledger, check

pytestmark = [pytest.mark.crash, pytest.mark.slow]


async def cut_under_load(
    disk: PowerDisk, data: Path, ledger: Ledger, strategy: str, faults: dict[str, str] | None
) -> None:
    settings = {"HILUM_STORE_STRATEGY": strategy}
    with Gateway(data, settings=settings, faults=faults) as gateway:
        # Every instance in a new study: none has a folder that an older flush has made durable.
        crowd = Crowd(gateway.port, ledger, share_series=0.0)
        await crowd.answered(random.randrange(50, 250))
        await asyncio.sleep(random.uniform(0.0, 0.3))
        disk.cut()
        # What it answers now, it answers without a disk.
        await asyncio.sleep(0.1)
        gateway.kill()
    await crowd.over()


def forget_the_database(data: Path) -> None:
    found = list(data.glob("hilum.db*"))
    assert found
    for path in found:
        path.unlink()


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("strategy", ["fsync", "syncfs", "auto"])
async def test_what_was_acknowledged_survives(tmp_path: Path, kind: str, strategy: str) -> None:
    ledger = Ledger()
    with PowerDisk.make(tmp_path, kind) as disk:
        data = disk.mount_point / "data"
        prepare(data)
        await cut_under_load(disk, data, ledger, strategy, None)
        disk.remount()
        with Gateway(data) as gateway:
            check(data, ledger)
            assert gateway.stop() == 0
        assert {sent.title for sent in ledger.acknowledged.values()} == TITLES.keys()
        forget_the_database(data)
        report = hilum("reindex", "--yes", "--data", data)
        assert report["indexed"] == len(check(data, ledger))
        # The users were made anew from the files: their titles are served again.
        with Gateway(data) as gateway:
            again = Crowd(gateway.port, ledger, limit=2)
            await again.over()
            check(data, ledger)
    print(f"{ledger.statuses()}")


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
async def test_a_gateway_that_does_not_flush_is_found_out(tmp_path: Path, kind: str) -> None:
    ledger = Ledger()
    with PowerDisk.make(tmp_path, kind) as disk:
        data = disk.mount_point / "data"
        prepare(data)
        await cut_under_load(disk, data, ledger, "fsync", {"HILUM_TEST_NO_FLUSH": "1"})
        disk.remount()
        with Gateway(data), pytest.raises(AssertionError, match=r"is not what was sent|are gone"):
            check(data, ledger)
