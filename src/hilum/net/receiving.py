"""What arrives: events in their order, and each data set, part by part, to whoever takes it.

Nothing is read that cannot be put anywhere: with any reason to wait, events stay where they are and
the link stops reading.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from hilum.net.service import Part
from hilum.wire.connection import CommandReceived, Connection, DataFragment

if TYPE_CHECKING:
    from hilum.net.association import Association
    from hilum.net.link import Link

__all__ = [
    "REQUEST_WAITS",
    "RESPONSES_HELD",
    "SINK_BUSY",
    "Gathered",
    "Held",
    "Message",
    "PassedOver",
    "Receiving",
    "when_done",
]

# A peer may send fragments of one byte, each of which costs a view of 200: more than so many are
# put together. A gathering write takes no more either (IOV_MAX).
MAX_PARTS = 1024

# Why reading pauses; several may hold at once.
REQUEST_WAITS = 1  # a request of the peer cannot be served yet
SINK_BUSY = 2  # a sink still reads from what it was given
RESPONSES_HELD = 4  # nobody takes the responses that are here


class DataSink(Protocol):
    """The part of ``StoreSink`` that takes bytes."""

    def write(self, parts: Sequence[Part]) -> bool:
        """See ``StoreSink``."""

    def drained(self) -> Awaitable[None]:
        """See ``StoreSink``."""


class Message(Protocol):
    """A message whose data set is arriving."""

    @property
    def sink(self) -> DataSink:
        """Where its bytes go."""

    def failed(self, error: Exception) -> None:
        """The sink raised: from now on ``sink`` is another, which passes over the rest."""

    def ended(self) -> None:
        """The data set is whole."""


class PassedOver:
    """A data set that nobody wants."""

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done

    @property
    def sink(self) -> DataSink:
        """Itself."""
        return self

    def write(self, parts: Sequence[Part]) -> bool:
        """Nothing is kept."""
        return True

    async def drained(self) -> None:
        """Nothing is held."""

    def failed(self, error: Exception) -> None:
        """It cannot."""

    def ended(self) -> None:
        """Says so."""
        self._done()


class Held:
    """What one data set takes of the memory that requests may take together.

    It is given back when nobody has this object any more.

    Attributes:
        bytes: of all of them, in this process.
    """

    __slots__ = ("_own", "full")

    bytes = 0
    # Collected in any thread, and in the middle of `grow` too.
    _counting = threading.RLock()

    def __init__(self) -> None:
        self._own = 0
        #: Whether there was no room.
        self.full = False

    def grow(self, to: int, most: int) -> bool:
        """Take as many bytes; False where all together would be more than `most`."""
        with Held._counting:
            more = to - self._own
            if more > 0 and Held.bytes + more > most:
                self.full = True
                return False
            self._own = to
            Held.bytes += more
            return True

    def __del__(self) -> None:
        self.grow(0, 0)


class Gathered(PassedOver):
    """A data set that is wanted whole.

    Args:
        most: bytes of it.
        done: takes the bytes, or None where there were too many.
        too_long: called as soon as there are.
        held: counts them with those of others.
        most_held: bytes of all together.
    """

    def __init__(
        self,
        most: int,
        done: Callable[[bytes | None], None],
        too_long: Callable[[], None] | None = None,
        *,
        held: Held | None = None,
        most_held: int = 0,
    ) -> None:
        super().__init__(lambda: None)
        # No closure over this object: its bytes go as soon as nobody has it any more.
        self._give = done
        self._most = most
        self._held, self._most_held = held, most_held
        self._bytes = bytearray()
        self._over = False
        self._too_long = too_long

    def write(self, parts: Sequence[Part]) -> bool:
        """Keeps them."""
        if self._over:
            return True
        for part in parts:
            self._bytes += part
        size, held = len(self._bytes), self._held
        if size > self._most or (held is not None and not held.grow(size, self._most_held)):
            self._over = True
            self._bytes.clear()
            if held is not None:
                held.grow(0, 0)
            if self._too_long is not None:
                self._too_long()
        return True

    def ended(self) -> None:
        """Gives them."""
        self._give(None if self._over else bytes(self._bytes))


class Receiving:
    """The receiving side of an association.

    Args:
        owner: takes commands and what is no message.
        connection: gives events.
    """

    link: Link

    def __init__(self, owner: Association, connection: Connection) -> None:
        self._owner = owner
        self._connection = connection
        #: The message whose data set is arriving.
        self.message: Message | None = None
        #: Reasons to wait, as bits.
        self.blocked = 0
        self._parts: list[Part] = []
        self._in_shared = False
        self._sink_busy = False
        self._ending = False
        self._stopped = False

    def events(self, in_shared: bool) -> None:
        """Take what the core has; leave nothing behind that points into the shared buffer."""
        self._in_shared = in_shared
        self.pump()
        if in_shared and self._connection.has_events:
            self._connection.hold()
        self._in_shared = False

    def pump(self) -> None:
        """Take events as long as nothing is in the way."""
        next_event = self._connection.next_event
        owner = self._owner
        while not self.blocked and not self._stopped:
            event = next_event()
            if event is None:
                break
            kind = type(event)
            if kind is DataFragment:
                self._parts.append(event.data)  # type: ignore[union-attr]  # kind says so
                if event.last:  # type: ignore[union-attr]  # kind says so
                    self._data_ended()
            elif kind is CommandReceived:
                owner.command_received(event)  # type: ignore[arg-type]  # kind says so
            else:
                owner.control(event)
        if self._stopped:
            self.pump_control()
        elif self._parts and not self.blocked:
            self._offer()
        elif not self.blocked:
            self.link.rewind()

    def pump_control(self) -> None:
        """At the end: only how it ended still matters."""
        while (event := self._connection.next_event()) is not None:
            if not isinstance(event, CommandReceived | DataFragment):
                self._owner.control(event)

    def block(self, reason: int) -> None:
        """Take no further events, and read no more."""
        self.blocked |= reason
        self.link.pause()

    def unblock(self, reason: int) -> None:
        """Go on, if that was the only reason to wait."""
        if self.blocked & reason:
            self.blocked &= ~reason
            if not self.blocked:
                self.pump()
                if not self.blocked:
                    self.link.resume()

    def stop(self) -> None:
        """The association is over: what was half received is dropped."""
        self._stopped = True
        self._parts.clear()
        # Who still knows this association keeps no data set with it.
        self.message = None
        self.blocked = 0
        # Not given back: a sink may be reading from it at this moment.
        self.link.detach()

    # ── a data set ──────────────────────────────────────────────────────────────────────────

    def _offer(self) -> None:
        """Parts of an unfinished data set: hand them on, or gather more first."""
        if self._in_shared:
            self._parts = [bytes(part) for part in self._parts]
            self.link.grow()
        elif self.link.room and len(self._parts) < MAX_PARTS:
            return
        if self._sink_busy:
            self.block(SINK_BUSY)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        parts, self._parts = self._parts, []
        if self._write(parts):
            self.link.rewind()
        else:
            self.link.grow()

    def _write(self, parts: Sequence[Part]) -> bool:
        """To the sink; False where the link's buffer is no longer its own."""
        message = self.message
        if message is None:
            return True
        if len(parts) > MAX_PARTS:
            parts = (b"".join(parts),)
        sink = message.sink
        try:
            if sink.write(parts):
                return True
        except Exception as error:
            message.failed(error)
            self.link.detach()  # who knows what it still reads
            return False
        self._sink_busy = True
        pinned = self.link.detach()
        when_done(sink.drained, lambda done: self._drained(message, sink, pinned, done))
        return False

    def _drained(
        self,
        message: Message,
        sink: DataSink,
        pinned: memoryview | None,
        done: asyncio.Future[object],
    ) -> None:
        # A buffer that may still be read from is never used again; it goes with its last view.
        taken = not done.cancelled() and done.exception() is None
        if taken and not self._stopped:
            self.link.give_back(pinned)
        if self.message is not message or message.sink is not sink or self._stopped:
            return
        self._sink_busy = False
        if self._ending:
            self._ending = False
            self._data_ended()
        elif self.blocked & SINK_BUSY:
            self._hand_over()
        self.unblock(SINK_BUSY)

    def _data_ended(self) -> None:
        if self._sink_busy:
            self._ending = True
            self.block(SINK_BUSY)
            return
        parts, self._parts = self._parts, []
        link = self.link
        if self._in_shared:
            parts = [bytes(part) for part in parts]
        elif self._connection.has_events:
            self._connection.hold()
        if parts:
            self._write(parts)
        link.shrink()
        message, self.message, self._sink_busy = self.message, None, False
        if message is not None and not self._stopped:
            message.ended()


def when_done(
    start: Callable[[], Awaitable[object]], callback: Callable[[asyncio.Future[object]], None]
) -> None:
    """Call back when it is done; a future needs no task, a coroutine gets one that is kept."""
    future: asyncio.Future[object]
    try:
        future = asyncio.ensure_future(start())
    except Exception as error:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(error)
    if isinstance(future, asyncio.Task):
        _kept.add(future)
        future.add_done_callback(_kept.discard)
    future.add_done_callback(callback)


_kept: set[asyncio.Task[object]] = set()
