"""The tap's own reading of the wire, on hand-made bytes, and its faults on a local echo."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest
from tests import tap
from tests.tap import Conversation, Fault, Tap, TapError

CT = b"1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = b"1.2.840.10008.1.2.1"
IMPLICIT = b"1.2.840.10008.1.2"


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def us(tag: int, value: int) -> bytes:
    return element(tag, value.to_bytes(2, "little"))


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(body)) + body


def pdv(context_id: int, header: int, fragment: bytes) -> bytes:
    return struct.pack(">LBB", len(fragment) + 2, context_id, header) + fragment


def associate(kind: int, *contexts: bytes) -> bytes:
    fixed = b"\0\1\0\0" + b"CALLED".ljust(16) + b"CALLING".ljust(16) + bytes(32)
    application = item(0x10, b"1.2.840.10008.3.1.1.1")
    user = item(0x50, item(0x51, struct.pack(">L", 16384)))
    return pdu(kind, fixed + application + b"".join(contexts) + user)


def store_request(message_id: int, uid: bytes) -> bytes:
    return (
        element(tap.AFFECTED_SOP_CLASS_UID, CT + b"\0")
        + us(tap.COMMAND_FIELD, tap.C_STORE_RQ)
        + us(tap.MESSAGE_ID, message_id)
        + us(tap.COMMAND_DATA_SET_TYPE, 0)
        + element(tap.AFFECTED_SOP_INSTANCE_UID, uid)
    )


def store_response(message_id: int, status: int) -> bytes:
    return (
        us(tap.COMMAND_FIELD, tap.C_STORE_RSP)
        + us(tap.MESSAGE_ID_BEING_RESPONDED_TO, message_id)
        + us(tap.COMMAND_DATA_SET_TYPE, tap.NO_DATA_SET)
        + us(tap.STATUS, status)
    )


REQUEST = associate(
    tap.A_ASSOCIATE_RQ,
    item(0x20, b"\1\0\0\0" + item(0x30, CT + b"\0") + item(0x40, IMPLICIT) + item(0x40, EXPLICIT)),
    item(0x20, b"\3\0\0\0" + item(0x30, b"1.2.3") + item(0x40, IMPLICIT)),
)
ACCEPT = associate(
    tap.A_ASSOCIATE_AC,
    item(0x21, b"\1\0\0\0" + item(0x40, EXPLICIT)),
    item(0x21, b"\3\0\3\0"),
)


def test_contexts_join_the_abstract_syntax_of_the_request_with_the_answer() -> None:
    contexts = tap.negotiated(REQUEST, ACCEPT)
    assert contexts[1] == tap.PresentationContext(CT.decode(), EXPLICIT.decode(), 0)
    assert contexts[3] == tap.PresentationContext("1.2.3", "", 3)


def test_a_message_in_pieces_over_several_pdus_is_put_together() -> None:
    command = store_request(7, b"1.2.3.4")
    stream = (
        REQUEST
        + pdu(tap.P_DATA_TF, pdv(1, 1, command[:10]))
        + pdu(tap.P_DATA_TF, pdv(1, 3, command[10:]) + pdv(1, 0, b"ab"))
        + pdu(tap.P_DATA_TF, pdv(1, 0, b""))
        + pdu(tap.P_DATA_TF, pdv(1, 0, b"cd") + pdv(1, 2, b"e\0"))
    )
    (message,) = tap.messages(stream, tap.negotiated(REQUEST, ACCEPT))
    assert message.command == command
    assert message.data_set == b"abcde\0"
    assert message.transfer_syntax == EXPLICIT.decode()
    assert message.uid(tap.AFFECTED_SOP_INSTANCE_UID) == "1.2.3.4"
    assert message.number(tap.MESSAGE_ID) == 7


def test_a_message_cut_off_at_any_byte_is_left_out() -> None:
    stream = pdu(tap.P_DATA_TF, pdv(1, 3, store_request(1, b"1.2"))) + pdu(
        tap.P_DATA_TF, pdv(1, 2, b"whole")
    )
    assert len(tap.messages(stream, {})) == 1
    for length in range(len(stream)):
        assert tap.messages(stream[:length], {}) == []


def test_a_message_without_data_set_ends_with_its_command() -> None:
    stream = pdu(tap.P_DATA_TF, pdv(1, 3, store_response(5, 0xA700)))
    (message,) = tap.messages(stream, {})
    assert message.data_set is None
    assert message.number(tap.STATUS) == 0xA700


def test_stored_are_the_requests_that_were_answered_with_success() -> None:
    conversation = Conversation()
    conversation.requestor += REQUEST
    conversation.acceptor += ACCEPT
    for message_id, status in ((1, 0x0000), (2, 0xA700), (3, None)):
        command = store_request(message_id, f"1.2.{message_id}".encode())
        conversation.requestor += pdu(tap.P_DATA_TF, pdv(1, 3, command))
        conversation.requestor += pdu(tap.P_DATA_TF, pdv(1, 2, bytes([message_id])))
        if status is not None:
            response = store_response(message_id, status)
            conversation.acceptor += pdu(tap.P_DATA_TF, pdv(1, 3, response))
    assert [message.data_set for message in conversation.stored()] == [b"\1"]


@pytest.mark.parametrize(
    "body",
    [
        pdv(1, 2, b"data set first"),
        pdv(1, 1, b"half a command") + pdv(3, 3, b"on another context"),
        struct.pack(">LBB", 100, 1, 3) + b"longer than its PDU",
        struct.pack(">LBB", 1, 1, 3),
        pdv(1, 3, b"\0\0\0\1\xff\0\0\0too short"),
    ],
)
def test_what_the_standard_forbids_is_an_error(body: bytes) -> None:
    with pytest.raises(TapError):
        tap.messages(pdu(tap.P_DATA_TF, body), {})


class Echo:
    """A server that sends back what it reads and remembers how each read went."""

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.data = bytearray()
        self.end: str = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                while data := connection.recv(65536):
                    self.reads.append(len(data))
                    self.data += data
                    connection.sendall(data)
                self.end = "eof"
            except ConnectionResetError:
                self.end = "reset"


def exchange(port: int, data: bytes) -> bytes:
    """Send, close the sending direction and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        with contextlib.suppress(OSError):  # reset by now: recv tells
            client.shutdown(socket.SHUT_WR)
        received = bytearray()
        while piece := client.recv(65536):
            received += piece
        return bytes(received)


