"""The committer: durable and visible in groups, then answered; claimed or cancelled, never both."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.store.archive_world import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    LARGE,
    World,
    arrival,
    destination,
    encode,
    image,
    keep,
    spill,
    submit,
    until,
)

from hilum.errors import ConnectionLost, InvalidDicom, StorageFailed
from hilum.gateway import app
from hilum.gateway.store import commit
from hilum.gateway.store.commit import Committer
from hilum.gateway.store.flush import Flushable, Fsync
from hilum.gateway.store.incoming import CommitUnknown, Incoming
from hilum.gateway.store.index import IndexWriter
from hilum.gateway.store.queries import versions
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.results import Viewer
from hilum.gateway.store.sources import StoredSource
from hilum.gateway.store.states import DuplicatePolicy, InstanceFlag, MissingUidPolicy
from hilum.gateway.store.verify import verify
from hilum.services.header import HeaderScan, HeaderScanner
from hilum.services.part10 import FileHead

OUT_OF_RESOURCES, MISMATCH, REFUSED = 0xA700, 0xA900, 0xC001


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.close()


class Gate:
    """A strategy that flushes when it is let, or fails where it is told to."""

    name = "gate"

    def __init__(self) -> None:
        self._fsync = Fsync(lambda: None)
        self.open = threading.Event()
        self.entered = threading.Event()
        self.open.set()
        self.fail: Callable[[Flushable], bool] = lambda file: False

    def flush(self, batch: Sequence[Flushable]) -> list[OSError | None]:
        self.entered.set()
        assert self.open.wait(20)
        outcomes = self._fsync.flush(batch)
        return [
            OSError(errno.EIO, "as asked") if self.fail(file) else outcome
            for file, outcome in zip(batch, outcomes, strict=True)
        ]

    def stop(self) -> None:
        self._fsync.stop()


@pytest.fixture
def gate(world: World) -> Gate:
    """The world's store flushes through a gate."""
    gate = Gate()
    world.storage.blobs._strategy.stop()
    world.storage.blobs._strategy = gate
    return gate


# ── what arrives is kept ──────────────────────────────────────────────────────────────────────


async def test_small_and_large_objects_are_kept_as_they_came(world: World) -> None:
    committer = world.committer()
    small, large = encode(image("1.2.3.1")), encode(image("1.2.3.2", pixels=LARGE))
    big = submit(committer, await spill(committer, large, "1.2.3.2"))
    assert await keep(committer, (small, "1.2.3.1")) == [0]
    assert (await big).status == 0
    await committer.stop()
    assert {row.sop_uid: world.content(row.path) for row in world.listed()} == {
        "1.2.3.1": small,
        "1.2.3.2": large,
    }
    assert world.files() == {row.path for row in world.listed()}
    assert all("/1.2/1.2.1/" in row.path for row in world.listed())
    assert committer.counters.stored == 2
    assert committer.counters.stored_bytes == len(small) + len(large)


async def test_a_header_longer_than_what_is_looked_at_first_is_examined_in_the_file(
    world: World,
) -> None:
    committer = world.committer()
    data_set = image("1.2.3.1")
    data_set.add_new(0x00091001, "UN", bytes(150_000))  # before the study, in the order of tags
    data = encode(data_set)
    done = submit(committer, await spill(committer, data, "1.2.3.1"))
    assert (await done).status == 0
    await committer.stop()
    (row,) = world.listed()
    assert row.study_uid == "1.2"
    assert world.content(row.path) == data


async def test_owners_and_work_are_written_with_the_instance(world: World) -> None:
    alice = world.storage.directory.add_account("alice")
    committer = world.committer()
    where = destination(owner_id=alice.id, owner="alice")
    assert await keep(committer, (encode(image()), "1.2.3"), where=where) == [0]
    await committer.stop()
    assert world.seen(Viewer()) == []
    assert world.seen(Viewer(account_id=alice.id)) == ["1.2.3"]
    assert all("/user.alice/" in path for path in world.files())


