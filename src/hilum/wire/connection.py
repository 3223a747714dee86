"""One end of an association, without I/O.

Bytes go in with ``receive_data``, events come out of ``next_event``; what is to be sent is queued
by ``send`` and ``send_message`` and fetched with ``data_to_send``. Time is an argument: ``deadline``
says when ``handle_timeout`` wants to be called. A data set is never assembled: its bytes leave as
``DataFragment`` views into the very buffer that was passed to ``receive_data``, valid until the
next call.

Standard: PS3.8 9.2 and 9.3, PS3.7 annex F.
"""

from __future__ import annotations

from collections.abc import Callable

from hilum.errors import LocalProtocolError, RemoteProtocolError
from hilum.wire.events import (
    Aborted,
    Accepted,
    CommandReceived,
    DataFragment,
    Established,
    Lost,
    Rejected,
    Released,
    ReleaseRequested,
    Requested,
    WireEvent,
)
from hilum.wire.fsm import TABLE, Action, Cell, Event, State
from hilum.wire.pdu import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ContextResult,
    ReleaseRP,
    ReleaseRQ,
)
from hilum.wire.reading import Buffer, ConnectionLimits, Reading
from hilum.wire.writing import Writing

__all__ = [
    "Aborted",
    "Accepted",
    "CommandReceived",
    "Connection",
    "ConnectionLimits",
    "DataFragment",
    "Established",
    "Lost",
    "Rejected",
    "ReleaseRequested",
    "Released",
    "Requested",
    "WireEvent",
]

# Where the peer sets no limit, a PDU of ours still ends somewhere.
UNLIMITED_SEND_LENGTH = 1 << 20
_SENT = {AssociateRQ: Event.Evt1, AssociateAC: Event.Evt7, AssociateRJ: Event.Evt8}
_SENT |= {ReleaseRQ: Event.Evt11, ReleaseRP: Event.Evt14, Abort: Event.Evt15}


