"""The notifications of what passes over a connection: bytes, PDUs, messages, state changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hilum.sync import events as evt
from hilum.sync import pdu as pdus
from hilum.sync.dimse_messages import message
from hilum.sync.events import NotificationEvent
from hilum.sync.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE
from hilum.sync.users import primitive_of
from hilum.wire import fsm
from hilum.wire import pdu as wire
from hilum.wire.trace import Messages, Splitter

if TYPE_CHECKING:
    from hilum.sync.association import Association

__all__ = ["Trace"]


class _Direction:
    """One direction of a connection."""

    def __init__(self, suffix: str) -> None:
        self.splitter = Splitter()
        self.messages = Messages()
        self.data, self.pdu, self.acse, self.dimse = (
            getattr(evt, f"EVT_{kind}_{suffix}") for kind in ("DATA", "PDU", "ACSE", "DIMSE")
        )
        self.events: tuple[NotificationEvent, ...] = (self.data, self.pdu, self.acse, self.dimse)


class Trace:
    """Reads along where handlers want it; otherwise it only counts where PDUs begin.

    Handlers are called in their association's thread, which may fall behind the network.
    """

    def __init__(self, assoc: Association) -> None:
        self._assoc = assoc
        self._received = _Direction("RECV")
        self._sent = _Direction("SENT")

    @property
    def is_wanted(self) -> bool:
        """Whether any handler is told of what passes."""
        has = self._assoc.has
        return any(map(has, self._received.events)) or any(map(has, self._sent.events))

    def received(self, data: memoryview) -> None:
        """Bytes have come; on the loop."""
        self._pass(self._received, (data,))

    def sent(self, data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Bytes have gone; on the loop."""
        self._pass(self._sent, data)

    def _pass(self, direction: _Direction, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        has = self._assoc.has
        wanted = any(has(event) for event in direction.events)
        for part in parts:
            for encoded in direction.splitter.feed(part, keep=wanted):
                self._pdu(direction, encoded)

    def _pdu(self, direction: _Direction, encoded: bytes) -> None:
        assoc = self._assoc
        assoc.notify(direction.data, data=encoded)
        if not (
            assoc.has(direction.pdu) or assoc.has(direction.acse) or assoc.has(direction.dimse)
        ):
            return
        decoded = pdus.decode(encoded)
        assoc.notify(direction.pdu, pdu=decoded)
        if assoc.has(direction.acse):
            primitive = _primitive(decoded.decoded)
            if primitive is not None:
                assoc.notify(direction.acse, primitive=primitive)
        if assoc.has(direction.dimse):
            for context_id, command, data in direction.messages.feed(encoded):
                assoc.notify(direction.dimse, message=message(command, context_id, data))

    def stepped(
        self, before: fsm.State, event: fsm.Event, action: fsm.Action, after: fsm.State
    ) -> None:
        """The state of the upper layer has changed; on the loop."""
        self._assoc.notify(
            evt.EVT_FSM_TRANSITION,
            current_state=before.name,
            fsm_event=event.name,
            action=str(action),
            next_state=after.name,
        )


def _primitive(pdu: wire.PDU | None) -> Any:
    match pdu:
        case wire.AssociateRQ() | wire.AssociateAC():
            return primitive_of(pdu)
        case wire.AssociateRJ(result, source, reason):
            rejected = A_ASSOCIATE()
            rejected.result, rejected.result_source = result, source
            rejected.diagnostic = reason
            return rejected
        case wire.ReleaseRQ():
            return A_RELEASE()
        case wire.ReleaseRP():
            return A_RELEASE("affirmative")
        case wire.Abort(source, reason):
            return A_ABORT(source) if source == 0 else A_P_ABORT(reason)
        case _:
            return None
