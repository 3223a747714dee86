"""An association: what holds its parts together, its beginning and its end.

``operations`` is what its user calls, ``requests`` sends that and gives the responses, ``serving`` does
what the peer asks, ``receiving`` and ``sending`` carry both. Messages are dispatched by Message ID, so
that a request from the peer stalls no response to ours.

Standard: PS3.7 6.3, 7.5, 9 and 10; PS3.8 7.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hilum.errors import (
    AssociationAborted,
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
from hilum.net.operations import Operations
from hilum.net.receiving import Receiving
from hilum.net.requests import Requests, Response, Responses
from hilum.net.sending import Sending
from hilum.net.service import Accept, Context, Peer
from hilum.net.serving import Serving
from hilum.wire.command import CommandField
from hilum.wire.connection import (
    Aborted,
    Accepted,
    CommandReceived,
    Connection,
    Established,
    Lost,
    Rejected,
    Released,
    ReleaseRequested,
    Requested,
    WireEvent,
)
from hilum.wire.fsm import State
from hilum.wire.negotiation import granted_roles, granted_window
from hilum.wire.pdu import Abort, AssociateAC, AssociateRQ, ReleaseRP, ReleaseRQ

if TYPE_CHECKING:
    pass

__all__ = ["Association", "Response", "Responses"]

log = logging.getLogger("hilum.net")

_numbers = itertools.count(1)


class Association(Operations):
    """One association, either role. Made by ``connect`` and ``serve``.

    Every request takes its turn: no more are outstanding than the asynchronous operations window
    grants, which without negotiation is one (PS3.7 D.3.3.3).

    Memory: some 7 KiB with its connection and link while idle; two buffers of ``Limits.buffer_size`` while a
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
        self.receiving = Receiving(self, connection)
        self.sending = Sending(self, connection)
        self.requests = Requests(self)
        self.serving = Serving(self)
        #: Called instead of an abort when it was idle for too long, and as long as it is.
        self.on_idle: Callable[[], None] | None = None
        self.on_end: Callable[[Association], None] | None = None
        self.on_closed: Callable[[Association], None] | None = None
        self._requested = requested
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._error: Exception | None = None
        #: Whether it has ended, however.
        self.is_over = False
        self._contexts: dict[int, Context] = {}
        self._chosen: dict[tuple[str, str | None, bool], Context] = {}

    def attach(self, link: Link) -> None:
        """Give it the connection that carries it."""
        self.link = self.receiving.link = self.sending.link = link

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
        return self.connection.state is State.Sta6 and not self.is_over

    @property
    def error(self) -> Exception | None:
        """Why it ended; None before the end and after a release."""
        return self._error

    @property
    def is_busy(self) -> bool:
        """Whether a message is being received, answered or sent."""
        return self.serving.is_busy or self.sending.is_busy or self.connection.receiving

    @property
    def is_retrieving(self) -> bool:
        """Whether a C-GET of ours is in progress, whose C-STOREs may come."""
        return any(
            operation.field == CommandField.C_GET_RQ
            for operation in self.requests.operations.values()
        )

    @property
    def contexts(self) -> dict[int, Context]:
        """Accepted presentation contexts by id, with the roles that we may play in them."""
        if not self._contexts and self.connection.contexts:
            abstract = {c.context_id: c.abstract_syntax for c in reversed(self.rq.contexts)}
            roles = granted_roles(self.rq, self.ac)
            for number, syntax in self.connection.contexts.items():
                scu, scp = roles.get(abstract[number], (True, False))
                if not self.connection.requestor:
                    scu, scp = scp, scu
                self._contexts[number] = Context(number, abstract[number], syntax, scu, scp)
        return self._contexts

    def context_for(
        self, abstract_syntax: str, transfer_syntax: str | None = None, *, scu: bool = False
    ) -> Context:
        """The accepted context of an abstract syntax, and exactly this transfer syntax if given.

        Args:
            abstract_syntax: mostly a SOP class.
            transfer_syntax: None takes the first that was accepted.
            scu: only one in which we may play the service's user.

        Raises:
            NoPresentationContext: none fits; the message says what the peer did accept.
        """
        found = self._chosen.get((abstract_syntax, transfer_syntax, scu))
        if found is not None:
            return found
        same = [c for c in self.contexts.values() if c.abstract_syntax == abstract_syntax]
        for context in same:
            if (transfer_syntax is None or context.transfer_syntax == transfer_syntax) and (
                context.scu or not scu
            ):
                self._chosen[abstract_syntax, transfer_syntax, scu] = context
                return context
        accepted = ", ".join(c.transfer_syntax for c in same) or "nothing"
        wanted = f" with transfer syntax {transfer_syntax}" if transfer_syntax else ""
        wanted += " in which we have the SCU role" if scu and same else ""
        raise NoPresentationContext(
            f"no presentation context for {abstract_syntax}{wanted}: the peer accepted {accepted}"
        )

    async def wait_closed(self) -> None:
        """Until the TCP connection is gone. Never raises for how it ended; see ``error``."""
        await asyncio.shield(self._closed)

    # ── the end, as the user wants it ───────────────────────────────────────────────────────

    async def release(self, timeout: float | None = None) -> None:
        """End the association in order; waits for the peer's answer and the connection's close.

        Standard: PS3.8 7.2.

        Raises:
            AssociationError: it ended otherwise, or the peer did not answer and was aborted.
            LocalProtocolError: it is being released already.

        Cancellation: the association is aborted.
        """
        if self.is_over:
            return
        self.connection.send(ReleaseRQ(), self._loop.time())
        self.link.flush()
        self.requests.let_go()
        try:
            async with asyncio.timeout(self.timeouts.release if timeout is None else timeout):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self.time_out("no answer to A-RELEASE-RQ")
        except asyncio.CancelledError:
            self.abort()
            raise
        if self._error is not None:
            raise self._error

    def abort(self, source: int = 0, reason: int = 0) -> None:
        """End the association at once (PS3.8 7.3); never waits, never raises, idempotent."""
        if not self.is_over:
            self._abort(AssociationAborted(source, reason), Abort(source, reason))

    def finish(self) -> None:
        """End the association once what is in progress is answered, else at once.

        A peer that always has another message would otherwise be served for ever.
        """
        serving = self.serving
        serving.finishing = True
        serving.one_more = self.connection.receiving and self.receiving.message is None
        if not self.is_busy:
            self.abort(2, 0)

    async def __aenter__(self) -> Association:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self.is_established:
            await self.release()
        else:
            self.abort()

    # ── events from the link ────────────────────────────────────────────────────────────────

    def link_opened(self) -> None:
        """The transport is up; the requestor's A-ASSOCIATE-RQ goes with it."""
        assert self.link.transport is not None
        session = self.link.transport.get_extra_info("ssl_object")
        if session is not None:
            # Now, because A-ASSOCIATE-RQ may come in one segment with the handshake's last bytes.
            self.peer = replace(self.peer, tls=session)

    def link_events(self, in_shared: bool) -> None:
        """Take what the core has."""
        self.receiving.events(in_shared)

    def link_idle(self, seconds: float) -> None:
        """No message for too long: give the place free."""
        if self.requests.operations or self.serving.is_busy:
            return
        if self.on_idle is not None:
            self.on_idle()
        else:
            self.time_out(f"idle for {seconds:.0f} s")

    def link_stalled(self, why: str) -> None:
        """A deadline on a transfer passed."""
        self.time_out(why)

    def link_writable(self) -> None:
        """The peer takes our bytes again: its next request may be served."""
        self.serving.go_on()

    def link_closed(self, error: Exception | None) -> None:
        """The TCP connection is gone."""
        self.receiving.pump_control()
        self._end(ConnectionLost("the connection was lost") if self._error is None else None)
        if not self._closed.done():
            self._closed.set_result(None)
            if self.on_closed is not None:
                self.on_closed(self)

    # ── events from its parts ───────────────────────────────────────────────────────────────

    def command_received(self, event: CommandReceived) -> None:
        """A message has come, or its beginning."""
        command = event.command
        if command.is_response:
            self.requests.received(event)
        elif command.command_field == CommandField.C_CANCEL_RQ:
            self.serving.cancel(command)
        else:
            self.serving.received(event)

    def sent(self) -> None:
        """A message of ours has been sent."""
        self.serving.go_on()

    def control(self, event: WireEvent) -> None:
        """Everything else that has come."""
        match event:
            case Requested(rq):
                assert self._requested is not None
                self._requested(self, rq)
            case Accepted() | Established():
                self._established()
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

    def _established(self) -> None:
        invoked, performed = granted_window(self.rq, self.ac)
        if not self.connection.requestor:
            invoked, performed = performed, invoked
        self.requests.window, self.serving.window = invoked, performed
        if not self._opened.done():
            self._opened.set_result(None)

    def _released_by_peer(self) -> None:
        try:
            self.connection.send(ReleaseRP(), self._loop.time())
        except LocalProtocolError:
            return  # what came behind A-RELEASE-RQ ended the association first
        self.link.flush()
        if self.connection.state is not State.Sta11:
            self._end(None)

    def must_be_open(self) -> None:
        """Whether messages can be sent.

        Raises:
            AssociationError: they cannot; why it ended.
        """
        if not self.is_established:
            raise self._error or AssociationReleased("the association has been released")

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    def end(self, error: Exception) -> None:
        """Abort with a cause that ``error`` shows afterwards; never waits, idempotent."""
        self._abort(error, Abort(0, 0))

    def fail(self, error: RemoteProtocolError) -> None:
        """The peer broke the protocol: abort and tell it the reason."""
        self._abort(error, Abort(2, error.reason))

    def time_out(self, why: str) -> None:
        """A deadline passed: abort."""
        self.end(AssociationTimeout(why))

    def _abort(self, error: Exception, pdu: Abort) -> None:
        if self.is_over:
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
        if self.is_over:
            return
        self.is_over = True
        self._error = error
        ended = error or AssociationReleased("the association has been released")
        if not self._opened.done():
            self._opened.set_exception(ended)
            self._opened.exception()  # retrieved: nobody need be waiting
        self.requests.stop(ended)
        self.sending.stop()
        self.serving.stop(ended)
        self.receiving.stop()
        if self.on_end is not None:
            self.on_end(self)
        if self.accept is not None and self.accept.ended is not None:
            try:
                self.accept.ended(self, error)
            except Exception:
                log.exception("association %d: the handler of its end failed", self.number)
        if not isinstance(error, HilumError | None):
            log.error("association %d ended: %s", self.number, error)
