"""One TCP connection: bytes between the transport and ``wire``, with deadlines.

A link reads into a buffer that all links of the loop share, and into two of its own, from a pool,
only while a large data set is arriving. Whoever takes the events (``Association``) says with
``pause`` and ``resume`` whether more may be read; nothing is read that cannot be put anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Protocol, cast
from weakref import WeakKeyDictionary

from hilum.net.limits import BufferPool, Limits, Timeouts
from hilum.wire.connection import Connection

__all__ = ["Link", "LinkOwner", "Observer", "Sweeper"]

# Every link of a loop reads here first. Whole small messages, all requests and all responses fit.
SHARED_BUFFER = 64 << 10
# Below this much room in a buffer it is handed on rather than filled to the last byte.
LITTLE_ROOM = 16 << 10
# The kernel keeps quick acknowledgement up only for a while; it has to be asked for again.
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


class Observer(Protocol):
    """Sees what a link does; unused, it costs one comparison per read and write."""

    def opened(self, link: Link) -> None:
        """The transport is there."""

    def received(self, link: Link, data: memoryview) -> None:
        """Bytes came; the view is valid during the call."""

    def sent(self, link: Link, data: list[bytes | bytearray | memoryview]) -> None:
        """Bytes were given to the transport."""

    def closed(self, link: Link, error: Exception | None) -> None:
        """The transport is gone."""


class LinkOwner(Protocol):
    """What a link calls."""

    def link_opened(self) -> None:
        """The transport is there."""

    def link_events(self, in_shared: bool) -> None:
        """``connection`` may have events; views in them end with this call if ``in_shared``."""

    def link_idle(self, seconds: float) -> None:
        """Nothing was read or written for so long."""

    def link_stalled(self, why: str) -> None:
        """A deadline on reading or writing passed."""

    def link_writable(self) -> None:
        """The transport, which had held more than it likes, has room again."""

    def link_closed(self, error: Exception | None) -> None:
        """The transport is gone; called once."""


class Sweeper:
    """Looks at every link of a loop once a tick: no timer per association, no CPU for idle ones."""

    _of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Sweeper] = WeakKeyDictionary()

    def __init__(self) -> None:
        # No reference to the loop, which would keep both for ever.
        self._links: set[Link] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._tick = 1.0
        self.shared = memoryview(bytearray(SHARED_BUFFER))
        self.pools: dict[int, BufferPool] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Sweeper:
        """The loop's own."""
        sweeper = cls._of_loop.get(loop)
        if sweeper is None:
            sweeper = cls._of_loop[loop] = cls()
        return sweeper

    def add(self, link: Link, shortest: float) -> None:
        """Watch a link whose shortest deadline is so many seconds."""
        self._links.add(link)
        tick = max(0.02, min(1.0, shortest / 4))
        if self._handle is None or tick < self._tick:
            if self._handle is not None:
                self._handle.cancel()
            self._tick = tick
            self._handle = asyncio.get_running_loop().call_later(tick, self._sweep)

    def discard(self, link: Link) -> None:
        """Stop watching."""
        self._links.discard(link)
        if not self._links and self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._tick = 1.0

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(self._tick, self._sweep)
        now = loop.time()
        for link in tuple(self._links):
            link.check(now)


