"""Mutated bytes against the protocol core: no exception but ours, bounded memory, always an end.

``atheris_wire.py`` runs the same functions for as long as it is let.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest
from tests.unit.wire.playbook import (
    IMPLICIT,
    PDV,
    VERIFICATION,
    an_ac,
    an_rq,
    command_pdv,
    echo_rq,
    new,
    pdata,
    store_rq,
)

from hilum.errors import LocalProtocolError, RemoteProtocolError
from hilum.net.proxy import SIGNATURE, parse_proxy_header
from hilum.wire.command import ELEMENTS, MAX_COMMAND_LENGTH, Command, CommandField
from hilum.wire.connection import (
    Accepted,
    CommandReceived,
    Connection,
    DataFragment,
    ReleaseRequested,
    Requested,
    WireEvent,
)
from hilum.wire.fsm import State
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UserIdentityResponse,
    UserIdentityRQ,
    decode_user_items,
)
from hilum.wire.negotiation import answer
from hilum.wire.pdu import (
    MAX_ASSOCIATE_LENGTH,
    Abort,
    AssociateRJ,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
)

ROUNDS = 1000
INTERESTING = (0, 1, 2, 4, 6, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFFFF)

ITEMS = (
    MaximumLength(16384),
    ImplementationClassUID("1.2.3"),
    ImplementationVersionName("FUZZ"),
    AsynchronousOperationsWindow(2, 2),
    RoleSelection(VERIFICATION, True, True),
    ExtendedNegotiation(VERIFICATION, b"\1\2\3"),
    CommonExtendedNegotiation(VERIFICATION, "1.2", ("1.3", "1.4")),
    UserIdentityRQ(2, b"user", b"pass", True),
    UserIdentityResponse(b"ticket"),
)
COMMANDS = (
    echo_rq(),
    store_rq(move_originator_application_entity_title="WS", move_originator_message_id=1),
    echo_rq().response(0, error_comment="fine", offending_element=(0x00080018,)),
    Command(CommandField.C_CANCEL_RQ, message_id_being_responded_to=3),
)
MESSAGES = (
    pdata(command_pdv(1, echo_rq())).encode(),
    pdata(command_pdv(3, store_rq()), PDV(3, bytes(300))).encode(),
    pdata(command_pdv(3, store_rq())).encode()
    + pdata(PDV(3, bytes(500), last=False), PDV(3, b"", last=False)).encode()
    + pdata(PDV(3, b"end")).encode(),
    pdata().encode(),
    pdata(
        *[PDV(1, bytes((byte,)), True, False) for byte in echo_rq().encode()],
        PDV(1, b"", True, True),
    ).encode(),
)
REQUESTOR_SAYS = (an_rq(items=ITEMS).encode(), *MESSAGES, ReleaseRQ().encode())
ACCEPTOR_SAYS = (an_ac(items=ITEMS).encode(), *MESSAGES, ReleaseRQ().encode(), ReleaseRP().encode())
SHORT = (AssociateRJ(1, 1, 1).encode(), Abort(0, 0).encode(), ReleaseRP().encode())


def mutate(data: bytes, chance: random.Random) -> bytes:
    """A few of the changes that find mistakes in parsers."""
    mutated = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        if not mutated:
            break
        place = chance.randrange(len(mutated))
        end = min(len(mutated), place + chance.choice((1, 2, 4, 8, 50)))
        match chance.randrange(7):
            case 0:
                mutated[place] ^= 1 << chance.randrange(8)
            case 1:
                mutated[place] = chance.randrange(256)
            case 2:
                del mutated[place:end]
            case 3:
                mutated[place:place] = mutated[place:end]
            case 4:
                mutated[place:place] = chance.randbytes(end - place)
            case 5:
                order = chance.choice("<>")
                mutated[place : place + 4] = struct.pack(order + "I", chance.choice(INTERESTING))
            case _:
                value = chance.choice(INTERESTING) & 0xFFFF
                mutated[place : place + 2] = struct.pack(chance.choice("<>") + "H", value)
    return bytes(mutated)


def decode_anything(data: bytes) -> None:
    """Every decoder either returns or raises what it says it raises, and what it made is usable."""
    for kind in range(9):
        try:
            pdu = decode_pdu(kind, data)
        except RemoteProtocolError:
            continue
        repr(pdu)
    with suppress(RemoteProtocolError):
        repr(decode_user_items(data))
    with suppress(RemoteProtocolError):
        parse_proxy_header(data)
    try:
        command = Command.decode(data)
    except RemoteProtocolError:
        return
    repr(command)
    for name in ELEMENTS:
        with suppress(RemoteProtocolError):
            command.get(name)
    assert Command.decode(command.encode()) == command
    assert command.response(0).status == 0


def held(connection: Connection) -> int:
    """Bytes that the connection keeps between two reads."""
    return len(connection._partial) + len(connection._command)


def react(connection: Connection, event: WireEvent) -> None:
    """What a user of the core does with each event."""
    if isinstance(event, Requested):
        connection.send(
            answer(event.rq, lambda c: accept(c.transfer_syntaxes), max_length=16384), 0
        )
    elif isinstance(event, ReleaseRequested):
        connection.send(ReleaseRP(), 0)
    elif isinstance(event, CommandReceived):
        repr(event.command)
        if not event.command.is_response and "message_id" in event.command:
            connection.send_message(event.context_id, event.command.response(0))
    elif isinstance(event, DataFragment):
        event.data.tobytes()
    elif isinstance(event, Accepted):
        connection.send_message(next(iter(connection.contexts)), echo_rq())


def accept(syntaxes: tuple[str, ...]) -> str | int:
    return syntaxes[0] if syntaxes else 4


def converse(connection: Connection, pieces: list[bytes]) -> None:
    """Feed everything, react to everything, and see it through to Sta1."""
    for piece in pieces:
        connection.receive_data(piece, 0.0)
        assert held(connection) <= MAX_ASSOCIATE_LENGTH + MAX_COMMAND_LENGTH
        while (event := connection.next_event()) is not None:
            # What came behind the event may have ended the association already.
            with suppress(LocalProtocolError, StopIteration):
                react(connection, event)
        for buffer in connection.data_to_send():
            len(buffer)
    if connection.deadline is not None:
        connection.handle_timeout(connection.deadline)
    connection.receive_eof(0.0)
    assert connection.state is State.Sta1
    assert connection.must_close


def opened(*, requestor: bool) -> Connection:
    connection = new(requestor=requestor, max_message_length=10_000)
    if requestor:
        connection.send(an_rq(), 0.0)
    connection.transport_opened(0.0)
    return connection


def split(stream: bytes, chance: random.Random) -> list[bytes]:
    pieces = []
    while stream:
        size = chance.choice((1, 3, 6, 20, 100, 1000, 1 << 20))
        pieces.append(stream[:size])
        stream = stream[size:]
    return pieces


@pytest.mark.parametrize("seed", range(5))
def test_decoders_raise_only_what_they_say(seed: int) -> None:
    chance = random.Random(seed)
    bodies = [
        *(stream[6:] for stream in (*REQUESTOR_SAYS, *ACCEPTOR_SAYS, *SHORT)),
        *(command.encode() for command in COMMANDS),
        b"".join(item.encode() for item in ITEMS),
        SIGNATURE + bytes((0x21, 0x11, 0, 12)) + bytes(12),
    ]
    for _ in range(ROUNDS):
        decode_anything(mutate(chance.choice(bodies), chance))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("requestor", [False, True], ids=["acceptor", "requestor"])
def test_conversations_end_whatever_the_peer_says(requestor: bool, seed: int) -> None:
    chance = random.Random(seed)
    said = ACCEPTOR_SAYS if requestor else REQUESTOR_SAYS
    for _ in range(ROUNDS):
        stream = said[0] if chance.random() < 0.8 else mutate(said[0], chance)
        for _ in range(chance.randrange(6)):
            pdu = chance.choice((*said, *SHORT) if chance.random() < 0.3 else MESSAGES)
            stream += mutate(pdu, chance) if chance.random() < 0.5 else pdu
        converse(opened(requestor=requestor), split(stream, chance))


def test_noise_ends_too() -> None:
    chance = random.Random(99)
    for _ in range(ROUNDS):
        noise = chance.randbytes(chance.randrange(200))
        prefix = an_rq().encode() if chance.random() < 0.5 else b""
        kind = bytes((chance.randrange(1, 8), 0))
        stream = prefix + kind + struct.pack(">I", chance.choice(INTERESTING)) + noise
        converse(opened(requestor=False), split(stream, chance))


def test_the_harness_reaches_a_conversation() -> None:
    """An unmutated conversation gets as far as messages, so the mutated ones start from there."""
    connection = opened(requestor=False)
    heard: list[type] = []
    for piece in REQUESTOR_SAYS:
        connection.receive_data(piece, 0.0)
        while (event := connection.next_event()) is not None:
            heard.append(type(event))
            react(connection, event)
    assert heard.count(CommandReceived) == 4
    assert heard[-1] is ReleaseRequested
    assert connection.contexts[1] == IMPLICIT


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decoders": decode_anything,
    "acceptor": lambda data: converse(opened(requestor=False), [data]),
    "requestor": lambda data: converse(opened(requestor=True), [data]),
    "established": lambda data: converse(opened(requestor=False), [an_rq().encode(), data]),
}
