"""What happens to associations, and the handlers that programs bind to it.

A *notification* tells: any number of handlers, nothing returned. An *intervention* asks: one
handler, whose return value or yields are the answer. Handlers run in the thread of their
association, never in the event loop's; see ``docs/sync.md``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import dcmread
from pydicom.tag import BaseTag
from pydicom.uid import UID

from hilum.sync.dimse_primitives import DIMSEPrimitive
from hilum.sync.dsutils import create_file_meta, decode_bytes, encode_file_meta

if TYPE_CHECKING:
    from hilum.sync.association import Association
    from hilum.sync.presentation import PresentationContextTuple
    from hilum.sync.received import Received

__all__ = [
    "EVT_ABORTED",
    "EVT_ACCEPTED",
    "EVT_ACSE_RECV",
    "EVT_ACSE_SENT",
    "EVT_ASYNC_OPS",
    "EVT_CONN_CLOSE",
    "EVT_CONN_OPEN",
    "EVT_C_ECHO",
    "EVT_C_FIND",
    "EVT_C_GET",
    "EVT_C_MOVE",
    "EVT_C_STORE",
    "EVT_DATA_RECV",
    "EVT_DATA_SENT",
    "EVT_DIMSE_RECV",
    "EVT_DIMSE_SENT",
    "EVT_ESTABLISHED",
    "EVT_FSM_TRANSITION",
    "EVT_N_ACTION",
    "EVT_N_CREATE",
    "EVT_N_DELETE",
    "EVT_N_EVENT_REPORT",
    "EVT_N_GET",
    "EVT_N_SET",
    "EVT_PDU_RECV",
    "EVT_PDU_SENT",
    "EVT_REJECTED",
    "EVT_RELEASED",
    "EVT_REQUESTED",
    "EVT_SOP_COMMON",
    "EVT_SOP_EXTENDED",
    "EVT_USER_ID",
    "Bindings",
    "Event",
    "EventHandlerType",
    "EventType",
    "InterventionEvent",
    "NotificationEvent",
    "get_default_handler",
]

log = logging.getLogger("hilum.sync")


class NotificationEvent(NamedTuple):
    """An event that tells."""

    name: str
    description: str
    is_intervention: bool = False
    is_notification: bool = True

    def __str__(self) -> str:
        return self.name


class InterventionEvent(NamedTuple):
    """An event that asks."""

    name: str
    description: str
    is_intervention: bool = True
    is_notification: bool = False

    def __str__(self) -> str:
        return self.name


EventType = NotificationEvent | InterventionEvent
Handler = Callable[..., Any]
EventHandlerType = tuple[EventType, Handler] | tuple[EventType, Handler, list[Any]]
Bound = tuple[Handler, list[Any] | None]

EVT_ABORTED = NotificationEvent("EVT_ABORTED", "Association aborted")
EVT_ACCEPTED = NotificationEvent("EVT_ACCEPTED", "Association request accepted")
EVT_ACSE_RECV = NotificationEvent("EVT_ACSE_RECV", "Association message received")
EVT_ACSE_SENT = NotificationEvent("EVT_ACSE_SENT", "Association message sent")
EVT_CONN_CLOSE = NotificationEvent("EVT_CONN_CLOSE", "Connection closed")
EVT_CONN_OPEN = NotificationEvent("EVT_CONN_OPEN", "Connection opened")
EVT_DATA_RECV = NotificationEvent("EVT_DATA_RECV", "PDU received, as bytes")
EVT_DATA_SENT = NotificationEvent("EVT_DATA_SENT", "PDU sent, as bytes")
EVT_DIMSE_RECV = NotificationEvent("EVT_DIMSE_RECV", "DIMSE message received")
EVT_DIMSE_SENT = NotificationEvent("EVT_DIMSE_SENT", "DIMSE message sent")
EVT_ESTABLISHED = NotificationEvent("EVT_ESTABLISHED", "Association established")
EVT_FSM_TRANSITION = NotificationEvent("EVT_FSM_TRANSITION", "State of the upper layer changes")
EVT_PDU_RECV = NotificationEvent("EVT_PDU_RECV", "PDU received, decoded")
EVT_PDU_SENT = NotificationEvent("EVT_PDU_SENT", "PDU sent, decoded")
EVT_REJECTED = NotificationEvent("EVT_REJECTED", "Association request rejected")
EVT_RELEASED = NotificationEvent("EVT_RELEASED", "Association released")
EVT_REQUESTED = NotificationEvent("EVT_REQUESTED", "Association requested")

EVT_ASYNC_OPS = InterventionEvent("EVT_ASYNC_OPS", "Asynchronous operations window proposed")
EVT_SOP_COMMON = InterventionEvent("EVT_SOP_COMMON", "SOP class common extended negotiation")
EVT_SOP_EXTENDED = InterventionEvent("EVT_SOP_EXTENDED", "SOP class extended negotiation")
EVT_USER_ID = InterventionEvent("EVT_USER_ID", "User identity shown")
EVT_C_ECHO = InterventionEvent("EVT_C_ECHO", "C-ECHO request received")
EVT_C_FIND = InterventionEvent("EVT_C_FIND", "C-FIND request received")
EVT_C_GET = InterventionEvent("EVT_C_GET", "C-GET request received")
EVT_C_MOVE = InterventionEvent("EVT_C_MOVE", "C-MOVE request received")
EVT_C_STORE = InterventionEvent("EVT_C_STORE", "C-STORE request received")
EVT_N_ACTION = InterventionEvent("EVT_N_ACTION", "N-ACTION request received")
EVT_N_CREATE = InterventionEvent("EVT_N_CREATE", "N-CREATE request received")
EVT_N_DELETE = InterventionEvent("EVT_N_DELETE", "N-DELETE request received")
EVT_N_EVENT_REPORT = InterventionEvent("EVT_N_EVENT_REPORT", "N-EVENT-REPORT request received")
EVT_N_GET = InterventionEvent("EVT_N_GET", "N-GET request received")
EVT_N_SET = InterventionEvent("EVT_N_SET", "N-SET request received")

_INTERVENTION_EVENTS = [e for e in globals().copy().values() if isinstance(e, InterventionEvent)]
_NOTIFICATION_EVENTS = [e for e in globals().copy().values() if isinstance(e, NotificationEvent)]


def _no_handler(event: Event) -> Any:
    raise NotImplementedError(f"No handler has been bound to 'evt.{event.event.name}'")


def _echo(event: Event) -> int:
    return 0x0000


def _nothing(event: Event) -> dict[UID, Any]:
    return {}


_DEFAULTS: dict[InterventionEvent, Handler] = {
    EVT_C_ECHO: _echo,
    EVT_SOP_COMMON: _nothing,
    EVT_SOP_EXTENDED: _nothing,
}


def get_default_handler(event: InterventionEvent) -> Handler:
    """What answers an intervention that no handler is bound to."""
    return _DEFAULTS.get(event, _no_handler)


class Bindings:
    """Which handlers are bound to which events."""

    def __init__(self, handlers: Sequence[EventHandlerType] | None = None) -> None:
        self.lock = threading.RLock()
        self._notified: dict[NotificationEvent, tuple[Bound, ...]] = {}
        self._asked: dict[InterventionEvent, Bound] = {}
        for each in handlers or ():
            self.bind(*each)

    def bind(self, event: EventType, handler: Handler, args: list[Any] | None = None) -> None:
        """Call a handler when something happens.

        Args:
            event: an ``evt.EVT_…``. A further handler of an intervention replaces the one before.
            handler: called with an ``Event``, then with ``args``.
            args: further arguments.
        """
        bound = (handler, args)
        with self.lock:
            if isinstance(event, InterventionEvent):
                self._asked[event] = bound
            elif bound not in (before := self._notified.get(event, ())):
                self._notified[event] = (*before, bound)

    def unbind(self, event: EventType, handler: Handler) -> None:
        """Call a handler no more; harmless where it is not bound."""
        with self.lock:
            if isinstance(event, InterventionEvent):
                if event in self._asked and self._asked[event][0] == handler:
                    del self._asked[event]
                return
            left = tuple(each for each in self._notified.get(event, ()) if each[0] != handler)
            if left:
                self._notified[event] = left
            else:
                self._notified.pop(event, None)

    def get_events(self) -> list[EventType]:
        """The events that have handlers; every intervention has one."""
        events: list[EventType] = [*_INTERVENTION_EVENTS, *self._notified]
        return sorted(events, key=lambda event: event.name)

    def get_handlers(self, event: EventType) -> Any:
        """The handlers of an event: ``[(handler, args), …]``, or ``(handler, args)``."""
        if isinstance(event, InterventionEvent):
            return self._asked.get(event) or (get_default_handler(event), None)
        return list(self._notified.get(event, ()))

    def has(self, event: EventType) -> bool:
        """Whether a program has bound a handler to the event."""
        return event in self._asked or event in self._notified

    def copy_from(self, other: Bindings) -> None:
        """Take over another's handlers."""
        with other.lock:
            self._notified, self._asked = dict(other._notified), dict(other._asked)


