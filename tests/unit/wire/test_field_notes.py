"""What real peers do, one test a line of the field notes on associations and C-STORE.

The number in a test's name is the line's. Lines about sockets, time and TLS are in ``tests/net``.
"""

from __future__ import annotations

import pytest
from tests.unit.wire.playbook import (
    CLOSE,
    CT_IMAGE,
    EXPLICIT,
    IMPLICIT,
    PDV,
    VERIFICATION,
    Fault,
    Pass,
    Say,
    SayMessage,
    acceptor,
    an_ac,
    an_rq,
    command_pdv,
    echo_rq,
    established_acceptor,
    established_requestor,
    events,
    pdata,
    requestor,
    store_rq,
)

from hilum.errors import AssociationRejected, LocalProtocolError
from hilum.wire.command import Command, CommandField
from hilum.wire.connection import (
    Aborted,
    Accepted,
    CommandReceived,
    DataFragment,
    Rejected,
    Released,
    ReleaseRequested,
    Requested,
)
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UserIdentityRQ,
    UserIdentityType,
    encode_item,
)
from hilum.wire.negotiation import answer
from hilum.wire.pdu import (
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    PresentationContext,
    ReleaseRP,
    ReleaseRQ,
    decode_pdu,
)

FIXED = bytes.fromhex("00010000") + b"PACS".ljust(16) + b"CT01".ljust(16) + bytes(32)
APPLICATION = encode_item(0x10, b"1.2.840.10008.3.1.1.1")


def rq_bytes(*items: bytes, fixed: bytes = FIXED) -> bytes:
    body = fixed + APPLICATION + b"".join(items)
    return b"\1\0" + len(body).to_bytes(4, "big") + body


def context_bytes(number: int, abstract: bytes, *syntaxes: bytes) -> bytes:
    inner = encode_item(0x30, abstract) + b"".join(encode_item(0x40, uid) for uid in syntaxes)
    return encode_item(0x20, bytes((number, 0, 0, 0)) + inner)


def received(stream: bytes) -> AssociateRQ:
    playbook = acceptor()
    playbook.connection.receive_data(stream, playbook.now)
    (event,) = events(playbook.connection)
    assert isinstance(event, Requested)
    return event.rq


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0\0", b" \0"])
def test_01_uids_in_associate_are_stripped_when_read(padding: bytes) -> None:
    context = context_bytes(1, CT_IMAGE.encode() + padding, EXPLICIT.encode() + padding)
    rq = received(rq_bytes(context, encode_item(0x50, encode_item(0x52, b"1.2" + padding))))
    assert rq.contexts == (PresentationContext(1, CT_IMAGE, (EXPLICIT,)),)
    assert rq.implementation_class_uid == "1.2"


def test_01_uids_in_associate_are_never_padded_when_written() -> None:
    odd = an_rq((PresentationContext(1, "1.2", ("1.2.3",)),)).encode()
    assert encode_item(0x30, b"1.2") + encode_item(0x40, b"1.2.3") in odd
    assert encode_item(0x40, b"1.2.3") in an_ac((PresentationContext(1, "", ("1.2.3",)),)).encode()


@pytest.mark.parametrize("uid", ["1.02.003", "1." + "2" * 70, "1.2.ABC", "not a uid"])
def test_02_uids_outside_the_rules_are_kept_as_they_are(uid: str) -> None:
    rq = received(rq_bytes(context_bytes(1, uid.encode(), uid.encode())))
    assert rq.contexts == (PresentationContext(1, uid, (uid,)),)
    assert answer(rq, lambda c: c.transfer_syntaxes[0], max_length=0).encode()
    playbook = established_acceptor() >> pdata(command_pdv(3, store_rq(uid=uid)))
    assert playbook << CommandReceived(3, store_rq(uid=uid))


def test_03_a_padded_instance_uid_is_echoed_exactly() -> None:
    for raw in (b"1.2.3 ", b"1.2.30\0\0", b" 1.2.34 "):
        command = Command.decode(_with(store_rq(), 0x1000, raw))
        assert command.response(0).raw[0x1000] == raw
        assert Command.decode(command.response(0).encode()).raw[0x1000] == raw
    assert Command.decode(_with(store_rq(), 0x1000, b"1.2.3 ")).affected_sop_instance_uid == "1.2.3"


def _with(command: Command, tag: int, raw: bytes) -> bytes:
    command.raw[tag] = raw
    return command.encode()


def _without(command: Command, tag: int) -> bytes:
    del command.raw[tag]
    return command.encode()


