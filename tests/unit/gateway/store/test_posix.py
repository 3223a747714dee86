"""System calls and their fallbacks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hilum.errors import StoreUnavailable
from hilum.gateway.store import posix


def without(*modules: str) -> str:
    """The beginning of a program in which these modules cannot be imported."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


LOCK = """
import sys
from pathlib import Path
from hilum.gateway.store import posix
lock = posix.lock_file(Path(sys.argv[1]))
"""


def test_a_lock_is_held_by_one_process(tmp_path: Path) -> None:
    lock = posix.lock_file(tmp_path / "hilum.lock")
    with pytest.raises(StoreUnavailable, match=f"process {os.getpid()};"):
        posix.lock_file(tmp_path / "hilum.lock")
    other = run(LOCK, tmp_path / "hilum.lock")
    assert f"StoreUnavailable: {tmp_path}/hilum.lock is locked by process {os.getpid()}" in (
        other.stderr
    )
    lock.release()
    lock.release()
    assert run(LOCK, tmp_path / "hilum.lock").returncode == 0
    posix.lock_file(tmp_path / "hilum.lock").release()


def test_a_lock_without_fcntl(tmp_path: Path) -> None:
    path = tmp_path / "hilum.lock"
    # The process ends without releasing it; a lock file left over by it is taken over.
    for _ in range(2):
        assert run(without("fcntl", "resource") + LOCK, path).returncode == 0
    path.write_text(f"{os.getpid()}\n")
    held = run(without("fcntl", "resource") + LOCK, path)
    assert f"locked by process {os.getpid()}" in held.stderr
    path.unlink()
    assert run(without("fcntl") + LOCK + "lock.release()", path).returncode == 0
    assert not path.exists()


def test_a_store_works_without_what_only_posix_has(tmp_path: Path) -> None:
    program = (
        without("fcntl", "resource")
        + """
import os
for name in ("writev", "pwrite", "fdatasync"):
    delattr(os, name)
from pathlib import Path
from hilum.gateway.store import posix
posix._syncfs = posix._sync_file_range = None
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.file_meta import ObjectMeta
root = Path(sys.argv[1])
BlobStore.create(root)
store = BlobStore.open(root, "syncfs")
assert store.strategy == "fsync" and store.has_room(0)
small = store.begin(ObjectMeta("1.2", "1.2.3", "1.2.840.10008.1.2", "R", "S"))
small.keep(b"abc")
large = store.begin(ObjectMeta("1.2", "1.2.4", "1.2.840.10008.1.2", "R", "S"))
large.write([memoryview(b"x" * 100_000)] * 2)
for blob in (small, large):
    blob.seal()
assert store.commit([small, large]) == [None, None]
assert [found.problem for found in store.scan_all()] == [None, None]
store.close()
"""
    )
    done = run(program, tmp_path / "data")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("count", [0, 1, 3, 1024, 1025, 5000])
def test_any_number_of_buffers_is_written(tmp_path: Path, count: int) -> None:
    parts = [bytes([number % 251]) * (number % 7) for number in range(count)]
    fd = posix.create_file(str(tmp_path / "file"))
    assert posix.write_all(fd, [memoryview(part) for part in parts]) == sum(map(len, parts))
    posix.write_at(fd, b"!!", 1)
    os.close(fd)
    expected = bytearray(b"".join(parts))
    expected[:3] = bytes(expected[:1] or b"\0") + b"!!"
    assert (tmp_path / "file").read_bytes() == bytes(expected)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write, real_writev = os.write, os.writev
    monkeypatch.setattr(os, "writev", lambda fd, views: real_writev(fd, [views[0][:2]]))
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:3]))
    fd = posix.create_file(str(tmp_path / "file"))
    posix.write_all(fd, [b"abcd", b"", b"efghijk"])
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"abcdefghijk"


def test_create_file_never_opens_what_exists(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("target", "link", "dangling"):
        with pytest.raises(FileExistsError):
            posix.create_file(str(tmp_path / name))


def test_free_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    free = posix.free_space(str(tmp_path))
    assert free.bytes > 0
    assert free.inodes is None or free.inodes > 0


@pytest.mark.skipif(sys.platform != "linux", reason="mounts are listed on Linux only")
def test_file_systems_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert posix.filesystem_type("/proc/self") == "proc"
    assert not posix.syncfs_reports_errors("/proc")
    inside = tmp_path / "a b" / "données"
    inside.mkdir(parents=True)
    listed = tmp_path / "mountinfo"
    point = os.fsencode(inside).replace(b" ", rb"\040")
    listed.write_bytes(
        b"1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        b"2 1 0:9 / " + point + b" rw,nosuid shared:1 - nfs4 server:/x rw\n"
    )
    real_open = open
    monkeypatch.setattr("builtins.open", lambda name, *rest, **more: real_open(listed, "rb"))
    assert posix.filesystem_type(str(inside / "below")) == "nfs4"
    assert posix.filesystem_type(str(inside) + "x") == "ext4"


@pytest.mark.skipif(posix._syncfs is None, reason="no syncfs here")
def test_errors_of_the_c_library_are_raised() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        posix.syncfs(-1)