class Link(asyncio.BufferedProtocol):
    """The transport's protocol, and the core's shell.

    Args:
        connection: the protocol core.
        owner: takes events.
        timeouts: deadlines.
        limits: sizes and rates.
        sock: the TCP socket where the caller has it, for quick acknowledgement.
        observer: sees bytes and connection events.
    """

    def __init__(
        self,
        connection: Connection,
        owner: LinkOwner,
        timeouts: Timeouts,
        limits: Limits,
        sock: socket.socket | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.connection = connection
        self.owner = owner
        self.timeouts = timeouts
        self.limits = limits
        self.observer = observer
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.bytes_received = 0
        self.bytes_sent = 0
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._sweeper = Sweeper.of(self._loop)
        self._pool = self._sweeper.pools.setdefault(
            limits.buffer_size, BufferPool(limits.buffer_size, limits.max_free_buffers)
        )
        self._own: memoryview | None = None
        self._fill = 0
        self._paused = False
        self._last_activity = 0.0
        self._window_start = 0.0
        self._window_bytes = 0
        self._write_paused_at: float | None = None
        self._write_left = 0
        self._writable: asyncio.Future[None] | None = None
        self._closing_at: float | None = None

    # ── transport → core ────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TCP connection, or the TLS session on it, is up."""
        # uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        now = self._last_activity = self._window_start = self._loop.time()
        self._sweeper.add(self, self._shortest)
        if self._sock is None:
            self._sock = transport.get_extra_info("socket")
        if self.observer is not None:
            self.observer.opened(self)
        self.connection.transport_opened(now)
        self.owner.link_opened()
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport reads into next."""
        own = self._own
        return self._sweeper.shared if own is None else own[self._fill :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have been read."""
        now = self._last_activity = self._loop.time()
        self.bytes_received += nbytes
        own = self._own
        if own is None:
            view = self._sweeper.shared[:nbytes]
        else:
            view = own[self._fill : self._fill + nbytes]
            self._fill += nbytes
        if self.observer is not None:
            self.observer.received(self, view)
        connection = self.connection
        connection.receive_data(view, now)
        if connection.receiving:
            # A sender with Nagle's algorithm on waits for this acknowledgement before it sends
            # the rest; delayed, it costs 40 ms a message (field notes A 37).
            self.quick_acknowledge()
        self.owner.link_events(own is None)
        self.flush()

    def quick_acknowledge(self) -> None:
        """Acknowledge what has come without delay, where the system can (Linux)."""
        if _QUICKACK is not None and self._sock is not None:
            try:
                self._sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            except (OSError, TypeError, AttributeError):
                self._sock = None  # no TCP socket, or already closed

    def eof_received(self) -> bool:
        """The peer will send nothing more: the connection is closed, as PS3.8 knows no half."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        if self.closed:
            return
        self.closed = True
        self._sweeper.discard(self)
        self.connection.receive_eof(self._loop.time())
        self._wake_writer()
        if self.observer is not None:
            self.observer.closed(self, exc)
        self.owner.link_closed(exc)
        self._sock = None

    @property
    def _shortest(self) -> float:
        timeouts = self.timeouts
        return min(timeouts.artim, timeouts.message, timeouts.write, timeouts.idle or 1e9)

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Other deadlines from now on."""
        self.timeouts = timeouts
        if self.transport is not None and not self.closed:
            self._sweeper.add(self, self._shortest)

    # ── buffers ─────────────────────────────────────────────────────────────────────────────

    @property
    def room(self) -> bool:
        """Whether the current buffer can take more before it is handed on."""
        return self._own is not None and len(self._own) - self._fill >= LITTLE_ROOM

    def rewind(self) -> None:
        """Nothing points into the buffer any more: fill it from its beginning."""
        self._fill = 0

    def grow(self) -> None:
        """A large data set is arriving: read into a buffer of our own from now on."""
        if self._own is None:
            self._own = self._pool.take()
            self._fill = 0

    def detach(self) -> memoryview | None:
        """Give the current buffer to the caller, who returns it with ``give_back``."""
        own, self._own, self._fill = self._own, None, 0
        return own

    def give_back(self, buffer: memoryview | None) -> None:
        """A buffer from ``detach`` is free again."""
        if buffer is not None:
            self._pool.give(buffer)

    def shrink(self) -> None:
        """No large data set any more, and nothing points into our buffer: give it back."""
        self.give_back(self.detach())

    def pause(self) -> None:
        """Stop reading."""
        if not self._paused and self.transport is not None and not self.closed:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Go on reading; the time of the pause counts against nobody."""
        if self._paused and self.transport is not None and not self.closed:
            self._paused = False
            self._window_start, self._window_bytes = self._loop.time(), self.bytes_received
            if not self.transport.is_closing():
                self.transport.resume_reading()

    # ── core → transport ────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        """Write what the core has queued; close where it says so."""
        out = self.connection.data_to_send()
        transport = self.transport
        if transport is None:
            return
        if out and not transport.is_closing():
            size = sum(map(len, out))
            self.bytes_sent += size
            self._last_activity = self._loop.time()
            if len(out) == 1:
                transport.write(out[0])
            elif size <= SHARED_BUFFER:
                transport.write(b"".join(out))
            else:
                transport.writelines(out)
            if self.observer is not None:
                self.observer.sent(self, out)
        if self.connection.must_close:
            self.close()

    def pause_writing(self) -> None:
        """The transport holds more than it likes."""
        self._write_paused_at = self._loop.time()
        self._write_left = self.transport.get_write_buffer_size() if self.transport else 0
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._write_paused_at = None
        self._wake_writer()
        self.owner.link_writable()

    def _wake_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    @property
    def is_full(self) -> bool:
        """Whether the transport holds more than it likes."""
        return self._write_paused_at is not None

    async def drain(self) -> None:
        """Wait until the transport has room, or is closed.

        Cancellation: nothing is lost; what was queued is still written.
        """
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def close(self) -> None:
        """Close once everything written has gone, at the latest after the ARTIM time."""
        if self.transport is not None and self._closing_at is None and not self.closed:
            self._closing_at = self._loop.time()
            self.transport.close()
            self._wake_writer()

    def kill(self) -> None:
        """Close at once; what was not yet sent is dropped."""
        if self.transport is not None:
            if not self.closed:
                self.transport.abort()
        elif self._sock is not None:
            # In the TLS handshake, or not yet begun: whoever is about to read finds the end.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    # ── time ────────────────────────────────────────────────────────────────────────────────

    def check(self, now: float) -> None:
        """Called once a tick by the sweeper."""
        connection, timeouts = self.connection, self.timeouts
        if self._closing_at is not None:
            if now - self._closing_at > timeouts.artim:
                self.kill()
            return
        deadline = connection.deadline
        if deadline is not None and now >= deadline:
            connection.handle_timeout(now)
            self.owner.link_events(False)
            self.flush()
            return
        if self._write_paused_at is not None:
            self._check_writing(now)
        if self._paused or not connection.receiving:
            self._window_start, self._window_bytes = now, self.bytes_received
            if timeouts.idle is not None and now - self._last_activity > timeouts.idle:
                self.owner.link_idle(now - self._last_activity)
        elif now - self._window_start >= timeouts.message:
            rate = (self.bytes_received - self._window_bytes) / (now - self._window_start)
            if rate < self.limits.min_receive_rate:
                self.owner.link_stalled(f"message received at {rate:.0f} bytes/s")
            self._window_start, self._window_bytes = now, self.bytes_received

    def _check_writing(self, now: float) -> None:
        assert self.transport is not None
        assert self._write_paused_at is not None
        left = self.transport.get_write_buffer_size()
        progress, self._write_left = left < self._write_left, left
        if progress:
            self._write_paused_at = now
        elif now - self._write_paused_at > self.timeouts.write:
            self.owner.link_stalled("peer takes no data")
            self.kill()
