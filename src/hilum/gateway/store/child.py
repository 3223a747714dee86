"""A process of ours that reads bytes of unknown origin in C: it may end, hang, or be killed.

It is asked on its standard input and answers on its standard output, one thing at a time. It ends
with its standard input, and by itself when nothing was asked for a while.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO

__all__ = ["MEMORY", "Child", "end_when_idle", "limit", "limit_time"]

# What numpy and a codec map for an image of some hundred MB; a bomb gets no further.
MEMORY = 4 << 30
# 60 MB of idle process are given back by then.
IDLE = 30.0


class Child:
    """Such a process, as its parent sees it; used by one thread at a time.

    Args:
        command: its program and arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # Settings may hold secrets, such as the database's password; it needs none of them.
        environment = {n: v for n, v in os.environ.items() if not n.upper().startswith("HILUM_")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def asked(self) -> BinaryIO:
        """Where it is asked."""
        assert self._process.stdin is not None
        return self._process.stdin  # type: ignore[return-value]

    @property
    def answers(self) -> BinaryIO:
        """Where it answers."""
        assert self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    @contextmanager
    def within(self, seconds: float) -> Iterator[threading.Event]:
        """Kill it if the block takes longer; the event then says so. Pipes break or end."""
        late = threading.Event()
        timer = threading.Timer(seconds, self._too_long, (late,))
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End it, whatever it is doing; a thread that waits for it goes on."""
        self._process.kill()

    def close(self) -> None:
        """End it, and forget what was not yet written to it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self.asked, self.answers):
            with suppress(OSError):
                pipe.close()

    def _too_long(self, late: threading.Event) -> None:
        late.set()
        self._process.kill()


def limit(memory: int = MEMORY) -> None:
    """In the child: so much memory, no file, no core dump."""
    try:
        import resource
    except ImportError:  # Windows: the time limit alone
        return
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def limit_time(seconds: float) -> None:
    """In the child: end it after so much work from now on, a second or two more.

    Its parent kills it sooner; a codec that hangs in C would outlive a parent that was killed.
    """
    try:
        import resource
    except ImportError:  # Windows: it goes with its parent's console, or stays
        return
    used = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(used + seconds) + 2
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted, hard))


def end_when_idle() -> threading.Timer:
    """In the child: end it after ``IDLE`` seconds, unless what is returned is cancelled."""
    timer = threading.Timer(IDLE, os._exit, (0,))
    timer.daemon = True
    timer.start()
    return timer
