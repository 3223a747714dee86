"""Small objects in the spool: readable there, moved to their own files, found after every crash."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.store.archive_world import (
    CT,
    EXPLICIT,
    World,
    destination,
    encode,
    image,
    keep,
)

from hilum.errors import StorageFailed
from hilum.gateway.app import reindex
from hilum.gateway.store import posix
from hilum.gateway.store.export import export
from hilum.gateway.store.file_meta import BEGINNING, HEADER_MAXIMUM, ObjectMeta
from hilum.gateway.store.layout import parse_path, record_path, segment_path, spooled
from hilum.gateway.store.mover import Mover
from hilum.gateway.store.recover import Report
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.scan import Problem, scan_segment
from hilum.gateway.store.states import DuplicatePolicy
from hilum.gateway.store.verify import verify

SOPS = ("1.1", "1.2", "1.3", "1.4")
TABLES = ("hilum.db", "hilum.db-wal", "hilum.db-shm")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data", spool=100)
    yield made
    made.close()


def again(world: World) -> Report:
    """The start after a crash."""
    world.crash()
    world.__init__(world.data, spool=100)  # type: ignore[misc]
    return world.storage.reconcile()


async def filled(world: World, *sops: str, **rules: Any) -> dict[str, bytes]:
    sent = {sop: encode(image(sop)) for sop in sops or SOPS}
    committer = world.committer()
    statuses = await keep(
        committer, *((data, sop) for sop, data in sent.items()), where=destination(**rules)
    )
    assert set(statuses) == {0}
    await committer.stop()
    return sent


def mover(world: World, **options: Any) -> Mover:
    return Mover(world.storage.blobs, world.storage.database, strategy="fsync", **options)


def move(world: World) -> int:
    moving = mover(world)
    try:
        return moving.run(quiet=0)
    finally:
        moving.close()


def segments(world: World) -> list[str]:
    return world.storage.blobs.spool.on_disk()


def paths(world: World) -> dict[str, str]:
    return {row.sop_uid: row.path for row in world.listed()}


def whole(world: World, sent: dict[str, bytes]) -> bool:
    """Everything that was sent is listed, intact, and nothing is wrong with it."""
    assert not verify(world.storage.database, world.storage.blobs).findings
    return {sop: world.content(path) for sop, path in paths(world).items()} == sent


async def test_a_batch_is_one_segment_and_then_files(world: World) -> None:
    sent = await filled(world)
    assert {path.rpartition("/")[0] for path in world.files()} == {"objects/spool"}
    before = paths(world)
    assert whole(world, sent)
    assert move(world) == len(SOPS)
    after = paths(world)
    assert whole(world, sent)
    assert world.files() == set(after.values())
    for sop in SOPS:
        place = spooled(before[sop])
        assert place is not None
        assert place.own == after[sop]
        assert parse_path(after[sop]).instance == sop
        # A path that was read before the move still leads to the object.
        assert world.content(before[sop]) == sent[sop]
    assert move(world) == 0


async def test_what_finds_no_room_gets_a_file_at_once(world: World) -> None:
    world.storage.blobs.spool._limit = 3
    sent = await filled(world)
    await filled(world, "1.5")
    assert [sop for sop, path in paths(world).items() if spooled(path)] == ["1.5"]
    sent["1.5"] = encode(image("1.5"))
    assert whole(world, sent)


async def test_export_reads_from_the_spool(world: World, tmp_path: Path) -> None:
    sent = await filled(world)
    names = list(export(world.storage.blobs, world.listed(), tmp_path / "copy"))
    assert len(names) == len(SOPS)
    for name in names:
        data = sent[Path(name).stem]
        assert (tmp_path / "copy" / name).read_bytes().endswith(data)


async def test_the_same_again_and_other_content(world: World) -> None:
    sent = await filled(world)
    committer = world.committer()
    other = encode(image("1.1", PatientComments="new"))
    assert await keep(committer, (sent["1.2"], "1.2")) == [0]
    refusing = destination(duplicates=DuplicatePolicy.KEEP_FIRST)
    assert await keep(committer, (other, "1.1"), where=refusing) == [0xC001]
    assert await keep(committer, (other, "1.1")) == [0]
    await committer.stop()
    assert whole(world, sent | {"1.1": other})
    assert move(world) == len(SOPS) + 1
    assert whole(world, sent | {"1.1": other})
    # The older version has a file as well; what was refused or the same has none.
    assert len(world.files()) == len(SOPS) + 1


async def test_a_refused_object_does_not_come_back(world: World) -> None:
    sent = await filled(world)
    refusing = destination(duplicates=DuplicatePolicy.KEEP_FIRST)
    committer = world.committer()
    other = encode(image("1.1", PatientComments="new"))
    assert await keep(committer, (other, "1.1"), where=refusing) == [0xC001]
    await committer.stop()
    report = again(world)
    assert (report.waiting, report.indexed) == (len(SOPS), 0)
    assert whole(world, sent)


async def test_a_crash_between_segment_and_row(world: World) -> None:
    alice = world.storage.directory.add_account("alice")
    sent = await filled(world)
    meta = ObjectMeta(CT, "1.9", EXPLICIT, "RVU-alice", "CT1", arrived_us=1, owner="alice")
    blob = world.storage.blobs.begin(meta)
    blob.keep(encode(image("1.9")))
    blob.seal()
    assert world.storage.blobs.commit([blob]) == [None]
    report = again(world)
    assert report == Report(files=1, indexed=1, waiting=len(SOPS))
    assert {row.owner_id for row in world.listed() if row.sop_uid == "1.9"} == {alice.id}
    sent["1.9"] = encode(image("1.9"))
    assert whole(world, sent)
    assert move(world) == len(sent)
    assert whole(world, sent)


async def test_a_database_made_anew_knows_the_spool(world: World) -> None:
    sent = await filled(world)
    world.crash()
    for name in TABLES:
        (world.data / name).unlink(missing_ok=True)
    report, _ = reindex(world.config)
    assert report.indexed == len(SOPS)
    world.__init__(world.data, spool=100)  # type: ignore[misc]
    assert whole(world, sent)
    assert again(world) == Report(waiting=len(SOPS))
    assert move(world) == len(SOPS)
    assert whole(world, sent)
    assert world.files() == set(paths(world).values())


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_database_made_anew_in_the_middle_of_a_move(
    world: World, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some objects have files already, and their segment is still there."""
    sent = await filled(world)
    monkeypatch.setattr("hilum.gateway.store.mover.PIECE", lost)
    monkeypatch.setattr(Mover, "_wait_until_idle", _times(2))
    assert move(world) == min(2 * lost, len(SOPS))
    world.crash()
    for name in TABLES:
        (world.data / name).unlink(missing_ok=True)
    report, _ = reindex(world.config)
    assert report.indexed == len(SOPS)
    world.__init__(world.data, spool=100)  # type: ignore[misc]
    world.storage.reconcile()
    assert whole(world, sent)
    monkeypatch.undo()
    move(world)
    assert whole(world, sent)
    assert world.files() == set(paths(world).values())


