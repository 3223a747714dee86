"""A disk whose power can be cut: an image file, mounted as root, shut down by an ioctl.

The shutdown ioctl drops everything that the file system has not written, its log included, the way
a power cut does; afterwards every call on it fails. Unmounting and mounting again shows what was
really on stable storage::

    with PowerDisk.make(tmp_path, "ext4") as disk:
        ...                 # processes write below disk.mount_point
        disk.cut()          # then end those processes
        disk.remount()
        ...                 # look
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import pytest

__all__ = ["FILE_SYSTEMS", "PowerDisk", "require"]

# Bytes of the image: xfs refuses less than 300 MB; the file is sparse.
FILE_SYSTEMS = {"ext4": 256 << 20, "xfs": 320 << 20}
_MKFS = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
# _IOR('X', 125, __u32), the same for ext4 and xfs.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
# A busy mount point is free as soon as the ended processes are gone.
_UNMOUNT_SECONDS = 20


def require(kind: str) -> None:
    """Skip the test, with the reason, where power cannot be cut.

    In CI as root, a missing mkfs is a failure: the proof would be left out without anyone knowing.
    """
    if sys.platform != "linux":
        pytest.skip("a power cut needs Linux")
    if os.geteuid() != 0:
        pytest.skip("a power cut needs root, to mount an image")
    for tool in (_MKFS[kind][0], "mount", "umount"):
        if shutil.which(tool) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{tool} is missing; install e2fsprogs, xfsprogs and mount")
            pytest.skip(f"{tool} is missing")


class PowerDisk:
    """A mounted image. A context manager, which unmounts it.

    Attributes:
        mount_point: where it is mounted.
    """

    def __init__(self, image: Path, mount_point: Path) -> None:
        self.mount_point = mount_point
        self._image = image
        self._mounted = False

    @classmethod
    def make(cls, folder: Path, kind: str) -> PowerDisk:
        """Make and mount an empty file system of a kind, or skip the test."""
        require(kind)
        image, mount_point = folder / f"{kind}.img", folder / kind
        with open(image, "wb") as file:
            file.truncate(FILE_SYSTEMS[kind])
        subprocess.run([*_MKFS[kind], image], check=True, capture_output=True)
        mount_point.mkdir()
        disk = cls(image, mount_point)
        disk._mount()
        return disk

    def _mount(self) -> None:
        command = ["mount", "-o", "loop", self._image, self.mount_point]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"an image cannot be mounted here: {done.stderr.strip()}")
        self._mounted = True

    def cut(self) -> None:
        """Cut the power: nothing that is not on stable storage now will ever be."""
        import fcntl

        fd = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
                pytest.skip("this kernel cannot shut a file system down")
            raise
        finally:
            os.close(fd)

    def remount(self) -> None:
        """Unmount and mount again; the file system recovers as after a power cut."""
        self._unmount()
        done = subprocess.run(
            ["mount", "-o", "loop", self._image, self.mount_point], capture_output=True, text=True
        )
        assert done.returncode == 0, f"the file system did not come back: {done.stderr}"
        self._mounted = True

    def _unmount(self) -> None:
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while True:
            done = subprocess.run(["umount", self.mount_point], capture_output=True, text=True)
            if done.returncode == 0:
                self._mounted = False
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"the image stays busy: {done.stderr}")

    def __enter__(self) -> PowerDisk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._mounted:
            self._unmount()
        self._image.unlink(missing_ok=True)
