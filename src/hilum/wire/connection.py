"""One end of an association, without I/O.

Bytes go in with ``receive_data``, events come out of ``next_event``; what is to be sent is queued
by ``send`` and ``send_message`` and fetched with ``data_to_send``. Time is an argument: ``deadline``
says when ``handle_timeout`` wants to be called. A data set is never assembled: its bytes leave as
``DataFragment`` views into the very buffer that was passed to ``receive_data``, valid until the
next call.

Standard: PS3.8 9.2 and 9.3, PS3.7 annex F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hilum.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from hilum.wire.command import MAX_COMMAND_LENGTH, Command
from hilum.wire.fsm import TABLE, Action, Cell, Event, State
from hilum.wire.pdu import (
    MAX_ASSOCIATE_LENGTH,
    PDU,
    PDV_HEADER,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ContextResult,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
    pdv_header,
)

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

Buffer = bytes | bytearray | memoryview

# Where the peer sets no limit, a PDU of ours still ends somewhere.
UNLIMITED_SEND_LENGTH = 1 << 20
# A peer that overdraws our maximum length by its own headers is served; more is refused.
PDU_LENGTH_TOLERANCE = 1024
# Six bytes of a PDU are the PDV's own, and a fragment has an even length (PS3.8 9.3.5.1, annex F):
# a peer that takes less than this can be told nothing.
SMALLEST_SEND_LENGTH = 8


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a peer may make us do; every number in bytes or seconds.

    Args:
        artim: seconds to wait for A-ASSOCIATE-RQ, and for the peer to close after the end
            (PS3.8 9.1.4).
        max_associate_length: longest A-ASSOCIATE PDU body read.
        max_message_length: longest data set of one message; None is no limit. 64 GiB is above
            every object known and below what fills a disk unnoticed.
    """

    artim: float = 30.0
    max_associate_length: int = MAX_ASSOCIATE_LENGTH
    max_message_length: int | None = 64 << 30


class Requested(NamedTuple):
    """A-ASSOCIATE indication: answer with ``AssociateAC`` or ``AssociateRJ``."""

    rq: AssociateRQ


class Accepted(NamedTuple):
    """A-ASSOCIATE confirmation, positive."""

    ac: AssociateAC


class Rejected(NamedTuple):
    """A-ASSOCIATE confirmation, negative; the transport is to be closed."""

    rj: AssociateRJ


class Established(NamedTuple):
    """We accepted: P-DATA may flow."""


class CommandReceived(NamedTuple):
    """A command set; with ``command.has_data_set``, fragments follow."""

    context_id: int
    command: Command


class DataFragment(NamedTuple):
    """Part of the current message's data set; a view that ends with the next ``receive_data``."""

    data: memoryview
    last: bool


class ReleaseRequested(NamedTuple):
    """A-RELEASE indication: answer with ``ReleaseRP``, except in Sta10 (collision, acceptor)."""


class Released(NamedTuple):
    """A-RELEASE confirmation; after a collision, in Sta12, ``ReleaseRP`` is still to be sent."""


class Aborted(NamedTuple):
    """The association is over: A-ABORT from the peer, or sent to it because of ``error``.

    ``error`` is None where the peer aborted.
    """

    source: int
    reason: int
    error: RemoteProtocolError | None = None


class Lost(NamedTuple):
    """The transport closed without release or abort."""


WireEvent = (
    Requested
    | Accepted
    | Rejected
    | Established
    | CommandReceived
    | DataFragment
    | ReleaseRequested
    | Released
    | Aborted
    | Lost
)

_RECEIVED = {1: Event.Evt6, 2: Event.Evt3, 3: Event.Evt4, 4: Event.Evt10}
_RECEIVED |= {5: Event.Evt12, 6: Event.Evt13, 7: Event.Evt16}
_SENT = {AssociateRQ: Event.Evt1, AssociateAC: Event.Evt7, AssociateRJ: Event.Evt8}
_SENT |= {ReleaseRQ: Event.Evt11, ReleaseRP: Event.Evt14, Abort: Event.Evt15}
# Where P-DATA is indicated (DT-2, AR-6) the state stays as it is.
_RECEIVING = {
    state for state, cell in TABLE[Event.Evt10].items() if cell.action in (Action.DT_2, Action.AR_6)
}
_NOTHING = memoryview(b"")