def _times(count: int) -> Any:
    left = [count]

    def idle(_: Mover) -> bool:
        left[0] -= 1
        return left[0] >= 0

    return idle


async def test_a_crash_between_file_and_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = await filled(world)
    monkeypatch.setattr(Mover, "_tell_rows", _fail)
    with pytest.raises(StorageFailed):
        move(world)
    monkeypatch.undo()
    assert len(world.files()) == len(SOPS) + 1
    assert whole(world, sent)
    again(world)
    assert whole(world, sent)
    assert move(world) == len(SOPS)
    assert whole(world, sent)
    assert world.files() == set(paths(world).values())


def _fail(*_: object) -> None:
    raise StorageFailed("as asked")


async def test_an_interrupted_move_in_the_same_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await filled(world)
    monkeypatch.setattr(Mover, "_tell_rows", _fail)
    with pytest.raises(StorageFailed):
        move(world)
    monkeypatch.undo()
    # One file is whole, one was cut, one is someone else's.
    own = [place.own for path in paths(world).values() if (place := spooled(path))]
    with open(world.data / own[1], "r+b") as file:
        file.truncate(100)
    shutil.copy(world.data / own[0], world.data / own[2])
    assert move(world) == len(SOPS)
    assert whole(world, sent) or len(world.files()) == len(SOPS) + 1


async def test_a_crash_between_row_and_segment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await filled(world)
    monkeypatch.setattr(type(world.storage.blobs.spool), "remove", lambda *_: None)
    assert move(world) == len(SOPS)
    monkeypatch.undo()
    assert len(segments(world)) == 1
    # One that is removed now must not come back from the segment.
    assert remove(world.storage.database, Scope(sop_uid="1.1"), by="t", reason="t").instances == 1
    world.storage.delete_files()
    sent.pop("1.1")
    report = again(world)
    assert report.indexed == 0
    assert whole(world, sent)
    assert move(world) == 0
    assert segments(world) == []
    assert whole(world, sent)