def test_04_implementation_items_absent_or_empty() -> None:
    bare = received(rq_bytes(context_bytes(1, b"1.2", b"1.2"), encode_item(0x50, b"")))
    assert bare.implementation_version_name == bare.implementation_class_uid == ""
    assert received(rq_bytes(context_bytes(1, b"1.2", b"1.2"))).maximum_length == 16384
    empty = encode_item(0x50, encode_item(0x55, b"") + encode_item(0x52, b""))
    rq = received(rq_bytes(empty))
    assert rq.item(ImplementationVersionName) == ImplementationVersionName("")
    assert rq.implementation_class_uid == ""


def test_05_junk_in_reserved_bytes_and_echoed_titles_of_an_acceptance() -> None:
    good = bytearray(an_ac().encode())
    for index in [1, *range(8, 74)]:
        good[index] = 0xEE
    playbook = requestor() >> bytes(good) << Accepted
    assert playbook
    assert playbook.connection.contexts == {1: IMPLICIT, 3: EXPLICIT}
    item = good.index(b"\x21")
    for index in (item + 1, item + 5, item + 7):
        good[index] = 0xEE
    playbook = requestor() >> bytes(good) << Accepted
    assert playbook


@pytest.mark.parametrize(
    "raw", ["Ä\xd6Ü".encode("latin-1"), "日本".encode(), b"\xff" * 16, b"A\nB\x1b[2J", b"\0" * 16]
)
def test_06_ae_titles_outside_ascii(raw: bytes) -> None:
    fixed = FIXED[:4] + raw.ljust(16)[:16] * 2 + bytes(32)
    rq = received(rq_bytes(context_bytes(1, b"1.2", b"1.2"), fixed=fixed))
    assert ascii(rq.called_ae_title).isprintable()
    ac = answer(rq, lambda c: 3, max_length=0).encode()
    echoed = decode_pdu(2, ac[6:])
    assert isinstance(echoed, AssociateAC)
    assert echoed.called_ae_title == rq.called_ae_title


def test_07_rejected_contexts_without_transfer_syntax_or_with_an_empty_one() -> None:
    body = (
        FIXED
        + APPLICATION
        + encode_item(0x21, bytes((1, 0, 3, 0)))
        + encode_item(0x21, bytes((3, 0, 0, 0)) + encode_item(0x40, EXPLICIT.encode()))
        + encode_item(0x21, bytes((5, 0, 4, 0)) + encode_item(0x40, b""))
        # Even one that says it is accepted, and does not say how.
        + encode_item(0x21, bytes((7, 0, 0, 0)))
    )
    playbook = requestor() >> b"\2\0" + len(body).to_bytes(4, "big") + body << Accepted
    assert playbook
    assert playbook.connection.contexts == {3: EXPLICIT}


def test_08_rejections_and_aborts_with_values_the_standard_does_not_list() -> None:
    assert requestor() >> AssociateRJ(9, 8, 7) << Rejected(AssociateRJ(9, 8, 7)) << CLOSE
    assert "source 8" in str(AssociationRejected(9, 8, 7))
    assert established_acceptor() >> Abort(77, 88) << Aborted(77, 88) << CLOSE


def test_09_duplicate_and_even_context_ids() -> None:
    contexts = (
        PresentationContext(2, VERIFICATION, (IMPLICIT,)),
        PresentationContext(1, CT_IMAGE, (EXPLICIT,)),
        PresentationContext(1, VERIFICATION, (IMPLICIT,)),
        PresentationContext(0, VERIFICATION, (IMPLICIT,)),
    )
    playbook = acceptor() >> an_rq(contexts) << Requested
    assert playbook
    assert playbook.connection.rq is not None
    ac = answer(playbook.connection.rq, lambda c: c.transfer_syntaxes[0], max_length=0)
    assert [c.context_id for c in ac.contexts] == [2, 1, 0]
    playbook.connection.send(ac, 0.0)
    events(playbook.connection)
    assert playbook.connection.contexts == {2: IMPLICIT, 1: EXPLICIT, 0: IMPLICIT}
    playbook.connection.data_to_send()
    assert playbook >> pdata(command_pdv(2, echo_rq())) << CommandReceived(2, echo_rq())


def test_09_more_than_128_contexts_and_a_request_of_17_kb() -> None:
    many = [context_bytes(n % 256, CT_IMAGE.encode(), *[EXPLICIT.encode()] * 3) for n in range(200)]
    stream = rq_bytes(*many)
    assert len(stream) > 17_000
    rq = received(stream)
    assert len(rq.contexts) == 200
    assert answer(rq, lambda c: EXPLICIT, max_length=0).encode()


