"""Associations as conversations: opening, messages, release, collision, abort, time."""

from __future__ import annotations

import pytest
from tests.unit.wire.playbook import (
    CLOSE,
    CT_IMAGE,
    EOF,
    EXPLICIT,
    IMPLICIT,
    OPEN,
    PDV,
    REJECTED,
    VERIFICATION,
    Fault,
    Pass,
    Playbook,
    Refused,
    Say,
    SayMessage,
    acceptor,
    an_ac,
    an_rq,
    command_pdv,
    echo_rq,
    established_acceptor,
    established_requestor,
    in_state,
    new,
    pdata,
    requestor,
    store_rq,
)

from hilum.errors import LocalProtocolError
from hilum.wire.connection import (
    Aborted,
    Accepted,
    CommandReceived,
    Connection,
    DataFragment,
    Established,
    Lost,
    Rejected,
    Released,
    ReleaseRequested,
    Requested,
)
from hilum.wire.fsm import TABLE, Action, Event, State
from hilum.wire.pdu import (
    Abort,
    AssociateRJ,
    PresentationContext,
    ReleaseRP,
    ReleaseRQ,
)

STATES = list(State)


def test_an_association_from_the_acceptors_side() -> None:
    rq, echo = an_rq(), echo_rq()
    assert (
        acceptor()
        >> rq
        << Requested(rq)
        >> Say(an_ac())
        << Established
        << an_ac()
        >> pdata(command_pdv(1, echo))
        << CommandReceived(1, echo)
        >> SayMessage(1, echo.response(0))
        << pdata(command_pdv(1, echo.response(0)))
        >> ReleaseRQ()
        << ReleaseRequested
        >> Say(ReleaseRP())
        << ReleaseRP()
        >> EOF
        << CLOSE
    )


def test_an_association_from_the_requestors_side() -> None:
    response = echo_rq().response(0)
    assert (
        Playbook(new(requestor=True))
        >> Say(an_rq())
        >> OPEN
        << an_rq()
        >> an_ac()
        << Accepted(an_ac())
        >> SayMessage(1, echo_rq())
        << pdata(command_pdv(1, echo_rq()))
        >> pdata(command_pdv(1, response))
        << CommandReceived(1, response)
        >> Say(ReleaseRQ())
        << ReleaseRQ()
        >> ReleaseRP()
        << Released
        << CLOSE
    )


def test_a_message_with_a_data_set() -> None:
    assert (
        established_acceptor()
        >> pdata(command_pdv(3, store_rq()), PDV(3, b"data", last=False))
        << CommandReceived(3, store_rq())
        << DataFragment(memoryview(b"data"), False)
        >> pdata(PDV(3, b"more"))
        << DataFragment(memoryview(b"more"), True)
        >> pdata(command_pdv(1, echo_rq()))
        << CommandReceived(1, echo_rq())
    )


def test_a_rejection_from_both_sides() -> None:
    assert acceptor() >> an_rq() << Requested >> Say(REJECTED) << REJECTED >> EOF << CLOSE
    assert requestor() >> REJECTED << Rejected(REJECTED) << CLOSE


def test_a_peer_that_speaks_another_version_is_rejected_by_the_provider() -> None:
    rejected = AssociateRJ(1, 2, 2)
    assert acceptor() >> an_rq(protocol_version=2) << rejected >> Pass(29.9) >> Pass(0.2) << CLOSE
    # Further bits are versions to come, and not tested.
    assert acceptor() >> an_rq(protocol_version=0x8003) << Requested


def test_a_release_while_the_peer_still_answers() -> None:
    """PS3.8 7.2.2: P-DATA may still come after our A-RELEASE-RQ, and be sent before our -RP."""
    response = echo_rq().response(0)
    playbook = established_requestor() >> Say(ReleaseRQ()) << ReleaseRQ()
    assert playbook >> pdata(command_pdv(1, response)) << CommandReceived(1, response)
    playbook = established_acceptor() >> ReleaseRQ() << ReleaseRequested
    assert playbook >> SayMessage(1, response) << pdata(command_pdv(1, response))


def test_a_release_collision_from_the_requestors_side() -> None:
    assert (
        established_requestor()
        >> Say(ReleaseRQ())
        << ReleaseRQ()
        >> ReleaseRQ()
        << ReleaseRequested
        >> Say(ReleaseRP())
        << ReleaseRP()
        >> ReleaseRP()
        << Released
        << CLOSE
    )


