"""The gateway where only the standard library's portable part is there: no fcntl, resource, uvloop."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import peers
from tests.e2e.gateway import Gateway, hilum
from tests.e2e.gateway import prepare as prepare_with_fcntl
from tests.e2e.senders import LARGE, SMALL, Crowd, Ledger, check, image, send, write_file

pytestmark = pytest.mark.crash


def prepare(data: Path) -> None:
    """As elsewhere; our own lock file would be taken for a lock, since we are still running."""
    prepare_with_fcntl(data)
    (data / "hilum.lock").unlink()


WITHOUT = {"HILUM_TEST_WITHOUT": "fcntl,resource,uvloop"}


async def test_images_are_stored_and_it_stops(tmp_path: Path) -> None:
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data, faults=WITHOUT) as gateway:
        for title, size in (("RAIVEN", SMALL), ("RVU-alice", LARGE)):
            assert await send(gateway.port, title, [image(size)], ledger) == [0]
        crowd = Crowd(gateway.port, ledger, limit=5)
        await crowd.over()
        assert set(ledger.statuses()) == {0}
        assert hilum("verify", "--data", data)["findings"] == []
        assert gateway.stop() == 0
    check(data, ledger)


async def test_storescu_of_dcmtk(tmp_path: Path, dcmtk: None) -> None:
    data, ledger, file = tmp_path / "data", Ledger(), tmp_path / "image.dcm"
    prepare(data)
    sent = write_file(file, image(SMALL), "RAIVEN", ledger)
    with Gateway(data, faults=WITHOUT) as gateway:
        peers.storescu("RAIVEN", gateway.port, [file]).check()
        sent.status = 0
        assert gateway.stop() == 0
    check(data, ledger)


async def test_the_lock_without_fcntl(tmp_path: Path) -> None:
    """The lock file's existence is the lock; that of a process that is gone is taken over."""
    data, ledger = tmp_path / "data", Ledger()
    prepare(data)
    with Gateway(data, faults=WITHOUT) as gateway:
        with Gateway(data, faults=WITHOUT, wait=False) as second:
            assert second.process.wait(30) == 1
            assert f"process {gateway.process.pid}" in second.log
        crowd = Crowd(gateway.port, ledger)
        await crowd.answered(20)
        gateway.kill()
        await crowd.over()
    with Gateway(data, faults=WITHOUT) as gateway:
        check(data, ledger)
        assert gateway.stop() == 0
