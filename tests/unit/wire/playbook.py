"""A language for conversations with a ``Connection``: ``>>`` is fed, ``<<`` is expected.

::

    assert (
        acceptor()
        >> an_rq()                      # the peer's PDU, or bytes of it
        << Requested
        >> Say(an_ac())                 # our own user
        << Established << an_ac()       # an event, and what was sent
        >> Pass(30.0) >> EOF            # time, and the transport's end
        << Lost << CLOSE
    )

After each ``>>`` everything the connection says must be expected: first events, in order, then the
PDUs it sent, then ``CLOSE`` if it wants the transport closed. An expectation is a value or a class.
A mismatch shows the whole conversation as a diff.
"""

from __future__ import annotations

import difflib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hilum.errors import LocalProtocolError
from hilum.wire.command import Command, CommandField
from hilum.wire.connection import (
    Aborted,
    Accepted,
    Connection,
    ConnectionLimits,
    DataFragment,
    Established,
    Requested,
    WireEvent,
)
from hilum.wire.fsm import State
from hilum.wire.items import MaximumLength, UserItem
from hilum.wire.pdu import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PresentationContext,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
)

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


class PDV(NamedTuple):
    """One presentation data value."""

    context_id: int
    data: bytes
    command: bool = False
    last: bool = True

    def encode(self) -> bytes:
        control = self.command | self.last << 1
        return struct.pack(">IBB", len(self.data) + 2, self.context_id, control) + self.data


@dataclass(frozen=True)
class PData:
    """A P-DATA-TF PDU, for both directions."""

    pdvs: tuple[PDV, ...] = ()

    def encode(self) -> bytes:
        body = b"".join(pdv.encode() for pdv in self.pdvs)
        return struct.pack(">BBI", 4, 0, len(body)) + body


def pdata(*pdvs: PDV) -> PData:
    return PData(pdvs)


@dataclass(frozen=True)
class Say:
    """Our own user sends a PDU."""

    pdu: PDU


@dataclass(frozen=True)
class SayMessage:
    """Our own user sends a message."""

    context_id: int
    command: Command
    data: Sequence[bytes] | None = None


@dataclass(frozen=True)
class Pass:
    """Seconds go by, and the timer is looked at."""

    seconds: float


@dataclass(frozen=True)
class Refused:
    """Our own user was told that this cannot be sent now."""


@dataclass(frozen=True)
class Fault:
    """The event of an association that ended because the peer broke the protocol."""

    reason: int
    containing: str = ""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Aborted)
            and other.error is not None
            and (other.source, other.reason) == (2, self.reason)
            and self.containing in str(other.error)
        )

    __hash__ = None  # type: ignore[assignment]