@pytest.mark.parametrize("maximum", [0, 8, 9, 13, 16383, 16384, 16385])
def test_10_maximum_length_zero_tiny_and_odd(maximum: int) -> None:
    playbook = established_acceptor(maximum_length=maximum)
    size = 2_000 if 0 < maximum < 100 else 40_000
    playbook.connection.send_message(3, store_rq(), [bytes(size)])
    bodies = []
    stream = b"".join(playbook.connection.data_to_send())
    start = 0
    while start < len(stream):
        bodies.append(int.from_bytes(stream[start + 2 : start + 6], "big"))
        start += 6 + bodies[-1]
    assert max(bodies) <= (maximum or 1 << 20)
    assert all(length % 2 == 0 for length in bodies)
    assert sum(bodies) - 6 * len(bodies) == size + len(store_rq().encode())


@pytest.mark.parametrize("maximum", [1, 6, 7])
def test_10_a_maximum_length_that_holds_no_fragment_ends_the_association(maximum: int) -> None:
    playbook = acceptor() >> an_rq(items=(MaximumLength(maximum),))
    assert playbook << Fault(6, "at least 8") << Abort(2, 6)
    playbook = requestor() >> an_ac(items=(MaximumLength(maximum),))
    assert playbook << Fault(6, "at least 8") << Abort(2, 6)


def test_10_the_sending_limit_is_the_peers_value_alone() -> None:
    playbook = established_acceptor(maximum_length=65536)
    assert playbook.connection.max_length == 16384
    assert playbook.connection.max_send_length == 65536 - 6


def test_11_command_and_data_set_in_one_pdu_are_read_and_sent_apart() -> None:
    playbook = established_acceptor() >> pdata(command_pdv(3, store_rq()), PDV(3, b"ab"))
    assert playbook << CommandReceived(3, store_rq()) << DataFragment(memoryview(b"ab"), True)
    assert (
        established_acceptor()
        >> SayMessage(3, store_rq(), [b"ab"])
        << pdata(command_pdv(3, store_rq()))
        << pdata(PDV(3, b"ab"))
    )


def test_12_a_command_over_several_pdus_empty_pdus_and_empty_pdvs() -> None:
    encoded = store_rq().encode()
    assert (
        established_acceptor()
        >> pdata(PDV(3, encoded[:5], True, False), PDV(3, encoded[5:9], True, False))
        >> pdata()
        >> pdata(PDV(3, b"", True, False))
        >> pdata(PDV(3, encoded[9:], True, True))
        << CommandReceived(3, store_rq())
        >> pdata(PDV(3, b""))
        << DataFragment(memoryview(b""), True)
    )


def test_13_odd_data_sets_are_padded_and_odd_fragments_read() -> None:
    assert (
        established_acceptor()
        >> SayMessage(3, store_rq(), [b"abc"])
        << pdata(command_pdv(3, store_rq()))
        << pdata(PDV(3, b"abc\0"))
    )
    playbook = established_acceptor() >> pdata(command_pdv(3, store_rq()), PDV(3, b"a", last=False))
    assert (
        playbook
        << CommandReceived
        << DataFragment(memoryview(b"a"), False)
        >> pdata(PDV(3, b"bc"))
        << DataFragment(memoryview(b"bc"), True)
    )


def test_14_a_context_that_changes_within_a_message() -> None:
    playbook = established_acceptor() >> pdata(command_pdv(3, store_rq()), PDV(1, b"ab"))
    assert playbook << CommandReceived << Fault(6, "inside a message in 3") << Abort(2, 6)
    playbook = established_acceptor() >> pdata(command_pdv(3, store_rq())) << CommandReceived
    assert playbook >> pdata(PDV(3, b"ab", last=False)) << DataFragment
    assert playbook >> pdata(PDV(1, b"cd")) << Fault(6, "inside a message") << Abort(2, 6)
    half = PDV(1, echo_rq().encode()[:8], True, False)
    playbook = established_acceptor() >> pdata(half, PDV(3, echo_rq().encode()[8:], True))
    assert playbook << Fault(6, "inside a message in 1") << Abort(2, 6)


@pytest.mark.parametrize("kind", [0x0000, 0x0001, 0x0102, 0xFFFF])
def test_15_any_data_set_type_but_0101_means_a_data_set(kind: int) -> None:
    raw = kind.to_bytes(2, "little")
    encoded = _with(echo_rq(), 0x0800, raw)
    playbook = established_acceptor() >> pdata(PDV(1, encoded, True), PDV(1, b"ab"))
    assert playbook << CommandReceived << DataFragment(memoryview(b"ab"), True)


def test_16_group_length_wrong_or_missing() -> None:
    encoded = echo_rq().encode()
    for wrong in (encoded[12:], encoded[:8] + b"\xff\xff\xff\xff" + encoded[12:]):
        playbook = established_acceptor() >> pdata(PDV(1, wrong, True))
        assert playbook << CommandReceived(1, echo_rq())


