"""A proxy between two DICOM peers that records both directions and, on request, disturbs them.

It reassembles messages from P-DATA-TF PDUs on its own, sharing no code with the library under
test, so that a test can compare what was stored with what was on the wire.

Standard: PS3.8 9.3 (PDUs), annex E (fragments), PS3.7 6.3.1 (command set encoding).
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, P_DATA_TF = 0x01, 0x02, 0x04

AFFECTED_SOP_CLASS_UID = 0x00000002
COMMAND_FIELD = 0x00000100
MESSAGE_ID = 0x00000110
MESSAGE_ID_BEING_RESPONDED_TO = 0x00000120
COMMAND_DATA_SET_TYPE = 0x00000800
STATUS = 0x00000900
AFFECTED_SOP_INSTANCE_UID = 0x00001000

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
NO_DATA_SET = 0x0101

Direction = Literal["requestor", "acceptor"]


class TapError(Exception):
    """The recorded bytes are not what PS3.8 allows, or nothing came in time."""


@dataclass(frozen=True)
class PresentationContext:
    """A presentation context as it was negotiated; ``result`` 0 is acceptance."""

    abstract_syntax: str
    transfer_syntax: str
    result: int


@dataclass(frozen=True)
class Message:
    """A message as it was on the wire: its command set, and its data set or None."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    command: bytes
    data_set: bytes | None

    def element(self, tag: int) -> bytes | None:
        """Return the value of a command element as it was sent, padding included, or None."""
        return command_elements(self.command).get(tag)

    def number(self, tag: int) -> int | None:
        """Return the value of a US command element, or None."""
        value = self.element(tag)
        return None if value is None else int.from_bytes(value[:2], "little")

    def uid(self, tag: int) -> str:
        """Return the value of a UI command element without padding."""
        return (self.element(tag) or b"").rstrip(b"\0 ").decode("latin-1")


def command_elements(command: bytes) -> dict[int, bytes]:
    """Return the elements of a command set (Implicit VR Little Endian) by tag."""
    elements: dict[int, bytes] = {}
    position = 0
    while position + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, position)
        elements[group << 16 | element] = command[position + 8 : position + 8 + length]
        position += 8 + length
    if position != len(command):
        raise TapError(f"command set ends at byte {len(command)}, not at {position}")
    return elements


