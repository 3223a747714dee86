"""The start after a crash: whole files get rows, debris goes, damage stays for a person to see."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.store.archive_world import (
    LARGE,
    World,
    destination,
    encode,
    image,
    keep,
    spill,
)

from hilum.gateway.store.blob import Blob
from hilum.gateway.store.file_meta import HEADER_MAXIMUM, ObjectMeta, encode_header
from hilum.gateway.store.recover import Report
from hilum.gateway.store.results import Viewer
from hilum.gateway.store.scan import Problem, examine
from hilum.gateway.store.states import MissingUidPolicy
from hilum.gateway.store.verify import verify

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.close()


def durable(world: World, data: bytes, sop: str, *, owner: str | None = None, **more: Any) -> str:
    """A file that a crash left without a row; its path."""
    blob = begun(world, sop, owner=owner, **more)
    blob.write([data])
    blob.seal()
    assert world.storage.blobs.commit([blob]) == [None]
    assert blob.path is not None
    return blob.path


def begun(world: World, sop: str, *, owner: str | None = None, **more: Any) -> Blob:
    meta = ObjectMeta(CT, sop, "1.2.840.10008.1.2.1", "RAIVEN", "CT1", arrived_us=1, **more)
    meta.owner = owner
    return world.storage.blobs.begin(meta)


def again(world: World) -> tuple[World, Report]:
    """The start after a crash."""
    world.crash()
    world.__init__(world.data)  # type: ignore[misc]
    return world, world.storage.reconcile()


async def test_a_whole_file_without_a_row_gets_one_with_its_owner(world: World) -> None:
    alice = world.storage.directory.add_account("alice")
    committer = world.committer()
    await keep(committer, (encode(image("1.1")), "1.1"))
    await committer.stop()
    durable(world, encode(image("1.2")), "1.2")
    durable(world, encode(image("1.3")), "1.3", owner="alice")
    durable(world, encode(image("1.4")), "1.4", owner="nobody-knows-her")
    world, report = again(world)
    assert report == Report(files=4, known=1, indexed=3)
    assert world.seen(Viewer()) == ["1.1", "1.2"]
    assert world.seen(Viewer(account_id=alice.id)) == ["1.1", "1.2", "1.3"]
    names = {a.name: a.titles for a in world.storage.directory.snapshot().accounts}
    assert names["nobody-knows-her"] == ("HILUM-2",), "a name too long for RVU- needs a title"
    assert not verify(world.storage.database, world.storage.blobs).findings
    # The next start has nothing to do; once more over the same files changes nothing.
    assert world.storage.reconcile() == Report()
    buckets = ["/".join(path.split("/")[1:4]) for path in world.files()]
    assert world.storage.reconcile(sorted(set(buckets))) == Report(files=4, known=4)


async def test_debris_without_a_row_is_removed(world: World) -> None:
    half = begun(world, "1.1")
    half.write([encode(image("1.1", pixels=LARGE))[:100_000]])
    cut = durable(world, encode(image("1.2")), "1.2")
    with open(world.data / cut, "r+b") as file:
        file.truncate(600)
    flipped = durable(world, encode(image("1.3")), "1.3")
    _flip(world.data / flipped, -1)
    zeros = durable(world, encode(image("1.4")), "1.4")
    (world.data / zeros).write_bytes(bytes(700))
    world, report = again(world)
    assert report == Report(files=4, incomplete=4)
    assert world.files() == set()
    assert world.seen() == []


async def test_damage_of_what_was_acknowledged_stays(world: World) -> None:
    committer = world.committer()
    sops = ("1.1", "1.2", "1.3")
    await keep(committer, *((encode(image(sop)), sop) for sop in sops))
    await committer.stop()
    cut, wrecked, whole = (row.path for row in sorted(world.listed(), key=lambda r: r.sop_uid))
    with open(world.data / cut, "r+b") as file:
        file.truncate(700)
    (world.data / wrecked).write_bytes(bytes(700))
    stranger = world.data / Path(whole).parent / "notes.txt"
    stranger.write_text("put here by hand")
    world, report = again(world)
    assert report == Report(files=4, known=1, damaged=3)
    assert len(world.files()) == 4
    assert world.seen() == list(sops)
    findings = verify(world.storage.database, world.storage.blobs).findings
    assert {finding.path for finding in findings} == {cut, wrecked}


async def test_a_file_whose_row_is_there_is_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much lies in the open buckets, a start reads headers only."""
    committer = world.committer()
    await keep(committer, (encode(image("1.1")), "1.1"))
    await committer.stop()
    durable(world, encode(image("1.2")), "1.2")
    read: list[str] = []

    def spy(root: str, path: str, *, digest: bool = True) -> Any:
        if digest:
            read.append(path)
        return examine(root, path, digest=digest)

    monkeypatch.setattr("hilum.gateway.store.scan.examine", spy)
    world, report = again(world)
    assert report == Report(files=2, known=1, indexed=1)
    assert len(read) == 1
    assert "1.2.dcm" in read[0]