async def test_stop_finishes_what_has_arrived(world: World) -> None:
    committer = world.committer(max_batch=4)
    done = [
        submit(committer, arrival(encode(image(f"1.2.3.{n}")), f"1.2.3.{n}")) for n in range(50)
    ]
    await committer.stop()
    await asyncio.sleep(0)  # the answers were posted; they are given in the next turn
    assert [future.result().status for future in done] == [0] * 50
    assert len(world.seen()) == 50
    # A sink that gives up later finds no threads any more.
    late = arrival(encode(image("1.9")), "1.9")
    assert committer.cancel(late)


# ── claimed or cancelled ──────────────────────────────────────────────────────────────────────


async def test_what_is_cancelled_before_a_batch_takes_it_never_appears(
    world: World, gate: Gate
) -> None:
    gate.open.clear()
    committer = world.committer()
    claimed = arrival(encode(image("1.2.3.1")), "1.2.3.1")
    first = submit(committer, claimed)
    await until(gate.entered.is_set, "no batch was taken")
    waiting = arrival(encode(image("1.2.3.2")), "1.2.3.2")
    second = submit(committer, waiting)
    spilled = await spill(committer, encode(image("1.2.3.3", pixels=LARGE)), "1.2.3.3")
    assert not committer.cancel(claimed)
    assert committer.cancel(waiting)
    assert not committer.cancel(waiting)
    assert committer.cancel(spilled)
    gate.open.set()
    assert (await first).status == 0
    await committer.stop()
    assert not second.done()
    assert world.seen() == ["1.2.3.1"]
    assert world.files() == {row.path for row in world.listed()}


async def test_cancelling_under_load_is_exact(world: World) -> None:
    committer = world.committer(max_batch=3)
    kept, dropped = set(), set()
    for n in range(150):
        sop = f"1.2.3.{n}"
        one = arrival(encode(image(sop)), sop)
        submit(committer, one)
        if n % 3:
            await asyncio.sleep(0.0005 * (n % 4))
            (dropped if committer.cancel(one) else kept).add(sop)
        else:
            kept.add(sop)
    await committer.stop()
    assert set(world.seen()) == kept
    assert dropped, "nothing was cancelled in time"
    assert world.files() == {row.path for row in world.listed()}


async def test_what_no_batch_takes_in_time_is_refused_and_stays_away(
    world: World, gate: Gate
) -> None:
    gate.open.clear()
    committer = world.committer(answer_within=0.5)
    first = submit(committer, arrival(encode(image("1.2.3.1")), "1.2.3.1"))
    await until(gate.entered.is_set, "no batch was taken")
    late = [
        submit(committer, arrival(encode(image("1.2.3.2")), "1.2.3.2")),
        submit(
            committer,
            await spill(committer, encode(image("1.2.3.3", pixels=LARGE)), "1.2.3.3"),
        ),
    ]
    outcomes = await asyncio.gather(*late)
    assert [outcome.status for outcome in outcomes] == [OUT_OF_RESOURCES] * 2
    assert committer.waiting == 0
    assert not first.done(), "what a batch has taken waits for its outcome"
    gate.open.set()
    assert (await first).status == 0
    assert await keep(committer, (encode(image("1.2.3.4")), "1.2.3.4")) == [0]
    await committer.stop()
    assert world.seen() == ["1.2.3.1", "1.2.3.4"]
    assert world.files() == {row.path for row in world.listed()}


# ── the same UID again ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", list(DuplicatePolicy))
async def test_the_same_content_is_one_copy_however_it_is_encoded(
    world: World, policy: DuplicatePolicy
) -> None:
    committer = world.committer()
    where = destination(duplicates=policy)
    data = encode(image())
    assert await keep(committer, (data, "1.2.3"), (data, "1.2.3"), where=where) == [0, 0]
    again = arrival(encode(image(), IMPLICIT), where=where, transfer_syntax=IMPLICIT)
    assert (await submit(committer, again)).status == 0
    await committer.stop()
    (row,) = world.listed()
    assert world.content(row.path) == data
    assert world.files() == {row.path}
    assert committer.counters.duplicates == 2


