"""Objects as files: durable in batches, nothing left of what failed, found again."""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import xxhash

from hilum.errors import InvalidDicom, NotFound, StoreUnavailable
from hilum.gateway.store import blobs, flush, posix
from hilum.gateway.store.blobs import MARKER, SPILL, Blob, BlobStore, Problem
from hilum.gateway.store.file_meta import ObjectMeta

DAY = 86_400.0
SMALL = bytes(range(256)) * 8
LARGE = bytes(range(255, -1, -1)) * 1024
STRATEGIES = ["fsync", "syncfs", "auto"]


@pytest.fixture(autouse=True)
def _syncfs_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use syncfs on any file system: these tests cut no power."""
    if posix._syncfs is not None:
        monkeypatch.setattr(posix, "syncfs_reports_errors", lambda path: True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    BlobStore.create(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(params=STRATEGIES)
def store(root: Path, request: pytest.FixtureRequest) -> Iterator[BlobStore]:
    opened = BlobStore.open(root, request.param, clock=lambda: 0.0)
    yield opened
    opened.close()


def begin(store: BlobStore, uid: str, *, study: str = "1.1", owner: str | None = None) -> Blob:
    meta = ObjectMeta("1.2.840.10008.5.1.4.1.1.2", uid, "1.2.840.10008.1.2.1", "RAIVEN", "CT")
    meta.owner = owner
    blob = store.begin(meta)
    blob.place(study, study + ".1")
    return blob


def small(store: BlobStore, uid: str, **where: Any) -> Blob:
    blob = begin(store, uid, **where)
    for start in range(0, len(SMALL), 1000):
        blob.keep(SMALL[start : start + 1000])
    blob.seal()
    return blob


def large(store: BlobStore, uid: str, **where: Any) -> Blob:
    blob = begin(store, uid, **where)
    blob.keep(LARGE[:100])
    blob.write([memoryview(LARGE)[100:5000], memoryview(LARGE)[5000:SPILL]])
    blob.write([memoryview(LARGE)[SPILL:]])
    blob.seal()
    return blob


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in (root / "objects").rglob("*") if path.is_file()}


def empty_folders(root: Path) -> list[Path]:
    """Folders inside buckets that hold nothing."""
    buckets = (root / "objects").glob("*/*/*")
    return [
        path
        for bucket in buckets
        for path in bucket.rglob("*")
        if path.is_dir() and not any(path.iterdir())
    ]


def test_a_batch_is_stored_and_read_back(store: BlobStore, root: Path) -> None:
    batch = [small(store, "1.2.1"), large(store, "1.2.2", owner="alice"), begin(store, "1.2.3")]
    batch[2].seal()
    assert store.commit(batch) == [None, None, None]
    for blob, expected in zip(batch, (SMALL, LARGE, b""), strict=True):
        assert blob.path is not None
        assert store.verify(blob.path) is None
        file, meta = store.open_read(blob.path)
        with file:
            assert file.read() == expected
        assert meta == blob.meta
        assert meta.complete
        assert meta.digest == xxhash.xxh3_128(expected).digest()
        blob.settle()
    assert files(root) == {
        "objects/1970/01/01-001/global/1.1/1.1.1/1.2.1.dcm",
        "objects/1970/01/01-001/user.alice/1.1/1.1.1/1.2.2.dcm",
        "objects/1970/01/01-001/global/1.1/1.1.1/1.2.3.dcm",
    }
    found = list(store.scan_all())
    assert {entry.path for entry in found} == files(root)
    assert {entry.meta.owner for entry in found if entry.meta} == {None, "alice"}
    assert [entry.problem for entry in found] == [None, None, None]


def test_the_same_uid_again_gets_another_name(store: BlobStore) -> None:
    batch = [small(store, "1.2.1") for _ in range(5)]
    assert store.commit(batch) == [None] * 5
    paths = {blob.path for blob in batch}
    assert len(paths) == 5
    for path in paths:
        assert path is not None and store.verify(path) is None


def test_hostile_names_stay_inside(store: BlobStore, root: Path) -> None:
    blob = begin(store, "../../../../tmp/x", study="/etc", owner="..")
    blob.keep(SMALL)
    blob.seal()
    assert store.commit([blob]) == [None]
    assert files(root) == {blob.path}


def test_a_file_is_not_complete_before_it_is_sealed(store: BlobStore, root: Path) -> None:
    blob = begin(store, "1.2.1")
    blob.write([SMALL])
    assert blob.path is not None
    assert store.verify(blob.path) is Problem.INCOMPLETE
    with pytest.raises(ValueError, match="has a file already"):
        blob.keep(b"")
    with pytest.raises(ValueError, match="only sealed"):
        store.commit([blob])
    blob.discard()
    blob.discard()
    assert files(root) == set()
    assert empty_folders(root) == []
    with pytest.raises(ValueError, match="settled or discarded"):
        blob.seal()


def test_discarding_leaves_the_neighbours(store: BlobStore, root: Path) -> None:
    kept, gone = small(store, "1.2.1"), large(store, "1.2.2")
    committed = small(store, "1.2.3", study="2.2")
    store.commit([kept, committed])
    gone.discard()
    committed.discard()
    assert files(root) == {kept.path}
    assert empty_folders(root) == []
    kept.settle()
    kept.discard()
    assert files(root) == {kept.path}


def test_a_blob_is_committed_once(store: BlobStore) -> None:
    blob = small(store, "1.2.1")
    with pytest.raises(ValueError, match="is sealed"):
        blob.settle()
    store.commit([blob])
    with pytest.raises(ValueError, match="only once"):
        store.commit([blob])


# Errors at the n-th call.


class Failing:
    """Stands before a function of `posix` and makes its n-th call fail, half done."""

    def __init__(self, name: str, at: int) -> None:
        self.calls = 0
        self._name, self._at = name, at
        self._real: Callable[..., Any] = getattr(posix, name)
        self._lock = threading.Lock()

    def __call__(self, *args: Any) -> Any:
        with self._lock:
            self.calls += 1
            fails = self.calls == self._at
        if not fails:
            return self._real(*args)
        if self._name == "write_all":
            self._real(args[0], args[1][:1])
        raise OSError(errno.EIO, "injected")


def receive(make: Callable[..., Blob], store: BlobStore, uid: str, study: str) -> Blob | None:
    """What a receiver does with a blob that fails before its commit."""
    blob = begin(store, uid, study=study)
    try:
        if make is large:
            blob.write([LARGE])
            blob.write([LARGE])
        else:
            blob.keep(SMALL)
        blob.seal()
    except OSError:
        blob.discard()
        return None
    return blob


def run_two_batches(store: BlobStore) -> list[tuple[Blob, OSError | None]]:
    outcomes = []
    for batch in range(2):
        blobs = [
            receive(large if number % 2 else small, store, f"1.{batch}.{number}", f"{number // 2}")
            for number in range(5)
        ]
        sealed = [blob for blob in blobs if blob is not None]
        outcomes += zip(sealed, store.commit(sealed), strict=True)
    return outcomes


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "name", ["create_file", "write_all", "write_at", "data_sync", "fsync_directory", "syncfs"]
)
def test_nothing_of_a_failed_object_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, name: str
) -> None:
    for at in range(1, 200):
        root = tmp_path / str(at)
        BlobStore.create(root)
        store = BlobStore.open(root, strategy)
        with monkeypatch.context() as patch:
            failing = Failing(name, at)
            patch.setattr(posix, name, failing)
            outcomes = run_two_batches(store)
        durable = {blob.path for blob, error in outcomes if error is None}
        assert files(root) == durable
        assert empty_folders(root) == []
        for path in durable:
            assert path is not None and store.verify(path) is None
        if name in ("create_file", "write_all", "write_at", "data_sync"):
            assert len(durable) == 10 - (failing.calls >= at)
        # The store goes on working, and what failed can be sent again.
        blob = small(store, "1.0.0", study="0")
        assert store.commit([blob]) == [None]
        store.close()
        if failing.calls < at:
            assert len(durable) == 10
            return
    pytest.fail("the failing call was never the last one")


def test_an_error_that_syncfs_told_another_batch_is_not_missed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore.open(root, "syncfs")
    if store.strategy != "syncfs":
        pytest.skip("no syncfs here")
    # The folders are durable already, so only the files are in doubt.
    assert store.commit([small(store, "1.0")]) == [None]
    in_flight, also = begin(store, "1.1"), begin(store, "1.2")
    in_flight.write([LARGE])
    also.write([LARGE])
    with monkeypatch.context() as patch:
        patch.setattr(posix, "syncfs", Failing("syncfs", 1))
        (error,) = store.commit([small(store, "1.3")])
        assert error is not None
    in_flight.seal()
    also.seal()
    # syncfs has told its error; now only the file itself knows whether it was the one.
    with monkeypatch.context() as patch:
        asked = Failing("data_sync", 2)
        patch.setattr(posix, "data_sync", asked)
        outcomes = store.commit([in_flight, also, small(store, "1.4")])
    assert asked.calls == 2
    assert [outcome is None for outcome in outcomes].count(False) == 1
    assert outcomes[2] is None
    later = large(store, "1.5")
    with monkeypatch.context() as patch:
        asked = Failing("data_sync", 1)
        patch.setattr(posix, "data_sync", asked)
        assert store.commit([later]) == [None]
    assert asked.calls == 0
    store.close()


def test_nothing_is_committed_in_a_folder_whose_flush_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore.open(root, "fsync")
    assert store.commit([small(store, "1.1")]) == [None]
    in_flight = begin(store, "1.2")
    in_flight.open()
    with monkeypatch.context() as patch:
        patch.setattr(posix, "fsync_directory", Failing("fsync_directory", 1))
        (error,) = store.commit([small(store, "1.3")])
    assert error is not None
    in_flight.seal()
    (error,) = store.commit([in_flight])
    assert error is not None
    again = small(store, "1.3")
    assert store.commit([again]) == [None]
    assert again.bucket is not None and again.bucket.endswith("-002")
    store.close()


# What is flushed, and how often.


def test_every_new_folder_is_flushed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    real = posix.fsync_directory

    def record(path: str) -> None:
        flushed.append(str(Path(path).relative_to(root)))
        real(path)

    store = BlobStore.open(root, "fsync", clock=lambda: 0.0)
    monkeypatch.setattr(posix, "fsync_directory", record)
    store.commit([small(store, "1.1"), small(store, "1.2")])
    bucket = "objects/1970/01/01-001"
    above = ["objects", "objects/1970", "objects/1970/01", bucket]
    study = f"{bucket}/global/1.1"
    assert sorted(flushed) == [*above, f"{bucket}/global", study, f"{study}/1.1.1"]
    flushed.clear()
    store.commit([small(store, "1.3"), small(store, "1.4", study="2.2")])
    new_study = f"{bucket}/global/2.2"
    assert sorted(flushed) == [
        f"{bucket}/global",
        f"{study}/1.1.1",
        new_study,
        f"{new_study}/2.2.1",
    ]
    store.close()
    # Another process cannot know what an earlier one had flushed when it was killed.
    store = BlobStore.open(root, "fsync", clock=lambda: 0.0)
    flushed.clear()
    store.commit([small(store, "1.5")])
    assert set(flushed) > set(above[:3])
    store.close()


def test_files_do_not_stay_open_when_there_are_many(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posix, "descriptor_limit", lambda: 64)
    store = BlobStore.open(root, "fsync")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    batch = [large(store, f"1.{number}") for number in range(60)]
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 17
    assert store.commit(batch) == [None] * 60
    assert all(blob.path and store.verify(blob.path) is None for blob in batch)
    store.close()


def test_threads_making_and_removing_the_same_folders(root: Path) -> None:
    store = BlobStore.open(root, "fsync")
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(60):
                blob = large(store, f"1.{thread}.{number}")
                if number % 3:
                    blob.discard()
                else:
                    assert store.commit([blob]) == [None]
                    blob.settle()
                    assert blob.path is not None
                    store.remove([blob.path])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files(root) == set()
    assert empty_folders(root) == []
    store.close()


class Clock:
    """A timer that its user moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """A strategy that takes a given time per object."""

    def __init__(self, name: str, clock: Clock, seconds: float) -> None:
        self.name, self.seconds, self.batches = name, seconds, 0
        self._clock = clock

    def flush(self, batch: Any) -> list[OSError | None]:
        self.batches += 1
        self._clock.now += self.seconds * len(batch)
        return [None] * len(batch)

    def stop(self) -> None:
        """Nothing to free."""