class Word:
    """A step without parameters."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


OPEN = Word("OPEN")
EOF = Word("EOF")
CLOSE = Word("CLOSE")

Fed = bytes | PDU | PData | Say | SayMessage | Pass | Word
Seen = WireEvent | PDU | PData | Word | Refused


@dataclass
class Playbook:
    """One conversation; true when it went as written, an ``AssertionError`` with a diff if not."""

    connection: Connection
    now: float = 1000.0
    _steps: list[tuple[bool, object]] = field(default_factory=list)
    _closed: bool = False

    def __rshift__(self, fed: Fed) -> Playbook:
        self._steps.append((True, fed))
        return self

    def __lshift__(self, expected: object) -> Playbook:
        self._steps.append((False, expected))
        return self

    def __bool__(self) -> bool:
        wanted: list[str] = []
        happened: list[str] = []
        steps, self._steps = self._steps, []
        seen: list[Seen] = []
        for is_fed, step in [*steps, (True, None)]:
            if is_fed:
                happened += [f"<< {show(each)}" for each in seen]
                seen.clear()
                if step is not None:
                    wanted.append(f">> {show(step)}")
                    happened.append(f">> {show(step)}")
                    seen = self._feed(step)
            elif seen and matches(step, seen[0]):
                line = f"<< {show(seen.pop(0))}"
                wanted.append(line)
                happened.append(line)
            else:
                wanted.append(f"<< {show(step)}")
        if wanted != happened:
            raise AssertionError("\n".join(["", *difflib.ndiff(wanted, happened)]))
        return True

    def _feed(self, step: object) -> list[Seen]:
        connection = self.connection
        refused: list[Seen] = []
        match step:
            case bytes():
                connection.receive_data(step, self.now)
            case Say(pdu):
                try:
                    connection.send(pdu, self.now)
                except LocalProtocolError:
                    refused.append(Refused())
            case SayMessage(context_id, command, data):
                try:
                    connection.send_message(context_id, command, data)
                except LocalProtocolError:
                    refused.append(Refused())
            case Pass(seconds):
                self.now += seconds
                connection.handle_timeout(self.now)
            case Word():
                if step is OPEN:
                    connection.transport_opened(self.now)
                else:
                    connection.receive_eof(self.now)
            case _:
                connection.receive_data(step.encode(), self.now)  # type: ignore[attr-defined]
        return refused + self._heard()

    def _heard(self) -> list[Seen]:
        connection = self.connection
        heard: list[Seen] = list(events(connection))
        heard += sent(connection)
        if connection.must_close and not self._closed:
            self._closed = True
            heard.append(CLOSE)
        return heard


def matches(expected: object, seen: object) -> bool:
    return isinstance(seen, expected) if isinstance(expected, type) else bool(expected == seen)


def show(step: object) -> str:
    if isinstance(step, DataFragment):
        return f"DataFragment({bytes(step.data[:40])!r}, {len(step.data)} bytes, last={step.last})"
    if isinstance(step, type):
        return step.__name__
    return repr(step)


def events(connection: Connection) -> list[WireEvent]:
    """Every waiting event, fragments copied so that they can be compared later."""
    found = []
    while (event := connection.next_event()) is not None:
        if isinstance(event, DataFragment):
            event = DataFragment(memoryview(bytes(event.data)), event.last)
        found.append(event)
    return found


def sent(connection: Connection) -> list[PDU | PData]:
    """What was queued, parsed by code that is not the connection's."""
    return parse(b"".join(connection.data_to_send()))


def parse(stream: bytes) -> list[PDU | PData]:
    pdus: list[PDU | PData] = []
    while stream:
        kind, length = stream[0], int.from_bytes(stream[2:6], "big")
        assert len(stream) >= 6 + length, "a PDU is cut short"
        body, stream = stream[6 : 6 + length], stream[6 + length :]
        pdus.append(pdata(*_pdvs(body)) if kind == 4 else decode_pdu(kind, body))
    return pdus


def _pdvs(body: bytes) -> list[PDV]:
    pdvs = []
    while body:
        length = int.from_bytes(body[:4], "big")
        assert len(body) >= 4 + length, "a PDV is cut short"
        pdvs.append(PDV(body[4], body[6 : 4 + length], bool(body[5] & 1), bool(body[5] & 2)))
        body = body[4 + length :]
    return pdvs


# ── the usual participants ──────────────────────────────────────────────────────────────────


CONTEXTS = (
    PresentationContext(1, VERIFICATION, (IMPLICIT, EXPLICIT)),
    PresentationContext(3, CT_IMAGE, (EXPLICIT,)),
)


def an_rq(
    contexts: tuple[PresentationContext, ...] = CONTEXTS,
    *,
    items: tuple[UserItem, ...] = (MaximumLength(16384),),
    protocol_version: int = 1,
) -> AssociateRQ:
    return AssociateRQ(
        called_ae_title="PACS",
        calling_ae_title="CT01",
        contexts=contexts,
        user_items=items,
        protocol_version=protocol_version,
    )


