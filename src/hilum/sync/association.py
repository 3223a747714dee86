"""An association as programs see it. It is no thread, though it has ``join`` and ``name``."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydicom.dataset import Dataset
from pydicom.uid import UID

from hilum.errors import (
    AssociationError,
    AssociationRejected,
    AssociationTimeout,
    HilumError,
)
from hilum.net.association import Association as NetAssociation
from hilum.net.association import Response
from hilum.net.service import Context, Reply
from hilum.services.status import describe
from hilum.sync import _config, negotiated, sending
from hilum.sync import events as evt
from hilum.sync._globals import MODE_ACCEPTOR, MODE_REQUESTOR
from hilum.sync.events import Bindings, Event, NotificationEvent
from hilum.sync.loop import Closing, Loop, current
from hilum.sync.presentation import PresentationContext
from hilum.sync.provider import Provider
from hilum.sync.responses import Feed, ResponseIterator
from hilum.sync.results import is_done, status_of
from hilum.sync.threads import Outbox, Worker
from hilum.sync.tracing import Trace
from hilum.sync.users import ServiceUser

if TYPE_CHECKING:
    from hilum.sync.ae import ApplicationEntity
    from hilum.sync.transport import AssociationServer

__all__ = ["Association"]

log = logging.getLogger("hilum.sync")

T = TypeVar("T")

# How long ``release``, ``abort`` and ``associate`` wait for the handlers of the events that they
# caused; one that takes longer goes on beside the program.
HANDLERS_SECONDS = 30.0


class Negotiation:
    """What a handler of ``EVT_REQUESTED`` may do instead of letting the association in."""

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc

    def send_reject(self, result: int, source: int, diagnostic: int) -> None:
        """Reject the association when the handler has returned (PS3.8 Table 9-21)."""
        self._assoc.early_reject = (result, source, diagnostic)

    def send_abort(self, source: int = 0) -> None:
        """Abort it."""
        self._assoc.abort(block=False)


class Association(Bindings, Closing):
    """One association, either role.

    Calls may be made from any thread but the event loop's. Those that wait for the peer have its
    time-outs as their deadlines.
    """

    def __init__(
        self,
        ae: ApplicationEntity,
        mode: str,
        loop: Loop | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        super().__init__()
        if mode not in (MODE_ACCEPTOR, MODE_REQUESTOR):
            raise ValueError("'mode' must be 'acceptor' or 'requestor'")
        self._ae = ae
        self.mode = mode
        self.loop = loop = loop or current()
        self.server: AssociationServer | None = None
        self.requestor = ServiceUser(self, MODE_REQUESTOR)
        self.acceptor = ServiceUser(self, MODE_ACCEPTOR)
        kind = "AcceptorThread" if mode == MODE_ACCEPTOR else "RequestorThread"
        #: Of the thread that its handlers run in.
        self.name = f"{kind}@{datetime.now():%Y%m%d%H%M%S}"
        self.daemon = True
        self.is_established = False
        self.is_rejected = False
        self.is_aborted = False
        self.is_released = False
        #: What ``network_timeout`` does: ``A-ABORT`` or ``A-RELEASE``.
        self.network_timeout_response = "A-ABORT"
        self._timeouts = negotiated.Seconds.of(ae)
        self._contexts: list[PresentationContext] = []
        #: ``net``'s association, once there is a connection.
        self.core: NetAssociation | None = None
        #: What a handler of ``EVT_REQUESTED`` rejects it with: result, source, diagnostic.
        self.early_reject: tuple[int, int, int] | None = None
        self.trace = Trace(self)
        #: Of the handler that yields at the moment.
        self.outbox: Outbox[Reply] | None = None
        self._over = threading.Event()
        self._releasing: asyncio.Future[None] | None = None
        self._feeds: list[Feed] = []
        self.provider = Provider(self)
        if context is None and _config.PASS_CONTEXTVARS:
            context = contextvars.copy_context()
        #: Runs this association's handlers, one after another.
        self.worker = Worker(loop, self.name, context)
        # Two threads may not be in one context at once.
        context = context.copy() if context is not None else None
        #: Runs its handlers of N-EVENT-REPORT.
        self.reports = Worker(loop, f"{self.name} reports", context)
        loop.open.add(self)

    # ── what it is ──────────────────────────────────────────────────────────────────────────

    @property
    def ae(self) -> ApplicationEntity:
        """The application entity it belongs to."""
        return self._ae

    @property
    def is_requestor(self) -> bool:
        """Whether we requested it."""
        return self.mode == MODE_REQUESTOR

    @property
    def is_acceptor(self) -> bool:
        """Whether the peer requested it."""
        return self.mode == MODE_ACCEPTOR

    @property
    def local(self) -> dict[str, Any]:
        """What is known of our end."""
        return (self.acceptor if self.is_acceptor else self.requestor).info

    @property
    def remote(self) -> dict[str, Any]:
        """What is known of the peer's end."""
        return (self.requestor if self.is_acceptor else self.acceptor).info

    @property
    def accepted_contexts(self) -> list[PresentationContext]:
        """The accepted presentation contexts, by their ids."""
        return [context for context in self._contexts if context.result == 0]

    @property
    def rejected_contexts(self) -> list[PresentationContext]:
        """The others."""
        return [context for context in self._contexts if context.result != 0]

    @property
    def active_get(self) -> Feed | None:
        """The C-GET in progress that the peer's C-STOREs belong to."""
        return next((feed for feed in self._feeds if feed.takes_stores and not feed.is_over), None)

    def is_alive(self) -> bool:
        """Whether it has a connection, or handlers that run."""
        if self.core is None:
            return False
        return not self._over.is_set() or self.worker.is_alive or self.reports.is_alive

    @property
    def acse(self) -> Negotiation:
        """For handlers of ``EVT_REQUESTED`` that reject or abort."""
        return Negotiation(self)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the connection is closed and all handlers have returned."""
        self.loop.check()
        if self.core is not None and self._over.wait(timeout):
            self.worker.join(timeout)
            self.reports.join(timeout)

    # ── time-outs, seconds; None waits for ever ─────────────────────────────────────────────

    def _set_timeout(self, name: str, value: float | None) -> None:
        self._timeouts = self._timeouts._replace(**{name: value})
        core = self.core
        if core is not None:

            def change() -> None:
                core.timeouts = self._timeouts.for_net()
                core.link.set_timeouts(core.timeouts)

            self.loop.post(change)

    @property
    def acse_timeout(self) -> float | None:
        """Get or set the seconds for association messages."""
        return self._timeouts.acse

    @acse_timeout.setter
    def acse_timeout(self, value: float | None) -> None:
        self._set_timeout("acse", value)

    @property
    def dimse_timeout(self) -> float | None:
        """Get or set the seconds to wait for a response."""
        return self._timeouts.dimse

    @dimse_timeout.setter
    def dimse_timeout(self, value: float | None) -> None:
        self._set_timeout("dimse", value)

    @property
    def network_timeout(self) -> float | None:
        """Get or set the seconds that it may be idle."""
        return self._timeouts.network

    @network_timeout.setter
    def network_timeout(self, value: float | None) -> None:
        self._set_timeout("network", value)

    @property
    def connection_timeout(self) -> float | None:
        """Get or set the seconds for the TCP connection."""
        return self._timeouts.connection

    @connection_timeout.setter
    def connection_timeout(self, value: float | None) -> None:
        self._set_timeout("connection", value)

    # ── handlers ────────────────────────────────────────────────────────────────────────────

    def call_handler(self, event: Event) -> Any:
        """Ask the handler of an intervention; its exceptions are the caller's business."""
        handler, args = self.get_handlers(event.event)
        return handler(event, *(args or ()))

    def notify(self, event: NotificationEvent, **attributes: Any) -> None:
        """Tell the handlers of a notification, in their thread; never waits."""
        if self.has(event):
            made = Event(self, event, attributes)
            self.worker.submit(partial(self._call_all, made, self.get_handlers(event)))

    def _call_all(self, event: Event, handlers: list[tuple[Callable[..., Any], Any]]) -> None:
        for handler, args in handlers:
            try:
                handler(event, *(args or ()))
            except Exception as error:
                log.exception("a handler of %s failed: %s", event.event.name, error)

    # ── its life; on the loop ───────────────────────────────────────────────────────────────

    def connected(self, core: NetAssociation) -> None:
        """There is a connection."""
        self.core = core
        core.on_idle = self._idle

    def negotiated(self, core: NetAssociation) -> None:
        """A-ASSOCIATE-AC has been sent or received."""
        self._contexts = negotiated.contexts(core, self)
        log.info("Association Accepted: number %d, with %s", core.number, core.peer)
        self.notify(evt.EVT_ACCEPTED)

    def established(self) -> None:
        """Messages may be exchanged."""
        self.is_established = True
        self.notify(evt.EVT_ESTABLISHED)

    def rejected(self) -> None:
        """A-ASSOCIATE-RJ has been sent or received."""
        self.is_rejected = True
        self.notify(evt.EVT_REJECTED)

    def ended(self, error: Exception | None) -> None:
        """The association is over, however; what was rejected is told by ``rejected``."""
        self.is_established = False
        if self.is_aborted or self.is_released or self.is_rejected:
            return
        if isinstance(error, AssociationRejected):
            self.rejected()
        elif error is None:
            log.info("Association Released")
            self.is_released = True
            self.notify(evt.EVT_RELEASED)
        else:
            log.info("Association Aborted: %s", error)
            self.is_aborted = True
            self.notify(evt.EVT_ABORTED)

    def closed(self) -> None:
        """The connection is gone: threads end when their handlers have returned."""
        if self._over.is_set():
            return
        self.ended(ConnectionError("the connection was closed"))
        self.notify(evt.EVT_CONN_CLOSE, **negotiated.closing_address(self.core))
        self._over.set()
        self.worker.close()
        self.reports.close()

    def _idle(self) -> None:
        core = self.core
        assert core is not None
        log.error("Network timeout reached")
        if self.network_timeout_response != "A-RELEASE":
            core.end(AssociationTimeout("idle for network_timeout"))
        elif self._releasing is None:
            self._releasing = asyncio.ensure_future(core.release())
            self._releasing.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def close_at_exit(self) -> None:
        """The interpreter exits."""
        if self.core is not None:
            self.core.abort()

    # ── the end, by us ──────────────────────────────────────────────────────────────────────

    def release(self) -> None:
        """End the association in order, and wait for the peer's answer.

        Without an answer within ``acse_timeout`` it is aborted. Harmless when it has ended.
        """
        self.loop.check()
        core = self.core
        if core is None or not self.is_established:
            return
        log.info("Releasing Association")
        try:
            self.loop.call(core.release())
        except HilumError as error:
            log.error("releasing: %s", error)
        self._flush()

    def abort(self, block: bool = True) -> None:
        """End the association at once.

        In a handler it does not wait; elsewhere it waits until the connection is closed, unless
        ``block`` is False. Harmless when it has ended.
        """
        self.loop.check()
        core = self.core
        if core is None or core.is_over or self.is_released:
            return
        if self.outbox is not None and self.worker.is_here:
            self.outbox.refuse()
        log.info("Aborting Association")
        self.loop.post(self._abort, 64)
        if block and not (self.worker.is_here or self.reports.is_here):
            self._over.wait(HANDLERS_SECONDS)
            self._flush()

    def _abort(self, tries: int) -> None:
        # What a handler yielded before it aborted goes out first, as long as the peer reads.
        if tries and self.outbox is not None and len(self.outbox):
            asyncio.get_running_loop().call_soon(self._abort, tries - 1)
        elif self.core is not None:
            self.core.abort()

    def kill(self) -> None:
        """The same as ``abort``; nobody waits."""
        self.abort(block=False)

    def traced(self) -> None:
        """Let the handlers of what passed return before the program gets its response."""
        if self.trace.is_wanted:
            self.worker.flush(HANDLERS_SECONDS)

    def _flush(self) -> None:
        """Let the handlers of what just happened return first."""
        if self._over.is_set():
            self.worker.join(HANDLERS_SECONDS)
        else:
            self.worker.flush(HANDLERS_SECONDS)

    # ── requests ────────────────────────────────────────────────────────────────────────────

    def _open(self, message: str) -> NetAssociation:
        self.loop.check()
        core = self.core
        if core is None or not self.is_established:
            raise RuntimeError(
                f"The association with a peer must be established before sending a {message} request"
            )
        log.info("Sending %s request", message)
        return core

    def _context(self, *classes: str | UID, role: str | None = "scu") -> Context:
        assert self.core is not None
        for uid in classes:
            found = negotiated.context_for(self.core, str(uid), role)
            if found is not None:
                return found
        message = (
            f"No presentation context for '{UID(classes[0]).name}' has been accepted by the peer"
            f" for the {(role or 'scu').upper()} role"
        )
        log.error(message)
        raise ValueError(message)

    def _get_valid_context(
        self,
        ab_syntax: str | UID,
        tr_syntax: str | UID,
        role: str | None = None,
        context_id: int | None = None,
        allow_conversion: bool = True,
    ) -> PresentationContext:
        """The accepted context for something; programs of pynetdicom look for theirs with it.

        Args:
            ab_syntax: abstract syntax.
            tr_syntax: the transfer syntax; empty takes any.
            role: ``scu`` or ``scp``, where we must have it.
            context_id: of the one context that is looked at.
            allow_conversion: whether one into which the transfer syntax is converted will do.

        Raises:
            ValueError: there is none.
        """
        found = sending.valid_contexts(
            [
                context
                for context in self.accepted_contexts
                if context_id in (None, context.context_id)
                and context.abstract_syntax in (ab_syntax, *sending.stand_ins(ab_syntax))
                and (role != "scu" or context.as_scu)
                and (role != "scp" or context.as_scp)
            ],
            str(tr_syntax),
            allow_conversion,
        )
        if found is None:
            raise ValueError(f"No presentation context for '{UID(ab_syntax).name}' fits")
        return found

    def _run(self, request: Coroutine[Any, Any, T]) -> T | None:
        """Wait for a response; None when the association ended instead."""
        busy = [feed for feed in self._feeds if not feed.is_over]
        try:
            if busy:
                request = sending.behind(request, busy, self.dimse_timeout)
            result = self.loop.call(request)
            self.traced()
            if isinstance(result, Response):
                log.info("Received %s: %s", result.command.name, describe(result.status))
            return result
        except AssociationError as error:
            if isinstance(error, AssociationTimeout):
                log.error("DIMSE timeout reached while waiting for message: %s", error)
            else:
                log.error("no response: %s", error)
            self._flush()
            return None

    def send_c_echo(self, msg_id: int = 1) -> Dataset:
        """Ask whether the peer answers.

        Returns:
            Its status; an empty data set when the association ended instead.

        Raises:
            RuntimeError: the association is not established.
            ValueError: Verification was not accepted.
        """
        core = self._open("C-ECHO")
        self._context("1.2.840.10008.1.1")
        response = self._run(core.c_echo(message_id=msg_id))
        return Dataset() if response is None else status_of(response.command)

    def send_c_store(
        self,
        dataset: str | Path | Dataset,
        msg_id: int = 1,
        priority: int = 2,
        originator_aet: str | None = None,
        originator_id: int | None = None,
    ) -> Dataset:
        """Send a data set, or a file.

        A file is sent as it is, without being decoded, where a context accepted its transfer
        syntax; otherwise, and for a data set, it is encoded for an uncompressed context of the
        same byte order.

        Args:
            dataset: with SOP Class and Instance UID, and a transfer syntax in its file meta; or
                the path of a DICOM file.
            msg_id: Message ID, 1 to 65535.
            priority: 0 medium, 1 high, 2 low.
            originator_aet: with a C-MOVE's sub-operation: who asked for that.
            originator_id: its Message ID.

        Returns:
            The peer's status; an empty data set when the association ended instead: whether the
            peer kept the data set is not known then.

        Raises:
            RuntimeError: the association is not established.
            AttributeError: the data set lacks what identifies it.
            ValueError: no context fits, or the data set cannot be encoded.
        """
        core = self._open("C-STORE")
        sending.check_priority(priority)
        item = sending.prepare(core, dataset)
        originator = (originator_aet, originator_id or 0) if originator_aet else None
        response = self._run(item.send(core, msg_id, priority, originator))
        return Dataset() if response is None else status_of(response.command)

    def store_for(self, dataset: Dataset, originator: tuple[str, int] | None) -> int | None:
        """Send a sub-operation of a C-GET or C-MOVE; its status, None when there is none."""
        core = self._open("C-STORE")
        response = self._run(sending.prepare(core, dataset).send(core, None, 2, originator))
        return None if response is None else response.status

    def send_c_find(
        self, dataset: Dataset, query_model: str | UID, msg_id: int = 1, priority: int = 2
    ) -> ResponseIterator:
        """Query.

        Returns:
            An iterator over ``(status, identifier)``, see ``ResponseIterator``.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits, or the identifier cannot be encoded.
        """
        core = self._open("C-FIND")
        return self._query(core, "c_find", dataset, query_model, msg_id, priority)

    def send_c_get(
        self, dataset: Dataset, query_model: str | UID, msg_id: int = 1, priority: int = 2
    ) -> ResponseIterator:
        """Have instances sent over this association.

        The handler of ``EVT_C_STORE`` is called for each in the thread that iterates.

        Returns:
            An iterator over ``(status, identifier)``, see ``ResponseIterator``.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits, or the identifier cannot be encoded.
        """
        core = self._open("C-GET")
        return self._query(core, "c_get", dataset, query_model, msg_id, priority)

    def send_c_move(
        self,
        dataset: Dataset,
        move_aet: str,
        query_model: str | UID,
        msg_id: int = 1,
        priority: int = 2,
    ) -> ResponseIterator:
        """Have instances sent to an AE that the peer knows.

        Returns:
            An iterator over ``(status, identifier)``, see ``ResponseIterator``.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits, or the identifier cannot be encoded.
        """
        core = self._open("C-MOVE")
        return self._query(
            core, "c_move", dataset, query_model, msg_id, priority, destination=move_aet
        )

    def _query(
        self,
        core: NetAssociation,
        operation: str,
        dataset: Dataset,
        query_model: str | UID,
        msg_id: int,
        priority: int,
        **arguments: Any,
    ) -> ResponseIterator:
        sending.check_priority(priority)
        context = self._context(query_model, *sending.stand_ins(query_model))
        data = sending.encoded(dataset, context.transfer_syntax)

        async def begin() -> Feed:
            responses = getattr(core, operation)(
                data,
                sop_class_uid=str(query_model),
                context_class=context.abstract_syntax,
                priority=priority,
                message_id=msg_id,
                **arguments,
            )
            feed = Feed(self.loop, responses, self.network_timeout, msg_id, operation == "c_get")
            self._feeds = [each for each in self._feeds if not each.is_over] + [feed]
            return feed

        feed = self._run(begin())
        assert feed is not None
        is_find = operation == "c_find"
        return ResponseIterator(feed, context.transfer_syntax, is_find, self.traced)

    def send_c_cancel(
        self,
        msg_id: int,
        context_id: int | None = None,
        query_model: str | UID | None = None,
    ) -> None:
        """Ask the peer to end a C-FIND, C-GET or C-MOVE; its iterator goes on to the end.

        Args:
            msg_id: that of the request.
            context_id: of the request's context; or
            query_model: of the request.

        Raises:
            RuntimeError: the association is not established.
            ValueError: neither is given, or no such context was accepted.
        """
        self._open("C-CANCEL")
        if query_model is not None:
            self._context(query_model)
        elif context_id is None:
            raise ValueError("'send_c_cancel' requires either 'query_model' or 'context_id'")
        for feed in self._feeds:
            if feed.message_id == msg_id and not feed.is_over:
                self.loop.call(feed.responses.cancel())

    # ── N-services ──────────────────────────────────────────────────────────────────────────

    def _n_service(
        self,
        operation: str,
        dataset: Dataset | None,
        class_uid: str | UID,
        instance_uid: str | UID | None,
        msg_id: int,
        meta_uid: str | UID | None,
        **arguments: Any,
    ) -> tuple[Dataset, Dataset | None]:
        name = operation.upper().replace("_", "-")
        core = self._open(name)
        role = None if operation == "n_event_report" else "scu"
        wanted = meta_uid or class_uid
        context = self._context(wanted, *sending.stand_ins(wanted), role=role)
        if dataset is not None:
            arguments["data"] = sending.encoded(dataset, context.transfer_syntax)
        elif operation not in ("n_get", "n_delete"):
            arguments["data"] = None
        response: Response | None = self._run(
            getattr(core, operation)(
                sop_class_uid=str(class_uid),
                sop_instance_uid=None if instance_uid is None else str(instance_uid),
                context_class=context.abstract_syntax,
                message_id=msg_id,
                **arguments,
            )
        )
        if response is None:
            return Dataset(), None
        status = status_of(response.command, n_service=True)
        if not is_done(response.status):
            return status, None
        return sending.reply(status, response, context.transfer_syntax)

    def send_n_get(
        self,
        identifier_list: Sequence[Any],
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Ask for attributes of an instance.

        Returns:
            The status and the attribute list; an empty data set and None when the association
            ended instead.

        Raises:
            RuntimeError: the association is not established.
            ValueError: no context fits.
        """
        tags = sending.tags(identifier_list)
        return self._n_service(
            "n_get", None, class_uid, instance_uid, msg_id, meta_uid, attributes=tags
        )

    def send_n_set(
        self,
        dataset: Dataset,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Change attributes of an instance; see ``send_n_get``."""
        return self._n_service("n_set", dataset, class_uid, instance_uid, msg_id, meta_uid)

    def send_n_action(
        self,
        dataset: Dataset | None,
        action_type: int,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Have something done with an instance; see ``send_n_get``."""
        return self._n_service(
            "n_action",
            dataset,
            class_uid,
            instance_uid,
            msg_id,
            meta_uid,
            action_type_id=action_type,
        )

    def send_n_create(
        self,
        dataset: Dataset | None,
        class_uid: str | UID,
        instance_uid: str | UID | None = None,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Make an instance; see ``send_n_get``.

        Args:
            dataset: its attributes.
            class_uid: its SOP class.
            instance_uid: its UID; None lets the peer choose, which tells it in the status as
                ``AffectedSOPInstanceUID``.
            msg_id: Message ID.
            meta_uid: the meta SOP class whose context is used.
        """
        return self._n_service("n_create", dataset, class_uid, instance_uid, msg_id, meta_uid)

    def send_n_delete(
        self,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> Dataset:
        """Remove an instance; the status, see ``send_n_get``."""
        return self._n_service("n_delete", None, class_uid, instance_uid, msg_id, meta_uid)[0]

    def send_n_event_report(
        self,
        dataset: Dataset | None,
        event_type: int,
        class_uid: str | UID,
        instance_uid: str | UID,
        msg_id: int = 1,
        meta_uid: str | UID | None = None,
    ) -> tuple[Dataset, Dataset | None]:
        """Tell of something that happened to an instance; see ``send_n_get``."""
        return self._n_service(
            "n_event_report",
            dataset,
            class_uid,
            instance_uid,
            msg_id,
            meta_uid,
            event_type_id=event_type,
        )