class Connection:
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
        self.limits = limits or ConnectionLimits()
        self.state = State.Sta1
        self.must_close = False
        self.max_length = max_length
        self.max_send_length = 0
        #: Told of every step but those of P-DATA: state, event, action, next state.
        self.transition: Callable[[State, Event, Action, State], None] | None = None
        self.rq: AssociateRQ | None = None
        self.ac: AssociateAC | None = None
        #: Accepted contexts: id → transfer syntax.
        self.contexts: dict[int, str] = {}
        # A list of which so many are taken: an empty deque takes 700 bytes of every idle association.
        self._events: list[WireEvent] = []
        self._taken = 0
        self._held = False
        self._out: list[Buffer] = []
        self._artim: float | None = None
        self._outgoing: PDU | None = None
        # Reading: what of a header or control PDU has come so far, and what is still to come.
        self._partial = bytearray()
        self._pdu_type = 0
        self._pdu_left = 0
        self._in_pdata = False
        self._pdv_left = 0
        self._pdv_control = 0
        # The message being received.
        self._command = bytearray()
        self._message_context: int | None = None
        self._awaiting_data = False
        self._message_length = 0

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

    def data_to_send(self) -> list[Buffer]:
        """Buffers to write, in order; the list is the caller's."""
        out, self._out = self._out, []
        return out

    @property
    def deadline(self) -> float | None:
        """When ``handle_timeout`` wants to be called (the ARTIM timer), or None."""
        return self._artim

    def handle_timeout(self, now: float) -> None:
        """The clock has passed ``deadline``: PS3.8 Evt18."""
        if self._artim is not None and now >= self._artim:
            self._artim = None
            self._step(Event.Evt18, now)

    @property
    def receiving(self) -> bool:
        """Whether a PDU or a message has begun and not ended."""
        return bool(
            self._awaiting_data
            or self._in_pdata
            or self._pdu_type
            or self._partial
            or self._command
        )

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

    def send_message(
        self, context_id: int, command: Command, data: Sequence[Buffer] | None = None
    ) -> None:
        """Queue a command set, and the data set where it is given whole.

        Where ``command.has_data_set`` and ``data`` is None, ``send_data`` must follow.

        Raises:
            LocalProtocolError: no P-DATA in this state, a context that was not accepted, or data
                that does not go with the command; nothing was queued.
        """
        if context_id not in self.contexts:
            raise LocalProtocolError(f"presentation context {context_id} was not accepted")
        if self.state not in TABLE[Event.Evt9]:
            raise LocalProtocolError(f"no message can be sent in {self.state.name}")
        # No data at all is still a data set: one empty fragment ends it.
        parts = () if data is None else data or (b"",)
        if parts and not command.has_data_set:
            raise LocalProtocolError(f"data with a {command.name} that announces none")
        if any(len(part) % 2 for part in parts[:-1]):
            raise LocalProtocolError("a fragment before the last must have an even length")
        encoded = command.encode()
        limit = self.max_send_length
        out = self._out
        if len(encoded) <= limit:
            out.append(pdv_header(context_id, len(encoded), command=True, last=True) + encoded)
        else:
            self._fragment(context_id, encoded, command=True, last=True)
        for index, part in enumerate(parts, 1):
            self._fragment(context_id, part, command=False, last=index == len(parts))

    def send_responses(
        self, context_id: int, responses: Iterable[tuple[Command, Buffer | None]]
    ) -> None:
        """Queue whole messages, as ``send_message`` does; a command set that is given several times
        in a row is encoded once.

        Raises:
            LocalProtocolError: see ``send_message``; what came before has been queued.
        """
        if context_id not in self.contexts or self.state not in TABLE[Event.Evt9]:
            raise LocalProtocolError(f"no message can be sent in {self.state.name}")
        limit = self.max_send_length
        before: Command | None = None
        head = b""
        for command, data in responses:
            size = len(data or b"")
            if command is not before:
                encoded = command.encode()
                header = pdv_header(context_id, len(encoded), command=True, last=True)
                before, head = command, header + encoded
            if (
                len(head) - PDV_HEADER.size > limit
                or size > limit
                or size % 2
                or (command.has_data_set is not (data is not None))
            ):
                self.send_message(context_id, command, None if data is None else (data,))
            elif data is None:
                self._out.append(head)
            else:
                header = pdv_header(context_id, size, command=False, last=True)
                self._out.append(b"".join((head, header, data)))

    def send_data(self, context_id: int, data: Buffer, *, last: bool) -> None:
        """Queue part of a data set, without copying it.

        Fragments must have an even length (PS3.8 annex F): an odd last part is padded with a NUL,
        an odd part before the last is refused.
        """
        if self.state not in TABLE[Event.Evt9]:
            raise LocalProtocolError(f"no data can be sent in {self.state.name}")
        if len(data) % 2 and not last:
            raise LocalProtocolError("a fragment before the last must have an even length")
        self._fragment(context_id, data, command=False, last=last)

    def _fragment(self, context_id: int, data: Buffer, *, command: bool, last: bool) -> None:
        limit, length = self.max_send_length, len(data)
        if length <= limit and not length % 2:
            self._out.append(pdv_header(context_id, length, command=command, last=last))
            if length:
                self._out.append(data)
            return
        view = memoryview(data)
        position = 0
        while True:
            size = min(limit, length - position)
            ends = last and position + size == length
            odd = size % 2
            out = pdv_header(context_id, size + odd, command=command, last=ends)
            self._out.append(out)
            self._out.append(view[position : position + size])
            if odd:
                self._out.append(b"\0")
            position += size
            if position >= length:
                return

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

    def _drop_input(self) -> None:
        self._partial.clear()
        self._command.clear()
        self._pdu_type = self._pdu_left = self._pdv_left = 0
        self._in_pdata = self._awaiting_data = False
        self._message_context = None

    def _drop_message(self) -> None:
        """Our user aborted: the rest of a P-DATA-TF half read is passed over, as AA-6 does."""
        self._command.clear()
        self._awaiting_data = False
        self._message_context = None
        if self._in_pdata:
            self._in_pdata = False
            self._pdu_left -= len(self._partial)
            self._partial.clear()
            self._pdv_left = 0
            self._pdu_type = 4

    _error: RemoteProtocolError | None = None
    _received: PDU | None = None
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

    # ── reading ─────────────────────────────────────────────────────────────────────────────

    def _parse(self, view: memoryview, now: float) -> None:
        position, end = 0, len(view)
        while position < end:
            if self.state is State.Sta1:
                return  # nothing is read once the association is over
            if not (self._in_pdata or self._partial or self._pdu_type):
                position = self._whole_pdus(view, position, end)
                if end - position == 0:
                    return
            if self._pdv_left:
                size = min(self._pdv_left, end - position)
                self._pdv_left -= size
                self._pdu_left -= size
                self._fragment_received(view[position : position + size], now)
                position += size
            elif self._in_pdata:
                position = self._pdv_header(view, position, end)
            elif self._pdu_type:
                position = self._control_body(view, position, end, now)
            else:
                position = self._pdu_header(view, position, end, now)

    def _whole_pdus(self, view: memoryview, position: int, end: int) -> int:
        """P-DATA-TFs that lie whole in the buffer with one PDV each: a command set, or a fragment of
        the awaited data set.

        Nearly everything comes so. What is anything else, in whatever way, is left to the general
        path, which also says what is wrong with it.
        """
        longest = self.max_length or 0xFFFFFFFF
        while end - position >= PDV_HEADER.size and self.state in _RECEIVING:
            kind, _, length, pdv_length, context_id, control = PDV_HEADER.unpack_from(
                view, position
            )
            if (
                kind != 4
                or length != pdv_length + 4
                or not 6 < length <= longest
                or length > end - position - 6
            ):
                break
            start = position + PDV_HEADER.size
            if self._awaiting_data:
                if context_id != self._message_context or control & 1:
                    break
                position += 6 + length
                self._data_received(view[start:position], bool(control & 2))
            else:
                if (
                    control & 3 != 3
                    or self._message_context is not None
                    or context_id not in self.contexts
                ):
                    break
                position += 6 + length
                self._command_received(context_id, Command.decode(view[start:position]))
        return position

    def _collect(self, view: memoryview, position: int, end: int, size: int) -> tuple[int, Buffer]:
        """The next ``size`` bytes, or nothing until they are all there."""
        partial = self._partial
        if not partial and end - position >= size:
            return position + size, view[position : position + size]
        taken = min(size - len(partial), end - position)
        partial += view[position : position + taken]
        if len(partial) < size:
            return position + taken, b""
        whole = bytes(partial)
        partial.clear()
        return position + taken, whole

    def _pdu_header(self, view: memoryview, position: int, end: int, now: float) -> int:
        position, header = self._collect(view, position, end, 6)
        if not header:
            return position
        kind = header[0]
        length = int.from_bytes(header[2:6], "big")
        self._error = None
        self._pdu_type = kind
        if kind == 4:
            if self.max_length and length > self.max_length + PDU_LENGTH_TOLERANCE:
                raise LimitExceeded(f"P-DATA-TF of {length} bytes, at most {self.max_length}", 6)
            if self.state in _RECEIVING:
                self._pdu_type = 0
                self._in_pdata = length > 0
            else:
                self._step(Event.Evt10, now)
            self._pdu_left = length
            return position
        if kind not in _RECEIVED:
            raise RemoteProtocolError(f"unrecognised PDU type {kind:02X}H", 1)
        limit = self.limits.max_associate_length if kind in (1, 2) else 1024
        if length > limit:
            raise LimitExceeded(f"PDU of type {kind:02X}H of {length} bytes, at most {limit}", 6)
        self._pdu_left = length
        return position if length else self._control_body(view, position, end, now)

    def _control_body(self, view: memoryview, position: int, end: int, now: float) -> int:
        size = self._pdu_left
        if self._pdu_type == 4:
            # P-DATA out of turn, already answered: its bytes are passed over.
            skipped = min(size, end - position)
            self._pdu_left -= skipped
            if not self._pdu_left:
                self._pdu_type = 0
            return position + skipped
        position, body = self._collect(view, position, end, size) if size else (position, b"")
        if size and not body:
            return position
        kind, self._pdu_type, self._pdu_left = self._pdu_type, 0, 0
        if self.state is not State.Sta13:
            self._received = _with_room(decode_pdu(kind, bytes(body)))
        if kind == 5 and self._message_context is not None:
            raise RemoteProtocolError("A-RELEASE-RQ in the middle of a message", 2)
        self._pdu_type = kind
        self._step(_RECEIVED[kind], now)
        self._pdu_type = 0
        return position

    def _pdv_header(self, view: memoryview, position: int, end: int) -> int:
        if self._pdu_left < 6:
            raise RemoteProtocolError(f"{self._pdu_left} stray bytes at the end of a P-DATA-TF", 6)
        position, header = self._collect(view, position, end, 6)
        if not header:
            return position
        length = int.from_bytes(header[:4], "big")
        self._pdu_left -= 6
        if length < 2 or length - 2 > self._pdu_left:
            raise RemoteProtocolError(
                f"PDV of {length} bytes in a PDU with {self._pdu_left + 2} left", 6
            )
        context_id, control = header[4], header[5]
        self._pdv_left = length - 2
        self._pdv_control = control
        if context_id not in self.contexts:
            raise RemoteProtocolError(f"PDV in context {context_id}, which was not accepted", 6)
        if self._message_context is None:
            self._message_context = context_id
        elif self._message_context != context_id:
            raise RemoteProtocolError(
                f"PDV in context {context_id} inside a message in {self._message_context}", 6
            )
        if bool(control & 1) is self._awaiting_data:
            expected = "data set" if self._awaiting_data else "command"
            raise RemoteProtocolError(f"PDV that is no {expected} where one is due", 6)
        if not self._pdv_left:
            self._fragment_received(_NOTHING, 0.0)
        return position

    def _fragment_received(self, data: memoryview, now: float) -> None:
        ended = not self._pdv_left
        last = ended and bool(self._pdv_control & 2)
        if not self._pdu_left:
            self._in_pdata = False
        if not self._pdv_control & 1:
            self._data_received(data, last)
            return
        if last and not self._command:
            command = Command.decode(data)
        else:
            if len(self._command) + len(data) > MAX_COMMAND_LENGTH:
                raise LimitExceeded(f"command set over {MAX_COMMAND_LENGTH} bytes", 6)
            self._command += data
            if not last:
                return
            command = Command.decode(self._command)
            self._command.clear()
        assert self._message_context is not None
        self._command_received(self._message_context, command)

    def _command_received(self, context_id: int, command: Command) -> None:
        self._awaiting_data = command.has_data_set
        self._message_context = context_id if self._awaiting_data else None
        self._message_length = 0
        self._events.append(CommandReceived(context_id, command))

    def _data_received(self, data: memoryview, last: bool) -> None:
        size = len(data)
        self._message_length += size
        limit = self.limits.max_message_length
        if limit is not None and self._message_length > limit:
            raise LimitExceeded(f"data set over {limit} bytes", 6)
        if last:
            self._message_context = None
            self._awaiting_data = False
        if last or size:
            self._events.append(DataFragment(data, last))


def _with_room(pdu: PDU) -> PDU:
    """The PDU, unless it announces a maximum length that no message of ours could keep to.

    Raises:
        RemoteProtocolError: it does, and is answered as an invalid PDU parameter.
    """
    if isinstance(pdu, AssociateRQ | AssociateAC) and 0 < pdu.maximum_length < SMALLEST_SEND_LENGTH:
        raise RemoteProtocolError(
            f"maximum length of {pdu.maximum_length} bytes, expected 0 or at least "
            f"{SMALLEST_SEND_LENGTH}",
            6,
        )
    return pdu


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
