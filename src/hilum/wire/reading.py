"""Reading: bytes as they come, cut anywhere, into PDUs, command sets and fragments of data sets.

What a PDU means in the state that the association is in is not decided here.

Standard: PS3.8 9.3 and annex D to F, PS3.7 6.3 and annex F.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from hilum.errors import LimitExceeded, RemoteProtocolError
from hilum.wire.command import MAX_COMMAND_LENGTH, Command
from hilum.wire.events import CommandReceived, DataFragment, WireEvent
from hilum.wire.fsm import TABLE, Action, Event, State
from hilum.wire.pdu import (
    MAX_ASSOCIATE_LENGTH,
    PDU,
    PDV_HEADER,
    AssociateAC,
    AssociateRQ,
    decode_pdu,
)

__all__ = ["Buffer", "ConnectionLimits", "Reading"]

Buffer = bytes | bytearray | memoryview

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


_RECEIVED = {1: Event.Evt6, 2: Event.Evt3, 3: Event.Evt4, 4: Event.Evt10}
_RECEIVED |= {5: Event.Evt12, 6: Event.Evt13, 7: Event.Evt16}
# Where P-DATA is indicated (DT-2, AR-6) the state stays as it is.
_RECEIVING = {
    state for state, cell in TABLE[Event.Evt10].items() if cell.action in (Action.DT_2, Action.AR_6)
}
_NOTHING = memoryview(b"")


class Reading(ABC):
    """What has been read of an association, and how.

    Guarantees: however the bytes are cut, the same events; memory is bounded by ``limits`` and one
    command set whatever the peer declares.

    Args:
        limits: what the peer may make us do.
        max_length: our own maximum length for P-DATA-TF bodies, in bytes; 0 is no limit.
    """

    def __init__(self, limits: ConnectionLimits, max_length: int) -> None:
        self.limits = limits
        self.max_length = max_length
        self.state = State.Sta1
        #: Accepted contexts: id → transfer syntax.
        self.contexts: dict[int, str] = {}
        # No deque: an empty one takes 700 bytes of every idle association.
        self._events: list[WireEvent] = []
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

    _error: RemoteProtocolError | None = None
    _received: PDU | None = None

    @abstractmethod
    def _step(self, event: Event, now: float) -> None:
        """A PDU has come, or P-DATA out of turn: what follows is the state machine's to say."""

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
