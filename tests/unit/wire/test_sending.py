"""Sending: fragments that fit the peer's maximum length, whole, even and in order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.wire.playbook import (
    CT_IMAGE,
    PDV,
    Playbook,
    Say,
    SayMessage,
    an_ac,
    an_rq,
    established_acceptor,
    pdata,
    requestor,
    sent,
    store_rq,
)

from hilum.errors import LocalProtocolError
from hilum.wire.command import Command, CommandField
from hilum.wire.connection import UNLIMITED_SEND_LENGTH, Accepted
from hilum.wire.items import MaximumLength
from hilum.wire.pdu import Abort, ReleaseRQ


def message(playbook: Playbook) -> tuple[bytes, bytes, list[int]]:
    """The command and data set of what was sent, and the length of each PDU's body."""
    pdus = sent(playbook.connection)
    pdvs = [pdv for pdu in pdus for pdv in pdu.pdvs]  # type: ignore[union-attr]
    commands = [pdv for pdv in pdvs if pdv.command]
    data = [pdv for pdv in pdvs if not pdv.command]
    assert pdvs == commands + data
    for group in (commands, data):
        assert [pdv.last for pdv in group] == [False] * (len(group) - 1) + [True] * bool(group)
    assert all(len(pdv.data) % 2 == 0 for pdv in pdvs)
    assert {pdv.context_id for pdv in pdvs} == {3}
    lengths = [len(pdu.encode()) - 6 for pdu in pdus]
    return (
        b"".join(pdv.data for pdv in commands),
        b"".join(pdv.data for pdv in data),
        lengths,
    )


@settings(deadline=None)
@given(
    st.just(0) | st.integers(8, 300) | st.sampled_from([16384, 1 << 20, 0xFFFFFFFF]),
    st.lists(st.binary(max_size=200), min_size=1, max_size=4),
)
def test_a_message_arrives_whole_in_fragments_that_fit(
    maximum_length: int, parts: list[bytes]
) -> None:
    parts = [part + b"\0" * (len(part) % 2) for part in parts[:-1]] + parts[-1:]
    playbook = established_acceptor(maximum_length=maximum_length)
    playbook.connection.send_message(3, store_rq(), parts)
    command, data, lengths = message(playbook)
    assert command == store_rq().encode()
    content = b"".join(parts)
    assert data == content + b"\0" * (len(content) % 2)
    limit = maximum_length or UNLIMITED_SEND_LENGTH
    assert max(lengths) <= limit


@pytest.mark.parametrize(
    ("maximum_length", "largest"),
    [
        (0, UNLIMITED_SEND_LENGTH - 6),
        (8, 2),
        (9, 2),
        (15, 8),
        (16, 10),
        (17, 10),
        (18, 12),
        (16384, 16378),
        (16385, 16378),
        (0xFFFFFFFF, UNLIMITED_SEND_LENGTH - 6),
    ],
)
def test_the_largest_fragment(maximum_length: int, largest: int) -> None:
    """The peer's maximum length bounds the PDU's length field: six bytes of it are the PDV's."""
    playbook = established_acceptor(maximum_length=maximum_length)
    assert playbook.connection.max_send_length == largest
    ac = an_ac(items=(MaximumLength(maximum_length),))
    playbook = requestor() >> ac << Accepted(ac)
    assert playbook
    assert playbook.connection.max_send_length == largest


def test_without_an_item_16384_is_held_to() -> None:
    ac = an_ac(items=())
    playbook = requestor() >> ac << Accepted
    assert playbook
    assert playbook.connection.max_send_length == 16378


def test_our_own_maximum_does_not_bound_what_we_send() -> None:
    playbook = established_acceptor(maximum_length=1 << 18)
    assert playbook.connection.max_length == 16384
    assert playbook.connection.max_send_length == (1 << 18) - 6


def test_a_full_last_fragment_is_marked_and_no_empty_one_follows() -> None:
    playbook = established_acceptor(maximum_length=26)
    playbook.connection.send_message(3, store_rq(), [bytes(40)])
    *_, before, last = sent(playbook.connection)
    assert before == pdata(PDV(3, bytes(20), last=False))
    assert last == pdata(PDV(3, bytes(20)))


def test_an_odd_end_is_padded() -> None:
    playbook = established_acceptor()
    playbook.connection.send_message(3, store_rq(), [b"ab", b"cde"])
    assert sent(playbook.connection)[1:] == [
        pdata(PDV(3, b"ab", last=False)),
        pdata(PDV(3, b"cde\0")),
    ]


def test_an_empty_data_set_is_one_empty_fragment() -> None:
    for parts in ([], [b""]):
        playbook = established_acceptor()
        playbook.connection.send_message(3, store_rq(), parts)
        assert sent(playbook.connection)[1:] == [pdata(PDV(3, b""))]