class Connection(Reading, Writing):
    """The protocol state of one association end.

    Guarantees: memory is bounded by ``limits`` and one command set whatever the peer declares;
    every state reaches Sta1 once ``deadline`` is honoured and the transport ends; nothing is sent
    when a ``LocalProtocolError`` is raised.

    Args:
        requestor: True for the side that opens the association.
        limits: what the peer may make us do.
        max_length: our own maximum length for P-DATA-TF bodies, in bytes; 0 is no limit. The
            same number must stand in the A-ASSOCIATE PDU that is sent.
    """

    def __init__(
        self,
        *,
        requestor: bool,
        limits: ConnectionLimits | None = None,
        max_length: int = 1 << 20,
    ) -> None:
        self.requestor = requestor
        Reading.__init__(self, limits or ConnectionLimits(), max_length)
        Writing.__init__(self)
        self.must_close = False
        #: Told of every step but those of P-DATA: state, event, action, next state.
        self.transition: Callable[[State, Event, Action, State], None] | None = None
        self.rq: AssociateRQ | None = None
        self.ac: AssociateAC | None = None
        # How many of the events are taken.
        self._taken = 0
        self._held = False
        self._artim: float | None = None
        self._outgoing: PDU | None = None

    # ── the shell's side ────────────────────────────────────────────────────────────────────

    def transport_opened(self, now: float) -> None:
        """The TCP connection (or the TLS session on it) is there."""
        if self.requestor:
            self._step(Event.Evt2, now)
        else:
            self._step(Event.Evt5, now)

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes from the transport; events appear in ``next_event``.

        Never raises for what a peer may send: a protocol error becomes A-ABORT and ``Aborted``.
        """
        if self._deaf:
            return
        self._held = False
        try:
            self._parse(memoryview(data), now)
        except RemoteProtocolError as error:
            self._fail(error, now)

    def receive_eof(self, now: float) -> None:
        """The transport has closed, from either side."""
        if self.state is not State.Sta1:
            self._step(Event.Evt17, now)

    def next_event(self) -> WireEvent | None:
        """The oldest event not yet taken, or None."""
        events = self._events
        if not events:
            return None
        event = events[self._taken]
        self._taken += 1
        if self._taken == len(events):
            events.clear()
            self._taken = 0
        return event

    def hold(self) -> None:
        """Copy what waiting ``DataFragment`` events point at, so that they outlive their buffer."""
        if self._held:
            return  # once is enough for all of them, however often they are looked at
        self._held = True
        self._events = [
            DataFragment(memoryview(bytes(event.data)), event.last)
            if isinstance(event, DataFragment)
            else event
            for event in self._events[self._taken :]
        ]
        self._taken = 0

    @property
    def has_events(self) -> bool:
        """Whether ``next_event`` has something."""
        return bool(self._events)

    @property
    def deadline(self) -> float | None:
        """When ``handle_timeout`` wants to be called (the ARTIM timer), or None."""
        return self._artim

    def handle_timeout(self, now: float) -> None:
        """The clock has passed ``deadline``: PS3.8 Evt18."""
        if self._artim is not None and now >= self._artim:
            self._artim = None
            self._step(Event.Evt18, now)

    # ── the user's side ─────────────────────────────────────────────────────────────────────

    def send(self, pdu: PDU, now: float) -> None:
        """Queue a PDU other than P-DATA-TF.

        Raises:
            LocalProtocolError: not allowed in this state; nothing was queued.
        """
        event = _SENT[type(pdu)]
        self._cell(event)
        self._outgoing = pdu
        if isinstance(pdu, AssociateRQ):
            self.rq = pdu
        self._step(event, now)

    # ── the state machine ───────────────────────────────────────────────────────────────────

    def _cell(self, event: Event) -> Cell:
        cell = TABLE[event].get(self.state)
        if cell is None:
            raise LocalProtocolError(f"{event.name} cannot happen in {self.state.name}")
        return cell

    def _step(self, event: Event, now: float) -> None:
        cell = self._cell(event)
        before = self.state
        following = _ACTIONS[cell.action](self, now)
        self.state = following if following is not None else cell.states[0]
        if self.transition is not None:
            self.transition(before, event, cell.action, self.state)
        if self.state is State.Sta1:
            self.must_close = True
            self._artim = None

    def _fail(self, error: RemoteProtocolError, now: float) -> None:
        """An invalid PDU, or a message that PS3.7 does not allow: Evt19."""
        self._error = error
        self._drop_input()
        # Where one PDU could not be read, the start of the next is unknown.
        self._deaf = True
        self._step(Event.Evt19, now)

    _deaf = False

    def _start_artim(self, now: float) -> None:
        self._artim = now + self.limits.artim

    def _close_transport(self) -> None:
        self.must_close = True

    def _ae_1(self, now: float) -> None:
        """Opening the transport is the shell's part; it answers with ``transport_opened``."""

    def _ae_2(self, now: float) -> None:
        assert isinstance(self._outgoing, AssociateRQ)
        self._out.append(self._outgoing.encode())
        # The service user's own deadline bounds the wait for an answer (PS3.8 9.1.4 knows no
        # timer for the requestor).

    def _ae_3(self, now: float) -> None:
        ac = self._received
        assert isinstance(ac, AssociateAC)
        assert self.rq is not None
        proposed = {context.context_id: context for context in self.rq.contexts}
        for context in ac.contexts:
            if context.result == ContextResult.ACCEPTANCE and context.transfer_syntaxes:
                offer = proposed.get(context.context_id)
                syntax = context.transfer_syntaxes[0]
                # A context or syntax that was never proposed is no acceptance of anything.
                if offer is None or syntax not in offer.transfer_syntaxes:
                    continue
                self.contexts[context.context_id] = syntax
        self._settle(ac, ac.maximum_length)
        self._events.append(Accepted(ac))

    def _ae_4(self, now: float) -> None:
        assert isinstance(self._received, AssociateRJ)
        self._events.append(Rejected(self._received))
        self._close_transport()

    def _ae_5(self, now: float) -> None:
        self._start_artim(now)

    def _ae_6(self, now: float) -> State:
        rq = self._received
        assert isinstance(rq, AssociateRQ)
        self._artim = None
        self.rq = rq
        # The least significant bit is version 1; others are not tested (PS3.8 9.3.2).
        if not rq.protocol_version & 1:
            self._out.append(AssociateRJ(1, 2, 2).encode())
            self._start_artim(now)
            return State.Sta13
        self._events.append(Requested(rq))
        return State.Sta3

    def _ae_7(self, now: float) -> None:
        ac = self._outgoing
        assert isinstance(ac, AssociateAC)
        assert self.rq is not None
        self._out.append(ac.encode())
        for context in ac.contexts:
            if context.result == ContextResult.ACCEPTANCE and context.transfer_syntaxes:
                self.contexts[context.context_id] = context.transfer_syntaxes[0]
        self._settle(ac, self.rq.maximum_length)
        self._events.append(Established())

    def _settle(self, ac: AssociateAC, peer_maximum: int) -> None:
        """The sending limit is the peer's value alone; a PDV carries at most it less 6 bytes."""
        self.ac = ac
        limit = min(peer_maximum, UNLIMITED_SEND_LENGTH) or UNLIMITED_SEND_LENGTH
        # Even, so that every full fragment is.
        self.max_send_length = (limit - 6) & ~1

    def _ae_8(self, now: float) -> None:
        assert isinstance(self._outgoing, AssociateRJ)
        self._out.append(self._outgoing.encode())
        self._start_artim(now)

    def _dt(self, now: float) -> None:
        """DT-1 and AR-7 are ``send_message``; DT-2 and AR-6 go on in ``_parse``."""

    def _ar_1(self, now: float) -> None:
        self._out.append(ReleaseRQ().encode())

    def _ar_2(self, now: float) -> None:
        self._events.append(ReleaseRequested())

    def _ar_3(self, now: float) -> None:
        self._events.append(Released())
        self._close_transport()

    def _ar_4(self, now: float) -> None:
        self._out.append(ReleaseRP().encode())
        self._start_artim(now)

    def _ar_5(self, now: float) -> None:
        self._artim = None

    def _ar_8(self, now: float) -> State:
        self._events.append(ReleaseRequested())
        return State.Sta9 if self.requestor else State.Sta10

    def _ar_9(self, now: float) -> None:
        self._out.append(ReleaseRP().encode())

    def _ar_10(self, now: float) -> None:
        """Our release is confirmed; the peer's still wants its response, from Sta12."""
        self._events.append(Released())

    def _aa_1(self, now: float) -> None:
        """Our user's abort (source 0), or the provider's where the peer was out of turn."""
        pdu = self._outgoing if isinstance(self._outgoing, Abort) else None
        if pdu is None:
            error = self._error or RemoteProtocolError("unexpected PDU", 2)
            pdu = Abort(2, error.reason)
            self._events.append(Aborted(2, error.reason, error))
        self._drop_message()
        self._out.append(pdu.encode())
        self._start_artim(now)

    def _aa_2(self, now: float) -> None:
        self._artim = None
        self._close_transport()

    def _aa_3(self, now: float) -> None:
        assert isinstance(self._received, Abort)
        self._events.append(Aborted(self._received.source, self._received.reason))
        self._close_transport()

    def _aa_4(self, now: float) -> None:
        self._events.append(Lost())

    def _aa_5(self, now: float) -> None:
        self._artim = None

    def _aa_6(self, now: float) -> None:
        """Ignored."""

    def _aa_7(self, now: float) -> None:
        self._out.append(Abort(2, self._error.reason if self._error else 2).encode())

    def _aa_8(self, now: float) -> None:
        error = self._error or RemoteProtocolError(
            f"PDU of type {self._pdu_type:02X}H in {self.state.name}", 2
        )
        self._out.append(Abort(2, error.reason).encode())
        self._events.append(Aborted(2, error.reason, error))
        self._start_artim(now)


