"""An association: what its user calls, and what holds its parts together.

``requests`` sends ours and gives their responses, ``serving`` does what the peer asks, ``receiving``
and ``sending`` carry both. Messages are dispatched by Message ID, so that a request from the peer
stalls no response to ours.

Standard: PS3.7 6.3, 7.5, 9 and 10; PS3.8 7.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable
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
from hilum.net.receiving import Receiving
from hilum.net.requests import Requests, Response, Responses
from hilum.net.sending import Sending
from hilum.net.service import Accept, Context, Part, Peer
from hilum.net.serving import Serving
from hilum.services.datasets import encode
from hilum.services.sop_classes import VERIFICATION
from hilum.wire.command import CommandField, Priority
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
    from pydicom import Dataset

__all__ = ["Association", "Response", "Responses"]

log = logging.getLogger("hilum.net")

_numbers = itertools.count(1)


class Association:
    """One association, either role. Made by ``connect`` and ``serve``.

    Every request takes its turn: no more are outstanding than the asynchronous operations window
    grants, which without negotiation is one (PS3.7 D.3.3.3).

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

    # ── DIMSE-C ─────────────────────────────────────────────────────────────────────────────

    async def c_echo(
        self, timeout: float | None = None, *, message_id: int | None = None
    ) -> Response:
        """Verify that the peer answers.

        Standard: PS3.7 9.1.5, PS3.4 A.

        Args:
            timeout: seconds to wait; None takes ``Timeouts.dimse``.
            message_id: (0000,0110), 1 to 65,535; None, or one that is in use, takes the next free.

        Raises:
            NoPresentationContext: Verification was not accepted; the association is usable.
            AssociationError: it ended, or timed out and was aborted.
        """
        return await self.requests.ask(
            self.context_for(VERIFICATION),
            CommandField.C_ECHO_RQ,
            None,
            timeout,
            message_id,
            affected_sop_class_uid=VERIFICATION,
        )

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
        message_id: int | None = None,
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
            message_id: see ``c_echo``.

        Raises:
            NoPresentationContext: nothing was sent, the association is usable.
            AssociationError: it ended or timed out; whether the peer kept the data set is unknown.

        Cancellation: half sent, the association is aborted (PS3.7 knows no other end).
        """
        context = self.context_for(sop_class_uid, transfer_syntax_uid, scu=True)
        title, number = move_originator or (None, None)
        return await self.requests.ask(
            context,
            CommandField.C_STORE_RQ,
            data,
            timeout,
            message_id,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            priority=priority,
            move_originator_application_entity_title=title,
            move_originator_message_id=number,
        )

    def c_find(
        self,
        identifier: bytes | Dataset,
        *,
        sop_class_uid: str,
        transfer_syntax_uid: str | None = None,
        context_class: str | None = None,
        priority: int = Priority.MEDIUM,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Responses:
        """Query the peer.

        Standard: PS3.7 9.1.2, PS3.4 C.4.1 and K.4.1.

        Args:
            identifier: the keys; bytes must be in the context's transfer syntax.
            sop_class_uid: of the information model, such as ``STUDY_ROOT_FIND``.
            transfer_syntax_uid: use the context with this one; None takes the first accepted.
            context_class: abstract syntax of the context where it is not the SOP class (UPS).
            priority: (0000,0700).
            timeout: seconds to wait for each response; None takes ``Timeouts.dimse``.
            message_id: see ``c_echo``.

        Returns:
            The responses; nothing is sent before the first is asked for.

        Raises:
            NoPresentationContext: the class was not accepted; the association is usable.
            InvalidDicom: the identifier cannot be encoded.
        """
        return self._responses(
            CommandField.C_FIND_RQ,
            identifier,
            sop_class_uid,
            context_class,
            transfer_syntax_uid,
            timeout,
            message_id,
            priority=priority,
        )

    def c_get(
        self,
        identifier: bytes | Dataset,
        *,
        sop_class_uid: str,
        transfer_syntax_uid: str | None = None,
        context_class: str | None = None,
        priority: int = Priority.MEDIUM,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Responses:
        """Retrieve over this association: the peer's C-STOREs go to ``connect``'s ``open_store``.

        The storage classes must have been proposed with the SCP role for us.

        Standard: PS3.7 9.1.3, PS3.4 C.4.3.

        Args:
            identifier: which level and instances; otherwise as in ``c_find``.
            sop_class_uid: such as ``STUDY_ROOT_GET``.
            transfer_syntax_uid: see ``c_find``.
            context_class: see ``c_find``.
            priority: (0000,0700).
            timeout: seconds to wait for each response or C-STORE; None takes ``Timeouts.dimse``.
            message_id: see ``c_echo``.

        Raises:
            NoPresentationContext, InvalidDicom: see ``c_find``.
        """
        return self._responses(
            CommandField.C_GET_RQ,
            identifier,
            sop_class_uid,
            context_class,
            transfer_syntax_uid,
            timeout,
            message_id,
            priority=priority,
        )

    def c_move(
        self,
        identifier: bytes | Dataset,
        *,
        sop_class_uid: str,
        destination: str,
        transfer_syntax_uid: str | None = None,
        context_class: str | None = None,
        priority: int = Priority.MEDIUM,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Responses:
        """Have the peer send instances to an AE that it knows by title.

        Standard: PS3.7 9.1.4, PS3.4 C.4.2.

        Args:
            identifier: which level and instances; otherwise as in ``c_find``.
            sop_class_uid: such as ``STUDY_ROOT_MOVE``.
            destination: AE title, at most 16 characters.
            transfer_syntax_uid: see ``c_find``.
            context_class: see ``c_find``.
            priority: (0000,0700).
            timeout: seconds to wait for each response; providers that send no pending responses
                need as much as the whole retrieval takes. None takes ``Timeouts.dimse``.
            message_id: see ``c_echo``.

        Raises:
            NoPresentationContext, InvalidDicom: see ``c_find``.
        """
        return self._responses(
            CommandField.C_MOVE_RQ,
            identifier,
            sop_class_uid,
            context_class,
            transfer_syntax_uid,
            timeout,
            message_id,
            priority=priority,
            move_destination=destination,
        )

    def _responses(
        self,
        field: CommandField,
        identifier: bytes | Dataset,
        sop_class_uid: str,
        context_class: str | None,
        transfer_syntax_uid: str | None,
        timeout: float | None,
        message_id: int | None,
        **elements: object,
    ) -> Responses:
        self.must_be_open()
        context = self.context_for(context_class or sop_class_uid, transfer_syntax_uid, scu=True)
        data = _encoded(identifier, context)
        elements["affected_sop_class_uid"] = sop_class_uid
        return Responses(self.requests, context, field, data, timeout, message_id, elements)

    # ── DIMSE-N ─────────────────────────────────────────────────────────────────────────────

    async def n_event_report(
        self,
        data: bytes | Dataset | None,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        context_class: str | None = None,
        transfer_syntax_uid: str | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Tell the peer of an event; the one N-service that the provider invokes.

        Standard: PS3.7 10.1.1.

        Args:
            data: event information; bytes must be in the context's transfer syntax.
            sop_class_uid: Affected SOP Class UID.
            sop_instance_uid: Affected SOP Instance UID.
            event_type_id: (0000,1002).
            context_class: abstract syntax of the context where it is not the SOP class (meta SOP
                classes, UPS).
            transfer_syntax_uid: use the context with this one; None takes the first accepted.
            timeout: seconds to wait; None takes ``Timeouts.dimse``.

        Raises:
            NoPresentationContext: the class was not accepted; the association is usable.
            InvalidDicom: the data set cannot be encoded.
            AssociationError: it ended, or timed out and was aborted.
        """
        return await self._normalized(
            CommandField.N_EVENT_REPORT_RQ,
            data,
            context_class or sop_class_uid,
            transfer_syntax_uid,
            timeout,
            message_id,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            event_type_id=event_type_id,
        )

    async def n_get(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        attributes: Iterable[int] = (),
        context_class: str | None = None,
        transfer_syntax_uid: str | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Read attributes of an instance that the peer manages.

        Standard: PS3.7 10.1.2.

        Args:
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            attributes: tags as 32-bit numbers; none asks for all.
            context_class: see ``n_event_report``, as all that follow and what is raised.
        """
        return await self._normalized(
            CommandField.N_GET_RQ,
            None,
            context_class or sop_class_uid,
            transfer_syntax_uid,
            timeout,
            message_id,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
            attribute_identifier_list=tuple(attributes) or None,
        )

    async def n_set(
        self,
        data: bytes | Dataset,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        context_class: str | None = None,
        transfer_syntax_uid: str | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Change attributes of an instance that the peer manages.

        Standard: PS3.7 10.1.3.

        Args:
            data: the modification list.
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            context_class: see ``n_event_report``, as all that follow and what is raised.
        """
        return await self._normalized(
            CommandField.N_SET_RQ,
            data,
            context_class or sop_class_uid,
            transfer_syntax_uid,
            timeout,
            message_id,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
        )

    async def n_action(
        self,
        data: bytes | Dataset | None,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        context_class: str | None = None,
        transfer_syntax_uid: str | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Ask for an action on an instance that the peer manages.

        Standard: PS3.7 10.1.4.

        Args:
            data: action information.
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            action_type_id: (0000,1008).
            context_class: see ``n_event_report``, as all that follow and what is raised.
        """
        return await self._normalized(
            CommandField.N_ACTION_RQ,
            data,
            context_class or sop_class_uid,
            transfer_syntax_uid,
            timeout,
            message_id,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
            action_type_id=action_type_id,
        )

    async def n_create(
        self,
        data: bytes | Dataset | None,
        *,
        sop_class_uid: str,
        sop_instance_uid: str | None = None,
        context_class: str | None = None,
        transfer_syntax_uid: str | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Create an instance that the peer manages.

        Standard: PS3.7 10.1.5.

        Args:
            data: the attribute list.
            sop_class_uid: Affected SOP Class UID.
            sop_instance_uid: Affected SOP Instance UID; without one the peer makes one, which its
                response names.
            context_class: see ``n_event_report``, as all that follow and what is raised.
        """
        return await self._normalized(
            CommandField.N_CREATE_RQ,
            data,
            context_class or sop_class_uid,
            transfer_syntax_uid,
            timeout,
            message_id,
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
        )

    async def n_delete(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        context_class: str | None = None,
        transfer_syntax_uid: str | None = None,
        timeout: float | None = None,
        message_id: int | None = None,
    ) -> Response:
        """Delete an instance that the peer manages.

        Standard: PS3.7 10.1.6.

        Args:
            sop_class_uid: Requested SOP Class UID.
            sop_instance_uid: Requested SOP Instance UID.
            context_class: see ``n_event_report``, as all that follow and what is raised.
        """
        return await self._normalized(
            CommandField.N_DELETE_RQ,
            None,
            context_class or sop_class_uid,
            transfer_syntax_uid,
            timeout,
            message_id,
            requested_sop_class_uid=sop_class_uid,
            requested_sop_instance_uid=sop_instance_uid,
        )

    async def _normalized(
        self,
        field: CommandField,
        data: bytes | Dataset | None,
        context_class: str,
        transfer_syntax_uid: str | None,
        timeout: float | None,
        message_id: int | None,
        **elements: object,
    ) -> Response:
        """Roles are not looked at: peers report events whatever was negotiated, and are served."""
        self.must_be_open()
        context = self.context_for(context_class, transfer_syntax_uid)
        encoded = None if data is None else (_encoded(data, context),)
        return await self.requests.ask(context, field, encoded, timeout, message_id, **elements)

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


def _encoded(data: bytes | Dataset, context: Context) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    return encode(data, context.transfer_syntax)
