"""Who may call, what the called title means, and what the log says to who is refused."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from hilum.gateway.config import Access
from hilum.gateway.flow import address
from hilum.gateway.flow.address import Router
from hilum.gateway.flow.names import HostNames
from hilum.gateway.store.commit import Arrival, Committer, Destination
from hilum.gateway.store.entries import Account, CalledTitle, Listener, Peer, Snapshot
from hilum.gateway.store.states import DuplicatePolicy, MissingUidPolicy, TitleKind
from hilum.net.association import Association
from hilum.net.service import Accept, Context, Reject
from hilum.net.service import Peer as Caller
from hilum.wire.command import Command, CommandField
from hilum.wire.items import RoleSelection
from hilum.wire.pdu import AssociateRQ, ContextResult, PresentationContext

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
JPEG, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"

ALICE = Account(1, "alice", "ALICES", False, 0)
BOB = Account(2, "bob", "BOBS", True, 0)
LONG = Account(3, "radiology-research", "RESEARCH", False, 0)
LISTENER = Listener("dicom", 11112)
ANY = Listener("any", 8104, any_title=True, default_title="RAIVEN")

TITLES = (
    CalledTitle("RAIVEN"),
    CalledTitle(
        "TRIAL",
        duplicates=DuplicatePolicy.KEEP_FIRST,
        missing_uids=MissingUidPolicy.QUARANTINE,
        transfer_syntaxes=(IMPLICIT, EXPLICIT),
        sop_classes=(CT,),
        fallback_charset="ISO_IR 100",
    ),
    CalledTitle("OFF", enabled=False),
    CalledTitle("FORALICE", TitleKind.ACCOUNT, 1, DuplicatePolicy.REPLACE),
    CalledTitle("FORBOB", TitleKind.ACCOUNT, 2),
    CalledTitle("ASIDE", TitleKind.QUARANTINE),
    CalledTitle("FEW", peers=("ct", "mr"), max_associations=3),
)
SNAPSHOT = Snapshot(1, (ALICE, BOB, LONG), TITLES, (LISTENER, ANY), (), {})


def router(*peers: Peer, access: Access = Access(), snapshot: Snapshot = SNAPSHOT) -> Router:  # noqa: B008
    found = replace(snapshot, peers=peers)
    names = HostNames()
    names.look_up(found.peers)
    return Router(access, found, names.networks(found.peers), cast(Committer, None))


def asked(called: str, calling: str) -> AssociateRQ:
    return AssociateRQ(called_ae_title=called, calling_ae_title=calling, contexts=())


def decide(
    made: Router,
    called: str = "RAIVEN",
    *,
    calling: str = "CT1",
    host: str = "127.0.0.1",
    listener: Listener = LISTENER,
    proxied: bool = False,
) -> Accept | Reject:
    rq = asked(called, calling)
    return made.authorise(listener, rq, Caller(host, 50000, proxied))


def kept_for(decision: Accept | Reject, monkeypatch: pytest.MonkeyPatch) -> Destination:
    """The destination that a store would have."""
    assert isinstance(decision, Accept)
    assert decision.open_store is not None
    seen: list[Arrival] = []

    class Sink:
        def __init__(self, committer: Committer, arrival: Arrival) -> None:
            seen.append(arrival)

    monkeypatch.setattr("hilum.gateway.flow.receive.ReceiveSink", Sink)
    command = Command(
        CommandField.C_STORE_RQ,
        has_data_set=True,
        message_id=1,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid="1.2.3",
    )

    class Stub:
        rq = asked("RAIVEN", "CT1")
        peer = Caller("127.0.0.1", 1)

    decision.open_store(command, Context(1, CT, EXPLICIT), cast(Association, Stub()))
    assert seen[0].meta.owner == seen[0].destination.owner
    return seen[0].destination


# ── called titles ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("called", "owner"),
    [
        ("RAIVEN", None),
        ("TRIAL", None),
        ("RVU-alice", "alice"),
        ("ALICES", "alice"),
        ("FORALICE", "alice"),
        ("RESEARCH", "radiology-research"),
    ],
)
def test_titles_that_are_served(
    called: str, owner: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = kept_for(decide(router(), called), monkeypatch)
    assert where.owner == owner
    assert bool(where.owner_id) == (owner is not None)
    assert not where.quarantine


@pytest.mark.parametrize(
    ("called", "word"),
    [
        ("XRAIVEN", "hilum ae add TITLE"),
        ("RAIVENX", "hilum ae add TITLE"),
        ("raiven", "hilum ae add TITLE"),
        ("OFF", "hilum ae add TITLE"),
        ("FORBOB", "hilum ae add TITLE"),
        ("BOBS", "hilum ae add TITLE"),
        ("RVU-unknown", "hilum user add NAME"),
        ("RVU-bob", "hilum user add NAME"),
        ("RVU-Alice", "hilum user add NAME"),
        ("RVU-", "hilum user add NAME"),
        ("RVP-unknown", "no pipeline"),
        ("alice", "hilum ae add TITLE"),
        ("", "hilum ae add TITLE"),
        ("RA\nIVEN\x1b[2J", "'RA\\nIVEN\\x1b[2J'"),
        ("RAIV\xcbN", "'RAIV\\xcbN'"),
    ],
)
def test_titles_that_are_not_served(called: str, word: str) -> None:
    decision = decide(router(), called)
    assert isinstance(decision, Reject)
    assert (decision.result, decision.source, decision.reason) == (1, 1, 7)
    assert word in decision.why
    assert decision.why.isascii()
    assert decision.why.isprintable()


def test_policies_of_a_title_reach_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = kept_for(decide(router(), "TRIAL"), monkeypatch)
    assert trial.duplicates is DuplicatePolicy.KEEP_FIRST
    assert trial.missing_uids is MissingUidPolicy.QUARANTINE
    assert trial.fallback_charset == "ISO_IR 100"
    assert kept_for(decide(router(), "FORALICE"), monkeypatch).duplicates is DuplicatePolicy.REPLACE
    assert kept_for(decide(router(), "ASIDE"), monkeypatch).quarantine
    assert kept_for(decide(router()), monkeypatch).fallback_charset is None


def test_a_peers_character_set_goes_before_the_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    made = router(Peer("ct", "CT1", "127.0.0.1", fallback_charset="GB18030"))
    assert kept_for(decide(made, "TRIAL"), monkeypatch).fallback_charset == "GB18030"
    assert (
        kept_for(decide(made, "TRIAL", calling="X"), monkeypatch).fallback_charset == "ISO_IR 100"
    )


def test_a_listener_for_any_title_keeps_the_unknown_for_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for called in ("XRAIVEN", "raiven", "", "STOREOPENREM", "\xff"):
        assert kept_for(decide(router(), called, listener=ANY), monkeypatch).owner is None
    hers = kept_for(decide(router(), "RVU-alice", listener=ANY), monkeypatch)
    assert hers.owner == "alice", "what is known keeps its meaning"


@pytest.mark.parametrize(
    "called", ["RVU-unknown", "RVP-unknown", "RVU-bob", "BOBS", "FORBOB", "OFF"]
)
def test_what_is_somebodys_or_switched_off_never_falls_through(called: str) -> None:
    decision = decide(router(), called, listener=ANY)
    assert isinstance(decision, Reject)
    assert decision.reason == 7


def test_a_default_title_that_is_gone_rejects_and_says_so() -> None:
    gone = replace(ANY, default_title="GONE FOR GOOD")
    decision = decide(router(), "X", listener=gone)
    assert isinstance(decision, Reject)
    assert decision.reason == 7
    assert "hilum ae add 'GONE FOR GOOD'" in decision.why
    assert isinstance(decide(router(), "X", listener=replace(ANY, default_title="OFF")), Reject)


# ── callers ───────────────────────────────────────────────────────────────────────────────────


def allowed(decision: Accept | Reject) -> bool:
    if isinstance(decision, Reject):
        assert (decision.result, decision.source, decision.reason) == (1, 1, 3)
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_callers_on_this_machine_are_served_unless_that_is_switched_off(host: str) -> None:
    assert allowed(decide(router(), host=host))
    assert not allowed(decide(router(access=Access(allow_local=False)), host=host))
    # A balancer's connections come from this machine for everyone.
    assert not allowed(decide(router(access=Access(proxies=("127.0.0.1/32",))), host=host))
    assert not allowed(decide(router(), host=host, proxied=True))


@pytest.mark.parametrize("host", ["10.1.2.3", "192.168.0.1", "2001:db8::1", "fe80::1%eth0"])
def test_strangers_are_refused_before_anything_is_said_of_titles(host: str) -> None:
    for called in ("RAIVEN", "UNKNOWN", "RVU-unknown"):
        assert not allowed(decide(router(), called, host=host))


def test_ranges_of_the_configuration_and_of_the_listener_let_in() -> None:
    made = router(access=Access(allow=("10.1.0.0/16", "fe80::/10")))
    assert allowed(decide(made, host="10.1.2.3"))
    assert allowed(decide(made, host="::ffff:10.1.2.3"))
    assert allowed(decide(made, host="fe80::1%eth0"))
    assert allowed(decide(made, host="10.1.2.3", proxied=True))
    assert not allowed(decide(made, host="10.2.0.1"))
    open_to = Listener("dose", 8104, allowed=("172.16.0.0/12",))
    made = router(snapshot=replace(SNAPSHOT, listeners=(LISTENER, open_to)))
    assert allowed(decide(made, host="172.16.5.5", listener=open_to))
    assert not allowed(decide(made, host="172.16.5.5"))


def test_a_peer_is_its_title_at_its_address() -> None:
    made = router(Peer("ct1", "CT1", "10.1.2.3", 104))
    assert allowed(decide(made, host="10.1.2.3"))
    assert not allowed(decide(made, host="10.1.2.4"))
    assert not allowed(decide(made, host="10.1.2.3", calling="CT2"))
    assert not allowed(decide(made, host="10.1.2.3", calling="ct1"))


def test_a_peer_with_a_star_is_everyone_at_its_addresses() -> None:
    made = router(Peer("floor", "*", "10.1.0.0/16"))
    assert allowed(decide(made, host="10.1.9.9", calling="ANYTHING"))
    assert not allowed(decide(made, host="10.2.9.9", calling="*"))


def test_a_peer_by_host_name() -> None:
    made = router(Peer("here", "CT1", "localhost"), access=Access(allow_local=False))
    assert allowed(decide(made))
    nowhere = router(Peer("gone", "CT1", "no-such-host.invalid"), Peer("ct", "*", "10.0.0.1"))
    assert not allowed(decide(nowhere, host="10.9.9.9"))
    assert allowed(decide(nowhere, host="10.0.0.1"))


def test_the_peer_with_the_title_goes_before_the_one_with_the_star() -> None:
    both = (
        Peer("floor", "*", "10.1.0.0/16", services=()),
        Peer("ct1", "CT1", "10.1.2.3"),
    )
    for peers in (both, both[::-1]):
        assert allowed(decide(router(*peers), host="10.1.2.3"))
        assert not allowed(decide(router(*peers), host="10.1.2.3", calling="CT2"))


def test_a_peer_that_may_only_echo_gets_no_storage_context() -> None:
    peer = Peer("monitor", "CT1", "10.1.2.3", services=("echo",))
    for called in ("RAIVEN", "TRIAL"):
        decision = decide(router(peer), called, host="10.1.2.3")
        assert isinstance(decision, Accept)
        assert decision.open_store is None
        assert decision.policy(proposed(VERIFICATION, IMPLICIT)) == IMPLICIT
        refused = decision.policy(proposed(CT, IMPLICIT))
        assert refused == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED


def test_a_peer_may_be_restricted_on_this_machine_too() -> None:
    peer = Peer("none", "CT1", "127.0.0.1", services=())
    assert not allowed(decide(router(peer)))
    assert allowed(decide(router(peer), calling="OTHER"))


def test_a_title_may_be_for_certain_peers_only() -> None:
    made = router(Peer("ct", "CT1", "10.1.2.3"), Peer("ws", "WS", "10.1.2.4"))
    assert allowed(decide(made, "FEW", host="10.1.2.3"))
    for host, calling in (("10.1.2.4", "WS"), ("127.0.0.1", "CT1")):
        decision = decide(made, "FEW", host=host, calling=calling)
        assert isinstance(decision, Reject)
        assert (decision.result, decision.source, decision.reason) == (1, 1, 3)
        assert "'FEW' is for certain peers" in decision.why
        assert allowed(decide(made, host=host, calling=calling))


def test_a_title_has_a_limit_of_its_own_or_that_of_all() -> None:
    made = router(Peer("ct", "CT1", "10.1.2.3"))
    for called, most in (("FEW", 3), ("RAIVEN", None), ("RVU-alice", None)):
        decision = decide(made, called, host="10.1.2.3")
        assert isinstance(decision, Accept)
        assert decision.max_for_title == most


@pytest.mark.parametrize(
    ("calling", "command"),
    [
        ("CT1", ["hilum", "peer", "add", "NAME", "CT1@10.1.2.3"]),
        ("CT 1", ["hilum", "peer", "add", "NAME", "CT 1@10.1.2.3"]),
        ("$(reboot)", ["hilum", "peer", "add", "NAME", "$(reboot)@10.1.2.3"]),
        ("'; rm -rf /", ["hilum", "peer", "add", "NAME", "'; rm -rf /@10.1.2.3"]),
        ("CT@1", ["hilum", "peer", "add", "NAME", "*@10.1.2.3"]),
        ("CT\n1", ["hilum", "peer", "add", "NAME", "*@10.1.2.3"]),
        ("\x1b[31mCT", ["hilum", "peer", "add", "NAME", "*@10.1.2.3"]),
        ("G\xe9rard", ["hilum", "peer", "add", "NAME", "*@10.1.2.3"]),
        ("", ["hilum", "peer", "add", "NAME", "*@10.1.2.3"]),
    ],
)
def test_a_refusal_says_how_to_let_the_caller_in_and_can_be_pasted(
    calling: str, command: list[str]
) -> None:
    decision = decide(router(), calling=calling, host="10.1.2.3")
    assert isinstance(decision, Reject)
    assert decision.why.isascii()
    assert decision.why.isprintable()
    pasted = decision.why.split("let it in with: ")[1].split(", or everyone")[0]
    assert shlex.split(pasted) == command


# ── contexts ──────────────────────────────────────────────────────────────────────────────────


def proposed(abstract: str, *syntaxes: str) -> PresentationContext:
    return PresentationContext(1, abstract, syntaxes)


@pytest.fixture
def choose() -> Callable[..., Any]:
    def chosen(called: str, abstract: str, *syntaxes: str) -> str | int:
        decision = decide(router(), called)
        assert isinstance(decision, Accept)
        return decision.policy(proposed(abstract, *syntaxes))

    return chosen


def test_contexts_by_default(choose: Callable[..., Any]) -> None:
    assert choose("RAIVEN", CT, JPEG, BIG, IMPLICIT, EXPLICIT) == EXPLICIT
    assert choose("RAIVEN", CT, JPEG, JPEG_LOSSLESS, IMPLICIT) == IMPLICIT
    assert choose("RAIVEN", CT, JPEG, JPEG_LOSSLESS) == JPEG_LOSSLESS
    assert choose("RAIVEN", "1.2.3.4.5.99", "1.2.3.4.1") == "1.2.3.4.1", "private ones too"
    for printing in ("1.2.840.10008.5.1.1.9", "1.2.840.10008.3.1.2.3.3"):
        assert choose("RAIVEN", printing, IMPLICIT) == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED


def test_contexts_of_a_title_with_lists(choose: Callable[..., Any]) -> None:
    assert choose("TRIAL", CT, EXPLICIT, IMPLICIT) == IMPLICIT, "in the title's order"
    assert choose("TRIAL", CT, JPEG) == ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    assert choose("TRIAL", MR, IMPLICIT) == ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
    assert choose("TRIAL", VERIFICATION, EXPLICIT) == EXPLICIT


def test_the_star_is_no_title_of_a_caller() -> None:
    assert address.ANY == "*"
    made = router(Peer("ct1", "CT1", "10.1.2.3"))
    assert not allowed(decide(made, host="10.1.2.3", calling="*"))


def test_an_offer_is_remembered_for_who_asks_the_same_again() -> None:
    made = router(Peer("ct", "CT1", "10.0.0.1"), Peer("mr", "CT1", "10.0.0.2", services=("echo",)))
    first = decide(made, host="10.0.0.1")
    assert decide(made, host="10.0.0.1") is first
    others = [
        decide(made, host="10.0.0.2"),
        decide(made, "TRIAL", host="10.0.0.1"),
        decide(made, "RVU-alice", host="10.0.0.1"),
        decide(made, "RVU-bob", host="10.0.0.1"),
        decide(made, calling="CT2"),
    ]
    assert len({id(offer) for offer in (first, *others)}) == len(others) + 1
    rq = replace(asked("RAIVEN", "CT1"), user_items=(RoleSelection(CT, True, True),))
    assert made.authorise(LISTENER, rq, Caller("10.0.0.1", 50000)) is not first
    for number in range(address._OFFERS + 1):
        decide(made, calling=f"CT{number}")
    assert len(made._offers) <= address._OFFERS