def test_an_undisturbed_conversation_is_forwarded_and_recorded() -> None:
    data = bytes(range(256)) * 1000
    with Echo() as echo, Tap(echo.port) as wire:
        assert exchange(wire.port, data) == data
        (conversation,) = wire.wait_ended()
        assert conversation.requestor == conversation.acceptor == data
    assert echo.end == "eof"


def test_split_sends_small_pieces_and_loses_nothing() -> None:
    data = bytes(range(256)) * 4
    with Echo() as echo, Tap(echo.port, fault=Fault(split=7, delay=0.0005)) as wire:
        assert exchange(wire.port, data) == data
    assert echo.data == data
    assert len(echo.reads) > 1


def test_cut_resets_both_sides_after_exactly_that_many_bytes() -> None:
    with Echo() as echo, Tap(echo.port, fault=Fault(cut_after=100)) as wire:
        with pytest.raises(ConnectionResetError):
            exchange(wire.port, bytes(1000))
        (conversation,) = wire.wait_ended()
        assert len(conversation.requestor) == 100
    assert echo.end == "reset"
    assert len(echo.data) <= 100


def test_half_close_ends_one_direction_and_leaves_the_other() -> None:
    with Echo() as echo, Tap(echo.port, fault=Fault(half_close_after=100)) as wire:
        assert exchange(wire.port, bytes(1000)) == bytes(100)
    assert echo.end == "eof"


def test_stall_holds_what_follows_until_the_tap_ends() -> None:
    with Echo() as echo:
        with Tap(echo.port, fault=Fault(stall_after=100)) as wire:
            client = socket.create_connection(("127.0.0.1", wire.port), timeout=10)
            client.sendall(bytes(1000))
            received = 0
            while received < 100:
                received += len(client.recv(65536))
        with client:
            assert received == 100
    assert len(echo.data) == 100


def test_a_fault_in_the_other_direction_leaves_requests_whole() -> None:
    with Echo() as echo, Tap(echo.port, fault=Fault("acceptor", half_close_after=10)) as wire:
        assert exchange(wire.port, bytes(1000)) == bytes(10)
        (conversation,) = wire.wait_ended()
        assert len(conversation.requestor) == 1000