_ACTIONS: dict[Action, Callable[[Connection, float], State | None]] = {
    Action.AE_1: Connection._ae_1,
    Action.AE_2: Connection._ae_2,
    Action.AE_3: Connection._ae_3,
    Action.AE_4: Connection._ae_4,
    Action.AE_5: Connection._ae_5,
    Action.AE_6: Connection._ae_6,
    Action.AE_7: Connection._ae_7,
    Action.AE_8: Connection._ae_8,
    Action.DT_1: Connection._dt,
    Action.DT_2: Connection._dt,
    Action.AR_1: Connection._ar_1,
    Action.AR_2: Connection._ar_2,
    Action.AR_3: Connection._ar_3,
    Action.AR_4: Connection._ar_4,
    Action.AR_5: Connection._ar_5,
    Action.AR_6: Connection._dt,
    Action.AR_7: Connection._dt,
    Action.AR_8: Connection._ar_8,
    Action.AR_9: Connection._ar_9,
    Action.AR_10: Connection._ar_10,
    Action.AA_1: Connection._aa_1,
    Action.AA_2: Connection._aa_2,
    Action.AA_3: Connection._aa_3,
    Action.AA_4: Connection._aa_4,
    Action.AA_5: Connection._aa_5,
    Action.AA_6: Connection._aa_6,
    Action.AA_7: Connection._aa_7,
    Action.AA_8: Connection._aa_8,
}