async def test_other_content_is_kept_beside_and_the_newest_is_current(world: World) -> None:
    committer = world.committer()
    old, new = encode(image(InstanceNumber=1)), encode(image(InstanceNumber=2))
    assert await keep(committer, (old, "1.2.3"), (new, "1.2.3")) == [0, 0]
    assert await keep(committer, (old, "1.2.3")) == [0]  # an older version is here as well
    await committer.stop()
    (row,) = world.listed()
    assert world.content(row.path) == new
    found = versions(world.storage.database, Viewer(all=True), "1.2.3")
    assert [(v.current, world.content(v.path)) for v in found] == [(True, new), (False, old)]


async def test_keep_first_refuses_other_content_and_leaves_nothing_of_it(world: World) -> None:
    committer = world.committer()
    where = destination(duplicates=DuplicatePolicy.KEEP_FIRST)
    first, other = encode(image()), encode(image(InstanceNumber=2))
    assert await keep(committer, (first, "1.2.3"), where=where) == [0]
    refused = await submit(committer, arrival(other, where=where))
    large = await spill(committer, encode(image(pixels=LARGE)), "1.2.3", where=where)
    also = await submit(committer, large)
    await committer.stop()
    assert (refused.status, also.status) == (REFUSED, REFUSED)
    assert refused.error_comment
    (row,) = world.listed()
    assert world.content(row.path) == first
    assert world.files() == {row.path}
    assert committer.counters.refused == 2


async def test_replace_keeps_the_newest_and_a_tombstone_of_the_older(world: World) -> None:
    committer = world.committer()
    where = destination(duplicates=DuplicatePolicy.REPLACE)
    old, new = encode(image()), encode(image(InstanceNumber=2))
    assert await keep(committer, (old, "1.2.3"), (new, "1.2.3"), where=where) == [0, 0]
    await committer.stop()
    (row,) = world.listed()
    assert world.content(row.path) == new
    assert world.storage.delete_files() == 1
    assert world.files() == {row.path}


@pytest.mark.parametrize("spool", [0, 100])
@pytest.mark.parametrize("crash", [False, True])
async def test_what_comes_while_a_deletion_is_not_yet_recorded_is_not_deleted_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch, spool: int, crash: bool
) -> None:
    world.close()
    world.__init__(world.data, spool=spool)  # type: ignore[misc]
    committer = world.committer()
    first = encode(image(pixels=LARGE))
    assert (await submit(committer, await spill(committer, first, "1.2.3"))).status == 0
    remove(world.storage.database, Scope(sop_uid="1.2.3"), by="t", reason="t")

    def locked(*_: object) -> None:
        raise StorageFailed("as asked")

    monkeypatch.setattr(app, "files_deleted", locked)
    with pytest.raises(StorageFailed):
        world.storage.delete_files()
    again = encode(image(InstanceNumber=2))
    assert await keep(committer, (again, "1.2.3")) == [0]
    if crash:
        monkeypatch.undo()
        await committer.stop()
        world.crash()
        world.__init__(world.data, spool=spool)  # type: ignore[misc]
        world.storage.reconcile()
    else:
        with pytest.raises(StorageFailed):
            world.storage.delete_files()
        monkeypatch.undo()
        assert world.storage.delete_files() == 1
        await committer.stop()
    (row,) = world.listed()
    assert world.content(row.path) == again
    # Once it is recorded the name is anybody's.
    remove(world.storage.database, Scope(sop_uid="1.2.3"), by="t", reason="t")
    world.storage.delete_files()
    assert not world.storage.blobs.spool._withheld


async def test_a_version_that_came_to_lie_where_another_was_looked_up_is_not_sent_in_part(
    world: World,
) -> None:
    committer = world.committer()
    first, again = encode(image()), encode(image(pixels=LARGE))
    assert await keep(committer, (first, "1.2.3")) == [0]
    (row,) = world.listed()
    head = FileHead(row.data_offset, row.sop_class, row.sop_uid, row.transfer_syntax)
    source = StoredSource(world.storage.blobs, row.path, head, row.size)
    assert b"".join(source.pieces()) == first
    remove(world.storage.database, Scope(sop_uid="1.2.3"), by="t", reason="t")
    world.storage.delete_files()
    assert await keep(committer, (again, "1.2.3")) == [0]
    await committer.stop()
    assert world.listed()[0].path == row.path
    with pytest.raises(InvalidDicom, match="expected"):
        list(source.pieces())