async def test_a_second_copy_of_a_content_is_removed(world: World) -> None:
    committer = world.committer()
    data = encode(image("1.1"))
    await keep(committer, (data, "1.1"))
    await committer.stop()
    durable(world, data, "1.1")
    world, report = again(world)
    assert report == Report(files=2, known=1, duplicates=1)
    assert world.files() == {row.path for row in world.listed()}


async def test_what_a_removed_user_was_sent_stays_that_users(world: World) -> None:
    alice = world.storage.directory.add_account("alice")
    durable(world, encode(image("1.1")), "1.1", owner="alice")
    world.storage.directory.remove_account("alice")
    world, report = again(world)
    assert report == Report(files=1, indexed=1)
    (row,) = world.listed()
    assert row.owner_id == alice.id
    assert world.seen(Viewer()) == []


async def test_what_was_quarantined_comes_back_into_quarantine(world: World) -> None:
    committer = world.committer()
    where = destination(missing_uids=MissingUidPolicy.QUARANTINE)
    await keep(committer, (encode(image("1.1", StudyInstanceUID=None)), "1.1"), where=where)
    await committer.stop()
    durable(world, encode(image("1.2", StudyInstanceUID=None)), "1.2", quarantined=True)
    world, report = again(world)
    assert report == Report(files=2, known=1, indexed=1)
    assert world.seen() == []
    assert world.seen(Viewer(quarantine=True)) == ["1.1", "1.2"]


async def test_what_cannot_be_ours_does_not_keep_the_gateway_from_starting(world: World) -> None:
    """Whole by its header, but another instance inside; and an owner that no user can be."""
    durable(world, encode(image("1.9")), "1.1")
    durable(world, encode(image("1.2")), "1.2", owner="no user/has a name like this")
    durable(world, encode(image("1.3")), "1.3")
    world, report = again(world)
    assert report == Report(files=3, indexed=1, damaged=2)
    assert world.seen() == ["1.3"]
    assert len(world.files()) == 3


async def test_removed_instances_do_not_come_back(world: World) -> None:
    from hilum.gateway.store.removal import Scope, remove

    committer = world.committer()
    await keep(committer, (encode(image("1.1")), "1.1"), (encode(image("1.2")), "1.2"))
    await committer.stop()
    remove(world.storage.database, Scope(sop_uid="1.1"), by="test", reason="test")
    assert len(world.files()) == 2, "the file is there until the janitor comes"
    world, report = again(world)
    assert report == Report(files=1, known=1)
    assert world.seen() == ["1.2"]
    assert world.files() == {row.path for row in world.listed()}


async def test_only_open_buckets_are_looked_at(world: World) -> None:
    durable(world, encode(image("1.1")), "1.1")
    world.storage.blobs.buckets.retire_current()
    (bucket,) = world.storage.buckets.open_names()
    world.storage.buckets.closed(bucket)
    world, report = again(world)
    assert report == Report()


async def test_rebuilding_keeps_what_may_have_been_acknowledged(world: World) -> None:
    """Without rows nobody knows; only what says that it was being received goes."""
    half = begun(world, "1.1")
    half.write([encode(image("1.1", pixels=LARGE))[:100_000]])
    cut = durable(world, encode(image("1.2")), "1.2")
    with open(world.data / cut, "r+b") as file:
        file.truncate(600)
    flipped = durable(world, encode(image("1.3")), "1.3")
    _flip(world.data / flipped, -1)
    durable(world, encode(image("1.4")), "1.4")
    (bucket,) = world.storage.buckets.open_names()
    report = world.storage.reconcile([bucket])
    assert report == Report(files=4, indexed=1, incomplete=1, damaged=2)
    assert world.seen() == ["1.4"]
    assert world.files() >= {cut, flipped}


async def test_a_spilled_object_that_was_cut_off_is_removed(world: World) -> None:
    committer = world.committer()
    data = encode(image("1.1", pixels=LARGE))
    await spill(committer, data, "1.1")
    (path,) = world.files()
    assert examine(str(world.data), path).problem is Problem.INCOMPLETE
    copy = world.data.parent / "copy"
    shutil.copytree(world.data, copy)  # as the disk is at this moment
    await committer.stop()
    other = World(copy)
    try:
        assert other.storage.reconcile() == Report(files=1, incomplete=1)
        assert other.files() == set()
    finally:
        other.close()


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_headers_fit_what_is_read_of_a_file() -> None:
    meta = ObjectMeta("1" * 64, "1" * 64, "1" * 64, "A" * 16, "B" * 16, owner="a" * 64)
    assert len(encode_header(meta)) < HEADER_MAXIMUM