def pdus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each whole PDU; what is cut off at the end is left out."""
    position = 0
    while position + 6 <= len(stream):
        kind, length = stream[position], int.from_bytes(stream[position + 2 : position + 6], "big")
        if position + 6 + length > len(stream):
            return
        yield kind, stream[position + 6 : position + 6 + length]
        position += 6 + length


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(data):
        kind, length = data[position], int.from_bytes(data[position + 2 : position + 4], "big")
        yield kind, data[position + 4 : position + 4 + length]
        position += 4 + length


def _uid(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("latin-1")


def negotiated(requestor: bytes, acceptor: bytes) -> dict[int, PresentationContext]:
    """Return the presentation contexts by id, from A-ASSOCIATE-RQ and -AC in the two streams."""
    abstract: dict[int, str] = {}
    for kind, body in pdus(requestor):
        if kind == A_ASSOCIATE_RQ:
            for item, value in _items(body[68:]):
                if item == 0x20:
                    names = [_uid(sub) for part, sub in _items(value[4:]) if part == 0x30]
                    abstract[value[0]] = names[0] if names else ""
    contexts: dict[int, PresentationContext] = {}
    for kind, body in pdus(acceptor):
        if kind == A_ASSOCIATE_AC:
            for item, value in _items(body[68:]):
                if item == 0x21:
                    syntaxes = [_uid(sub) for part, sub in _items(value[4:]) if part == 0x40]
                    contexts[value[0]] = PresentationContext(
                        abstract.get(value[0], ""), syntaxes[0] if syntaxes else "", value[2]
                    )
    return contexts


@dataclass
class _Assembly:
    context_id: int
    command: bytearray = field(default_factory=bytearray)
    data_set: bytearray = field(default_factory=bytearray)
    command_whole: bool = False


def messages(stream: bytes, contexts: dict[int, PresentationContext]) -> list[Message]:
    """Return the whole messages of one direction, in order of their last fragments."""
    unknown = PresentationContext("", "", 0)
    result: list[Message] = []
    assembly: _Assembly | None = None
    for context_id, header, fragment in _fragments(stream):
        assembly = assembly or _Assembly(context_id)
        if assembly.context_id != context_id:
            raise TapError(f"context id {context_id} inside a message on {assembly.context_id}")
        is_command, is_last = bool(header & 1), bool(header & 2)
        if is_command == assembly.command_whole:
            raise TapError("a command fragment after its last, or a data set before its command")
        (assembly.command if is_command else assembly.data_set).extend(fragment)
        if not is_last:
            continue
        assembly.command_whole = True
        command = bytes(assembly.command)
        kind = command_elements(command).get(COMMAND_DATA_SET_TYPE, b"")
        without = int.from_bytes(kind, "little") == NO_DATA_SET
        if without or not is_command:
            context = contexts.get(context_id, unknown)
            data_set = None if without else bytes(assembly.data_set)
            result.append(
                Message(
                    context_id, context.abstract_syntax, context.transfer_syntax, command, data_set
                )
            )
            assembly = None
    return result


def _fragments(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    for kind, body in pdus(stream):
        position = 0
        while kind == P_DATA_TF and position < len(body):
            length = int.from_bytes(body[position : position + 4], "big")
            if length < 2 or position + 4 + length > len(body):
                raise TapError(f"PDV length {length} does not fit its PDU of {len(body)} bytes")
            yield (
                body[position + 4],
                body[position + 5],
                body[position + 6 : position + 4 + length],
            )
            position += 4 + length


@dataclass
class Conversation:
    """One connection: every byte that was forwarded, by direction."""

    requestor: bytearray = field(default_factory=bytearray)
    acceptor: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)

    def contexts(self) -> dict[int, PresentationContext]:
        """Return the negotiated presentation contexts by id."""
        return negotiated(bytes(self.requestor), bytes(self.acceptor))

    def requests(self) -> list[Message]:
        """Return the whole messages that the requestor of the association sent."""
        return messages(bytes(self.requestor), self.contexts())

    def responses(self) -> list[Message]:
        """Return the whole messages that the acceptor sent."""
        return messages(bytes(self.acceptor), self.contexts())

    def stored(self) -> list[Message]:
        """Return the C-STORE requests of the requestor that were answered with 0000H."""
        done = {
            message.number(MESSAGE_ID_BEING_RESPONDED_TO)
            for message in self.responses()
            if message.number(COMMAND_FIELD) == C_STORE_RSP and message.number(STATUS) == 0
        }
        return [
            message
            for message in self.requests()
            if message.number(COMMAND_FIELD) == C_STORE_RQ and message.number(MESSAGE_ID) in done
        ]


@dataclass(frozen=True)
class Fault:
    """What the tap does to the bytes it forwards in ``direction``; the other one is left alone.

    Args:
        split: forward in pieces of this many bytes, each in a send of its own; None as they came.
        delay: seconds before each piece; with ``split`` this trickles.
        cut_after: forward this many bytes, then reset both connections; None never.
        half_close_after: forward this many bytes, then close that direction and drop what follows.
        stall_after: forward this many bytes, then neither read nor write that direction any more.
    """

    direction: Direction = "requestor"
    split: int | None = None
    delay: float = 0.0
    cut_after: int | None = None
    half_close_after: int | None = None
    stall_after: int | None = None


class Tap:
    """A proxy on a loopback port in front of ``port``, running in a thread of its own.

    A context manager: connections are cut when the block ends. ``conversations`` grows by one for
    each accepted connection, in order of arrival.
    """

    def __init__(self, port: int, *, fault: Fault | None = None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.conversations: list[Conversation] = []
        self._target = port
        self._fault = fault
        self._loop = asyncio.new_event_loop()
        self._ready: Future[int] = Future()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def __enter__(self) -> Tap:
        self._thread.start()
        self.port = self._ready.result(timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def wait_ended(self, count: int = 1, seconds: float = 30.0) -> list[Conversation]:
        """Return the conversations once ``count`` of them have ended in both directions.

        Raises:
            TapError: they had not within ``seconds``.
        """
        self._wait_for(lambda: len(self.conversations) >= count, seconds, f"{count} connections")
        for conversation in self.conversations[:count]:
            if not conversation.ended.wait(seconds):
                raise TapError(f"a connection was still open after {seconds} s")
        return self.conversations[:count]

    @staticmethod
    def _wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TapError(f"{what} did not come within {seconds} s")
            time.sleep(0.01)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, self.host, 0)
        self._ready.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        conversation = Conversation()
        self.conversations.append(conversation)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(self.host, self._target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as both:
                for direction, source, sink, record in (
                    ("requestor", reader, far_writer, conversation.requestor),
                    ("acceptor", far_reader, writer, conversation.acceptor),
                ):
                    fault = self._fault
                    if fault is None or fault.direction != direction:
                        fault = Fault()
                    both.create_task(_forward(source, sink, record, fault))
        except* (OSError, _Cut):
            for each in writers:
                _reset(each)
        finally:
            for each in writers:
                each.close()
            self._tasks.discard(task)
            conversation.ended.set()


class _Cut(Exception):
    pass


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        # Lingering for no time makes close() send a reset, as a cut link looks to the peer.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _forward(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, record: bytearray, fault: Fault
) -> None:
    """Forward until the source ends, then close the sink's direction."""
    limits = (fault.cut_after, fault.half_close_after, fault.stall_after)
    limit = min((value for value in limits if value is not None), default=None)
    while data := await source.read(65536):
        if limit is not None:
            data = data[: limit - len(record)]
        size = fault.split or len(data) or 1
        for start in range(0, len(data), size):
            if fault.delay:
                await asyncio.sleep(fault.delay)
            piece = data[start : start + size]
            record += piece
            sink.write(piece)
            await sink.drain()
        if limit is not None and len(record) >= limit:
            await _misbehave(source, sink, fault, limit)
            return
    if sink.can_write_eof():
        sink.write_eof()


async def _misbehave(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, fault: Fault, limit: int
) -> None:
    if limit == fault.cut_after:
        raise _Cut
    if limit == fault.stall_after:
        await asyncio.Event().wait()
    sink.write_eof()
    while await source.read(65536):
        pass
