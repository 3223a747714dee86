"""Sinks that keep, dawdle and fail, each with a diary of what was asked of it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence

from tests.unit.wire.playbook import CT_IMAGE

from hilum.net.association import Association
from hilum.net.service import Accept, Context, Outcome, Part, StoreSink
from hilum.wire.command import Command

SUCCESS = Outcome(0x0000)


class Sink:
    """Takes everything at once and answers success at once."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.writes = 0
        self.drains = 0
        self.commits = 0
        self.aborts: list[BaseException] = []

    def write(self, parts: Sequence[Part]) -> bool:
        self.writes += 1
        for part in parts:
            self.content += part
        return True

    def drained(self) -> Awaitable[None]:
        raise AssertionError("nothing was ever held")

    def commit(self) -> Awaitable[Outcome]:
        self.commits += 1
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.set_result(SUCCESS)
        return future

    def abort(self, cause: BaseException) -> None:
        self.aborts.append(cause)


class HeldCommit(Sink):
    """Answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def commit(self) -> Awaitable[Outcome]:
        self.commits += 1
        return self.outcome


class SlowSink(Sink):
    """Still reads from the parts after ``write``; says whether they were left alone meanwhile."""

    def __init__(self, release: asyncio.Event | None = None) -> None:
        super().__init__()
        self.release = release
        self.disturbed = False
        self.most_at_once = 0
        self._reading = False
        self._parts: list[Part] = []
        self._sum = 0

    def write(self, parts: Sequence[Part]) -> bool:
        assert not self._reading, "written to before it was drained"
        self.writes += 1
        self._parts = list(parts)
        self._sum = checksum(parts)
        self.most_at_once = max(self.most_at_once, sum(map(len, parts)))
        self._reading = True
        return False

    async def drained(self) -> None:
        self.drains += 1
        if self.release is None:
            await asyncio.sleep(0.001)
        else:
            await self.release.wait()
        self.disturbed |= checksum(self._parts) != self._sum
        for part in self._parts:
            self.content += part
        self._reading = False

    async def commit(self) -> Outcome:
        self.commits += 1
        while self._reading:
            await asyncio.sleep(0.001)
        return SUCCESS


def checksum(parts: Sequence[Part]) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


class Broken(Sink):
    """Fails in one of its methods, at once or when awaited."""

    def __init__(self, where: str, *, later: bool) -> None:
        super().__init__()
        self.where, self.later = where, later

    def write(self, parts: Sequence[Part]) -> bool:
        super().write(parts)
        if self.where == "write":
            raise OSError("no space left on device")
        return self.where != "drained"

    def drained(self) -> Awaitable[None]:
        self.drains += 1
        if self.later:
            return self._fail()
        raise OSError("no space left on device")

    def commit(self) -> Awaitable[Outcome]:
        self.commits += 1
        if self.later:
            return self._fail()
        raise OSError("no space left on device")

    async def _fail(self) -> Outcome:  # type: ignore[override]
        raise OSError("no space left on device")

    def abort(self, cause: BaseException) -> None:
        super().abort(cause)
        if self.where == "abort":
            raise OSError("cannot even forget")


class Store:
    """An ``open_store`` that makes a sink for each request and keeps it."""

    def __init__(self, make: Callable[[], StoreSink | Outcome] = Sink) -> None:
        self.make = make
        self.sinks: list[Sink] = []
        self.commands: list[Command] = []
        self.contexts: list[Context] = []

    def __call__(
        self, command: Command, context: Context, association: Association
    ) -> StoreSink | Outcome:
        made = self.make()
        self.commands.append(command)
        self.contexts.append(context)
        if isinstance(made, Sink):
            self.sinks.append(made)
        return made

    def authorise(self, rq: object, peer: object) -> Accept:
        return Accept(open_store=self, roles={CT_IMAGE: (True, True)}, window=(10, 10))
