"""What an acceptor answers to what was proposed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.wire.playbook import (
    CT_IMAGE,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    acceptor,
    an_ac,
    an_rq,
)
from tests.unit.wire.test_pdu import requests

from hilum.wire.connection import Established, Requested
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from hilum.wire.items import (
    AsynchronousOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    RoleSelection,
    UserIdentityResponse,
)
from hilum.wire.negotiation import (
    UNLIMITED_WINDOW,
    answer,
    granted_roles,
    granted_window,
    own_items,
    presentation_contexts,
)
from hilum.wire.pdu import AssociateAC, AssociateRQ, PresentationContext, decode_pdu


def first(context: PresentationContext) -> str | int:
    return context.transfer_syntaxes[0]


def test_own_items() -> None:
    assert own_items(65536) == (
        MaximumLength(65536),
        ImplementationClassUID(IMPLEMENTATION_CLASS_UID),
        ImplementationVersionName(IMPLEMENTATION_VERSION_NAME),
    )
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


def test_context_ids_are_odd() -> None:
    pairs = ((VERIFICATION, (IMPLICIT,)), (CT_IMAGE, (EXPLICIT, IMPLICIT)))
    assert presentation_contexts(pairs) == (
        PresentationContext(1, VERIFICATION, (IMPLICIT,)),
        PresentationContext(3, CT_IMAGE, (EXPLICIT, IMPLICIT)),
    )
    assert presentation_contexts([pairs[0]] * 128)[-1].context_id == 255


def test_accepted_and_rejected_contexts() -> None:
    rq = an_rq()
    ac = answer(rq, lambda c: 3 if c.abstract_syntax == VERIFICATION else EXPLICIT, max_length=1024)
    assert ac.contexts == (
        PresentationContext(1, VERIFICATION, (IMPLICIT,), 3),
        PresentationContext(3, CT_IMAGE, (EXPLICIT,), 0),
    )
    assert ac.maximum_length == 1024
    assert (ac.called_ae_title, ac.calling_ae_title) == ("PACS", "CT01")


def test_without_the_items_nothing_is_granted() -> None:
    ac = answer(an_rq(), first, max_length=0, roles={CT_IMAGE: (True, True)}, window=(5, 5))
    assert ac.user_items == own_items(0)


def test_roles_are_granted_only_where_asked_and_listed() -> None:
    rq = an_rq(
        items=(
            RoleSelection(CT_IMAGE, False, True),
            RoleSelection(VERIFICATION, True, True),
        )
    )
    ac = answer(rq, first, max_length=0, roles={CT_IMAGE: (True, True)})
    assert ac.all_items(RoleSelection) == [RoleSelection(CT_IMAGE, False, True)]
    ac = answer(rq, first, max_length=0, roles={CT_IMAGE: (True, False)})
    assert ac.all_items(RoleSelection) == [RoleSelection(CT_IMAGE, False, False)]
    assert answer(rq, first, max_length=0).all_items(RoleSelection) == []


def test_a_window_is_answered_when_asked() -> None:
    rq = an_rq(items=(AsynchronousOperationsWindow(0, 0),))
    window = AsynchronousOperationsWindow
    assert answer(rq, first, max_length=0).item(window) == window(1, 1)
    assert answer(rq, first, max_length=0, window=(8, 4)).item(window) == window(8, 4)


def test_further_items_come_last() -> None:
    item = UserIdentityResponse(b"")
    assert answer(an_rq(), first, max_length=0, items=[item]).user_items[-1] == item


@given(requests, st.integers(0, 4))
def test_every_id_is_answered_once_and_any_answer_can_be_sent(rq: AssociateRQ, result: int) -> None:
    ac = answer(rq, lambda c: c.transfer_syntaxes[0] if result == 0 else result, max_length=16384)
    assert [c.context_id for c in ac.contexts] == list(
        dict.fromkeys(c.context_id for c in rq.contexts)
    )
    assert decode_pdu(2, ac.encode()[6:])


def test_the_connection_takes_over_what_was_accepted() -> None:
    playbook = acceptor()
    rq = an_rq()
    assert playbook >> rq << Requested(rq)
    ac = answer(rq, lambda c: EXPLICIT if c.context_id == 3 else 4, max_length=0)
    playbook.connection.send(ac, 0.0)
    assert isinstance(playbook.connection.next_event(), Established)
    assert playbook.connection.contexts == {3: EXPLICIT}


def test_who_we_are_can_be_said_otherwise() -> None:
    other = ImplementationClassUID("1.2.3")
    assert own_items(1, (other,)) == (MaximumLength(1),)


def negotiated(
    proposed: tuple[int, int] | None, granted: tuple[int, int] | None
) -> tuple[AssociateRQ, AssociateAC]:
    items = () if proposed is None else (AsynchronousOperationsWindow(*proposed),)
    rq = an_rq(items=items)
    return rq, answer(rq, first, max_length=0, window=granted)


@given(
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_windows(proposed: tuple[int, int] | None, granted: tuple[int, int] | None) -> None:
    """No more than was proposed, no more than was granted; 0 is no limit; one where nothing is."""
    window = granted_window(*negotiated(proposed, granted))
    if proposed is None:
        assert window == (1, 1)
        return
    for got, wanted, allowed in zip(window, proposed, granted or (1, 1), strict=True):
        limits = [each for each in (wanted, allowed) if each]
        assert got == (min(limits) if limits else UNLIMITED_WINDOW)


def test_a_window_is_the_lesser_one_and_zero_is_no_limit() -> None:
    assert granted_window(*negotiated((8, 0), (4, 0))) == (4, UNLIMITED_WINDOW)
    assert granted_window(*negotiated((2, 0), (0, 3))) == (2, 3)


def test_a_window_that_was_not_proposed_was_not_granted() -> None:
    rq = an_rq(items=())
    ac = an_ac(items=(AsynchronousOperationsWindow(9, 9),))
    assert granted_window(rq, ac) == (1, 1)
    assert granted_window(an_rq(items=(AsynchronousOperationsWindow(9, 9),)), an_ac()) == (1, 1)


def test_roles_that_were_granted() -> None:
    rq = an_rq(items=(RoleSelection("1.2", True, True), RoleSelection("1.3", False, True)))
    ac = an_ac(
        items=(
            RoleSelection("1.2", False, True),
            RoleSelection("1.3", True, True),
            RoleSelection("1.4", True, True),
        )
    )
    assert granted_roles(rq, ac) == {"1.2": (False, True), "1.3": (False, True)}