# ── what a data set says against its command ──────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("elements", "word"),
    [
        ({"SOPInstanceUID": "1.9"}, "SOPInstanceUID differs"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "SOPClassUID differs"),
        ({"StudyInstanceUID": None}, "StudyInstanceUID is missing"),
        ({"SeriesInstanceUID": ""}, "SeriesInstanceUID is missing"),
    ],
)
@pytest.mark.parametrize("size", [64, LARGE])
async def test_a_data_set_that_does_not_fit_its_command_is_refused(
    world: World, elements: dict[str, Any], word: str, size: int
) -> None:
    committer = world.committer()
    data = encode(image(pixels=size, **elements))
    what = arrival(data) if size < LARGE else await spill(committer, data, "1.2.3")
    outcome = await submit(committer, what)
    await committer.stop()
    assert outcome.status == MISMATCH
    assert word in (outcome.error_comment or "")
    assert len(outcome.error_comment or "") <= 64
    assert world.seen() == []
    assert world.files() == set()


async def test_missing_uids_go_to_quarantine_where_that_is_set(world: World) -> None:
    committer = world.committer()
    where = destination(missing_uids=MissingUidPolicy.QUARANTINE)
    data = encode(image(StudyInstanceUID=None))
    assert await keep(committer, (data, "1.2.3"), where=where) == [0]
    everything = destination(quarantine=True)
    assert await keep(committer, (encode(image("1.2.4")), "1.2.4"), where=everything) == [0]
    await committer.stop()
    assert world.seen() == []
    kept = world.listed(Viewer(quarantine=True))
    assert {row.sop_uid for row in kept} == {"1.2.3", "1.2.4"}
    assert all(InstanceFlag.QUARANTINED & row.flags for row in kept)
    assert all("/quarantine/" in path for path in world.files())


async def test_a_mislabelled_data_set_is_kept_as_it_came_and_flagged(world: World) -> None:
    committer = world.committer()
    plain = encode(image())
    what = arrival(plain, transfer_syntax=DEFLATED)
    assert (await submit(committer, what)).status == 0
    await committer.stop()
    (row,) = world.listed()
    assert InstanceFlag.MISLABELLED & row.flags
    assert world.content(row.path) == plain
    file, meta = world.storage.blobs.open_read(row.path)
    file.close()
    assert meta.mislabelled
    assert meta.transfer_syntax_uid == DEFLATED


@pytest.mark.parametrize(
    "sop",
    ["", "abc", "1.2.3 x", "../../../tmp/x", "1" * 200, "\xe9\xff", "1" * 600, "a\\b", "nul\0nul"],
)
async def test_odd_uids_harm_nobody(world: World, sop: str) -> None:
    committer = world.committer()
    odd = image(SOPInstanceUID=None, StudyInstanceUID="../..", SeriesInstanceUID="/etc/passwd")
    where = destination(missing_uids=MissingUidPolicy.QUARANTINE)
    outcome = await submit(committer, arrival(encode(odd), sop, where=where))
    assert outcome.status in (0, OUT_OF_RESOURCES, MISMATCH)
    assert await keep(committer, (encode(image("1.2.4")), "1.2.4")) == [0]
    await committer.stop()
    assert world.seen() == ["1.2.4"]
    assert len(world.listed(Viewer(quarantine=True))) == (outcome.status == 0)
    assert not verify(world.storage.database, world.storage.blobs).findings
    outside = [p for p in world.data.parent.rglob("*") if not p.is_relative_to(world.data)]
    assert outside == []


# ── failures ──────────────────────────────────────────────────────────────────────────────────


