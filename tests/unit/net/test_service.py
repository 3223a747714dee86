"""What a provider says about itself: policies, peers, rejections, buffers and limits."""

from __future__ import annotations

import pytest

from hilum.net.limits import BufferPool, Limits, Timeouts
from hilum.net.service import Accept, Peer, Reject, storage_policy
from hilum.wire.pdu import ContextResult, PresentationContext

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
PRINT = "1.2.840.10008.5.1.1.9"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
PRIVATE = "1.2.276.0.7230010.3.1.0.1"


def offer(abstract: str, *syntaxes: str) -> PresentationContext:
    return PresentationContext(1, abstract, syntaxes)


@pytest.mark.parametrize(
    ("context", "outcome"),
    [
        (offer(VERIFICATION, IMPLICIT), IMPLICIT),
        (offer(VERIFICATION, IMPLICIT, EXPLICIT), EXPLICIT),
        (offer(VERIFICATION, PRIVATE), ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED),
        (offer(CT_IMAGE, JPEG_LS), JPEG_LS),
        (offer(CT_IMAGE, JPEG_LS, IMPLICIT), IMPLICIT),
        (offer(CT_IMAGE, PRIVATE), PRIVATE),
        (offer(CT_IMAGE), ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED),
        (offer("1.2.276.0.7230010.3.9", EXPLICIT), EXPLICIT),
        (offer(PRINT, EXPLICIT), ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED),
    ],
)
def test_the_default_policy_of_a_storage_provider(
    context: PresentationContext, outcome: str | int
) -> None:
    assert storage_policy()(context) == outcome


def test_a_policy_with_a_choice_of_its_own() -> None:
    policy = storage_policy((IMPLICIT, JPEG_LS), frozenset({PRINT}))
    assert policy(offer(PRINT, EXPLICIT, JPEG_LS, IMPLICIT)) == IMPLICIT
    assert policy(offer(PRINT, PRIVATE)) == ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    assert policy(offer(CT_IMAGE, IMPLICIT)) == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    assert policy(offer(VERIFICATION, EXPLICIT)) == EXPLICIT


def test_a_peer_is_written_as_an_address() -> None:
    assert str(Peer("192.0.2.1", 104)) == "192.0.2.1:104"
    assert str(Peer("2001:db8::1", 104)) == "[2001:db8::1]:104"
    assert Peer("192.0.2.1", 104).certificate is None


def test_rejections() -> None:
    assert Reject.unknown_called_title("x") == Reject(1, 1, 7, "x")
    assert Reject.unknown_calling_title() == Reject(1, 1, 3)
    assert Reject.limit("full") == Reject(2, 3, 2, "full")
    assert Accept().open_store is None


def test_buffers_are_used_again_and_not_hoarded() -> None:
    pool = BufferPool(size=10, keep=1)
    first, second = pool.take(), pool.take()
    assert len(first) == len(second) == 10
    assert first.obj is not second.obj
    pool.give(first)
    pool.give(second)
    assert pool.take() is first
    assert pool.take() is not second


def test_what_the_core_enforces() -> None:
    limits = Limits(max_message_length=5).connection(Timeouts(artim=3))
    assert (limits.artim, limits.max_message_length) == (3, 5)
