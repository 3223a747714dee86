"""The local pool: supervised processes that run one job each at a time, and can be killed.

Not ``ProcessPoolExecutor``, which breaks every job when one child dies. A process is started when
it is needed, ends after a minute without work, and dies with us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from typing import Any

from hilum.errors import HilumError
from hilum.gateway.work.process import FRAME

__all__ = ["JobFailed", "Pool"]

log = logging.getLogger("hilum.work")

IDLE = 60.0
"""Seconds without work after which a process ends: its memory is worth more than its start."""

LONGEST_ANSWER = 16 << 20
"""Bytes of a job's result; what is larger belongs into a file."""


class JobFailed(HilumError):
    """The job's function raised, or its process died; the text says how."""


class Pool:
    """Runs functions in processes. Used on one event loop.

    Args:
        size: processes at most; more jobs wait.
        idle: see `IDLE`.
    """

    def __init__(self, size: int, *, idle: float = IDLE) -> None:
        self._room = asyncio.Semaphore(size)
        self._idle_after = idle
        self._idle: list[tuple[Process, asyncio.TimerHandle]] = []
        self._all: set[Process] = set()

    @property
    def processes(self) -> list[int]:
        """Process ids, of idle ones too."""
        return [process.pid for process in self._all]

    async def run(
        self,
        target: str,
        payload: Mapping[str, Any],
        *,
        memory_limit: int,
        time_limit: float | None = None,
    ) -> Any:
        """Run a function in a process.

        Args:
            target: ``module:function``.
            payload: its argument, for JSON.
            memory_limit: bytes.
            time_limit: seconds; None for none.

        Returns:
            What it returned.

        Raises:
            JobFailed: it raised, died, or took too long; a process that is not fit any more is
                replaced.

        Cancellation: the process is killed.
        """
        request = {"target": target, "payload": payload, "memory_limit": memory_limit}
        async with self._room:
            process = await self._take()
            answer: dict[str, Any] | None = None
            try:
                async with asyncio.timeout(time_limit):
                    answer = await _ask(process, json.dumps(request).encode())
            except TimeoutError:
                raise JobFailed(f"it took longer than {time_limit:g} s") from None
            except (OSError, EOFError) as error:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 1.0)
                raise JobFailed(f"its process ended ({_ending(process)})") from error
            finally:
                if answer is None or answer.get("spent"):
                    self._kill(process)
                else:
                    self._put_back(process)
            if "error" in answer:
                raise JobFailed(answer["error"])
            return answer["result"]

    async def close(self) -> None:
        """Kill every process; jobs in them fail."""
        for _, timer in self._idle:
            timer.cancel()
        self._idle.clear()
        ending = list(self._all)
        for process in ending:
            self._kill(process)
        await asyncio.gather(*(process.wait() for process in ending))

    async def _take(self) -> Process:
        while self._idle:
            process, timer = self._idle.pop()
            timer.cancel()
            if process.returncode is None:
                return process
            self._all.discard(process)
        command = [sys.executable, "-P", "-m", "hilum.gateway.work.process"]
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
        self._all.add(process)
        return process

    def _put_back(self, process: Process) -> None:
        timer = asyncio.get_running_loop().call_later(self._idle_after, self._kill, process)
        self._idle.append((process, timer))

    def _kill(self, process: Process) -> None:
        self._idle = [(other, timer) for other, timer in self._idle if other is not process]
        self._all.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _ask(process: Process, request: bytes) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(FRAME.pack(len(request)) + request)
    await process.stdin.drain()
    (length,) = FRAME.unpack(await process.stdout.readexactly(FRAME.size))
    if length > LONGEST_ANSWER:
        raise EOFError
    answer: dict[str, Any] = json.loads(await process.stdout.readexactly(length))
    return answer


def _ending(process: Process) -> str:
    code = process.returncode
    if code is None:
        return "without a word"
    return f"signal {-code}" if code < 0 else f"code {code}"