def test_16_priority_missing_and_responses_without_sop_class_and_instance() -> None:
    encoded = _without(store_rq(), 0x0700)
    assert established_acceptor() >> pdata(PDV(3, encoded, True)) << CommandReceived
    bare = Command(CommandField.C_STORE_RSP, message_id_being_responded_to=8, status=0)
    assert established_requestor() >> pdata(command_pdv(3, bare)) << CommandReceived(3, bare)


def test_17_a_message_half_sent_ends_in_an_abort() -> None:
    playbook = established_requestor() >> SayMessage(3, store_rq())
    assert playbook << pdata(command_pdv(3, store_rq())) >> Say(Abort()) << Abort()
    with pytest.raises(LocalProtocolError):
        playbook.connection.send_message(1, echo_rq())


def test_20_the_move_originator_is_kept_as_it_came() -> None:
    command = store_rq(
        move_originator_application_entity_title="WORKSTATION", move_originator_message_id=9
    )
    back = Command.decode(command.encode())
    assert back.move_originator_application_entity_title == "WORKSTATION"
    assert back.move_originator_message_id == 9


def test_24_release_collision() -> None:
    playbook = established_requestor() >> Say(ReleaseRQ()) << ReleaseRQ() >> ReleaseRQ()
    playbook = playbook << ReleaseRequested >> Say(ReleaseRP()) << ReleaseRP() >> ReleaseRP()
    assert playbook << Released << CLOSE


def test_24_release_in_the_middle_of_a_data_set() -> None:
    for say in (False, True):
        playbook = established_acceptor()
        if say:
            assert playbook >> Say(ReleaseRQ()) << ReleaseRQ()
        half = pdata(command_pdv(3, store_rq()), PDV(3, b"ab", last=False))
        assert playbook >> half << CommandReceived << DataFragment
        assert playbook >> ReleaseRQ() << Fault(2, "in the middle") << Abort(2, 2)


def test_24_pdata_after_release() -> None:
    playbook = established_acceptor() >> ReleaseRQ().encode() + pdata(PDV(1, b"x")).encode()
    assert playbook << ReleaseRequested << Fault(2, "04H in Sta8") << Abort(2, 2)


def test_25_a_peer_that_never_closes_after_an_abort() -> None:
    assert established_acceptor() >> Say(Abort()) << Abort() >> Pass(30) << CLOSE


@pytest.mark.parametrize("size", [65_000, 65_535, 200_000])
def test_34_a_user_identity_of_64_kb_and_more(size: int) -> None:
    """Lengths are 16 bits: what cannot be said is refused before anything is sent."""
    rq = an_rq(items=(UserIdentityRQ(UserIdentityType.JWT, bytes(size)),))
    if size > 65_000:
        with pytest.raises(LocalProtocolError, match="at most 65535"):
            rq.encode()
    else:
        assert decode_pdu(1, rq.encode()[6:]) == rq


def test_34_user_information_in_several_items() -> None:
    """Some senders start a second user-information item where one is full."""
    one = encode_item(0x50, MaximumLength(70).encode())
    two = encode_item(0x50, UserIdentityRQ(5, bytes(65_000)).encode())
    rq = received(rq_bytes(context_bytes(1, b"1.2", b"1.2"), one, two))
    assert rq.maximum_length == 70
    assert rq.user_identity is not None


def test_32_a_data_set_over_4_gib_is_counted_right() -> None:
    """The counter is set just below, because 4 GiB of bytes would take their time."""
    playbook = established_acceptor()
    connection = playbook.connection
    assert playbook >> pdata(command_pdv(3, store_rq())) << CommandReceived
    connection._message_length = (4 << 30) - 2
    assert playbook >> pdata(PDV(3, b"abcd", last=False)) << DataFragment
    assert connection._message_length == (4 << 30) + 2
    connection._message_length = 64 << 30
    assert playbook >> pdata(PDV(3, b"x")) << Fault(6, "data set over") << Abort(2, 6)


def test_21_and_22_roles_are_answered_for_each_class() -> None:
    rq = an_rq(items=(RoleSelection(CT_IMAGE, True, True), RoleSelection("1.9", False, True)))
    ac = answer(rq, lambda c: 3, max_length=0, roles={CT_IMAGE: (True, True)})
    assert ac.all_items(RoleSelection) == [RoleSelection(CT_IMAGE, True, True)]


def test_23_the_asynchronous_window_is_not_sent_but_answered() -> None:
    assert answer(an_rq(), lambda c: 3, max_length=0).item(AsynchronousOperationsWindow) is None
    rq = an_rq(items=(AsynchronousOperationsWindow(0, 0),))
    item = answer(rq, lambda c: 3, max_length=0).item(AsynchronousOperationsWindow)
    assert item == AsynchronousOperationsWindow(1, 1)
