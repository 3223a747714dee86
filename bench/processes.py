"""CPU time and resident memory of a server's whole process tree, read from /proc."""

from __future__ import annotations

import os
import threading
from types import TracebackType

_TICK = 1 / os.sysconf("SC_CLK_TCK")

_INTERVAL = 0.05
"""Seconds between two looks at a tree of several processes; one look takes about 0.1 ms each."""


class ProcessTree:
    """A process and all its descendants, as they are at each look."""

    def __init__(self, root: int) -> None:
        self._root = root

    def pids(self) -> list[int]:
        """Return the process ids of the tree."""
        result = [self._root]
        for pid in result:
            result += _children(pid)
        return result

    def cpu(self) -> float:
        """Return the CPU seconds of the tree, of children that have ended and been waited for too."""
        return sum(sum(_times(pid)) for pid in self.pids())

    def memory(self) -> int:
        """Return the resident bytes of the tree; pages that forked processes share count once."""
        pids = self.pids()
        if len(pids) == 1:
            return _field(f"/proc/{pids[0]}/status", "VmRSS:")
        return sum(_field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in pids)

    def reset_peak(self) -> None:
        """Let the kernel forget the peak it kept for the root process."""
        with open(f"/proc/{self._root}/clear_refs", "w") as file:
            file.write("5")

    def root_peak(self) -> int:
        """Return the peak the kernel kept for the root process, in bytes."""
        return _field(f"/proc/{self._root}/status", "VmHWM:")


class PeakMemory:
    """Watches a tree for the length of a block; ``bytes`` is the peak.

    A single process is not sampled at all: the kernel keeps its peak. Several are sampled, which
    may miss a peak shorter than the interval.
    """

    def __init__(self, tree: ProcessTree) -> None:
        self.bytes = 0
        self._tree = tree
        self._alone = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak memory")

    def __enter__(self) -> PeakMemory:
        self._tree.reset_peak()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        if self._alone:
            self.bytes = max(self.bytes, self._tree.root_peak())

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        if len(self._tree.pids()) > 1:
            self._alone = False
            self.bytes = max(self.bytes, self._tree.memory())


def _children(pid: int) -> list[int]:
    result: list[int] = []
    try:
        # A child belongs to the thread that started it.
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                result += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return result


def _times(pid: int) -> list[float]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(ticks) * _TICK for ticks in fields[11:15]]


def _field(path: str, name: str) -> int:
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0