async def test_what_is_removed_from_the_spool_stays_removed(world: World) -> None:
    sent = await filled(world)
    assert remove(world.storage.database, Scope(sop_uid="1.2"), by="t", reason="t").instances == 1
    world.storage.delete_files()
    sent.pop("1.2")
    assert whole(world, sent)
    world.crash()
    for name in TABLES:
        (world.data / name).unlink(missing_ok=True)
    assert reindex(world.config)[0].indexed == len(sent)
    world.__init__(world.data, spool=100)  # type: ignore[misc]
    world.storage.reconcile()
    assert whole(world, sent)
    assert move(world) == len(sent)
    assert whole(world, sent)


async def test_a_row_that_goes_while_its_object_is_moved(world: World) -> None:
    sent = await filled(world)
    moving = mover(world)
    tell = moving._tell_rows

    def late(copies: Any) -> Any:
        remove(world.storage.database, Scope(sop_uid="1.3"), by="t", reason="t")
        return tell(copies)

    moving._tell_rows = late  # type: ignore[method-assign]
    assert moving.run(quiet=0) == len(SOPS) - 1
    moving.close()
    world.storage.delete_files()
    sent.pop("1.3")
    assert whole(world, sent)
    assert world.files() == set(paths(world).values())


async def test_the_mover_waits_for_the_committer(world: World) -> None:
    await filled(world)
    busy = [True, True, False]
    moving = mover(world, busy=lambda: busy.pop(0))
    assert moving.run(quiet=0) == len(SOPS)
    moving.close()
    assert busy == []


async def test_a_segment_in_which_something_is_in_flight_stays(world: World) -> None:
    await filled(world)
    world.storage.blobs.spool.landed(record_path(segments(world)[0], 0))
    assert move(world) == 0
    assert len(segments(world)) == 1


async def test_a_failed_flush_ends_the_segment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await filled(world)
    committer = world.committer()

    def fail(_: int) -> None:
        raise OSError(5, "as asked")

    monkeypatch.setattr(posix, "data_sync", fail)
    assert await keep(committer, (encode(image("1.8")), "1.8")) == [0xA700]
    monkeypatch.undo()
    assert await keep(committer, (encode(image("1.9")), "1.9")) == [0]
    await committer.stop()
    sent["1.9"] = encode(image("1.9"))
    assert len(segments(world)) == 2
    assert whole(world, sent)
    move(world)
    assert whole(world, sent)


async def test_the_tail_that_a_power_cut_left(world: World) -> None:
    sent = await filled(world)
    full = world.data / segment_path(segments(world)[0])
    data = full.read_bytes()
    first = data[: data.index(BEGINNING, 1)]
    torn = bytearray(first)
    torn[-10] ^= 1
    with full.open("r+b") as file:
        file.seek(len(SOPS) * len(first))  # all are of one length
        file.write(bytes(3000) + torn + b"garbage" + first[:200] + bytes(HEADER_MAXIMUM))
    found = list(scan_segment(str(world.data), segments(world)[0]))
    assert [item.problem for item in found] == [None] * len(SOPS) + [
        Problem.DIGEST,
        Problem.DAMAGED,
    ]
    report = again(world)
    assert report == Report(files=2, incomplete=2, waiting=len(SOPS))
    assert whole(world, sent)
    assert move(world) == len(SOPS)
    assert segments(world) == []


async def test_damage_in_the_middle_hides_nothing_behind_it(world: World) -> None:
    sent = await filled(world)
    segment = segments(world)[0]
    full = world.data / segment_path(segment)
    data = bytearray(full.read_bytes())
    second = data.index(BEGINNING, 1)
    data[second + 200] ^= 1  # within its file meta
    full.write_bytes(bytes(data))
    report = again(world)
    assert (report.waiting, report.damaged) == (len(SOPS) - 1, 1)
    findings = verify(world.storage.database, world.storage.blobs).findings
    assert [finding.sop_instance_uid for finding in findings] == ["1.2"]
    # It is kept for a person to look at, and the rest can be read there.
    assert move(world) == 0
    assert segments(world) == [segment]
    sent.pop("1.2")
    here = {sop: path for sop, path in paths(world).items() if sop != "1.2"}
    assert {sop: world.content(path) for sop, path in here.items()} == sent
