"""The other end, speaking bytes: what no implementation would send, and what it hears back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType

from tests.unit.wire.playbook import PData, an_rq, parse

from hilum.wire.pdu import PDU, AssociateAC

SECONDS = 20.0
"""What has not happened by then will not."""


async def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait for a condition; looking costs nothing, so it is looked at often."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, what
        await asyncio.sleep(0.002)


def ends_with(task: asyncio.Task[object], word: str) -> bool:
    """Whether a task is the test runner's own."""
    return task is asyncio.current_task() or task.get_name().endswith(word)


class RawPeer:
    """A socket that can say anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, **arguments: object) -> RawPeer:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **arguments))  # type: ignore[arg-type]

    @classmethod
    async def associate(cls, port: int, rq: object = None) -> RawPeer:
        """Connected, with an association of ``playbook.CONTEXTS``."""
        peer = await cls.connect(port)
        peer.send(rq or an_rq())
        assert isinstance(await peer.hear(), AssociateAC)
        return peer

    def send(self, *said: object) -> None:
        """PDUs or bytes, in one piece."""
        self.writer.write(
            b"".join(each if isinstance(each, bytes) else each.encode() for each in said)  # type: ignore[attr-defined]
        )

    async def hear(self) -> PDU | PData | None:
        """The next PDU; None where the connection has ended."""
        async with asyncio.timeout(SECONDS):
            try:
                header = await self.reader.readexactly(6)
                body = await self.reader.readexactly(int.from_bytes(header[2:], "big"))
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return None
        return parse(header + body)[0]

    async def hear_end(self) -> bytes:
        """Everything until the connection ends."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read(-1)
            except ConnectionResetError:
                return b""

    def end_sending(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Lingering for no time makes close() send a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()

    async def __aenter__(self) -> RawPeer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()