async def test_a_file_that_cannot_be_flushed_fails_alone(world: World, gate: Gate) -> None:
    gate.open.clear()
    committer = world.committer()
    blocked = submit(committer, arrival(encode(image("1.1")), "1.1"))
    await until(gate.entered.is_set, "no batch was taken")
    data = encode(image("1.2.3.2", pixels=500))
    gate.fail = lambda file: file.length == len(data)
    together = [
        submit(committer, arrival(encode(image("1.2.3.1")), "1.2.3.1")),
        submit(committer, arrival(data, "1.2.3.2")),
        submit(committer, arrival(encode(image("1.2.3.3")), "1.2.3.3")),
    ]
    gate.open.set()
    assert [(await each).status for each in together] == [0, OUT_OF_RESOURCES, 0]
    assert (await blocked).status == 0
    gate.fail = lambda file: False
    assert await keep(committer, (data, "1.2.3.2")) == [0]
    await committer.stop()
    assert world.seen() == ["1.1", "1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert world.files() == {row.path for row in world.listed()}
    assert committer.counters.failed == 1


async def test_below_the_reserve_nothing_is_written(world: World) -> None:
    committer = world.committer(reserve=1 << 60)
    small = submit(committer, arrival(encode(image("1.2.3.1")), "1.2.3.1"))
    data = encode(image("1.2.3.2", pixels=LARGE))
    large = submit(committer, await spill(committer, data, "1.2.3.2"))
    assert [(await each).status for each in (small, large)] == [OUT_OF_RESOURCES] * 2
    await committer.stop()
    assert world.seen() == []
    assert world.files() == set()


async def test_a_locked_database_refuses_in_time_and_the_next_store_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "INDEX_PATIENCE", 0.05)
    committer = world.committer()
    assert await keep(committer, (encode(image("1.2.3.1")), "1.2.3.1")) == [0]
    with world.storage.database.write():
        status = await keep(committer, (encode(image("1.2.3.2")), "1.2.3.2"))
    assert status == [OUT_OF_RESOURCES]
    assert world.files() == {row.path for row in world.listed()}
    assert await keep(committer, (encode(image("1.2.3.2")), "1.2.3.2")) == [0]
    await committer.stop()
    assert world.seen() == ["1.2.3.1", "1.2.3.2"]


class Unsure(IndexWriter):
    """Says once that it does not know whether its commit took place."""

    def __init__(self, world: World, *, committed: bool, deaf: int) -> None:
        super().__init__(world.storage.database)
        self.committed = committed
        self.deaf = deaf
        self.asked = 0
        self._once = True

    def commit(self, batch: Sequence[Incoming], **rest: Any) -> Any:
        if not self._once:
            return super().commit(batch, **rest)
        self._once = False
        # Where nothing is committed: what would have been, from a transaction that is not kept.
        write = super().commit if self.committed else Twin(self).outcomes
        outcomes = write(batch, **rest)
        raise CommitUnknown("as asked", batch, outcomes)

    def resolve(self, unknown: CommitUnknown, *, deadline: float) -> Any:
        self.asked += 1
        if self.asked <= self.deaf:
            raise CommitUnknown("still not known", unknown.batch, unknown.outcomes)
        return super().resolve(unknown, deadline=deadline)


class Twin:
    """Plans a batch as a writer would, and rolls back."""

    def __init__(self, writer: Unsure) -> None:
        self._writer = writer

    def outcomes(self, batch: Sequence[Incoming], **_: Any) -> Any:
        writer = IndexWriter(self._writer._database)
        try:
            transaction = writer._begin(time.monotonic() + 10, 4 * len(batch))
            found = [writer._add(item, comparing=False) for item in batch]
            writer._roll_back(transaction)
            return found
        finally:
            writer.close()


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("deaf", [0, 2])
async def test_an_unknown_commit_is_looked_up_before_anything_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch, committed: bool, deaf: int
) -> None:
    monkeypatch.setattr(commit, "LOOK_AGAIN", 0.001)
    writer = Unsure(world, committed=committed, deaf=deaf)
    committer = world.committer(writer=writer, answer_within=0.0 if deaf else 45.0)
    data = encode(image("1.2.3.1", pixels=500))
    done = submit(committer, arrival(data, "1.2.3.1"))
    if deaf:  # neither success nor failure would be true: the association ends
        with pytest.raises(ConnectionLost):
            await done
    else:
        assert (await done).status == (0 if committed else OUT_OF_RESOURCES)
    # What comes before that is known is refused; what comes after is not.
    await until(lambda: writer.asked > deaf, "nobody asked again")
    assert await keep(committer, (encode(image("1.2.3.2")), "1.2.3.2")) == [0]
    assert world.seen() == (["1.2.3.1", "1.2.3.2"] if committed else ["1.2.3.2"])
    assert await keep(committer, (data, "1.2.3.1")) == [0]
    await committer.stop()
    assert world.seen() == ["1.2.3.1", "1.2.3.2"]
    assert world.files() == {row.path for row in world.listed()}