def test_parts_one_by_one() -> None:
    playbook = established_acceptor()
    connection = playbook.connection
    connection.send_message(3, store_rq())
    connection.send_data(3, b"ab", last=False)
    connection.send_data(3, memoryview(b"cd"), last=True)
    assert sent(connection)[1:] == [pdata(PDV(3, b"ab", last=False)), pdata(PDV(3, b"cd"))]


def test_data_is_not_copied() -> None:
    connection = established_acceptor().connection
    connection.send_message(3, store_rq())
    connection.data_to_send()
    part = bytes(50000)
    connection.send_data(3, part, last=True)
    views = [buffer for buffer in connection.data_to_send() if isinstance(buffer, memoryview)]
    assert sum(map(len, views)) == 50000
    assert all(view.obj is part for view in views)


def test_a_command_longer_than_a_fragment() -> None:
    tags = tuple(range(1000))
    command = Command(
        CommandField.N_GET_RQ,
        message_id=1,
        requested_sop_class_uid=CT_IMAGE,
        requested_sop_instance_uid="1.2",
        attribute_identifier_list=tags,
    )
    playbook = established_acceptor(maximum_length=1024)
    playbook.connection.send_message(3, command)
    encoded, data, lengths = message(playbook)
    assert Command.decode(encoded) == command
    assert data == b""
    assert lengths[:-1] == [1024] * (len(lengths) - 1)


def test_a_message_before_the_answer_to_a_release() -> None:
    playbook = established_acceptor() >> ReleaseRQ() << tuple
    assert (
        playbook >> SayMessage(3, store_rq(), [b"ab"]) << tuple_of_pdata() << pdata(PDV(3, b"ab"))
    )


def tuple_of_pdata() -> object:
    return pdata(PDV(3, store_rq().encode(), command=True))


def test_what_we_send_is_what_a_peer_of_ours_reads() -> None:
    sender = established_acceptor(maximum_length=100)
    sender.connection.send_message(3, store_rq(), [bytes(range(250))])
    stream = b"".join(sender.connection.data_to_send())
    receiver = requestor() >> an_ac() << Accepted
    assert receiver
    receiver.connection.receive_data(stream, 0.0)
    command = receiver.connection.next_event()
    assert command == (3, store_rq())
    parts = []
    while (event := receiver.connection.next_event()) is not None:
        parts.append(bytes(event.data))  # type: ignore[union-attr]
    assert b"".join(parts) == bytes(range(250))


def test_only_what_was_said_is_sent() -> None:
    assert Say(an_rq()).pdu == an_rq()


@settings(deadline=None)
@given(
    st.sampled_from([0, 100, 130, 300, 16384]),
    st.lists(st.tuples(st.booleans(), st.none() | st.binary(max_size=200)), max_size=6),
)
def test_responses_are_messages(
    maximum_length: int, responses: list[tuple[bool, bytes | None]]
) -> None:
    """Byte for byte what ``send_message`` makes, a repeated command set or not."""
    plain, data = store_rq().response(0), store_rq().response(0xFF00, has_data_set=True)
    messages = [
        ((plain if again else store_rq().response(1)) if part is None else data, part)
        for again, part in responses
    ]
    one, other = (established_acceptor(maximum_length=maximum_length) for _ in range(2))
    one.connection.send_responses(3, messages)
    for command, part in messages:
        other.connection.send_message(3, command, None if part is None else (part,))
    assert b"".join(one.connection.data_to_send()) == b"".join(other.connection.data_to_send())


def test_each_response_fills_one_pdu_and_what_does_not_fit_is_cut() -> None:
    pending, last = store_rq().response(0xFF00, has_data_set=True), store_rq().response(0)
    connection = established_acceptor(maximum_length=200).connection
    connection.send_responses(3, [(pending, b"ab"), (pending, b"cd"), (pending, bytes(201))])
    connection.send_responses(3, [(last, None), (last, None)])
    command, end = PDV(3, pending.encode(), command=True), PDV(3, last.encode(), command=True)
    assert sent(connection) == [
        pdata(command),
        pdata(PDV(3, b"ab")),
        pdata(command),
        pdata(PDV(3, b"cd")),
        pdata(command),
        pdata(PDV(3, bytes(194), last=False)),
        pdata(PDV(3, bytes(8))),
        pdata(end),
        pdata(end),
    ]


def test_responses_that_cannot_be_sent() -> None:
    connection = established_acceptor().connection
    answer = store_rq().response(0)
    with pytest.raises(LocalProtocolError):
        connection.send_responses(7, [(answer, None)])
    with pytest.raises(LocalProtocolError, match="announces none"):
        connection.send_responses(3, [(answer, b"ab")])
    connection.send(Abort(), 0.0)
    with pytest.raises(LocalProtocolError):
        connection.send_responses(3, [(answer, None)])