def test_a_release_collision_from_the_acceptors_side() -> None:
    playbook = established_acceptor() >> Say(ReleaseRQ()) << ReleaseRQ()
    assert (
        playbook
        >> ReleaseRQ()
        << ReleaseRequested
        >> Say(ReleaseRP())
        << Refused()
        >> ReleaseRP()
        << Released
        >> Say(ReleaseRP())
        << ReleaseRP()
        >> Pass(31)
        << CLOSE
    )


@pytest.mark.parametrize("state", [State.Sta3, *STATES[4:12]], ids=lambda state: state.name)
def test_the_peers_abort_ends_it_in_every_state(state: State) -> None:
    assert in_state(state) >> Abort(2, 1) << Aborted(2, 1) << CLOSE


@pytest.mark.parametrize("state", [State.Sta3, *STATES[3:12]], ids=lambda state: state.name)
def test_our_abort_ends_it_in_every_state(state: State) -> None:
    playbook = in_state(state) >> Say(Abort())
    if state is State.Sta4:
        assert playbook << CLOSE
    else:
        assert playbook << Abort() >> Say(Abort()) << Refused() >> Pass(30) << CLOSE


@pytest.mark.parametrize("state", STATES[1:], ids=lambda state: state.name)
def test_every_state_reaches_sta1_when_the_transport_ends(state: State) -> None:
    playbook = in_state(state) >> EOF
    if state not in (State.Sta2, State.Sta13):
        playbook = playbook << Lost
    assert playbook << CLOSE
    assert playbook.connection.state is State.Sta1
    assert playbook.connection.deadline is None


@pytest.mark.parametrize("state", STATES[1:], ids=lambda state: state.name)
def test_every_state_reaches_sta1_when_the_peer_talks_nonsense_and_time_goes_by(
    state: State,
) -> None:
    if state is State.Sta4:
        return  # nothing can come where no transport is
    playbook = in_state(state)
    connection = playbook.connection
    connection.receive_data(b"GET / HTTP/1.1\r\n\r\n" * 50, playbook.now)
    assert connection.state is State.Sta13
    deadline = connection.deadline
    assert deadline is not None
    connection.handle_timeout(deadline)
    assert connection.state is State.Sta1
    assert connection.must_close


PEER = {
    Event.Evt3: an_ac(),
    Event.Evt4: REJECTED,
    Event.Evt6: an_rq(),
    Event.Evt10: pdata(command_pdv(1, echo_rq())),
    Event.Evt12: ReleaseRQ(),
    Event.Evt13: ReleaseRP(),
    Event.Evt16: Abort(),
}


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_each_pdu_in_each_state_goes_where_the_table_says(state: State) -> None:
    for event, pdu in PEER.items():
        cell = TABLE[event].get(state)
        playbook = in_state(state)
        connection = playbook.connection
        if state is State.Sta4:  # the transport is not open: bytes cannot come
            with pytest.raises(LocalProtocolError):
                connection.receive_data(pdu.encode(), playbook.now)
            continue
        connection.receive_data(pdu.encode(), playbook.now)
        sent = b"".join(connection.data_to_send())
        if cell is None:  # it is closed: bytes are passed over
            assert (connection.state, connection.has_events, sent) == (State.Sta1, False, b"")
            continue
        assert connection.state in cell.states, event
        aborts = cell.action.value in ("AA-1", "AA-7", "AA-8")
        assert (sent == Abort(2, 2).encode()) is (sent[:1] == b"\7") is aborts, event


def test_the_artim_timer() -> None:
    connection = new(requestor=False, artim=5.0)
    playbook = acceptor(connection)
    assert connection.deadline == 1005.0
    assert playbook >> Pass(4.9)
    assert playbook >> an_rq() << Requested
    assert connection.deadline is None
    assert playbook >> Say(REJECTED) << REJECTED
    assert connection.deadline == playbook.now + 5.0
    assert playbook >> Pass(5.0) << CLOSE
    assert playbook >> Pass(5.0)


def test_a_silent_peer_is_closed() -> None:
    assert acceptor() >> Pass(30.0) << CLOSE
    assert acceptor() >> an_rq().encode()[:-1] >> Pass(30.0) << CLOSE


def test_nothing_is_heard_after_the_end() -> None:
    playbook = established_acceptor() >> Abort() << Aborted(0, 0) << CLOSE
    assert playbook >> an_rq() >> EOF >> Pass(100)


