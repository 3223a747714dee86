"""An association: requests of ours and their responses, requests of the peer and their handling.

Messages are dispatched by Message ID, so that a request from the peer stalls no response to ours.
The peer's C-STORE requests are served one after another; a second one that comes early waits, and
reading with it, unless an asynchronous operations window was granted.

Standard: PS3.7 6.3, 7.5, 9.1 and 9.3.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from hilum.errors import (
    AssociationAborted,
    AssociationError,
    AssociationRejected,
    AssociationReleased,
    AssociationTimeout,
    ConnectionLost,
    HilumError,
    LocalProtocolError,
    NoPresentationContext,
    RemoteProtocolError,
)
from hilum.net.limits import Limits, Timeouts
from hilum.net.link import Link
from hilum.net.service import Accept, Context, Outcome, Part, Peer, StoreSink
from hilum.services.sop_classes import VERIFICATION
from hilum.wire.command import Command, CommandField, Priority
from hilum.wire.connection import (
    Aborted,
    Accepted,
    CommandReceived,
    Connection,
    DataFragment,
    Established,
    Lost,
    Rejected,
    Released,
    ReleaseRequested,
    Requested,
    WireEvent,
)
from hilum.wire.fsm import State
from hilum.wire.pdu import Abort, AssociateAC, AssociateRQ, ReleaseRP, ReleaseRQ

__all__ = ["Association", "Response"]

log = logging.getLogger("hilum.net")

# Identifiers and event information are a few KB; the largest that real peers send are commitment
# results with tens of thousands of references.
MAX_DATA_SET_IN_MEMORY = 64 << 20
# What is queued at once of a data set that is sent, in bytes and in fragments: a peer may ask for
# fragments of ten bytes, each of which costs a header and two objects.
MAX_PIECE = 1 << 20
MAX_PIECE_FRAGMENTS = 2048
# A peer may send fragments of one byte, each of which costs a view of 200: more than so many are
# put together. A gathering write takes no more either (IOV_MAX).
MAX_PARTS = 1024

_numbers = itertools.count(1)


class Response(NamedTuple):
    """A response to a request of ours.

    Args:
        status: (0000,0900).
        command: the whole command set.
        data: the data set's bytes, in the context's transfer syntax, or None.
    """

    status: int
    command: Command
    data: bytes | None = None


class _Collector:
    """A sink for data sets that are wanted whole."""

    def __init__(self, done: Callable[[bytes], None]) -> None:
        self._parts = bytearray()
        self._done = done

    def write(self, parts: Sequence[Part]) -> bool:
        for part in parts:
            self._parts += part
        if len(self._parts) > MAX_DATA_SET_IN_MEMORY:
            raise RemoteProtocolError(f"data set over {MAX_DATA_SET_IN_MEMORY} bytes", 6)
        return True

    def finish(self) -> None:
        self._done(bytes(self._parts))


class _PassedOver:
    """A sink for data sets that nobody wants; ``commit`` gives the answer decided before."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def write(self, parts: Sequence[Part]) -> bool:
        return True

    async def drained(self) -> None:
        """Nothing is held."""

    async def commit(self) -> Outcome:
        return self._outcome

    def abort(self, cause: BaseException) -> None:
        """Nothing is held."""