def test_syncfs_is_not_used_where_it_fails(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "syncfs", Failing("syncfs", 1))
    store = BlobStore.open(root, "auto")
    assert store.strategy == "fsync"
    assert store.commit([small(store, "1.1")]) == [None]
    store.close()


def test_auto_follows_what_is_faster(root: Path) -> None:
    clock = Clock()
    fsync, syncfs = Slow("fsync", clock, 2.0), Slow("syncfs", clock, 1.0)
    auto = flush.Auto(fsync, syncfs, clock)
    store = BlobStore.open(root)
    batch = [small(store, f"1.{number}") for number in range(4)]
    for _ in range(640):
        auto.flush(batch)
    assert syncfs.batches > 600
    assert fsync.batches > 15
    syncfs.seconds = 50.0
    auto.flush(batch)
    syncfs.seconds = 1.0  # one slow flush decides nothing
    before = syncfs.batches
    for _ in range(32):
        auto.flush(batch)
    assert syncfs.batches - before == 31
    syncfs.seconds = 50.0  # another program began to write
    before = fsync.batches
    for _ in range(640):
        auto.flush(batch)
    assert fsync.batches - before > 600
    store.close()


# Buckets.


def test_a_bucket_takes_so_many_and_one_day(root: Path) -> None:
    clock = Clock()
    events: list[str] = []
    store = BlobStore.open(
        root,
        clock=clock,
        on_open=lambda name: events.append(f"open {name} {(root / 'objects' / name).exists()}"),
        on_close=lambda name: events.append(f"close {name}"),
        bucket_objects=2,
    )
    first, second, third = (small(store, f"1.{number}") for number in range(3))
    store.commit([first, second, third])
    assert events == ["open 1970/01/01-001 False", "open 1970/01/01-002 False"]
    first.settle()
    assert len(events) == 2
    second.discard()
    assert events[2:] == ["close 1970/01/01-001"]
    clock.now = DAY
    fourth = large(store, "1.4")
    assert events[3:] == ["open 1970/01/02-001 False"]
    third.settle()
    assert events[4:] == ["close 1970/01/01-002"]
    assert store.current_bucket() == "1970/01/02-001"
    store.commit([fourth])
    fourth.settle()
    store.close()
    assert events[5:] == ["close 1970/01/02-001"]
    # The next process continues with the next number.
    store = BlobStore.open(root, clock=clock)
    assert store.current_bucket() == "1970/01/02-002"
    store.close()


