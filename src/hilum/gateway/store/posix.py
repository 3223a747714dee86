"""Every system call that not all platforms have, each with its fallback beside it.

Nothing else in the store asks what it runs on. The functions are called through this module
(``posix.data_sync(fd)``), so a test can make the n-th call of one of them fail.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hilum.errors import StoreUnavailable

try:
    import fcntl

    _FCNTL = True
except ImportError:
    _FCNTL = False
try:
    import resource

    _RESOURCE = True
except ImportError:
    _RESOURCE = False

__all__ = [
    "FileLock",
    "FreeSpace",
    "create_file",
    "data_sync",
    "descriptor_limit",
    "filesystem_type",
    "free_space",
    "fsync_directory",
    "lock_file",
    "start_writeback",
    "syncfs",
    "syncfs_reports_errors",
    "write_all",
    "write_at",
]

# Linux takes at most 1024 buffers in one writev (IOV_MAX, POSIX promises 16).
_IOV_MAX = 1024
# Absent on Windows; there O_BINARY keeps line ends as they are.
_CREATE = (
    os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_FILE_MODE = 0o640  # patient data: nothing for the world
_SYNC_FILE_RANGE_WRITE = 2
# Local file systems whose write-back errors reach syncfs. FUSE does not pass syncfs on, and an
# overlay does not see the errors below it.
_REPORTING = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"})

_OCTAL = re.compile(rb"\\([0-7]{3})")


def _libc_function(name: str) -> Callable[..., int] | None:
    """One function of the C library, or None where there is none of that name."""
    if sys.platform != "linux":
        return None
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (AttributeError, OSError):
        return None
    return found


_syncfs = _libc_function("syncfs")
_sync_file_range = _libc_function("sync_file_range")


def create_file(path: str) -> int:
    """Create a file that must not exist and return its descriptor, open for writing.

    Raises:
        FileExistsError: the name is taken; a symbolic link of that name is not followed.
    """
    return os.open(path, _CREATE, _FILE_MODE)


def write_all(fd: int, views: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write all buffers in order at the descriptor's position and return their total length.

    Usually one writev; short writes are continued.
    """
    total = sum(map(len, views))
    if hasattr(os, "writev") and len(views) <= _IOV_MAX:
        written = os.writev(fd, views)
        if written != total:
            _write_rest(fd, views, written)
        return total
    for start in range(0, len(views), 64):
        # Joining 64 buffers at a time keeps the copies small and the calls few.
        _write_rest(fd, [b"".join(views[start : start + 64])], 0)
    return total


def _write_rest(fd: int, views: Sequence[bytes | bytearray | memoryview], done: int) -> None:
    for view in views:
        rest = memoryview(view)
        if done >= len(rest):
            done -= len(rest)
            continue
        rest, done = rest[done:], 0
        while rest:
            written = os.write(fd, rest)
            if not written:
                raise OSError(errno.EIO, "a write took no byte")
            rest = rest[written:]


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Overwrite bytes at an offset; where the descriptor stands afterwards is not defined."""
    if hasattr(os, "pwrite"):
        written = os.pwrite(fd, data, offset)
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes were overwritten")
        return
    os.lseek(fd, offset, os.SEEK_SET)
    _write_rest(fd, [data], 0)


def data_sync(fd: int) -> None:
    """Put a file's bytes and length on stable storage.

    An error means that bytes may be lost; calling again on the same file proves nothing, because
    the kernel drops what it failed to write.
    """
    if sys.platform == "darwin" and _FCNTL:
        # fsync on macOS stops at the drive's cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def syncfs(fd: int) -> None:
    """Put everything on the file system of a descriptor on stable storage.

    Raises:
        OSError: a write failed since this descriptor was opened or since the last call with it;
            ENOSYS where the platform has no such call.
    """
    if _syncfs is None:
        raise OSError(errno.ENOSYS, "syncfs is not available here")
    if _syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def syncfs_reports_errors(path: str) -> bool:
    """Whether `syncfs` exists and reports failed write-back for the file system of a path.

    Linux does so since 5.8, for local file systems; before, it returned success over lost bytes.
    """
    if _syncfs is None:
        return False
    release = os.uname().release.split(".")
    try:
        version = (int(release[0]), int(release[1].split("-")[0]))
    except (IndexError, ValueError):
        return False
    return version >= (5, 8) and filesystem_type(path) in _REPORTING


def filesystem_type(path: str) -> str | None:
    """The type of file system that a path is on (``ext4``), or None where it cannot be known."""
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            mounts = [line.split(b" ") for line in lines]
    except OSError:
        return None
    real = os.path.realpath(path)
    best, found = -1, None
    for fields in mounts:
        # Blanks and the like are written as \040.
        point = os.fsdecode(_OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), fields[4]))
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # the last of several mounts on one point is on top
            best, found = len(point), fields[fields.index(b"-") + 1].decode("ascii", "replace")
    return found


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing a range of a file; promises nothing.

    A failure to write is reported by the flush that follows, hence errors are not raised here.
    """
    if _sync_file_range is not None and length > 0:
        _sync_file_range(
            fd,
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
            ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
        )


