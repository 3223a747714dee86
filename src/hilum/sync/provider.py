"""The peer's requests, served by the handlers that a program has bound.

The loop hands a request to a thread and waits for its result as for any other future; a handler
that yields gives its responses through a bounded outbox, which the loop empties as the peer reads.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import UID

from hilum.net.association import Association as NetAssociation
from hilum.net.service import Context, Outcome, Reply, Request
from hilum.services.status import Status
from hilum.sync import events as evt
from hilum.sync import retrieval
from hilum.sync.dimse_primitives import primitive
from hilum.sync.dsutils import encode_bytes
from hilum.sync.events import Event, InterventionEvent
from hilum.sync.presentation import PresentationContextTuple
from hilum.sync.received import Received, Sink
from hilum.sync.results import elements_of, is_done, outcome_of
from hilum.sync.threads import Outbox, Worker
from hilum.wire.command import Command, CommandField

if TYPE_CHECKING:
    from hilum.sync.association import Association

__all__ = ["Provider"]

log = logging.getLogger("hilum.sync")

# Responses that a handler may be ahead of a peer that does not read them.
AHEAD = 64

# A handler that failed, or is missing.
_STORE_FAILED = 0xC211
_FAILED: dict[InterventionEvent, int] = {
    evt.EVT_C_FIND: 0xC311,
    evt.EVT_C_GET: 0xC411,
    evt.EVT_C_MOVE: 0xC511,
}

_SINGLE: dict[CommandField, InterventionEvent] = {
    CommandField.C_ECHO_RQ: evt.EVT_C_ECHO,
    CommandField.N_EVENT_REPORT_RQ: evt.EVT_N_EVENT_REPORT,
    CommandField.N_GET_RQ: evt.EVT_N_GET,
    CommandField.N_SET_RQ: evt.EVT_N_SET,
    CommandField.N_ACTION_RQ: evt.EVT_N_ACTION,
    CommandField.N_CREATE_RQ: evt.EVT_N_CREATE,
    CommandField.N_DELETE_RQ: evt.EVT_N_DELETE,
}
_STREAMS: dict[CommandField, tuple[InterventionEvent, retrieval.Serve]] = {
    CommandField.C_FIND_RQ: (evt.EVT_C_FIND, retrieval.find),
    CommandField.C_GET_RQ: (evt.EVT_C_GET, retrieval.get),
    CommandField.C_MOVE_RQ: (evt.EVT_C_MOVE, retrieval.move),
}


class Provider:
    """What an association does for its peer."""

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc

    @property
    def handlers(self) -> Mapping[CommandField, Any]:
        """For ``net``: who serves which requests."""
        single = {field: partial(self._single, event) for field, event in _SINGLE.items()}
        streams = {
            field: partial(self._stream, event, serve) for field, (event, serve) in _STREAMS.items()
        }
        return {**single, **streams}

    # ── on the loop ─────────────────────────────────────────────────────────────────────────

    def open_store(
        self, command: Command, context: Context, association: NetAssociation
    ) -> Sink | Outcome:
        """For ``net``: where a C-STORE's data set goes."""
        if not self._assoc.has(evt.EVT_C_STORE):
            log.error("no handler is bound to EVT_C_STORE")
            return Outcome(_STORE_FAILED)
        return Sink(command, context, self._stored)

    async def _stored(self, received: Received) -> Outcome:
        serve = partial(self._store, received)
        feed = self._assoc.active_get
        if feed is None:
            return await self._assoc.worker.run(serve)
        try:
            return await feed.store(serve)
        finally:
            received.remove()

    async def _single(self, event: InterventionEvent, request: Request) -> Reply:
        assoc = self._assoc
        if not assoc.has(event):
            if event is evt.EVT_C_ECHO:
                return Reply(Status.SUCCESS)
            log.error("no handler is bound to %s", event)
            return Reply(Status.PROCESSING_FAILURE)
        # A report may come while the program is at something else, and is not to wait for that.
        worker = assoc.reports if event is evt.EVT_N_EVENT_REPORT else assoc.worker
        return await worker.run(self._answer, event, request)

    async def _stream(
        self, event: InterventionEvent, serve: retrieval.Serve, request: Request
    ) -> AsyncIterator[Sequence[Reply]]:
        assoc = self._assoc
        if not assoc.has(event):
            log.error("no handler is bound to %s", event)
            yield [Reply(_FAILED[event])]
            return
        outbox: Outbox[Reply] = Outbox(assoc.loop, AHEAD)
        assoc.outbox = outbox
        worker: Worker = assoc.worker
        if not worker.submit(partial(self._serve, event, serve, request, outbox)):
            return
        held: list[Reply] = []
        try:
            while page := await outbox.page():
                held += page
                # Once cancelled, the handler says itself what was done until then.
                if not request.is_cancelled:
                    yield held
                    held = []
            yield held
        finally:
            outbox.close()

    # ── in a handler's thread ───────────────────────────────────────────────────────────────

    def _event(self, event: InterventionEvent, request: Request) -> Event:
        attributes: dict[str, Any] = {
            "request": primitive(request.command, request.data),
            "context": _context(request.context),
        }
        if event in _FAILED:
            attributes["_is_cancelled"] = lambda _: request.is_cancelled
        return Event(self._assoc, event, attributes)

    def _serve(
        self,
        event: InterventionEvent,
        serve: retrieval.Serve,
        request: Request,
        outbox: Outbox[Reply],
    ) -> None:
        try:
            serve(self._assoc, self._event(event, request), request, outbox)
        except Exception as error:
            log.exception("the handler of %s failed: %s", event, error)
            outbox.put(Reply(_FAILED[event]))
        finally:
            outbox.end()

    def _store(self, received: Received) -> Outcome:
        command, context = received.command, received.context
        data = None if received.path is not None else received.read()
        event = Event(
            self._assoc,
            evt.EVT_C_STORE,
            {
                "request": primitive(command, data),
                "context": _context(context),
                "_received": received,
            },
        )
        try:
            return outcome_of(self._assoc.call_handler(event))
        except Exception as error:
            log.exception("the handler of EVT_C_STORE failed: %s", error)
            return Outcome(_STORE_FAILED)
        finally:
            received.remove()

    def _answer(self, kind: InterventionEvent, request: Request) -> Reply:
        try:
            result = self._assoc.call_handler(self._event(kind, request))
            if kind in (evt.EVT_C_ECHO, evt.EVT_N_DELETE):
                status, elements = elements_of(result)
                if kind is evt.EVT_C_ECHO and status >> 8 == 0xC0:
                    raise TypeError(f"no status: {result!r}")
                return Reply(status, elements=elements)
            return self._reply(request, *result)
        except Exception as error:
            log.exception("the handler of %s failed: %s", kind, error)
            # The peer asks whether we answer, which we do.
            failed = Status.SUCCESS if kind is evt.EVT_C_ECHO else Status.PROCESSING_FAILURE
            return Reply(failed)

    def _reply(self, request: Request, result: Any, dataset: Dataset | None = None) -> Reply:
        status, elements = elements_of(result)
        if not is_done(status):
            return Reply(status, elements=elements)
        if request.command.command_field == CommandField.N_CREATE_RQ:
            _name_instance(request.command, elements, dataset)
        if not dataset:
            return Reply(status, elements=elements)
        data = encode_bytes(dataset, request.context.transfer_syntax)
        if data is None:
            return Reply(Status.PROCESSING_FAILURE)
        return Reply(status, data, elements)


def _name_instance(command: Command, elements: dict[str, Any], dataset: Dataset | None) -> None:
    """The UID of an instance that the peer did not name (PS3.7 10.1.5.1.4).

    The handler gives it in its status, or in the attribute list, where it may not stay.

    Raises:
        ValueError: it gives none.
    """
    if "affected_sop_instance_uid" in command:
        return
    if dataset is not None and "AffectedSOPInstanceUID" in dataset:
        elements.setdefault("affected_sop_instance_uid", str(dataset.AffectedSOPInstanceUID))
        del dataset.AffectedSOPInstanceUID
    if "affected_sop_instance_uid" not in elements:
        raise ValueError("neither the peer nor the handler names the new instance")


def _context(context: Context) -> PresentationContextTuple:
    return PresentationContextTuple(
        context.context_id, UID(context.abstract_syntax), UID(context.transfer_syntax)
    )