def test_no_file_is_created_in_a_bucket_that_could_not_be_announced(root: Path) -> None:
    answers = iter([RuntimeError("database is locked")])

    def announce(name: str) -> None:
        with suppress(StopIteration):
            raise next(answers)

    store = BlobStore.open(root, on_open=announce)
    (error,) = store.commit([small(store, "1.1")])
    assert error is not None and "database is locked" in str(error)
    assert files(root) == set()
    assert store.commit([small(store, "1.1")]) == [None]
    store.close()


def test_what_was_discarded_is_flushed_before_its_bucket_closes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    store = BlobStore.open(root, clock=lambda: 0.0, on_close=lambda name: order.append("close"))
    large(store, "1.1").discard()
    real = posix.fsync_directory
    monkeypatch.setattr(
        posix, "fsync_directory", lambda path: (order.append(Path(path).name), real(path))
    )
    store.close()
    assert order == ["01-001", "close"]


# Reading back.


@pytest.fixture
def stored(root: Path) -> tuple[BlobStore, str, Path]:
    store = BlobStore.open(root, clock=lambda: 0.0)
    blob = small(store, "1.1")
    store.commit([blob])
    blob.settle()
    store.close()
    assert blob.path is not None
    return store, blob.path, root / blob.path


def test_damage_is_found(stored: tuple[BlobStore, str, Path]) -> None:
    store, path, full = stored
    whole = full.read_bytes()
    cases = {
        Problem.LENGTH: [whole[:-1], whole + b"\0"],
        Problem.DIGEST: [whole[:-1] + b"?", whole[:-100] + b"?" + whole[-99:]],
        Problem.DAMAGED: [b"", whole[:200], whole[:300] + b"?" + whole[301:], b"?" + whole[1:]],
    }
    for problem, contents in cases.items():
        for content in contents:
            full.write_bytes(content)
            assert store.verify(path) is problem
            assert [found.problem for found in store.scan_bucket("1970/01/01-001")] == [problem]
    full.unlink()
    assert store.verify(path) is Problem.MISSING
    with pytest.raises(NotFound):
        store.open_read(path)
    full.write_bytes(b"not ours")
    with pytest.raises(InvalidDicom):
        store.open_read(path)