def test_what_follows_an_abort_in_one_buffer_is_not_read() -> None:
    following = pdata(command_pdv(1, echo_rq())).encode()
    assert established_acceptor() >> Abort().encode() + following << Aborted(0, 0) << CLOSE


def test_nonsense_is_answered_once_and_the_rest_not_read() -> None:
    playbook = acceptor() >> b"GET / HTTP/1.1\r\n" << Fault(1, "type 47H") << Abort(2, 1)
    assert playbook >> an_rq() >> b"\1" * 10 >> Pass(30) << CLOSE


def test_pdus_after_our_abort_are_ignored() -> None:
    """AA-6: what the peer sent before it heard of the abort."""
    playbook = in_state(State.Sta13)
    data = pdata(command_pdv(3, store_rq()), PDV(3, bytes(1000), last=False))
    assert playbook >> data >> data >> ReleaseRQ() >> an_ac() >> Abort() << CLOSE


def test_a_second_request_after_our_abort_is_answered_with_abort() -> None:
    assert in_state(State.Sta13) >> an_rq() << Abort(2, 2) >> an_rq() << Abort(2, 2)
    assert in_state(State.Sta13) >> b"\x99" + bytes(5) << Abort(2, 1) >> an_rq()


def test_our_abort_in_the_middle_of_a_pdu() -> None:
    """The rest of it is passed over wherever it was cut, and the next PDU found."""
    data = pdata(PDV(3, bytes(20), last=False), PDV(3, bytes(3), last=False), PDV(3, b"")).encode()
    for cut in range(1, len(data)):
        playbook = established_acceptor()
        assert playbook >> pdata(command_pdv(3, store_rq())) << CommandReceived(3, store_rq())
        connection = playbook.connection
        connection.receive_data(data[:cut], playbook.now)
        while connection.next_event() is not None:
            pass
        assert playbook >> Say(Abort()) << Abort()
        assert playbook >> data[cut:]
        assert not connection.receiving
        assert playbook >> Abort() << CLOSE


def test_our_abort_in_the_middle_of_a_command_forgets_it() -> None:
    encoded = echo_rq().encode()
    playbook = established_acceptor()
    assert playbook >> pdata(PDV(1, encoded[:10], command=True, last=False))
    assert playbook.connection.receiving
    assert playbook >> Say(Abort()) << Abort()
    assert not playbook.connection.receiving


def test_an_out_of_turn_pdata_is_answered_once_and_passed_over() -> None:
    big = pdata(PDV(1, bytes(5000))).encode()
    playbook = acceptor() >> big[:100] << Fault(2) << Abort(2, 2)
    assert playbook >> big[100:2000] >> big[2000:] >> Abort() << CLOSE
    empty = pdata().encode()
    assert acceptor() >> empty + empty << Fault(2) << Abort(2, 2) >> Abort() << CLOSE


def test_what_our_own_user_may_not_do_changes_nothing() -> None:
    playbook = acceptor()
    connection = playbook.connection
    for pdu in (an_rq(), an_ac(), REJECTED, ReleaseRQ(), ReleaseRP(), Abort()):
        assert playbook >> Say(pdu) << Refused()
    assert connection.rq is None
    # An abort that was refused is not what the peer's error is answered with.
    assert playbook >> b"\x99" + bytes(5) << Fault(1) << Abort(2, 1)


def test_a_second_request_of_ours_is_refused() -> None:
    connection = new(requestor=True)
    connection.send(an_rq(), 0.0)
    with pytest.raises(LocalProtocolError, match="Evt1 cannot happen in Sta4"):
        connection.send(an_rq(items=()), 0.0)
    assert connection.rq == an_rq()


def test_messages_that_cannot_be_sent() -> None:
    echo = echo_rq()
    for state in (State.Sta7, State.Sta9, State.Sta13):
        assert in_state(state) >> SayMessage(1, echo) << Refused()
    playbook = established_acceptor()
    assert playbook >> SayMessage(5, echo) << Refused()
    assert playbook >> SayMessage(1, echo, [b"data"]) << Refused()
    assert playbook >> SayMessage(3, store_rq(), [b"odd", b"x"]) << Refused()
    with pytest.raises(LocalProtocolError, match="even length"):
        playbook.connection.send_data(3, b"odd", last=False)
    assert playbook >> Say(Abort()) << Abort()
    with pytest.raises(LocalProtocolError, match="no data can be sent in Sta13"):
        playbook.connection.send_data(3, b"", last=True)


