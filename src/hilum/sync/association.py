"""An association as programs see it. It is no thread, though it has ``join`` and ``name``."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from hilum.errors import (
    AssociationRejected,
    AssociationTimeout,
    HilumError,
)
from hilum.net.association import Association as NetAssociation
from hilum.net.service import Reply
from hilum.sync import _config, negotiated
from hilum.sync import events as evt
from hilum.sync._globals import MODE_ACCEPTOR, MODE_REQUESTOR
from hilum.sync.events import Bindings, Event, NotificationEvent
from hilum.sync.loop import Closing, Loop, current
from hilum.sync.operations import HANDLERS_SECONDS, Operations
from hilum.sync.presentation import PresentationContext
from hilum.sync.provider import Provider
from hilum.sync.responses import Feed
from hilum.sync.threads import Outbox, Worker
from hilum.sync.tracing import Trace
from hilum.sync.users import ServiceUser

if TYPE_CHECKING:
    from hilum.sync.ae import ApplicationEntity
    from hilum.sync.transport import AssociationServer

__all__ = ["Association"]

log = logging.getLogger("hilum.sync")

T = TypeVar("T")


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


class Association(Operations, Bindings, Closing):
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