def test_a_scan_tells_what_is_not_ours(stored: tuple[BlobStore, str, Path], root: Path) -> None:
    store, path, full = stored
    (full.parent / "notes.txt").write_text("hello")
    (full.parent / "1.9.dcm").symlink_to(full)
    (root / "objects" / "lost+found").mkdir()
    found = {Path(entry.path).name: entry.problem for entry in store.scan_all()}
    assert found == {"1.1.dcm": None, "notes.txt": Problem.FOREIGN, "1.9.dcm": Problem.FOREIGN}
    rest = list(store.scan_bucket("1970/01/01-001", skip={path}))
    assert {entry.problem for entry in rest} == {Problem.FOREIGN}
    assert list(store.scan_bucket("1970/01/01-002")) == []
    with pytest.raises(ValueError, match="not the name of a bucket"):
        store.scan_bucket("../..")


def test_removing_takes_empty_folders_along(root: Path) -> None:
    store = BlobStore.open(root, clock=lambda: 0.0)
    batch = [small(store, "1.1"), small(store, "1.2", study="2"), small(store, "1.3", study="2")]
    store.commit(batch)
    for blob in batch:
        blob.settle()
    paths = [blob.path for blob in batch if blob.path]
    store.remove(paths[:2])
    assert files(root) == {paths[2]}
    assert empty_folders(root) == []
    store.remove(paths)
    assert (root / "objects/1970/01/01-001").is_dir()  # in use
    again = small(store, "1.1")
    assert store.commit([again]) == [None]
    again.settle()
    store.close()
    store.remove([again.path] if again.path else [])
    assert list((root / "objects").iterdir()) == []


