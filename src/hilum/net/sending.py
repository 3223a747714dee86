"""What is sent: one message at a time, in pieces that the peer's reading allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from hilum.net.service import Part
from hilum.wire.command import Command
from hilum.wire.connection import Connection
from hilum.wire.fsm import State

if TYPE_CHECKING:
    from hilum.net.association import Association
    from hilum.net.link import Link

__all__ = ["Said", "Sending"]

# What is queued at once of a data set that is sent, in bytes and in fragments: a peer may ask for
# fragments of ten bytes, each of which costs a header and two objects.
MAX_PIECE = 1 << 20
MAX_PIECE_FRAGMENTS = 2048
# What is queued of a page of responses before it is written, bytes: few writes, little memory.
MAX_WRITE = 256 << 10
# About what the command set of a response takes, bytes.
COMMAND_LENGTH = 200


class Said(NamedTuple):
    """A whole message."""

    context_id: int
    command: Command
    data: bytes | None = None


class Sending:
    """The sending side of an association.

    Fragments of two messages may not be mixed (PS3.7 annex F), so that whoever sends waits for its
    turn; short answers that come up meanwhile go out right behind the message in progress.
    """

    link: Link

    def __init__(self, owner: Association, connection: Connection) -> None:
        self._owner = owner
        self._connection = connection
        #: Whether a message is being sent.
        self.busy = False
        #: Messages that wait for the end of the one that is being sent.
        self.deferred: list[Said] = []
        # A list: an empty deque takes 700 bytes of every idle association.
        self.turns: list[asyncio.Future[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether a message is being sent or waits to be."""
        return self.busy or bool(self.deferred or self.turns)

    def say(self, context_id: int, command: Command, data: bytes | None = None) -> None:
        """Send a small message, after the one that is being sent if any; never waits."""
        if self._owner.is_over or self._connection.state not in (State.Sta6, State.Sta8):
            return
        if self.busy:
            self.deferred.append(Said(context_id, command, data))
            return
        self._connection.send_message(context_id, command, None if data is None else (data,))
        self.link.flush()

    async def send(
        self,
        context_id: int,
        command: Command,
        data: Iterable[Part] | AsyncIterator[Part] | None = None,
    ) -> None:
        """Send one message; on return it was queued whole.

        Raises:
            AssociationError: it ended.

        Cancellation: half sent, the association is aborted.
        """
        await self._turn()
        whole = False
        try:
            if data is None or self._is_small(data):
                # Command and data set in one write, and nothing to wait for.
                self._connection.send_message(context_id, command, data)
                self.link.flush()
            else:
                self._connection.send_message(context_id, command)
                await self._send_parts(context_id, data)
            whole = True
        finally:
            self.busy = False
            if not whole and data is not None:
                # A message half sent has no other end than this.
                self._owner.abort()
            self.next_turn()

    async def send_page(
        self, context_id: int, page: Sequence[tuple[Command, bytes | None]]
    ) -> None:
        """Send whole messages with as few writes as the peer's reading allows.

        Raises:
            AssociationError: it ended.

        Cancellation: in the middle of a message, the association is aborted.
        """
        await self._turn()
        connection, link = self._connection, self.link
        half = False
        batch: list[tuple[Command, bytes | None]] = []
        queued = 0
        try:
            for command, data in page:
                size = len(data or b"")
                if size > MAX_PIECE:
                    connection.send_responses(context_id, batch)
                    batch.clear()
                    half = True
                    connection.send_message(context_id, command)
                    await self._send_parts(context_id, (data or b"",))
                    half = False
                    continue
                batch.append((command, data))
                queued += COMMAND_LENGTH + size
                if queued > MAX_WRITE:
                    connection.send_responses(context_id, batch)
                    batch.clear()
                    queued = 0
                    link.flush()
                    await link.drain()
                    self._owner.must_be_open()
            connection.send_responses(context_id, batch)
            link.flush()
        finally:
            self.busy = False
            if half:
                self._owner.abort()
            self.next_turn()
        await link.drain()

    async def _turn(self) -> None:
        owner = self._owner
        owner.must_be_open()
        while self.busy:
            turn = asyncio.get_running_loop().create_future()
            self.turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.next_turn()  # it was ours, and is nobody's otherwise
                raise
            owner.must_be_open()
        self.busy = True

    def _is_small(self, data: object) -> TypeGuard[tuple[Part]]:
        return (
            isinstance(data, tuple)
            and len(data) == 1
            and len(data[0]) <= min(MAX_PIECE, self._connection.max_send_length)
        )

    async def _send_parts(
        self, context_id: int, data: Iterable[Part] | AsyncIterator[Part]
    ) -> None:
        """Everything the core queues goes out with the next flush: command and data in one."""
        held: Part | None = None
        link, connection = self.link, self._connection
        piece_size = min(MAX_PIECE, MAX_PIECE_FRAGMENTS * connection.max_send_length)

        async def push(part: Part, last: bool) -> None:
            self._owner.must_be_open()
            connection.send_data(context_id, part, last=last)
            link.flush()
            await link.drain()

        # Empty parts are nothing to send; an empty data set is one empty fragment.
        if isinstance(data, AsyncIterator):
            async for part in data:
                for piece in _pieces(part, piece_size):
                    if held is not None:
                        await push(held, False)
                    held = piece
        else:
            for part in data:
                for piece in _pieces(part, piece_size):
                    if held is not None:
                        await push(held, False)
                    held = piece
        await push(b"" if held is None else held, True)

    def next_turn(self) -> None:
        """The message in progress has ended: what waits behind it goes on."""
        deferred, self.deferred = self.deferred, []
        for said in deferred:
            self.say(*said)
        self._owner.sent()
        while self.turns:
            turn = self.turns.pop(0)
            if not turn.done():
                turn.set_result(None)
                return

    def stop(self) -> None:
        """The association is over: whoever waits finds that out."""
        for turn in self.turns:
            if not turn.done():
                turn.set_result(None)
        self.turns.clear()
        self.deferred.clear()


def _pieces(part: Part, size: int) -> Iterable[Part]:
    if len(part) <= size:
        return (part,) if part else ()
    view = memoryview(part)
    return (view[start : start + size] for start in range(0, len(view), size))
