"""Folders of the data directory: made when needed, and which of them a power cut would spare.

A file is durable only when every folder above it is, and a folder only when the one that holds it
was flushed since. A folder found existing proves nothing: an earlier process may have made it a
moment before it was killed. So each folder seen for the first time is flushed once.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Directories", "Directory", "unflushed"]

_BUCKET_DEPTH = 3  # year, month, bucket
_MODE = 0o750  # patient data: nothing for the world


class Directory:
    """One folder that exists.

    Attributes:
        path: absolute path.
        parent: the folder that holds it; None for the top one.
        durable: its entry in `parent` is on stable storage, and so is everything above.
        failed: flushing it failed. The kernel may have dropped what it could not write, so a
            later success would prove nothing: no more is committed in it.
    """

    __slots__ = ("_depth", "durable", "failed", "parent", "path")

    def __init__(self, path: str, parent: Directory | None) -> None:
        self.path = path
        self.parent = parent
        self.durable = parent is None
        self.failed = False
        self._depth: int = 0 if parent is None else parent._depth + 1

    def mark_failed(self) -> None:
        """Note a failed flush.

        The top, year and month stay usable: the next bucket adds a name to them, so that they are
        written again as a whole.
        """
        self.failed = self._depth >= _BUCKET_DEPTH


def unflushed(directory: Directory) -> list[Directory]:
    """The folder and all above it that are not durable, lowest first."""
    found = []
    at: Directory | None = directory
    while at is not None and not at.durable:
        found.append(at)
        at = at.parent
    return found


class Directories:
    """All folders in use below one that is durable; safe to use from any thread.

    Args:
        top: absolute path of a folder that exists and is durable.
    """

    def __init__(self, top: str) -> None:
        self.top = Directory(top, None)
        self._known: dict[str, Directory] = {}
        # Held while a folder is made or removed, so that what is known matches what exists.
        self._lock = threading.Lock()

    def ensure(self, names: Sequence[str]) -> Directory:
        """The folder with these names below the top, made when it is missing.

        It can vanish again while it is empty: whoever then fails to create a file in it calls
        `forget` and asks again.

        Raises:
            FileNotFoundError: one above it vanished just now; `forget` and ask again.
        """
        at = self.top
        for name in names:
            path = f"{at.path}{os.sep}{name}"
            at = self._known.get(path) or self._make(path, at)
        return at

    def _make(self, path: str, parent: Directory) -> Directory:
        with self._lock:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, _MODE)  # noqa: PTH102 - twice per new study; Path costs as much again
            return self._known.setdefault(path, Directory(path, parent))

    def knows(self, path: str) -> bool:
        """Whether a folder was asked for, and exists since."""
        return path in self._known

    def forget(self, names: Sequence[str]) -> None:
        """Look at a folder and those above it anew when they are needed next."""
        with self._lock:
            path = self.top.path
            for name in names:
                path = f"{path}{os.sep}{name}"
                self._known.pop(path, None)

    def forget_below(self, path: str) -> None:
        """Free the memory of a folder that gets no more files, and of all in it."""
        below = path + os.sep
        with self._lock:
            for known in [key for key in self._known if key == path or key.startswith(below)]:
                del self._known[known]

    def remove_empty(self, path: str, stop: str) -> str:
        """Remove a folder and those above it as long as they are empty.

        Args:
            path: absolute path of the lowest folder.
            stop: absolute path of a folder above it that stays.

        Returns:
            The lowest folder that is left; its entries have changed.
        """
        while len(path) > len(stop):
            with self._lock:
                try:
                    Path(path).rmdir()
                except FileNotFoundError:
                    pass
                except OSError:
                    return path
                self._known.pop(path, None)
            path = str(Path(path).parent)
        return path