def test_paths_from_outside_are_checked(stored: tuple[BlobStore, str, Path], root: Path) -> None:
    store, path, full = stored
    for bad in ("../x", "/etc/passwd", "hilum.db", path + "/..", path.replace("1.1", "..", 1)):
        for method in (store.open_read, store.verify, lambda bad: store.remove([path, bad])):
            with pytest.raises(ValueError):
                method(bad)
    assert full.exists()
    outside = root / "outside"
    full.parent.rename(outside)
    full.parent.symlink_to(outside)
    with pytest.raises(ValueError, match="symbolic link"):
        store.remove([path])
    assert (outside / full.name).exists()


def test_room(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_ROOM_SECONDS", 60)
    free = posix.free_space(str(root)).bytes
    store = BlobStore.open(root)
    assert store.has_room(0)
    assert not store.has_room(2 * free)
    asked = Failing("free_space", 1)
    monkeypatch.setattr(posix, "free_space", asked)
    assert store.has_room(0)  # not asked again so soon
    store.close()
    for space, answer in (
        (posix.FreeSpace(100, 10), False),
        (posix.FreeSpace(100, 11), True),
        (posix.FreeSpace(99, 11), False),
        (posix.FreeSpace(100, None), True),
    ):
        monkeypatch.setattr(posix, "free_space", lambda path, space=space: space)
        store = BlobStore.open(root)
        assert store.has_room(99, 10) is answer
        store.close()


# The marker.


def test_a_store_has_a_marker(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    store_id = BlobStore.create(root)
    assert json.loads((root / MARKER).read_text()) == {"id": str(store_id), "format": 1}
    store = BlobStore.open(root)
    assert store.id == store_id
    store.close()
    with pytest.raises(StoreUnavailable, match="holds a store already"):
        BlobStore.create(root)
    (root / MARKER).unlink()
    with pytest.raises(StoreUnavailable, match="is missing"):
        BlobStore.open(root)
    (root / "objects" / "2026").mkdir()
    with pytest.raises(StoreUnavailable, match="holds a store already"):
        BlobStore.create(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"id": "x", "format": 1}', "cannot be read"),
        ('{"id": "12345678-1234-5678-1234-567812345678", "format": 2}', "newer version"),
    ],
)
def test_a_strange_marker_is_refused(root: Path, content: str, message: str) -> None:
    (root / MARKER).write_text(content)
    with pytest.raises(StoreUnavailable, match=message):
        BlobStore.open(root)


def test_a_store_without_its_objects_is_refused(root: Path) -> None:
    (root / "objects").rmdir()
    with pytest.raises(StoreUnavailable, match="is its disk mounted"):
        BlobStore.open(root)
    with pytest.raises(ValueError, match="flush strategy 'none' is unknown"):
        (root / "objects").mkdir()
        BlobStore.open(root, "none")
