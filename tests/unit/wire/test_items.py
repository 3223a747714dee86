"""User-information sub-items: byte for byte, there and back, and cut at every place."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import HilumError, LocalProtocolError, RemoteProtocolError
from hilum.wire import items
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UnknownItem,
    UserIdentityResponse,
    UserIdentityRQ,
    UserIdentityType,
    UserItem,
    decode_user_items,
    encode_item,
    encode_uid,
    split_items,
)

uids = st.lists(st.integers(0, 99999).map(str), min_size=1, max_size=5).map(".".join)
shorts = st.integers(0, 0xFFFF)
titles = st.text("ABCdef0123_", min_size=1, max_size=16)

user_items: st.SearchStrategy[UserItem] = st.one_of(
    st.builds(MaximumLength, st.integers(0, 0xFFFFFFFF)),
    st.builds(ImplementationClassUID, uids),
    st.builds(ImplementationVersionName, titles),
    st.builds(AsynchronousOperationsWindow, shorts, shorts),
    st.builds(RoleSelection, uids, st.booleans(), st.booleans()),
    st.builds(ExtendedNegotiation, uids, st.binary(max_size=40)),
    st.builds(CommonExtendedNegotiation, uids, uids, st.lists(uids, max_size=4).map(tuple)),
    st.builds(
        UserIdentityRQ,
        st.integers(0, 255),
        st.binary(max_size=40),
        st.binary(max_size=40),
        st.booleans(),
    ),
    st.builds(UserIdentityResponse, st.binary(max_size=40)),
    st.builds(UnknownItem, st.integers(0x5A, 0xFF), st.binary(max_size=40)),
)

EXAMPLES: list[tuple[UserItem, str]] = [
    (MaximumLength(16384), "51000004 00004000"),
    (MaximumLength(0), "51000004 00000000"),
    (ImplementationClassUID("1.2.3"), "52000005 312e322e33"),
    (AsynchronousOperationsWindow(2, 3), "53000004 0002 0003"),
    (RoleSelection("1.2", True, False), "54000007 0003 312e32 01 00"),
    (ImplementationVersionName("HILUM"), "55000005 48494c554d"),
    (ExtendedNegotiation("1.2", b"\x01\x00"), "56000007 0003 312e32 0100"),
    (
        CommonExtendedNegotiation("1.2", "1.3", ("1.4", "1.5")),
        "57000016 0003 312e32 0003 312e33 000a 0003312e34 0003312e35",
    ),
    (
        UserIdentityRQ(UserIdentityType.USERNAME_PASSCODE, b"u", b"pw", True),
        "58000009 02 01 0001 75 0002 7077",
    ),
    (UserIdentityResponse(b"ok"), "59000004 0002 6f6b"),
    (UnknownItem(0x7F, b"?"), "7f000001 3f"),
]


@pytest.mark.parametrize(("item", "hexadecimal"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_bytes_of_each_item(item: UserItem, hexadecimal: str) -> None:
    encoded = bytes.fromhex(hexadecimal)
    assert item.encode() == encoded
    assert decode_user_items(encoded) == (item,)


@given(st.lists(user_items, max_size=8))
def test_items_come_back_in_order(sequence: list[UserItem]) -> None:
    assert decode_user_items(b"".join(item.encode() for item in sequence)) == tuple(sequence)


@given(user_items, st.data())
def test_an_item_whose_body_is_cut_is_the_peers_error_or_another_item(
    item: UserItem, data: st.DataObject
) -> None:
    body = item.encode()[4:]
    kept = body[: data.draw(st.integers(0, len(body)))]
    try:
        decode_user_items(encode_item(item.item_type, kept))
    except RemoteProtocolError as error:
        assert error.reason == 6


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_the_peers_error(data: bytes) -> None:
    try:
        decode_user_items(data)
    except HilumError as error:
        assert isinstance(error, RemoteProtocolError)


@pytest.mark.parametrize("kind", [0x51, 0x53, 0x54, 0x56, 0x57, 0x58, 0x59])
def test_items_with_fixed_fields_may_not_be_empty(kind: int) -> None:
    with pytest.raises(RemoteProtocolError, match="cut short"):
        decode_user_items(encode_item(kind, b""))


@pytest.mark.parametrize(
    "encoded", ["51", "510000", "51000005 00", "51000004 00004000 5100"], ids=str
)
def test_what_does_not_fit_is_an_error(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_user_items(bytes.fromhex(encoded))


def test_fields_longer_than_their_length_can_say_are_a_local_error() -> None:
    with pytest.raises(LocalProtocolError, match="primary field of 65536"):
        UserIdentityRQ(UserIdentityType.SAML, bytes(65536)).encode()
    with pytest.raises(LocalProtocolError, match="58H of 65541"):
        UserIdentityRQ(UserIdentityType.SAML, bytes(65535)).encode()
    with pytest.raises(LocalProtocolError, match="item 50H"):
        encode_item(0x50, bytes(65536))
    assert len(encode_item(0x50, bytes(65535))) == 65539


def test_the_reserved_rest_of_common_extended_negotiation_is_ignored() -> None:
    body = bytes.fromhex("0003312e32 0003312e33 0000 ffff")
    assert CommonExtendedNegotiation.decode(body) == CommonExtendedNegotiation("1.2", "1.3")


def test_secrets_are_never_shown() -> None:
    shown = repr(UserIdentityRQ(2, b"alice", b"hunter2")) + repr(UserIdentityResponse(b"ticket"))
    assert not {"alice", "hunter2", "ticket"} & set(shown.replace("'", " ").split())
    assert "hunter2" not in shown
    assert "<7 bytes>" in shown


def test_a_uid_of_ours_is_ascii() -> None:
    assert encode_uid("1.2") == b"1.2"
    with pytest.raises(LocalProtocolError, match="not a UID"):
        encode_uid("1.2.é")


def test_split_items_reads_nothing_from_nothing() -> None:
    assert list(split_items(b"", "x")) == []
    assert list(split_items(struct.pack(">BBH", 9, 255, 0), "x")) == [(9, b"")]


def test_every_public_name_exists() -> None:
    assert all(hasattr(items, name) for name in items.__all__)