class Stumbling(HeaderScanner):
    """Has a bug that one data set meets."""

    def scan(self, data: Any, transfer_syntax: str, *, final: bool) -> HeaderScan:
        if b"stumble" in bytes(data[:500]):
            raise RuntimeError("as asked")
        return super().scan(data, transfer_syntax, final=final)


@pytest.mark.parametrize("size", [64, LARGE])
async def test_a_bug_that_one_object_meets_stops_no_other(world: World, size: int) -> None:
    deaths: list[BaseException] = []
    scanner = Stumbling(world.storage.scanner.paths)
    committer = world.committer(scanner=scanner, fatal=deaths.append)
    data = encode(image("1.2.3.1", PatientID="stumble", pixels=size))
    what = arrival(data, "1.2.3.1") if size < LARGE else await spill(committer, data, "1.2.3.1")
    assert (await submit(committer, what)).status == OUT_OF_RESOURCES
    assert await keep(committer, (encode(image("1.2.3.2")), "1.2.3.2")) == [0]
    await committer.stop()
    assert deaths == []
    assert world.seen() == ["1.2.3.2"]
    assert world.files() == {row.path for row in world.listed()}


async def test_a_version_that_cannot_be_read_is_other_content(world: World) -> None:
    committer = world.committer()
    assert await keep(committer, (encode(image()), "1.2.3")) == [0]
    (row,) = world.listed()
    (world.data / row.path).write_bytes(b"damaged")
    again = arrival(encode(image(), IMPLICIT), transfer_syntax=IMPLICIT)
    assert (await submit(committer, again)).status == 0
    await committer.stop()
    (now,) = world.listed()
    assert world.content(now.path) == encode(image(), IMPLICIT)


async def test_a_dead_thread_is_reported(world: World) -> None:
    deaths: list[BaseException] = []

    class Dying(IndexWriter):
        def commit(self, batch: Sequence[Incoming], **rest: Any) -> Any:
            raise MemoryError("as asked")

    hook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        writer = Dying(world.storage.database)
        committer: Committer = world.committer(writer=writer, fatal=deaths.append)
        done = submit(committer, arrival(encode(image())))
        await until(lambda: deaths, "nobody was told")
        await committer.stop()
    finally:
        threading.excepthook = hook
    assert isinstance(deaths[0], MemoryError)
    assert not done.done()


async def test_what_was_refused_is_removed_durably(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start after a power cut would give rows to files that came back."""
    removed: list[str] = []
    remove = world.storage.blobs.remove

    def spy(paths: Any) -> None:
        removed.extend(paths)
        remove(removed)

    monkeypatch.setattr(world.storage.blobs, "remove", spy)
    monkeypatch.setattr(commit, "INDEX_PATIENCE", 0.05)
    committer = world.committer()
    where = destination(duplicates=DuplicatePolicy.KEEP_FIRST)
    other = encode(image(InstanceNumber=2))
    assert await keep(committer, (encode(image()), "1.2.3"), where=where) == [0]
    assert await keep(committer, (other, "1.2.3"), where=where) == [REFUSED]
    assert len(removed) == 1
    with world.storage.database.write():
        assert await keep(committer, (encode(image("1.7")), "1.7")) == [OUT_OF_RESOURCES]
    assert len(removed) == 2

    def broken(paths: Any) -> None:
        raise StorageFailed("as asked")

    monkeypatch.setattr(world.storage.blobs, "remove", broken)
    assert await keep(committer, (other, "1.2.3"), where=where) == [REFUSED]
    await committer.stop()
    assert world.files() == {row.path for row in world.listed()}


def test_transfer_syntaxes_of_these_tests_are_distinct() -> None:
    assert encode(image()) != encode(image(), IMPLICIT)
    assert encode(image(), EXPLICIT) == encode(image())