def test_an_acceptance_that_cannot_be_encoded_leaves_the_request_open() -> None:
    too_many = an_ac(tuple(PresentationContext(1, "", ("1" * 60000,)) for _ in range(2)))
    playbook = acceptor() >> an_rq() << Requested
    assert playbook >> Say(too_many) << Established << too_many
    wrong = an_ac((PresentationContext(1, "", ("1" * 70000,)),))
    playbook = acceptor() >> an_rq() << Requested
    assert playbook >> Say(wrong) << Refused() >> Say(REJECTED) << REJECTED


def test_contexts_that_count_as_accepted_on_both_sides() -> None:
    ac = an_ac(
        (
            PresentationContext(1, "", (IMPLICIT,), 0),
            PresentationContext(3, "", (IMPLICIT,), 0),  # a syntax that was not proposed
            PresentationContext(5, "", (EXPLICIT,), 0),  # a context that was not
            PresentationContext(7, "", ("",), 0),
            PresentationContext(9, "", (EXPLICIT,), 3),
        )
    )
    rq = an_rq(
        (
            PresentationContext(1, VERIFICATION, (IMPLICIT, EXPLICIT)),
            PresentationContext(3, CT_IMAGE, (EXPLICIT,)),
            PresentationContext(7, CT_IMAGE, (EXPLICIT,)),
            PresentationContext(9, CT_IMAGE, (EXPLICIT,)),
        )
    )
    playbook = Playbook(new(requestor=True)) >> Say(rq) >> OPEN << rq >> ac << Accepted(ac)
    assert playbook
    assert playbook.connection.contexts == {1: IMPLICIT}
    playbook = acceptor() >> rq << Requested
    answer = an_ac(
        (
            PresentationContext(1, "", (IMPLICIT,)),
            PresentationContext(3, "", ("",), 4),
            PresentationContext(9, "", (EXPLICIT,), 4),
        )
    )
    assert playbook >> Say(answer) << Established << answer
    assert playbook.connection.contexts == {1: IMPLICIT}
    assert playbook.connection.ac == answer


def test_hold_copies_what_points_into_the_buffer() -> None:
    connection = established_acceptor().connection
    buffer = bytearray(pdata(command_pdv(3, store_rq()), PDV(3, b"data")).encode())
    connection.receive_data(buffer, 0.0)
    connection.hold()
    buffer[:] = bytes(len(buffer))
    connection.hold()  # what is held already is not copied again
    assert connection.has_events
    assert connection.next_event() == CommandReceived(3, store_rq())
    assert connection.next_event() == DataFragment(memoryview(b"data"), True)
    assert connection.next_event() is None
    assert not connection.has_events


def test_what_is_held_is_copied_once() -> None:
    connection = established_acceptor().connection
    connection.receive_data(pdata(command_pdv(3, store_rq()), PDV(3, b"data")).encode(), 0.0)
    connection.hold()
    assert isinstance(connection.next_event(), CommandReceived)
    held = connection._events[-1]
    connection.hold()
    assert connection.next_event() is held


def test_fragments_are_views_into_the_buffer() -> None:
    connection = established_acceptor().connection
    data = pdata(command_pdv(3, store_rq()), PDV(3, b"data")).encode()
    connection.receive_data(data, 0.0)
    connection.next_event()
    event = connection.next_event()
    assert isinstance(event, DataFragment)
    assert event.data.obj is data


def test_the_transport_that_opens_or_ends_out_of_turn() -> None:
    connection = Connection(requestor=False)
    connection.receive_eof(0.0)
    connection.receive_data(b"x", 0.0)
    connection.transport_opened(0.0)
    with pytest.raises(LocalProtocolError):
        connection.transport_opened(0.0)
    assert connection.max_length == 1 << 20


def test_the_playbook_shows_what_differs() -> None:
    with pytest.raises(AssertionError) as caught:
        assert acceptor() >> an_rq() << Lost
    shown = str(caught.value)
    assert "- << Lost" in shown
    assert "+ << Requested" in shown


def test_transitions_can_be_watched() -> None:
    connection = new(requestor=True)
    seen: list[tuple[object, ...]] = []
    connection.transition = lambda *step: seen.append(step)
    connection.send(an_rq(), 0.0)
    connection.transport_opened(0.0)
    assert seen == [
        (State.Sta1, Event.Evt1, Action.AE_1, State.Sta4),
        (State.Sta4, Event.Evt2, Action.AE_2, State.Sta5),
    ]
