"""After a power cut, every acknowledged object is there and intact, whatever the strategy.

A child process stores objects, each in a new study, and prints the path of each one that was
committed. The parent cuts the power while it does so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import xxhash
from tests.e2e.powercut import FILE_SYSTEMS, PowerDisk

from hilum.gateway.store.blobs import Blob, BlobStore
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.flush import Flushable, Strategy
from hilum.gateway.store.layout import record_path, spooled
from hilum.gateway.store.scan import scan_segment

pytestmark = pytest.mark.crash

ACKNOWLEDGED = 150
BATCHES = (1, 4, 16, 3)  # objects; more than one thread and more than one batch per folder
OWNERS = (None, "alice", None, "bob")
SIZES = (10_240, 10_240, 300_000)


class NoFlush:
    """Wrong on purpose: writes, and says durable."""

    name = "none"

    def flush(self, batch: Sequence[Flushable]) -> list[OSError | None]:
        for file in batch:
            file.put()
            file.close()
        return [None] * len(batch)

    def stop(self) -> None:
        """Nothing to free."""


def content(number: int) -> bytes:
    """A data set that can be made again, so that what is found can be compared."""
    size = SIZES[number % len(SIZES)]
    block = xxhash.xxh3_128_digest(str(number).encode())
    return (block * (size // len(block) + 1))[:size]


def make(store: BlobStore, number: int) -> Blob:
    """One sealed object in a study of its own."""
    meta = ObjectMeta(
        "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}", "1.2.840.10008.1.2.1", "RAIVEN", "CT"
    )
    meta.owner = OWNERS[number % len(OWNERS)]
    blob = store.begin(meta)
    blob.place(f"1.2.{number}", f"1.2.{number}.1")
    data = content(number)
    if len(data) > 65_536:
        blob.write([memoryview(data)[:100_000]])
        blob.write([memoryview(data)[100_000:]])
    else:
        blob.keep(data)
    blob.seal()
    return blob


def store_until_the_power_is_cut(root: Path, name: str) -> None:
    """The child: prints number and path of every object that was committed."""
    strategy: str | Strategy = NoFlush() if name == "none" else name
    # "spool" is no strategy: small objects go there, and large ones are flushed one by one.
    spool = 1000 if name == "spool" else 0
    store = BlobStore.open(
        root, "fsync" if spool else strategy, bucket_objects=50, spool_objects=spool
    )
    print(f"strategy {name if spool else store.strategy}", flush=True)
    number = 0
    while True:
        for size in BATCHES:
            batch = [make(store, number + offset) for offset in range(size)]
            for offset, outcome in enumerate(store.commit(batch)):
                if outcome is None:
                    print(number + offset, batch[offset].path, flush=True)
                    batch[offset].settle()
            number += size


def acknowledged_before_the_cut(disk: PowerDisk, root: Path, strategy: str) -> dict[int, str]:
    """Run the child, cut the power in the middle, and return what it said was durable."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.test_powercut_blobs", str(root), strategy],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    lines = []
    try:
        while len(lines) < ACKNOWLEDGED and (line := child.stdout.readline()):
            lines.append(line)
        disk.cut()
    finally:
        child.kill()
    # Not with communicate(), which passes over what the reader has taken from the pipe already.
    with child:
        lines += child.stdout.readlines()
        errors = child.stderr.read()
    assert len(lines) >= ACKNOWLEDGED, errors
    assert lines[0] == f"strategy {strategy}\n"
    # The last line may have been cut by the kill.
    pairs = [line.split() for line in lines[1:] if line.endswith("\n")]
    return {int(number): path for number, path in pairs}


def lost(root: Path, acknowledged: dict[int, str]) -> list[int]:
    """Which of the acknowledged objects are not there, or are not what was sent."""
    store = BlobStore.open(root)
    missing = []
    for number, path in acknowledged.items():
        if store.verify(path) is not None:
            missing.append(number)
            continue
        file, meta = store.open_read(path)
        with file:
            whole = file.read() == content(number)
        if not whole or meta.owner != OWNERS[number % len(OWNERS)]:
            missing.append(number)
    store.close()
    return missing


def on_disk(path: str) -> str:
    """The path under which a scan finds an object."""
    place = spooled(path)
    return path if place is None else record_path(place.segment, place.offset)


def cut_once(tmp_path: Path, kind: str, strategy: str) -> list[int]:
    with PowerDisk.make(tmp_path, kind) as disk:
        root = disk.mount_point / "data"
        BlobStore.create(root)
        acknowledged = acknowledged_before_the_cut(disk, root, strategy)
        disk.remount()
        missing = lost(root, acknowledged)
        if strategy != "none":
            # What was not acknowledged is whole, or recognised as not whole: never an error.
            store = BlobStore.open(root)
            found = {entry.path for entry in store.scan_all() if entry.problem is None}
            for segment in store.spool.on_disk():
                found |= {
                    entry.path
                    for entry in scan_segment(str(root), segment)
                    if entry.problem is None
                }
            assert found >= {on_disk(path) for path in acknowledged.values()}
            store.close()
        return missing


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("strategy", ["fsync", "syncfs", "auto", "spool"])
def test_what_was_acknowledged_survives(tmp_path: Path, kind: str, strategy: str) -> None:
    assert cut_once(tmp_path, kind, strategy) == []


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_strategy_that_does_not_flush_is_found_out(tmp_path: Path, kind: str) -> None:
    assert cut_once(tmp_path, kind, "none") != []


if __name__ == "__main__":
    store_until_the_power_is_cut(Path(sys.argv[1]), sys.argv[2])
