"""Reading along gives what was sent, however it is cut, and passes over what it cannot read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.wire import trace
from hilum.wire.command import Command, CommandField
from hilum.wire.pdu import ReleaseRQ, pdv_header
from hilum.wire.trace import Messages, Splitter, TracedMessage

ECHO = Command(CommandField.C_ECHO_RQ, message_id=1, affected_sop_class_uid="1.2")
STORE = Command(
    CommandField.C_STORE_RQ,
    has_data_set=True,
    message_id=2,
    affected_sop_class_uid="1.2",
    affected_sop_instance_uid="1.2.3",
)


def fragment(data: bytes, *, command: bool, last: bool, context_id: int = 1) -> bytes:
    return pdv_header(context_id, len(data), command=command, last=last) + data


def whole(command: Command) -> bytes:
    return fragment(command.encode(), command=True, last=True)


def read(pdus: list[bytes]) -> list[TracedMessage]:
    messages = Messages()
    return [message for pdu in pdus for message in messages.feed(pdu)]


@given(st.lists(st.integers(1, 40)))
def test_any_cut_gives_the_same_pdus(cuts):
    pdus = [whole(ECHO), ReleaseRQ().encode(), fragment(b"x" * 50, command=False, last=True)]
    stream = b"".join(pdus)
    splitter, found, position = Splitter(), [], 0
    for cut in [*cuts, len(stream)]:
        found += splitter.feed(stream[position : position + cut], keep=True)
        position += cut
    assert found == pdus


def test_a_pdu_cut_in_its_header_comes_when_it_is_whole():
    splitter, stream = Splitter(), whole(ECHO)
    assert list(splitter.feed(stream[:3], keep=True)) == []
    assert list(splitter.feed(stream[3:], keep=True)) == [stream]


def test_a_pdu_that_began_unwanted_is_left_out():
    splitter = Splitter()
    stream = whole(ECHO) + ReleaseRQ().encode()
    assert list(splitter.feed(stream[:10], keep=False)) == []
    assert list(splitter.feed(stream[10:], keep=True)) == [ReleaseRQ().encode()]


def test_a_pdu_without_a_body_is_one():
    assert list(Splitter().feed(b"\x09\0\0\0\0\0", keep=True)) == [b"\x09\0\0\0\0\0"]


def test_what_is_too_long_is_counted_only(monkeypatch):
    monkeypatch.setattr(trace, "KEPT_MAXIMUM", 60)
    long = fragment(b"x" * 100, command=False, last=False)
    stream = long + ReleaseRQ().encode()
    assert list(Splitter().feed(stream, keep=True)) == [ReleaseRQ().encode()]
    pieces = [fragment(b"x" * 40, command=False, last=last) for last in (False, False, True)]
    (message,) = read([whole(STORE), *pieces])
    assert message == TracedMessage(1, STORE, None)


def test_messages_are_put_together():
    encoded = ECHO.encode()
    found = read(
        [
            fragment(encoded[:9], command=True, last=False),
            fragment(encoded[9:], command=True, last=True),
            ReleaseRQ().encode(),
            whole(STORE),
            fragment(b"data", command=False, last=False),
            fragment(b"set", command=False, last=True),
        ]
    )
    assert found == [TracedMessage(1, ECHO, None), TracedMessage(1, STORE, b"dataset")]


def test_several_fragments_in_a_pdu():
    command = STORE.encode()
    # The length of a PDV counts its two header bytes.
    body = b"".join(
        (len(data) + 2).to_bytes(4, "big") + bytes((1, control)) + data
        for data, control in ((command, 3), (b"12", 2))
    )
    pdu = b"\x04\0" + len(body).to_bytes(4, "big") + body
    assert read([pdu]) == [TracedMessage(1, STORE, b"12")]


@pytest.mark.parametrize(
    "pdus",
    [
        [fragment(b"no command", command=True, last=True)],
        [fragment(b"the rest of a data set", command=False, last=True)],
        [b"\x04\0\0\0\0\x06\0\0\0\0\1\0"],
    ],
)
def test_what_cannot_be_read_is_passed_over(pdus):
    assert read([*pdus, whole(ECHO)]) == [TracedMessage(1, ECHO, None)]