class Event:
    """Something that happened to an association.

    Beside ``assoc``, ``event`` and ``timestamp`` each event has attributes of its own, such as
    ``request`` and ``context`` for a peer's request. What does not belong to the event raises
    ``AttributeError``.
    """

    request: DIMSEPrimitive
    context: PresentationContextTuple

    def __init__(
        self, assoc: Association, event: EventType, attrs: Mapping[str, Any] | None = None
    ) -> None:
        self.assoc = assoc
        self._event = event
        self.timestamp = datetime.now()
        self._decoded: Dataset | None = None
        self._received: Received | None = None
        for name, value in (attrs or {}).items():
            if name != "_received" and hasattr(self, name):
                raise AttributeError(f"'Event' object already has an attribute '{name}'")
            setattr(self, name, value)

    @property
    def event(self) -> EventType:
        """Which event."""
        return self._event

    # ── the request ─────────────────────────────────────────────────────────────────────────

    def _element(self, name: str, keyword: str, *messages: str) -> Any:
        request = self.__dict__.get("request")
        if request is None or request.msg_type not in messages:
            raise AttributeError(f"{self._event.name} has no '{name}'")
        return getattr(request, keyword)

    @property
    def message_id(self) -> int:
        """The request's Message ID (0000,0110)."""
        request = self.__dict__.get("request")
        if request is None or request.MessageID is None:
            raise AttributeError(f"{self._event.name} has no 'message_id'")
        return int(request.MessageID)

    @property
    def is_cancelled(self) -> bool:
        """Whether the peer has sent C-CANCEL for this C-FIND, C-GET or C-MOVE."""
        cancelled = self.__dict__.get("_is_cancelled")
        if cancelled is None:
            raise AttributeError(f"{self._event.name} has no 'is_cancelled'")
        return bool(cancelled(self.message_id))

    @property
    def move_destination(self) -> str | None:
        """A C-MOVE's Move Destination (0000,0600)."""
        destination: str | None = self._element("move_destination", "MoveDestination", "C-MOVE")
        return destination

    @property
    def action_type(self) -> int | None:
        """An N-ACTION's Action Type ID (0000,1008)."""
        number: int | None = self._element("action_type", "ActionTypeID", "N-ACTION")
        return number

    @property
    def event_type(self) -> int | None:
        """An N-EVENT-REPORT's Event Type ID (0000,1002)."""
        number: int | None = self._element("event_type", "EventTypeID", "N-EVENT-REPORT")
        return number

    @property
    def attribute_identifiers(self) -> list[BaseTag]:
        """An N-GET's Attribute Identifier List (0000,1005); empty asks for everything."""
        tags = self._element("attribute_identifiers", "AttributeIdentifierList", "N-GET")
        if tags is None:
            return []
        return tags if isinstance(tags, list) else [tags]

    # ── its data set ────────────────────────────────────────────────────────────────────────

    def _dataset(self, name: str, keyword: str, *messages: str) -> Dataset:
        stream = self._element(name, keyword, *messages)
        if self._decoded is None:
            data = b"" if stream is None else stream.getvalue()
            self._decoded = decode_bytes(data, self.context.transfer_syntax)
        return self._decoded

    @property
    def identifier(self) -> Dataset:
        """The identifier of a C-FIND, C-GET or C-MOVE, decoded once.

        Elements are converted when they are looked at: a broken one raises only then.
        """
        return self._dataset("identifier", "Identifier", "C-FIND", "C-GET", "C-MOVE")

    @property
    def action_information(self) -> Dataset:
        """An N-ACTION's Action Information, decoded once."""
        return self._dataset("action_information", "ActionInformation", "N-ACTION")

    @property
    def event_information(self) -> Dataset:
        """An N-EVENT-REPORT's Event Information, decoded once."""
        return self._dataset("event_information", "EventInformation", "N-EVENT-REPORT")

    @property
    def attribute_list(self) -> Dataset:
        """An N-CREATE's Attribute List, decoded once."""
        return self._dataset("attribute_list", "AttributeList", "N-CREATE")

    @property
    def modification_list(self) -> Dataset:
        """An N-SET's Modification List, decoded once."""
        return self._dataset("modification_list", "ModificationList", "N-SET")

    # ── C-STORE ─────────────────────────────────────────────────────────────────────────────

    def _stored(self, name: str) -> Received:
        if self._received is None:
            raise AttributeError(f"{self._event.name} has no '{name}'")
        return self._received

    @property
    def dataset(self) -> Dataset:
        """A C-STORE's data set, decoded once, without file meta.

        Elements are converted when they are looked at: a broken one raises only then.
        """
        received = self._stored("dataset")
        if self._decoded is None:
            if received.is_part10 and received.path is not None:
                self._decoded = dcmread(received.path)
            else:
                self._decoded = decode_bytes(received.read(), self.context.transfer_syntax)
        return self._decoded

    @property
    def dataset_path(self) -> Path:
        """The file with a C-STORE's data set, with ``_config.STORE_RECV_CHUNKED_DATASET``.

        It is removed when the handler has returned.
        """
        received = self._stored("dataset_path")
        if not received.is_part10 or received.path is None:
            raise AttributeError("the data set is in a file only with STORE_RECV_CHUNKED_DATASET")
        return received.path

    @property
    def file_meta(self) -> FileMetaDataset:
        """File meta information for a C-STORE's data set."""
        self._stored("file_meta")
        request = self.request
        assert request.AffectedSOPClassUID is not None
        assert request.AffectedSOPInstanceUID is not None
        return create_file_meta(
            sop_class_uid=request.AffectedSOPClassUID,
            sop_instance_uid=request.AffectedSOPInstanceUID,
            transfer_syntax=self.context.transfer_syntax,
        )

    def encoded_dataset(self, include_meta: bool = True) -> bytes:
        """A C-STORE's data set as the peer sent it, never decoded.

        Args:
            include_meta: whether preamble, prefix and file meta information precede it, so that
                the bytes are a DICOM file.
        """
        data = self._stored("encoded_dataset").read()
        if not include_meta:
            return data
        return b"".join((bytes(128), b"DICM", encode_file_meta(self.file_meta), data))
