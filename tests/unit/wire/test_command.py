"""Command sets: what is missing, mistyped, doubled or too much, and what is echoed exactly."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.wire.playbook import CT_IMAGE, echo_rq

from hilum.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from hilum.wire.command import (
    ELEMENTS,
    MAX_COMMAND_ELEMENTS,
    MAX_COMMAND_LENGTH,
    REQUIRED,
    Command,
    CommandField,
    Priority,
)


def element(tag: int, value: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, tag, len(value)) + value


def us(tag: int, value: int) -> bytes:
    return element(tag, struct.pack("<H", value))


ECHO = us(0x0100, 0x0030) + us(0x0110, 7) + us(0x0800, 0x0101)

VALUES: dict[str, Any] = {
    "US": st.integers(0, 0xFFFF),
    "UI": st.lists(st.integers(0, 99999).map(str), min_size=1, max_size=5).map(".".join),
    "AE": st.text("ABC123_", min_size=1, max_size=16),
    "LO": st.text("abc DEF", max_size=30).map(str.strip),
    "AT": st.lists(st.integers(0, 0xFFFFFFFF), max_size=5).map(tuple),
}
elements = st.fixed_dictionaries(
    {},
    optional={
        name: VALUES[vr]
        for name, (_, vr) in ELEMENTS.items()
        if name not in ("command_field", "command_data_set_type")
    },
)
fields = st.sampled_from(list(CommandField))


@given(fields, st.booleans(), elements)
def test_decode_of_encode_is_the_command(
    field: CommandField, has_data_set: bool, given_elements: dict[str, Any]
) -> None:
    for name in REQUIRED[field]:
        given_elements.setdefault(name, 1 if ELEMENTS[name][1] == "US" else "1.2")
    command = Command(field, has_data_set=has_data_set, **given_elements)
    back = Command.decode(command.encode())
    assert back == command
    assert back.has_data_set is has_data_set
    for name, value in given_elements.items():
        assert getattr(back, name) == value
        assert name in back
    assert back.name == field.name.replace("_", "-")
    assert back.is_response is bool(field & 0x8000)
    assert back.name in repr(back)


def test_bytes_of_an_echo_request() -> None:
    assert echo_rq(7).encode() == (
        element(0x0000, struct.pack("<I", 56))
        + element(0x0002, b"1.2.840.10008.1.1\0")
        + us(0x0100, 0x0030)
        + us(0x0110, 7)
        + us(0x0800, 0x0101)
    )


@pytest.mark.parametrize("field", REQUIRED, ids=lambda field: CommandField(field).name)
def test_each_required_element_is_missed(field: int) -> None:
    whole = {name: 1 if ELEMENTS[name][1] == "US" else "1.2" for name in REQUIRED[field]}
    Command.decode(Command(field, **whole).encode())
    for name in REQUIRED[field]:
        rest = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(RemoteProtocolError, match=f"without {name}") as caught:
            Command.decode(Command(field, **rest).encode())
        assert caught.value.reason == 6


def test_a_command_field_is_needed_known_and_of_two_bytes() -> None:
    with pytest.raises(RemoteProtocolError, match="without command_field"):
        Command.decode(b"")
    with pytest.raises(RemoteProtocolError, match="unknown command field 0002H"):
        Command.decode(us(0x0100, 2))
    with pytest.raises(RemoteProtocolError, match="has 4 bytes, expected 2"):
        Command.decode(element(0x0100, bytes(4)))


@pytest.mark.parametrize("value", [b"", b"\1", b"\1\0\0\0"])
def test_a_required_number_of_wrong_size(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="message_id has"):
        Command.decode(us(0x0100, 0x0030) + element(0x0110, value))


def test_an_optional_number_of_wrong_size_hurts_only_whoever_reads_it() -> None:
    command = Command.decode(ECHO + element(0x0700, b"\1") + element(0x1005, b"\1\2"))
    with pytest.raises(RemoteProtocolError, match="VR US has 1 bytes"):
        _ = command.priority
    with pytest.raises(RemoteProtocolError, match="VR AT has 2 bytes"):
        command.get("attribute_identifier_list")
    assert "priority=<01>" in repr(command)


def test_absent_elements() -> None:
    command = Command.decode(ECHO)
    assert command.get("priority") is None
    assert "priority" not in command
    with pytest.raises(RemoteProtocolError, match="C-ECHO-RQ without priority"):
        _ = command.priority
    with pytest.raises(AttributeError, match="patient_name"):
        _ = command.patient_name  # type: ignore[attr-defined]


def test_of_an_element_that_comes_twice_the_last_counts() -> None:
    assert Command.decode(ECHO + us(0x0110, 9)).message_id == 9


@pytest.mark.parametrize("length", [0, 1, 12, 0xFFFFFFFF])
def test_the_group_length_is_not_minded(length: int) -> None:
    command = Command.decode(element(0, struct.pack("<I", length)) + ECHO)
    assert command == Command.decode(ECHO)
    assert command.encode()[:12] == element(0, struct.pack("<I", len(ECHO)))


def test_elements_in_any_order_and_unknown_ones_are_read() -> None:
    command = Command.decode(us(0x0800, 0x0101) + us(0x5555, 1) + us(0x0110, 7) + us(0x0100, 0x30))
    assert command.message_id == 7
    assert not command.has_data_set


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (ECHO + b"\0", "ends inside an element header"),
        (ECHO + bytes(7), "ends inside an element header"),
        (ECHO + element(0x0700, b"\0\0")[:-1], "does not fit"),
        (ECHO + struct.pack("<HHI", 0, 0x700, 0xFFFFFFFF), "does not fit"),
        (ECHO + element(0x0010, b"\0\0", group=8), r"\(0008,0010\)"),
    ],
)
def test_what_is_no_command_set(data: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        Command.decode(data)


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="at most 65536"):
        Command.decode(bytes(MAX_COMMAND_LENGTH + 1))
    many = b"".join(us(0x2000 + n, 0) for n in range(MAX_COMMAND_ELEMENTS))
    with pytest.raises(LimitExceeded, match="more than 256"):
        Command.decode(ECHO + many)
    assert Command.decode(ECHO + many[: -3 * 10])


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_the_peers_error(data: bytes) -> None:
    try:
        Command.decode(data)
    except RemoteProtocolError as error:
        assert error.reason == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("message_id", 65536),
        ("message_id", -1),
        ("message_id", "1"),
        ("affected_sop_class_uid", "1.☃"),
        ("affected_sop_class_uid", 5),
        ("attribute_identifier_list", 5),
        ("patient_name", "x"),
    ],
)
def test_values_that_no_element_can_have(name: str, value: object) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        Command(CommandField.C_ECHO_RQ, **{name: value})


def test_none_leaves_an_element_out_and_bytes_go_as_they_are() -> None:
    command = Command(CommandField.C_STORE_RQ, priority=None, error_comment=b"x ")
    assert "priority" not in command
    assert command.raw[0x0902] == b"x "


def test_text_is_padded_to_even_length_with_what_its_vr_asks() -> None:
    command = Command(
        CommandField.C_STORE_RQ,
        affected_sop_class_uid="1.2",
        error_comment="abc",
        move_destination="ABC",
        offending_element=(0x00100010,),
    )
    assert command.raw[0x0002] == b"1.2\0"
    assert command.raw[0x0902] == b"abc "
    assert command.raw[0x0600] == b"ABC "
    assert command.raw[0x0901] == b"\x10\0\x10\0"


def test_what_the_default_repertoire_cannot_say_is_replaced_in_comments() -> None:
    assert Command(1, error_comment="☃").raw[0x0902] == b"? "


def test_a_response_echoes_class_and_instance_byte_for_byte() -> None:
    rq = Command.decode(
        us(0x0100, 0x0001)
        + us(0x0110, 5)
        + us(0x0800, 0)
        + element(0x0002, CT_IMAGE.encode() + b"\0")
        + element(0x1000, b"1.2.3 ")
    )
    response = rq.response(0xA700, error_comment="out of resources")
    assert response.command_field == 0x8001
    assert response.message_id_being_responded_to == 5
    assert response.status == 0xA700
    assert response.raw[0x1000] == b"1.2.3 "
    assert response.raw[0x0002] == CT_IMAGE.encode() + b"\0"
    assert "message_id" not in response
    assert not response.has_data_set


def test_a_response_to_an_n_request_names_the_affected_instance() -> None:
    rq = Command(
        CommandField.N_ACTION_RQ,
        message_id=3,
        requested_sop_class_uid="1.2",
        requested_sop_instance_uid="1.3",
        action_type_id=1,
    )
    response = rq.response(0, has_data_set=True, action_type_id=1)
    assert response.affected_sop_class_uid == "1.2"
    assert response.affected_sop_instance_uid == "1.3"
    assert response.has_data_set
    # What the caller says itself goes before what would be echoed.
    own = rq.response(0, affected_sop_instance_uid="9.9")
    assert own.affected_sop_instance_uid == "9.9"


def test_tags_are_group_and_element_in_little_endian() -> None:
    command = Command(CommandField.N_GET_RQ, attribute_identifier_list=(0x00100010, 0x0020000D))
    assert command.raw[0x1005] == b"\x10\0\x10\0\x20\0\x0d\0"
    assert command.attribute_identifier_list == (0x00100010, 0x0020000D)


def test_the_highest_bit_of_its_field_makes_a_response() -> None:
    for field in CommandField:
        assert Command(field).is_response is field.name.endswith("RSP"), field


def test_comparison_and_name() -> None:
    assert echo_rq(1) == echo_rq(1) != echo_rq(2)
    assert echo_rq(1) != "C-ECHO-RQ"
    with pytest.raises(TypeError):
        hash(echo_rq(1))
    assert Command(0x7777).name == "message 7777"
    assert Priority.MEDIUM == 0
