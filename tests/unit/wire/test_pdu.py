"""The PDUs: byte for byte, there and back, limits, and what is left out or too much."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.wire.playbook import EXPLICIT, IMPLICIT, VERIFICATION, an_rq
from tests.unit.wire.test_items import titles, uids, user_items

from hilum.errors import HilumError, LimitExceeded, LocalProtocolError, RemoteProtocolError
from hilum.wire.items import (
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UserIdentityResponse,
    UserIdentityRQ,
    encode_item,
)
from hilum.wire.pdu import (
    APPLICATION_CONTEXT,
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PresentationContext,
    ReleaseRP,
    ReleaseRQ,
    decode_ae_title,
    decode_pdu,
    encode_ae_title,
    pdv_header,
)

byte = st.integers(0, 255)
proposals = st.builds(
    PresentationContext, byte, uids, st.lists(uids, min_size=1, max_size=4).map(tuple)
)
answers = st.builds(
    PresentationContext, byte, st.just(""), st.lists(uids, min_size=1, max_size=1).map(tuple), byte
)
requests = st.builds(
    AssociateRQ,
    called_ae_title=titles,
    calling_ae_title=titles,
    contexts=st.lists(proposals, min_size=1, max_size=5).map(tuple),
    user_items=st.lists(user_items, max_size=5).map(tuple),
    application_context=uids,
    protocol_version=st.integers(0, 0xFFFF),
)
acceptances = st.builds(
    AssociateAC,
    called_ae_title=titles,
    calling_ae_title=titles,
    contexts=st.lists(answers, max_size=5).map(tuple),
    user_items=st.lists(user_items, max_size=5).map(tuple),
)
pdus: st.SearchStrategy[PDU] = st.one_of(
    requests,
    acceptances,
    st.builds(AssociateRJ, byte, byte, byte),
    st.builds(Abort, byte, byte),
    st.just(ReleaseRQ()),
    st.just(ReleaseRP()),
)


def decoded(encoded: bytes) -> PDU:
    assert int.from_bytes(encoded[2:6], "big") == len(encoded) - 6
    return decode_pdu(encoded[0], encoded[6:])


@given(pdus)
def test_decode_of_encode_is_the_pdu(pdu: PDU) -> None:
    encoded = pdu.encode()
    assert encoded[0] == pdu.pdu_type
    assert decoded(encoded) == pdu


@given(pdus, st.data())
def test_a_pdu_cut_anywhere_decodes_or_is_the_peers_error(pdu: PDU, data: st.DataObject) -> None:
    body = pdu.encode()[6:]
    cut = data.draw(st.integers(0, len(body)))
    try:
        decode_pdu(pdu.pdu_type, body[:cut])
    except HilumError as error:
        assert isinstance(error, RemoteProtocolError)
        assert error.reason == 6


def test_bytes_of_an_association_request() -> None:
    rq = AssociateRQ(
        called_ae_title="PACS",
        calling_ae_title="CT01",
        contexts=(PresentationContext(1, VERIFICATION, (IMPLICIT,)),),
        user_items=(MaximumLength(16384),),
    )
    assert rq.encode() == (
        bytes.fromhex("01 00 0000009b 0001 0000")
        + b"PACS            CT01            "
        + bytes(32)
        + bytes.fromhex("10 00 0015") + b"1.2.840.10008.3.1.1.1"
        + bytes.fromhex("20 00 002e 01 00 00 00")
        + bytes.fromhex("30 00 0011") + b"1.2.840.10008.1.1"
        + bytes.fromhex("40 00 0011") + b"1.2.840.10008.1.2"
        + bytes.fromhex("50 00 0008 51 00 0004 00004000")
    )  # fmt: skip


def test_bytes_of_an_association_acceptance() -> None:
    ac = AssociateAC(
        called_ae_title="PACS",
        calling_ae_title="CT01",
        contexts=(PresentationContext(1, "", (IMPLICIT,), 0), PresentationContext(3, "", (), 3)),
        user_items=(),
    )
    encoded = ac.encode()
    assert encoded[:10] == bytes.fromhex("02 00 0000008a 0001 0000")
    assert encoded.endswith(
        bytes.fromhex("21 00 0019 01 00 00 00 40 00 0011") + b"1.2.840.10008.1.2"
        + bytes.fromhex("21 00 0008 03 00 03 00 40 00 0000")
        + bytes.fromhex("50 00 0000")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pdu", "encoded"),
    [
        (AssociateRJ(1, 2, 3), "03 00 00000004 00 01 02 03"),
        (ReleaseRQ(), "05 00 00000004 00000000"),
        (ReleaseRP(), "06 00 00000004 00000000"),
        (Abort(2, 6), "07 00 00000004 00 00 02 06"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bytes_of_the_short_pdus(pdu: PDU, encoded: str) -> None:
    assert pdu.encode() == bytes.fromhex(encoded)


def test_bytes_of_a_pdv_header() -> None:
    header = pdv_header(3, 0x100, command=True, last=False)
    assert header == bytes.fromhex("04 00 00000106 00000102 03 01")
    assert pdv_header(1, 0, command=False, last=True)[-1] == 2


@pytest.mark.parametrize("kind", [3, 5, 6, 7])
def test_a_short_pdu_of_less_than_four_bytes(kind: int) -> None:
    for size in range(4):
        with pytest.raises(RemoteProtocolError, match="expected 4") as caught:
            decode_pdu(kind, bytes(size))
        assert caught.value.reason == 6
    # Longer ones are read: what follows is reserved for later editions.
    assert decode_pdu(kind, bytes(9))


@pytest.mark.parametrize("kind", [0, 8, 0x47, 255])
def test_an_unknown_type_has_reason_1(kind: int) -> None:
    with pytest.raises(RemoteProtocolError, match="unrecognised") as caught:
        decode_pdu(kind, b"")
    assert caught.value.reason == 1


def test_associate_shorter_than_its_fixed_part() -> None:
    for kind in (1, 2):
        with pytest.raises(RemoteProtocolError, match="at least 68"):
            decode_pdu(kind, bytes(67))
        assert decode_pdu(kind, bytes(68)).contexts == ()  # type: ignore[union-attr]


FIXED = bytes.fromhex("00010000") + b"PACS".ljust(16) + b"CT".ljust(16) + bytes(32)


def associate(*items: bytes) -> AssociateRQ:
    pdu = decode_pdu(1, FIXED + b"".join(items))
    assert isinstance(pdu, AssociateRQ)
    return pdu


def test_items_of_unknown_type_are_ignored_at_every_level() -> None:
    inner = bytes((1, 0, 0, 0)) + encode_item(0x99, b"?") + encode_item(0x30, b"1.2")
    rq = associate(encode_item(0x98, b"??"), encode_item(0x20, inner))
    assert rq.contexts == (PresentationContext(1, "1.2", ()),)
    assert rq.application_context == ""


def test_a_context_item_shorter_than_its_header() -> None:
    with pytest.raises(RemoteProtocolError, match="presentation context item of 3 bytes"):
        associate(encode_item(0x20, bytes(3)))


def test_counts_are_limited() -> None:
    context = encode_item(0x20, bytes((1, 0, 0, 0)))
    assert len(associate(context * 512).contexts) == 512
    with pytest.raises(LimitExceeded, match="more than 512 contexts"):
        associate(context * 513)
    syntax = encode_item(0x40, b"1.2")
    with pytest.raises(LimitExceeded, match="more than 256 transfer syntaxes"):
        associate(encode_item(0x20, bytes(4) + syntax * 257))
    item = encode_item(0x99, b"")
    assert len(associate(encode_item(0x50, item * 1024)).user_items) == 1024
    with pytest.raises(LimitExceeded, match="more than 1024 user items"):
        associate(encode_item(0x50, item * 1024), encode_item(0x50, item))


def test_a_request_needs_1_to_128_contexts() -> None:
    one = PresentationContext(1, VERIFICATION, (IMPLICIT,))
    for count in (0, 129):
        with pytest.raises(LocalProtocolError, match=f"{count} presentation contexts"):
            an_rq((one,) * count).encode()
    assert decoded(an_rq((one,) * 128).encode())


def test_facts_of_the_user_information() -> None:
    identity = UserIdentityRQ(1, b"alice")
    role = RoleSelection("1.2", True, True)
    rq = an_rq(
        items=(
            MaximumLength(7),
            role,
            ImplementationClassUID("1.2.3"),
            ImplementationVersionName("X"),
            identity,
            role,
        )
    )
    assert rq.maximum_length == 7
    assert rq.implementation_class_uid == "1.2.3"
    assert rq.implementation_version_name == "X"
    assert rq.user_identity == identity
    assert rq.all_items(RoleSelection) == [role, role]
    assert rq.application_context == APPLICATION_CONTEXT
    bare = an_rq(items=())
    assert bare.maximum_length == 16384
    assert bare.implementation_class_uid == bare.implementation_version_name == ""
    assert bare.user_identity is None
    ac = AssociateAC(
        called_ae_title="A",
        calling_ae_title="B",
        contexts=(),
        user_items=(UserIdentityResponse(b"yes"),),
    )
    assert ac.user_identity_response == UserIdentityResponse(b"yes")


@pytest.mark.parametrize("title", ["", "   ", "X" * 17, "A\\B", "A\nB", "A\0"])
def test_titles_that_cannot_be_sent(title: str) -> None:
    with pytest.raises(LocalProtocolError, match="not an AE title"):
        encode_ae_title(title)


def test_titles_are_padded_and_stripped() -> None:
    assert encode_ae_title(" PACS ") == b"PACS            "
    assert decode_ae_title(b"  PACS  \0\0") == "PACS"
    assert decode_ae_title(b"A B             ") == "A B"


@given(st.binary(min_size=16, max_size=16))
def test_an_acceptance_echoes_any_title(raw: bytes) -> None:
    title = decode_ae_title(raw)
    ac = AssociateAC(called_ae_title=title, calling_ae_title=title, contexts=())
    back = decoded(ac.encode())
    assert isinstance(back, AssociateAC)
    assert back.called_ae_title == title


@given(st.binary(max_size=64))
def test_an_acceptance_echoes_any_transfer_syntax(raw: bytes) -> None:
    """What a peer proposed need not be a UID, and a rejection repeats it."""
    body = bytes((1, 0, 0, 0)) + encode_item(0x30, b"1.2") + encode_item(0x40, raw)
    (proposed,) = associate(encode_item(0x20, body)).contexts
    answer = PresentationContext(1, "", proposed.transfer_syntaxes, 3)
    ac = AssociateAC(called_ae_title="A", calling_ae_title="B", contexts=(answer,))
    back = decoded(ac.encode())
    assert isinstance(back, AssociateAC)
    assert back.contexts == (answer,)


def test_a_request_of_ours_with_a_uid_outside_ascii() -> None:
    with pytest.raises(LocalProtocolError, match="not a UID"):
        an_rq((PresentationContext(1, "1.é", (EXPLICIT,)),)).encode()


def test_header_and_body_agree() -> None:
    encoded = an_rq().encode()
    assert struct.unpack(">BBI", encoded[:6]) == (1, 0, len(encoded) - 6)