def an_ac(
    contexts: tuple[PresentationContext, ...] | None = None,
    *,
    items: tuple[UserItem, ...] = (MaximumLength(16384),),
) -> AssociateAC:
    if contexts is None:
        contexts = (
            PresentationContext(1, "", (IMPLICIT,)),
            PresentationContext(3, "", (EXPLICIT,)),
        )
    return AssociateAC(
        called_ae_title="PACS", calling_ae_title="CT01", contexts=contexts, user_items=items
    )


def new(*, requestor: bool, max_length: int = 16384, **limits: float | None) -> Connection:
    return Connection(
        requestor=requestor,
        limits=ConnectionLimits(**limits),  # type: ignore[arg-type]
        max_length=max_length,
    )


def acceptor(connection: Connection | None = None) -> Playbook:
    """In Sta2: the transport is open, nothing has come."""
    playbook = Playbook(connection or new(requestor=False))
    assert playbook >> OPEN
    return playbook


def established_acceptor(
    connection: Connection | None = None, *, maximum_length: int = 16384
) -> Playbook:
    playbook = acceptor(connection)
    rq = an_rq(items=(MaximumLength(maximum_length),))
    assert playbook >> rq << Requested(rq) >> Say(an_ac()) << Established << an_ac()
    return playbook


def requestor(connection: Connection | None = None) -> Playbook:
    """In Sta5: A-ASSOCIATE-RQ has been sent."""
    playbook = Playbook(connection or new(requestor=True))
    assert playbook >> Say(an_rq()) >> OPEN << an_rq()
    return playbook


def established_requestor(
    connection: Connection | None = None, *, ac: AssociateAC | None = None
) -> Playbook:
    playbook = requestor(connection)
    ac = ac or an_ac()
    assert playbook >> ac << Accepted(ac)
    return playbook


def in_state(state: State) -> Playbook:
    """A connection brought to a state by a legal conversation."""
    match state:
        case State.Sta1:
            return Playbook(new(requestor=False))
        case State.Sta2:
            return acceptor()
        case State.Sta3:
            playbook = acceptor() >> an_rq() << Requested
        case State.Sta4:
            playbook = Playbook(new(requestor=True)) >> Say(an_rq())
        case State.Sta5:
            return requestor()
        case State.Sta6:
            return established_acceptor()
        case State.Sta7:
            playbook = established_requestor() >> Say(ReleaseRQ()) << ReleaseRQ()
        case State.Sta8:
            playbook = established_acceptor() >> ReleaseRQ() << tuple
        case State.Sta9:
            playbook = in_state(State.Sta7) >> ReleaseRQ() << tuple
        case State.Sta10:
            playbook = established_acceptor() >> Say(ReleaseRQ()) << ReleaseRQ()
            playbook = playbook >> ReleaseRQ() << tuple
        case State.Sta11:
            playbook = in_state(State.Sta9) >> Say(ReleaseRP()) << ReleaseRP()
        case State.Sta12:
            playbook = in_state(State.Sta10) >> ReleaseRP() << tuple
        case State.Sta13:
            playbook = established_acceptor() >> Say(Abort()) << Abort()
    assert playbook
    assert playbook.connection.state is state
    return playbook


def echo_rq(message_id: int = 7, **elements: object) -> Command:
    return Command(
        CommandField.C_ECHO_RQ,
        message_id=message_id,
        affected_sop_class_uid=VERIFICATION,
        **elements,
    )


def store_rq(message_id: int = 8, uid: str = "1.2.3", **elements: object) -> Command:
    return Command(
        CommandField.C_STORE_RQ,
        has_data_set=True,
        message_id=message_id,
        affected_sop_class_uid=CT_IMAGE,
        affected_sop_instance_uid=uid,
        priority=0,
        **elements,
    )


def command_pdv(context_id: int, command: Command) -> PDV:
    return PDV(context_id, command.encode(), command=True)


REJECTED = AssociateRJ(1, 1, 7)