def fsync_directory(path: str) -> None:
    """Put a directory's entries on stable storage.

    Windows has no such call: NTFS journals its directories.
    """
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FreeSpace(NamedTuple):
    """What is left for us on a file system.

    Attributes:
        bytes: bytes that an unprivileged process may still write.
        inodes: files that may still be created, or None where there is no such limit.
    """

    bytes: int
    inodes: int | None


def free_space(path: str) -> FreeSpace:
    """Free bytes and inodes on the file system of a path."""
    if not hasattr(os, "statvfs"):
        return FreeSpace(shutil.disk_usage(path).free, None)
    found = os.statvfs(path)
    # btrfs has no fixed number of inodes and says 0.
    inodes = found.f_favail if found.f_files else None
    return FreeSpace(found.f_bavail * found.f_frsize, inodes)


def descriptor_limit() -> int:
    """How many descriptors this process may have open; 512 where that cannot be asked."""
    if not _RESOURCE:
        return 512  # the C run-time library of Windows starts with that many
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


class FileLock:
    """A lock that this process holds until `release`, or until it ends.

    Args:
        path: the lock file.
        fd: its open descriptor, or None where the file's existence is the lock.
    """

    def __init__(self, path: Path, fd: int | None) -> None:
        self.path = path
        self._fd = fd

    def release(self) -> None:
        """Give the lock up; the file stays, except where its existence is the lock."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        elif not _can_lock():
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


def _can_lock() -> bool:
    return _FCNTL or sys.platform == "win32"


def lock_file(path: Path) -> FileLock:
    """Take an exclusive lock on a file without waiting, and write our process id into it.

    The kernel drops it when the process ends, however it ends. Without `fcntl` and off Windows
    the file's existence is the lock, and a file whose process is gone is taken over.

    Raises:
        StoreUnavailable: another process holds it; the message names the process when known.
    """
    if not _can_lock():
        return _lock_by_existence(path)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), _FILE_MODE)
    try:
        _lock_descriptor(fd)
    except OSError as error:
        os.close(fd)
        raise _held(path) from error
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return FileLock(path, fd)


def _lock_descriptor(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Far behind the process id, which others must still be able to read.
        os.lseek(fd, 1 << 20, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_by_existence(path: Path) -> FileLock:
    for _ in range(2):
        try:
            fd = create_file(str(path))
        except FileExistsError:
            holder = _holder(path)
            if holder is None or _runs(holder):
                raise _held(path) from None
            path.unlink(missing_ok=True)
        else:
            os.write(fd, f"{os.getpid()}\n".encode())
            os.close(fd)
            return FileLock(path, None)
    raise _held(path)


def _holder(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii", errors="replace")[:20])
    except (OSError, ValueError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _held(path: Path) -> StoreUnavailable:
    holder = _holder(path)
    who = f"process {holder}" if holder is not None else "another process"
    return StoreUnavailable(
        f"{path} is locked by {who}; one receiver may use a data directory, stop that one first"
    )
