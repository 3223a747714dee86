"""Reading: any split of the stream, PDVs of every shape, limits, and memory."""

from __future__ import annotations

import itertools
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.wire.playbook import (
    CLOSE,
    PDV,
    Fault,
    PData,
    Say,
    acceptor,
    an_ac,
    an_rq,
    command_pdv,
    echo_rq,
    established_acceptor,
    events,
    new,
    pdata,
    store_rq,
)

from hilum.wire.command import MAX_COMMAND_LENGTH, Command
from hilum.wire.connection import (
    Aborted,
    CommandReceived,
    Connection,
    DataFragment,
    ReleaseRequested,
    WireEvent,
)
from hilum.wire.pdu import Abort, ReleaseRP, ReleaseRQ
from hilum.wire.reading import PDU_LENGTH_TOLERANCE


def data(payload: bytes, last: bool = True) -> DataFragment:
    return DataFragment(memoryview(payload), last)


# ── the same events however the stream is cut ───────────────────────────────────────────────


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message, its PDVs cut and gathered into PDUs at will."""
    payload = draw(st.binary(max_size=120))
    command = store_rq(uid=draw(st.sampled_from(["1.2", "1.2.3.4.5"])))
    pdvs = _cut(draw, command.encode(), True) + _cut(draw, payload, False)
    if draw(st.booleans()):
        pdvs = _cut(draw, echo_rq().encode(), True)
    stream = b""
    while pdvs:
        count = draw(st.integers(0, len(pdvs)))
        stream += pdata(*pdvs[:count]).encode()
        pdvs = pdvs[count:]
        if count == 0 and draw(st.booleans()):
            stream += pdata(*pdvs).encode()
            pdvs = []
    return stream


def _cut(draw: st.DrawFn, content: bytes, command: bool) -> list[PDV]:
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=3)))
    edges = [0, *places, len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(edges)]
    context_id = 3 if not command or len(content) > 70 else 1
    return [
        PDV(context_id, piece, command, index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]


ENDINGS = [
    b"",
    ReleaseRQ().encode(),
    Abort(2, 6).encode(),
    b"\x99nonsense",
    pdata(PDV(7, b"wrong context")).encode(),
    an_rq().encode(),
]


def joined(found: list[WireEvent]) -> list[object]:
    """Events with adjacent fragments put together, errors by their words."""
    result: list[object] = []
    for event in found:
        if isinstance(event, Aborted):
            result.append((event.source, event.reason, str(event.error)))
        elif isinstance(event, DataFragment):
            so_far = b""
            if result and isinstance(result[-1], list):
                (so_far,) = result.pop()
            payload = so_far + bytes(event.data)
            result.append([payload] if not event.last else (payload, "last"))
        else:
            result.append(event)
    return result


def heard(connection: Connection, pieces: list[bytes]) -> tuple[list[object], bytes]:
    found: list[WireEvent] = []
    for piece in pieces:
        connection.receive_data(piece, 0.0)
        found += events(connection)
    return joined(found), b"".join(connection.data_to_send())


def session() -> Connection:
    """Established, with CT on context 3 and Verification on 1."""
    return established_acceptor().connection


def test_a_fragment_never_starts_a_command_over_seventy_bytes_in_the_wrong_context() -> None:
    """What the strategy above relies on."""
    assert len(store_rq(uid="1.2").encode()) > 70 >= len(echo_rq().encode()) - 0


@given(st.lists(messages(), max_size=2), st.sampled_from(ENDINGS), st.data())
def test_any_split_of_the_stream_gives_the_same_events(
    conversation: list[bytes], ending: bytes, draw: st.DataObject
) -> None:
    stream = b"".join(conversation) + ending
    whole = heard(session(), [stream])
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert heard(session(), pieces) == whole


def test_byte_by_byte_gives_the_same_events() -> None:
    stream = (
        pdata(command_pdv(3, store_rq()), PDV(3, bytes(50), last=False)).encode()
        + pdata(PDV(3, b"end"), command_pdv(1, echo_rq())).encode()
        + ReleaseRQ().encode()
    )
    pieces = [stream[index : index + 1] for index in range(len(stream))]
    assert heard(session(), pieces) == heard(session(), [stream])
    found, _ = heard(session(), [stream])
    assert found == [
        CommandReceived(3, store_rq()),
        (bytes(50) + b"end", "last"),
        CommandReceived(1, echo_rq()),
        ReleaseRequested(),
    ]


def test_an_association_request_byte_by_byte() -> None:
    playbook = acceptor()
    encoded = an_rq().encode()
    for index in range(len(encoded) - 1):
        assert playbook >> encoded[index : index + 1]
        assert playbook.connection.receiving
    assert playbook >> encoded[-1:] << tuple
    assert not playbook.connection.receiving


# ── PDVs of every shape ─────────────────────────────────────────────────────────────────────


def test_several_messages_in_one_pdu() -> None:
    assert (
        established_acceptor()
        >> pdata(
            command_pdv(1, echo_rq(1)),
            command_pdv(3, store_rq(2)),
            PDV(3, b"ab"),
            command_pdv(1, echo_rq(3)),
        )
        << CommandReceived(1, echo_rq(1))
        << CommandReceived(3, store_rq(2))
        << data(b"ab")
        << CommandReceived(1, echo_rq(3))
    )


def test_empty_pdus_and_pdvs() -> None:
    playbook = established_acceptor() >> pdata() >> pdata()
    encoded = echo_rq().encode()
    assert playbook >> pdata(PDV(1, b"", True, False), PDV(1, encoded, True, False))
    assert playbook >> pdata(PDV(1, b"", True, True)) << CommandReceived(1, echo_rq())
    assert (
        playbook
        >> pdata(command_pdv(3, store_rq()), PDV(3, b"", last=False))
        << CommandReceived(3, store_rq())
        >> pdata()
        >> pdata(PDV(3, b"ab", last=False), PDV(3, b"", last=False))
        << data(b"ab", False)
        >> pdata(PDV(3, b""))
        << data(b"")
    )
    assert not playbook.connection.receiving


def test_a_data_set_of_no_bytes_at_all() -> None:
    assert (
        established_acceptor()
        >> pdata(command_pdv(3, store_rq()), PDV(3, b""))
        << CommandReceived(3, store_rq())
        << data(b"")
        >> pdata(command_pdv(1, echo_rq()))
        << CommandReceived
    )


@pytest.mark.parametrize("stray", range(1, 6))
def test_stray_bytes_at_the_end_of_a_pdu(stray: int) -> None:
    body = command_pdv(1, echo_rq()).encode() + bytes(stray)
    pdu = struct.pack(">BBI", 4, 0, len(body)) + body
    assert (
        established_acceptor()
        >> pdu
        << CommandReceived
        << Fault(6, f"{stray} stray bytes")
        << Abort(2, 6)
    )


@pytest.mark.parametrize("length", [0, 1, 100, 0xFFFFFFFF])
def test_pdv_lengths_that_cannot_be(length: int) -> None:
    pdu = struct.pack(">BBIIBB", 4, 0, 16, length, 1, 3) + bytes(10)
    assert established_acceptor() >> pdu << Fault(6, f"PDV of {length} bytes") << Abort(2, 6)


def test_a_context_that_was_not_accepted() -> None:
    for number in (0, 2, 5, 255):
        pdu = pdata(command_pdv(number, echo_rq()))
        assert established_acceptor() >> pdu << Fault(6, f"context {number}") << Abort(2, 6)


def test_data_where_a_command_is_due_and_the_reverse() -> None:
    playbook = established_acceptor() >> pdata(PDV(3, b"ab"))
    assert playbook << Fault(6, "no command where one is due") << Abort(2, 6)
    playbook = established_acceptor() >> pdata(
        command_pdv(3, store_rq()), command_pdv(3, store_rq())
    )
    assert playbook << CommandReceived << Fault(6, "no data set where one is due") << Abort(2, 6)
    half = PDV(1, echo_rq().encode()[:10], command=True, last=False)
    playbook = established_acceptor() >> pdata(half, PDV(1, b"ab"))
    assert playbook << Fault(6, "no command") << Abort(2, 6)


def test_a_release_in_the_middle_of_a_command() -> None:
    half = PDV(1, echo_rq().encode()[:10], command=True, last=False)
    playbook = established_acceptor() >> pdata(half) >> ReleaseRQ()
    assert playbook << Fault(2, "in the middle of a message") << Abort(2, 2)


def test_a_command_that_cannot_be_read_ends_the_association() -> None:
    playbook = established_acceptor() >> pdata(PDV(1, b"\0" * 9, command=True))
    assert playbook << Fault(6, "element header") << Abort(2, 6)


def test_the_end_of_a_message_is_known() -> None:
    playbook = established_acceptor()
    connection = playbook.connection
    assert not connection.receiving
    whole = pdata(command_pdv(3, store_rq()), PDV(3, bytes(10))).encode()
    for index in range(1, len(whole)):
        connection.receive_data(whole[index - 1 : index], 0.0)
        assert connection.receiving, index
    connection.receive_data(whole[-1:], 0.0)
    assert not connection.receiving


# ── limits ──────────────────────────────────────────────────────────────────────────────────


def announce(kind: int, length: int) -> bytes:
    return struct.pack(">BBI", kind, 0, length)


@pytest.mark.parametrize("kind", [1, 2])
def test_a_request_that_announces_too_much_is_refused_at_its_header(kind: int) -> None:
    for length in (1 << 20 | 1, 0xFFFFFFFF):
        playbook = acceptor() >> announce(kind, length)
        assert playbook << Fault(6, f"of {length} bytes") << Abort(2, 6)
    assert acceptor(new(requestor=False, max_associate_length=100)) >> announce(1, 100)


@pytest.mark.parametrize("kind", [3, 5, 6, 7])
def test_a_short_pdu_that_announces_too_much(kind: int) -> None:
    assert established_acceptor() >> announce(kind, 1025) << Fault(6, "at most 1024") << Abort(2, 6)
    assert established_acceptor() >> announce(kind, 1024)


def test_pdata_longer_than_we_said() -> None:
    fits = 16384 + PDU_LENGTH_TOLERANCE
    assert established_acceptor() >> announce(4, fits)
    assert established_acceptor() >> announce(4, fits + 1) << Fault(6, "at most") << Abort(2, 6)
    connection = new(requestor=False, max_length=0)
    assert established_acceptor(connection) >> announce(4, 0xFFFFFFFF)


def test_a_pdu_of_no_length_where_some_is_needed() -> None:
    assert acceptor() >> announce(1, 0) << Fault(6, "A-ASSOCIATE-RQ of 0 bytes") << Abort(2, 6)
    assert established_acceptor() >> announce(5, 0) << Fault(6, "expected 4") << Abort(2, 6)


def test_a_command_without_end() -> None:
    playbook = established_acceptor()
    part = PDV(1, bytes(16000), command=True, last=False)
    for _ in range(MAX_COMMAND_LENGTH // 16000):
        assert playbook >> pdata(part)
    assert playbook >> pdata(part) << Fault(6, "command set over") << Abort(2, 6)


def test_a_data_set_without_end() -> None:
    connection = new(requestor=False, max_message_length=100)
    playbook = established_acceptor(connection)
    assert playbook >> pdata(command_pdv(3, store_rq())) << CommandReceived
    assert playbook >> pdata(PDV(3, bytes(100), last=False)) << DataFragment
    assert playbook >> pdata(PDV(3, b"x", last=False)) << Fault(6, "over 100 bytes") << Abort(2, 6)


def test_the_limit_is_of_each_message() -> None:
    playbook = established_acceptor(new(requestor=False, max_message_length=100))
    for _ in range(3):
        assert playbook >> pdata(command_pdv(3, store_rq())) << CommandReceived
        assert playbook >> pdata(PDV(3, bytes(100))) << DataFragment
    unlimited = established_acceptor(new(requestor=False, max_message_length=None))
    assert unlimited >> pdata(command_pdv(3, store_rq()), PDV(3, bytes(1000))) << tuple << tuple


def grown(connection: Connection, piece: bytes, times: int) -> int:
    """How much memory a peer makes us hold by sending a piece again and again."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            connection.receive_data(piece, 0.0)
            while connection.next_event() is not None:
                pass
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_whatever_is_announced() -> None:
    connection = new(requestor=False, max_length=0, max_message_length=None)
    established_acceptor(connection)
    connection.receive_data(pdata(command_pdv(3, store_rq())).encode(), 0.0)
    connection.receive_data(announce(4, 0xFFFFFFFF) + struct.pack(">IBB", 0xFFFFFFFB, 3, 0), 0.0)
    assert grown(connection, bytes(65536), 30) < 65536
    connection = acceptor().connection
    assert grown(connection, announce(1, 1 << 20) + bytes(16384), 60) < 5 << 20
    connection = session()
    assert grown(connection, pdata(*[PDV(1, b"", True, False)] * 100).encode(), 10) < 65536


def test_a_response_is_read_like_a_request() -> None:
    response: Command = echo_rq().response(0xC000, error_comment="no")
    assert established_acceptor() >> pdata(command_pdv(1, response)) << CommandReceived(1, response)


def test_a_release_response_in_the_middle_of_a_message_ends_it() -> None:
    playbook = established_acceptor() >> Say(ReleaseRQ()) << ReleaseRQ()
    assert playbook >> pdata(command_pdv(3, store_rq())) << CommandReceived
    assert playbook >> ReleaseRP() << tuple << CLOSE


def test_an_acceptance_can_be_written_down_and_read() -> None:
    assert isinstance(pdata(), PData)
    assert an_ac().encode()[0] == 2