class Association:
    """One association, either role. Made by ``connect`` and ``serve``.

    Memory: some 10 KiB with its connection and link while idle; two buffers of ``Limits.buffer_size`` while a
    data set larger than 64 KiB arrives.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        timeouts: Timeouts,
        limits: Limits,
        requested: Callable[[Association, AssociateRQ], None] | None = None,
    ) -> None:
        self.connection = connection
        self.timeouts = timeouts
        self.limits = limits
        self.number = next(_numbers)
        self.peer = Peer("?", 0)
        self.accept: Accept | None = None
        self.link: Link
        self.on_end: Callable[[Association], None] | None = None
        self.on_closed: Callable[[Association], None] | None = None
        self._requested = requested
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._error: Exception | None = None
        self._over = False
        self._finishing = False
        self._contexts: dict[int, Context] = {}
        # Our requests.
        self._message_ids = itertools.cycle(range(1, 65536))
        self._pending: dict[int, asyncio.Queue[Response | Exception]] = {}
        self._sending = False
        self._send_turn: deque[asyncio.Future[None]] = deque()
        self._deferred: list[tuple[int, Command]] = []
        # The peer's current message.
        self._in_shared = False
        self._parts: list[Part] = []
        self._collector: _Collector | None = None
        self._sink: StoreSink | None = None
        self._sink_busy = False
        self._ending = False
        # The peer's current request; its sink is another's business than the data set that arrives.
        self._request: CommandReceived | None = None
        self._committing: StoreSink | None = None
        self._waiting: CommandReceived | None = None
        self._blocked = False
        self._tasks: set[asyncio.Task[Outcome]] = set()

    # ── facts ───────────────────────────────────────────────────────────────────────────────

    @property
    def rq(self) -> AssociateRQ:
        """The A-ASSOCIATE-RQ, sent or received."""
        assert self.connection.rq is not None
        return self.connection.rq

    @property
    def ac(self) -> AssociateAC:
        """The A-ASSOCIATE-AC, received or sent."""
        assert self.connection.ac is not None
        return self.connection.ac

    @property
    def is_established(self) -> bool:
        """Whether messages can be exchanged."""
        return self.connection.state is State.Sta6 and not self._over

    @property
    def error(self) -> Exception | None:
        """Why it ended; None before the end and after a release."""
        return self._error

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however."""
        return self._over

    @property
    def is_busy(self) -> bool:
        """Whether a message is being received, answered or sent."""
        return self._request is not None or self._sending or self.connection.receiving

    @property
    def contexts(self) -> dict[int, Context]:
        """Accepted presentation contexts by id."""
        if not self._contexts and self.connection.contexts:
            abstract = {c.context_id: c.abstract_syntax for c in reversed(self.rq.contexts)}
            self._contexts = {
                number: Context(number, abstract[number], syntax)
                for number, syntax in self.connection.contexts.items()
            }
        return self._contexts

    def context_for(self, abstract_syntax: str, transfer_syntax: str | None = None) -> Context:
        """The accepted context of an abstract syntax, and exactly this transfer syntax if given.

        Raises:
            NoPresentationContext: none fits; the message says what the peer did accept.
        """
        same = [c for c in self.contexts.values() if c.abstract_syntax == abstract_syntax]
        for context in same:
            if transfer_syntax is None or context.transfer_syntax == transfer_syntax:
                return context
        accepted = ", ".join(c.transfer_syntax for c in same) or "nothing"
        wanted = f" with transfer syntax {transfer_syntax}" if transfer_syntax else ""
        raise NoPresentationContext(
            f"no presentation context for {abstract_syntax}{wanted}: the peer accepted {accepted}"
        )

    async def wait_closed(self) -> None:
        """Until the TCP connection is gone. Never raises for how it ended; see ``error``."""
        await asyncio.shield(self._closed)

    # ── our requests ────────────────────────────────────────────────────────────────────────

    async def c_echo(self, timeout: float | None = None) -> Response:
        """Verify that the peer answers.

        Standard: PS3.7 9.1.5, PS3.4 A.

        Args:
            timeout: seconds to wait; None takes ``Timeouts.dimse``.

        Raises:
            NoPresentationContext: Verification was not accepted; the association is usable.
            AssociationError: it ended, or timed out and was aborted.
        """
        context = self.context_for(VERIFICATION)
        command = Command(
            CommandField.C_ECHO_RQ,
            message_id=self._next_id(),
            affected_sop_class_uid=VERIFICATION,
        )
        return await self._ask(context.context_id, command, None, timeout)

    async def c_store(
        self,
        data: Iterable[Part] | AsyncIterator[Part],
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        priority: int = Priority.MEDIUM,
        move_originator: tuple[str, int] | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send one data set, part by part as ``data`` yields them, without decoding.

        Standard: PS3.7 9.1.1, 9.3.1.

        Args:
            data: the encoded data set; every part but the last of even length, and none changed
                before the association has ended or the response has come.
            sop_class_uid: Affected SOP Class UID.
            sop_instance_uid: Affected SOP Instance UID.
            transfer_syntax_uid: how ``data`` is encoded; a context that accepted exactly this
                one is used, nothing is converted.
            priority: (0000,0700).
            move_originator: AE title and Message ID of the C-MOVE this is a sub-operation of.
            timeout: seconds to wait for the response after the last byte; None takes
                ``Timeouts.dimse``.

        Raises:
            NoPresentationContext: nothing was sent, the association is usable.
            AssociationError: it ended or timed out; whether the peer kept the data set is unknown.

        Cancellation: half sent, the association is aborted (PS3.7 knows no other end).
        """
        context = self.context_for(sop_class_uid, transfer_syntax_uid)
        title, number = move_originator or (None, None)
        command = Command(
            CommandField.C_STORE_RQ,
            has_data_set=True,
            message_id=self._next_id(),
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            priority=priority,
            move_originator_application_entity_title=title,
            move_originator_message_id=number,
        )
        return await self._ask(context.context_id, command, data, timeout)

    async def release(self, timeout: float | None = None) -> None:
        """End the association in order; waits for the peer's answer and the connection's close.

        Standard: PS3.8 7.2.

        Raises:
            AssociationError: it ended otherwise, or the peer did not answer and was aborted.
            LocalProtocolError: it is being released already.

        Cancellation: the association is aborted.
        """
        if self._over:
            return
        self.connection.send(ReleaseRQ(), self._loop.time())
        self.link.flush()
        try:
            async with asyncio.timeout(self.timeouts.release if timeout is None else timeout):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self._time_out("no answer to A-RELEASE-RQ")
        except asyncio.CancelledError:
            self.abort()
            raise
        if self._error is not None:
            raise self._error

    def abort(self, source: int = 0, reason: int = 0) -> None:
        """End the association at once (PS3.8 7.3); never waits, never raises, idempotent."""
        if self._over:
            return
        self._abort(AssociationAborted(source, reason), Abort(source, reason))

    def finish(self) -> None:
        """End the association once the message in progress is answered, else at once.

        A peer that always has another message would otherwise be served for ever.
        """
        self._finishing = True
        if not self.is_busy:
            self.abort(2, 0)

    async def __aenter__(self) -> Association:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self.is_established:
            await self.release()
        else:
            self.abort()

    def _next_id(self) -> int:
        for number in self._message_ids:
            if number not in self._pending:
                return number
        raise AssertionError("unreachable: the cycle is endless")

    async def _ask(
        self,
        context_id: int,
        command: Command,
        data: Iterable[Part] | AsyncIterator[Part] | None,
        timeout: float | None,
    ) -> Response:
        number = command.message_id
        responses: asyncio.Queue[Response | Exception] = asyncio.Queue()
        self._pending[number] = responses
        try:
            await self._send(context_id, command, data)
            response = await self._response(responses, command, timeout)
        finally:
            self._pending.pop(number, None)
        if isinstance(response, Exception):
            raise response
        return response

    async def _response(
        self,
        responses: asyncio.Queue[Response | Exception],
        command: Command,
        timeout: float | None,
    ) -> Response | Exception:
        try:
            async with asyncio.timeout(self.timeouts.dimse if timeout is None else timeout):
                return await responses.get()
        except TimeoutError:
            self._time_out(f"no response to {command.name}")
            assert self._error is not None
            return self._error

    async def _send(
        self, context_id: int, command: Command, data: Iterable[Part] | AsyncIterator[Part] | None
    ) -> None:
        """One message at a time: fragments of two may not be mixed (PS3.7 annex F)."""
        self._must_be_open()
        while self._sending:
            turn = self._loop.create_future()
            self._send_turn.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._next_turn()  # it was ours, and is nobody's otherwise
                raise
            self._must_be_open()
        self._sending = True
        whole = False
        try:
            self.connection.send_message(context_id, command)
            if data is not None:
                await self._send_parts(context_id, data)
            else:
                self.link.flush()
            whole = True
        finally:
            self._sending = False
            if not whole and data is not None and not self._over:
                # A message half sent has no other end than this.
                self.abort()
            self._next_turn()
        await self.link.drain()

    async def _send_parts(
        self, context_id: int, data: Iterable[Part] | AsyncIterator[Part]
    ) -> None:
        """Everything the core queues goes out with the next flush: command and data in one."""
        held: Part | None = None
        link, connection = self.link, self.connection
        piece_size = min(MAX_PIECE, MAX_PIECE_FRAGMENTS * connection.max_send_length)

        async def push(part: Part, last: bool) -> None:
            self._must_be_open()
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

    def _next_turn(self) -> None:
        deferred, self._deferred = self._deferred, []
        for context_id, command in deferred:
            self._say(context_id, command)
        self._next_request()
        while self._send_turn:
            turn = self._send_turn.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _must_be_open(self) -> None:
        if self._over or not self.is_established:
            raise self._error or AssociationReleased("the association has been released")

    def _say(self, context_id: int, command: Command) -> None:
        """Send a message without a data set, after the one that is being sent if any."""
        if self._over or self.connection.state not in (State.Sta6, State.Sta8):
            return
        if self._sending:
            self._deferred.append((context_id, command))
            return
        self.connection.send_message(context_id, command)
        self.link.flush()

    # ── events from the link ────────────────────────────────────────────────────────────────

    def link_opened(self) -> None:
        """The transport is up; the requestor's A-ASSOCIATE-RQ goes with it."""
        assert self.link.transport is not None
        session = self.link.transport.get_extra_info("ssl_object")
        if session is not None:
            # Now, because A-ASSOCIATE-RQ may come in one segment with the handshake's last bytes.
            self.peer = replace(self.peer, tls=session)

    def link_events(self, in_shared: bool) -> None:
        """Take what the core has; leave nothing behind that points into the shared buffer."""
        self._in_shared = in_shared
        self._pump()
        if in_shared and self.connection.has_events:
            self.connection.hold()
        self._in_shared = False

    def link_idle(self, seconds: float) -> None:
        """No message for too long: give the place free."""
        if self._pending or self._request is not None:
            return
        self._time_out(f"idle for {seconds:.0f} s")

    def link_stalled(self, why: str) -> None:
        """A deadline on a transfer passed."""
        self._time_out(why)

    def link_writable(self) -> None:
        """The peer takes our bytes again: its next request may be served."""
        self._next_request()

    def link_closed(self, error: Exception | None) -> None:
        """The TCP connection is gone."""
        self._pump_control()
        self._end(ConnectionLost("the connection was lost") if self._error is None else None)
        if not self._closed.done():
            self._closed.set_result(None)
            if self.on_closed is not None:
                self.on_closed(self)

    def _pump(self) -> None:
        next_event = self.connection.next_event
        while not self._blocked and not self._over:
            event = next_event()
            if event is None:
                break
            kind = type(event)
            if kind is DataFragment:
                self._parts.append(event.data)  # type: ignore[union-attr]  # kind says so
                if event.last:  # type: ignore[union-attr]  # kind says so
                    self._data_ended()
            elif kind is CommandReceived:
                self._command_received(event)  # type: ignore[arg-type]  # kind says so
            else:
                self._control(event)
        if self._over:
            self._pump_control()
        elif self._parts and not self._blocked:
            self._offer()
        elif not self._blocked:
            self.link.rewind()

    def _pump_control(self) -> None:
        """At the end: only how it ended still matters."""
        while (event := self.connection.next_event()) is not None:
            if not isinstance(event, CommandReceived | DataFragment):
                self._control(event)

    def _control(self, event: WireEvent) -> None:
        match event:
            case Requested(rq):
                assert self._requested is not None
                self._requested(self, rq)
            case Accepted() | Established():
                if not self._opened.done():
                    self._opened.set_result(None)
            case Rejected(rj):
                self._end(AssociationRejected(rj.result, rj.source, rj.reason))
            case ReleaseRequested():
                if self.connection.state is not State.Sta10:
                    self._released_by_peer()
            case Released():
                if self.connection.state is State.Sta12:
                    self._released_by_peer()
                self._end(None)
            case Aborted(source, reason, error):
                if error is not None:
                    log.info("association %d: protocol error: %s", self.number, error)
                self._end(error or AssociationAborted(source, reason))
            case Lost():
                self._end(ConnectionLost("the connection was lost"))
            case _:
                raise AssertionError(event)

    def _released_by_peer(self) -> None:
        try:
            self.connection.send(ReleaseRP(), self._loop.time())
        except LocalProtocolError:
            return  # what came behind A-RELEASE-RQ ended the association first
        self.link.flush()
        if self.connection.state is not State.Sta11:
            self._end(None)

    # ── the peer's messages ─────────────────────────────────────────────────────────────────

    def _command_received(self, event: CommandReceived) -> None:
        command = event.command
        if command.is_response:
            self._response_received(event)
        elif command.command_field == CommandField.C_CANCEL_RQ:
            pass  # nothing that could be cancelled is served yet
        elif self._request is not None or self._answer_held:
            self._waiting = event
            self._block()
        else:
            self._request_received(event)

    def _response_received(self, event: CommandReceived) -> None:
        command = event.command
        responses = self._pending.get(command.message_id_being_responded_to)

        def deliver(data: bytes | None) -> None:
            if responses is None:
                log.info("association %d: response to no request of ours", self.number)
            else:
                responses.put_nowait(Response(command.status, command, data))

        if command.has_data_set:
            self._collector = _Collector(deliver)
        else:
            deliver(None)

    def _request_received(self, event: CommandReceived) -> None:
        self._request = event
        command = event.command
        outcome: Outcome | None = None
        if command.command_field == CommandField.C_ECHO_RQ:
            outcome = Outcome(0x0000)
        elif command.command_field == CommandField.C_STORE_RQ:
            if not command.has_data_set:
                outcome = Outcome(0xC000, "C-STORE-RQ without a data set")
            else:
                self._open_store(event)
                return
        else:
            outcome = Outcome(0x0211, "unrecognized operation")
        if command.has_data_set:
            self._sink = _PassedOver(outcome)
        else:
            self._answer(outcome)

    def _open_store(self, event: CommandReceived) -> None:
        context = self.contexts[event.context_id]
        command = event.command
        opened: StoreSink | Outcome
        if self.accept is None or self.accept.open_store is None:
            opened = Outcome(0x0122, "storage is not served here")
        elif command.affected_sop_class_uid != context.abstract_syntax:
            opened = Outcome(0x0122, "SOP class is not that of its presentation context")
        else:
            try:
                opened = self.accept.open_store(command, context, self)
            except Exception:
                log.exception("association %d: open_store failed", self.number)
                opened = Outcome(0xA700, "internal error")
        self._sink = _PassedOver(opened) if isinstance(opened, Outcome) else opened

    def _answer(self, outcome: Outcome) -> None:
        """Respond to the current request, then go on with what waits behind it."""
        event, self._request = self._request, None
        assert event is not None
        comment = outcome.error_comment
        response = event.command.response(
            outcome.status,
            error_comment=comment[:64] if comment else None,
            offending_element=outcome.offending_element,
        )
        self._say(event.context_id, response)
        if self._finishing and not self._sending and not self._deferred:
            self.abort(2, 0)
        self._next_request()

    @property
    def _answer_held(self) -> bool:
        """Whether answers wait for our own message, or for a peer that does not read them.

        Without this a peer could ask for ever and make us keep the answers. While a message of
        ours is being sent a full transport is no sign of that.
        """
        return bool(self._deferred) or (self.link.is_full and not self._sending)

    def _next_request(self) -> None:
        if self._waiting is None or self._request is not None or self._answer_held or self._over:
            return
        waiting, self._waiting = self._waiting, None
        self._request_received(waiting)
        self._unblock()

    def _block(self) -> None:
        self._blocked = True
        self.link.pause()

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            self._pump()
            if not self._blocked:
                self.link.resume()

    def _offer(self) -> None:
        """Parts of an unfinished data set: hand them on, or gather more first."""
        if self._in_shared:
            self._parts = [bytes(part) for part in self._parts]
            self.link.grow()
        elif self.link.room and len(self._parts) < MAX_PARTS:
            return
        if self._sink_busy:
            self._block()
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        parts, self._parts = self._parts, []
        if self._write(parts):
            self.link.rewind()
        else:
            self.link.grow()

    def _write(self, parts: Sequence[Part]) -> bool:
        """Into the collector or the sink; False where the link's buffer is no longer its own."""
        if len(parts) > MAX_PARTS:
            parts = (b"".join(parts),)
        if self._collector is not None:
            try:
                self._collector.write(parts)
            except RemoteProtocolError as error:
                self._abort(error, Abort(2, error.reason))
            return True
        sink = self._sink
        if sink is None:
            return True
        try:
            if sink.write(parts):
                return True
        except Exception as error:
            self._sink_failed(sink, error)
            self.link.detach()  # who knows what it still reads
            return False
        self._sink_busy = True
        pinned = self.link.detach()
        _when_done(sink.drained, lambda done: self._drained(sink, pinned, done))
        return False

    def _sink_failed(self, sink: StoreSink, error: Exception) -> None:
        """What is still to come of its data set is passed over, and the answer is no success."""
        log.error("association %d: storing failed: %s", self.number, error, exc_info=error)
        self._abort_sink(sink, error)
        self._sink = _PassedOver(Outcome(0xA700, "internal error"))

    def _abort_sink(self, sink: StoreSink, cause: BaseException) -> None:
        try:
            sink.abort(cause)
        except Exception:
            log.exception("association %d: a sink could not be aborted", self.number)

    def _drained(
        self, sink: StoreSink, pinned: memoryview | None, done: asyncio.Future[Outcome]
    ) -> None:
        # A buffer that may still be read from is never used again; it goes with its last view.
        taken = not done.cancelled() and done.exception() is None
        if taken and not self._over:
            self.link.give_back(pinned)
        if self._sink is not sink or self._over:
            return
        self._sink_busy = False
        if self._ending:
            self._ending = False
            self._data_ended()
            self._unblock()
        elif self._blocked:
            self._hand_over()
            self._unblock()

    def _data_ended(self) -> None:
        if self._sink_busy:
            self._ending = True
            self._block()
            return
        parts, self._parts = self._parts, []
        link = self.link
        if self._in_shared:
            parts = [bytes(part) for part in parts]
        elif self.connection.has_events:
            self.connection.hold()
        if parts:
            self._write(parts)
        link.shrink()
        if self._collector is not None:
            collector, self._collector = self._collector, None
            collector.finish()
            return
        sink = self._sink
        if sink is None or self._over:
            return
        self._sink, self._sink_busy, self._committing = None, False, sink
        _when_done(sink.commit, lambda done: self._committed(sink, done))

    def _committed(self, sink: StoreSink, done: asyncio.Future[Outcome]) -> None:
        self._committing = None
        if done.cancelled():
            outcome = Outcome(0xA700, "cancelled")
        elif isinstance(error := done.exception(), AssociationError):
            self.end(error)
            return
        elif error is not None:
            log.error("association %d: storing failed: %s", self.number, error, exc_info=error)
            outcome = Outcome(0xA700, "internal error")
            if not self._over:
                self._abort_sink(sink, error)
        else:
            outcome = done.result()
        if self._request is not None:
            self._answer(outcome)

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    def end(self, error: Exception) -> None:
        """Abort with a cause that ``error`` shows afterwards; never waits, idempotent."""
        self._abort(error, Abort(0, 0))

    def _time_out(self, why: str) -> None:
        self.end(AssociationTimeout(why))

    def _abort(self, error: Exception, pdu: Abort) -> None:
        if self._over:
            return
        try:
            self.connection.send(pdu, self._loop.time())
        except LocalProtocolError:
            self.link.close()  # before A-ASSOCIATE-RQ there is nobody to tell
        self.link.flush()
        self._end(error)
        self.link.resume()  # so that the peer's closing is seen
        if self.connection.requestor:
            # The acceptor waits for the peer to close (PS3.8 9.2 AA-1); a requestor that gave up
            # has no reason to.
            self.link.close()

    def _end(self, error: Exception | None) -> None:
        """Once: what waits is told, what was half received is dropped."""
        if self._over:
            return
        self._over = True
        self._error = error
        ended = error or AssociationReleased("the association has been released")
        if not self._opened.done():
            self._opened.set_exception(ended)
            self._opened.exception()  # retrieved: nobody need be waiting
        for responses in self._pending.values():
            responses.put_nowait(ended)
        for turn in self._send_turn:
            if not turn.done():
                turn.set_result(None)
        self._send_turn.clear()
        self._parts.clear()
        self._blocked = False
        for sink in (self._sink, self._committing):
            if sink is not None:
                self._abort_sink(sink, ended)
        # Not given back: a sink may be reading from it at this moment.
        self.link.detach()
        if self.on_end is not None:
            self.on_end(self)
        if self.accept is not None and self.accept.ended is not None:
            try:
                self.accept.ended(self, error)
            except Exception:
                log.exception("association %d: the handler of its end failed", self.number)
        if not isinstance(error, HilumError | None):
            log.error("association %d ended: %s", self.number, error)


def _pieces(part: Part, size: int) -> Iterable[Part]:
    if len(part) <= size:
        return (part,) if part else ()
    view = memoryview(part)
    return (view[start : start + size] for start in range(0, len(view), size))


def _when_done(
    start: Callable[[], Awaitable[object]], callback: Callable[[asyncio.Future[Outcome]], None]
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
    future.add_done_callback(callback)  # type: ignore[arg-type]  # Outcome for those who ask for it


_kept: set[asyncio.Task[object]] = set()
