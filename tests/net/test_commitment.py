"""Commitment between our library and a gateway in this process: every way, every chain, every reason.

The client is `net.commitment` and, where it has to misbehave, associations by hand.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.net.peer import until
from tests.peers import free_port
from tests.unit.gateway.store.archive_world import CT, EXPLICIT, IMPLICIT, encode, image

from hilum.errors import Refused
from hilum.gateway.app import Gateway, initialise
from hilum.gateway.config import Commitment, Config, Store
from hilum.gateway.store.commitments import Commitments as Kept
from hilum.gateway.store.directory import Peer
from hilum.gateway.store.retention import plan_deletion
from hilum.net import Association, connect
from hilum.net.commitment import COMMITMENT_CONTEXTS, Commitments, Destination, request_commitment
from hilum.net.service import Reply, Request
from hilum.services.commitment import (
    Action,
    Failure,
    FailureReason,
    Reference,
    Result,
    encode_action,
    parse_result,
)
from hilum.services.sop_classes import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
    VERIFICATION,
)
from hilum.wire.command import CommandField

SOPS = ("1.2.3", "1.2.4", "1.2.5")
FAST = Commitment(delivery="same", retry_least=0.2, retry_most=0.5)
MR = "1.2.840.10008.5.1.4.1.1.4"
WAIT = 20.0


def refs(*sops: str, sop_class: str = CT) -> tuple[Reference, ...]:
    return tuple(Reference(sop_class, sop) for sop in sops)


class Site:
    """A gateway with three images, and a client with a listener that may be switched on and off."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.results: list[Result] = []
        self.client = Commitments(lambda result: self.results.append(result))
        self.listening_port = free_port()

    @property
    def port(self) -> int:
        return self.gateway.servers["dicom"][1].port

    def to(self, called: str = "HILUM", calling: str = "CT1") -> Destination:
        return Destination("127.0.0.1", self.port, called, calling)

    async def deliver(
        self, ways: str, *, calling: str = "CT1", services: tuple[str, ...] = ()
    ) -> None:
        """Say how results go to a caller."""
        directory = self.gateway._storage.directory
        peer = Peer(calling.lower(), calling, "127.0.0.1", self.listening_port, commitment=ways)
        directory.put_peer(replace(peer, services=services) if services else peer)
        await self.followed()

    async def followed(self) -> None:
        directory = self.gateway._storage.directory
        await until(
            lambda: self.gateway._router.snapshot.changes == directory.changes(), "not followed"
        )

    async def listen(self) -> None:
        await self.client.listen("127.0.0.1", self.listening_port)

    async def store(self, *sops: str, called: str = "HILUM") -> None:
        async with await connect(
            "127.0.0.1", self.port, called=called, contexts=[(CT, (EXPLICIT,))]
        ) as association:
            for sop in sops:
                response = await association.c_store(
                    [encode(image(sop))],
                    sop_class_uid=CT,
                    sop_instance_uid=sop,
                    transfer_syntax_uid=EXPLICIT,
                )
                assert response.status == 0

    async def got(self, count: int = 1) -> list[Result]:
        await until(lambda: len(self.results) >= count, f"{len(self.results)} results", WAIT)
        return self.results

    async def collected(self) -> None:
        """An association of ours that lasts until there is a result."""
        collecting = asyncio.create_task(self.client.collect(self.to(), listen=2 * WAIT))
        await self.got()
        await self.settled()
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)

    def states(self) -> Counter[str]:
        return Counter(e.state for e in Kept(self.gateway._storage.database).listed(limit=1000))

    async def settled(self) -> None:
        await until(lambda: set(self.states()) <= {"delivered"}, str(self.states()), WAIT)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    data = tmp_path / "data"
    initialise(data)
    gateway = await Gateway.start(
        Config(
            data=str(data),
            dicom="127.0.0.1:0",
            web="off",
            store=Store(strategy="fsync", reserve=0, spool=0),  # files are damaged here
            commitment=FAST,
        )
    )
    made = Site(gateway)
    await made.store(*SOPS)
    yield made
    await made.client.close()
    await gateway.stop()


# ── the three ways ────────────────────────────────────────────────────────────────────────────


async def test_on_the_same_association(site: Site) -> None:
    uid = await site.client.commit_instances(site.to(), refs(*SOPS), stay=WAIT)
    assert await site.client.result(uid, timeout=0) == Result(uid, refs(*SOPS))
    await site.settled()
    assert len(site.results) == 1


async def test_on_a_new_association(site: Site) -> None:
    await site.deliver("new")
    await site.listen()
    uid = await site.client.commit_instances(site.to(), refs(*SOPS))
    assert await site.client.result(uid, timeout=WAIT) == Result(uid, refs(*SOPS))
    await site.settled()
    assert len(site.results) == 1


async def test_on_the_next_association(site: Site) -> None:
    await site.deliver("next")
    await site.listen()
    uid = await site.client.commit_instances(site.to(), refs(*SOPS), stay=0.5)
    assert site.results == []
    await site.collected()
    assert await site.client.result(uid, timeout=0) == Result(uid, refs(*SOPS))
    await site.settled()
    assert len(site.results) == 1


async def test_who_negotiated_only_storage_is_told_nothing(site: Site) -> None:
    await site.deliver("next")
    await site.client.commit_instances(site.to(), refs(*SOPS), stay=0.3)
    association = await connect(
        "127.0.0.1",
        site.port,
        called="HILUM",
        calling="CT1",
        contexts=[(CT, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,))],
        handlers=site.client.handlers,
    )
    for _ in range(5):
        assert (await association.c_echo()).status == 0
        await asyncio.sleep(0.1)
    await association.release()
    # Nor is another AE, nor the same for another user.
    await site.client.collect(site.to(calling="CT2"), listen=0.5)
    site.gateway._storage.directory.add_account("bob")
    await site.followed()
    await site.client.collect(site.to("RVU-bob"), listen=0.5)
    assert site.results == []
    await site.collected()
    assert len(site.results) == 1


# ── chains ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ways", ["same:5,new", "same:5,new,next", "new,same:5"])
async def test_the_first_way_that_is_open_is_taken(site: Site, ways: str) -> None:
    await site.deliver(ways)
    uid = await site.client.commit_instances(site.to(), refs("1.2.3"), stay=WAIT)
    assert await site.client.result(uid, timeout=0) == Result(uid, refs("1.2.3"))


@pytest.mark.parametrize("ways", ["same:5,new", "same:5,new,next", "next,new"])
async def test_who_has_gone_is_called(site: Site, ways: str) -> None:
    await site.deliver(ways)
    await site.listen()
    uid = await site.client.commit_instances(site.to(), refs("1.2.3"))
    assert await site.client.result(uid, timeout=WAIT) == Result(uid, refs("1.2.3"))
    await site.settled()
    assert len(site.results) == 1


@pytest.mark.parametrize("ways", ["same:5,new,next", "same:5,next", "new,next"])
async def test_who_cannot_be_called_is_told_when_he_comes(site: Site, ways: str) -> None:
    await site.deliver(ways)
    # The next request's association is already one to be told on; a report that crosses its
    # release has no response, and comes again.
    uids = {await site.client.commit_instances(site.to(), refs("1.2.3")) for _ in range(5)}
    await until(lambda: "asked" not in site.states(), "not judged", WAIT)
    collecting = asyncio.create_task(site.client.collect(site.to(), listen=10))
    await until(lambda: {r.transaction_uid for r in site.results} == uids, "not all", WAIT)
    assert all(r == Result(r.transaction_uid, refs("1.2.3")) for r in site.results)
    await site.settled()
    collecting.cancel()


async def test_who_was_away_gets_everything_once_he_is_back(site: Site) -> None:
    await site.deliver("same:5,new")
    uids = [await site.client.commit_instances(site.to(), refs("1.2.3")) for _ in range(20)]
    await until(lambda: site.states() == {"judged": 20}, str(site.states()), WAIT)
    await site.listen()
    await site.got(20)
    await site.settled()
    assert Counter(r.transaction_uid for r in site.results) == Counter(uids)


async def test_the_called_title_and_the_settings_choose_where_the_peer_does_not(site: Site) -> None:
    from hilum.gateway.store.directory import CalledTitle

    await site.deliver("")
    await site.listen()
    # The setting: same.
    uid = await site.client.commit_instances(site.to(), refs("1.2.3"))
    await until(lambda: site.states() == {"given up": 1}, str(site.states()), WAIT)
    site.gateway._storage.directory.put_called_title(CalledTitle("HILUM", commitment="new"))
    await site.followed()
    # The same request once more gets its result by the way that is chosen now.
    await site.client.commit_instances(site.to(), refs("1.2.3"), uid=uid)
    assert await site.client.result(uid, timeout=WAIT) == Result(uid, refs("1.2.3"))


# ── requests ──────────────────────────────────────────────────────────────────────────────────


async def asking(site: Site, **options: object) -> Association:
    return await connect(
        "127.0.0.1",
        site.port,
        called="HILUM",
        calling="CT1",
        contexts=COMMITMENT_CONTEXTS,
        handlers=site.client.handlers,
    )


async def test_the_same_request_again_gets_its_result_again(site: Site) -> None:
    async with await asking(site) as association:
        action = Action("2.25.1", refs("1.2.3", "1.2.404"))
        for count in (1, 2, 3):
            await request_commitment(association, action)
            await site.got(count)
        await request_commitment(association, Action("2.25.1", refs("1.2.404", "1.2.3", "1.2.3")))
        await site.got(4)
    assert site.results == [site.results[0]] * 4
    assert site.results[0].failed == (Failure(CT, "1.2.404", 0x0112),)


async def test_another_list_under_the_same_transaction_uid(site: Site) -> None:
    async with await asking(site) as association:
        await request_commitment(association, Action("2.25.1", refs("1.2.3")))
        await site.got(1)
        await request_commitment(association, Action("2.25.1", refs("1.2.3", "1.2.4")))
        await site.got(2)
        await request_commitment(association, Action("2.25.1", refs("1.2.3")))
        await site.got(3)
    duplicate = tuple(
        Failure(CT, sop, FailureReason.DUPLICATE_TRANSACTION_UID) for sop in ("1.2.3", "1.2.4")
    )
    first = Result("2.25.1", refs("1.2.3"))
    assert site.results == [first, Result("2.25.1", (), duplicate), first]


async def test_every_reason(site: Site) -> None:
    database = site.gateway._storage.database
    site.gateway._storage.directory.add_account("alice")
    await site.followed()
    await site.store("1.2.9", called="RVU-alice")
    await site.store("1.2.6", "1.2.7", "1.2.8")
    rows = {row.sop_uid: row for row in _rows(site)}
    flipped = site.gateway._storage.data / rows["1.2.6"].path
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 0x40
    flipped.write_bytes(data)
    (site.gateway._storage.data / rows["1.2.7"].path).unlink()
    with database.write() as connection:
        plan_deletion(connection, [rows["1.2.8"].id], due_at=1, reason="rule")
    asked = (
        *refs("1.2.3", "1.2.404", "1.2.6", "1.2.7", "1.2.8", "1.2.9"),
        Reference(MR, "1.2.4"),
        Reference(VERIFICATION, "1.2.5"),
    )
    uid = await site.client.commit_instances(site.to(), asked, stay=WAIT)
    result = await site.client.result(uid, timeout=0)
    assert result.committed == refs("1.2.3")
    assert {f.sop_instance_uid: f.reason for f in result.failed} == {
        "1.2.404": FailureReason.NO_SUCH_OBJECT_INSTANCE,
        "1.2.6": FailureReason.PROCESSING_FAILURE,
        "1.2.7": FailureReason.NO_SUCH_OBJECT_INSTANCE,
        "1.2.8": FailureReason.PROCESSING_FAILURE,
        "1.2.9": FailureReason.NO_SUCH_OBJECT_INSTANCE,
        "1.2.4": FailureReason.CLASS_INSTANCE_CONFLICT,
        "1.2.5": FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED,
    }
    # The user's own title answers for her, and for what everyone may see.
    uid = await site.client.commit_instances(
        site.to("RVU-alice", "OTHER"), refs("1.2.9", "1.2.3"), stay=WAIT
    )
    assert (await site.client.result(uid, timeout=0)).failed == ()


def _rows(site: Site) -> list[object]:
    from hilum.gateway.store import queries
    from hilum.gateway.store.results import Viewer

    return list(queries.list_instances(site.gateway._storage.database, Viewer(all=True)).rows)


async def test_too_many_instances_are_more_than_can_be_dealt_with(site: Site) -> None:
    provider = site.gateway._commitment
    provider._settings = replace(provider._settings, max_references=2)
    uid = await site.client.commit_instances(site.to(), refs(*SOPS), stay=WAIT)
    result = await site.client.result(uid, timeout=0)
    assert {f.reason for f in result.failed} == {FailureReason.RESOURCE_LIMITATION}
    assert len(result.failed) == 3
    # So are too many requests whose results nobody takes.
    provider._settings = replace(provider._settings, max_open=0)
    with pytest.raises(Refused, match="0213H"):
        await site.client.commit_instances(site.to(), refs(*SOPS))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action_type_id": 2}, 0x0123),
        ({"sop_instance_uid": "1.2.3"}, 0x0112),
        ({"sop_class_uid": "1.2.840.10008.1.20.2"}, 0x0118),
        ({"data": None}, 0x0114),
        ({"data": b"\0"}, 0x0115),
        ({"data": encode_action(Action("2.25.1", ()), EXPLICIT)}, 0x0115),
    ],
)
async def test_what_is_no_request_is_refused(
    site: Site, changes: dict[str, object], status: int
) -> None:
    async with await asking(site) as association:
        arguments: dict[str, object] = {
            "data": encode_action(Action("2.25.1", refs("1.2.3")), EXPLICIT),
            "sop_class_uid": STORAGE_COMMITMENT_PUSH_MODEL,
            "sop_instance_uid": STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            "action_type_id": 1,
            "context_class": STORAGE_COMMITMENT_PUSH_MODEL,
            **changes,
        }
        data = arguments.pop("data")
        response = await association.n_action(data, **arguments)  # type: ignore[arg-type]
        assert response.status == status
    assert site.states() == {}


async def test_a_peer_that_may_not_ask_does_not_get_the_service(site: Site) -> None:
    from hilum.errors import NoPresentationContext

    await site.deliver("", services=("echo", "store"))
    with pytest.raises((NoPresentationContext, Refused)):
        await site.client.commit_instances(site.to(), refs("1.2.3"))
    assert site.states() == {}


async def test_who_only_bears_a_peers_title_is_not_told(site: Site) -> None:
    await site.deliver("next")
    await site.client.commit_instances(site.to(), refs("1.2.3"))
    directory = site.gateway._storage.directory
    peer = next(p for p in directory.snapshot().peers if p.name == "ct1")
    directory.put_peer(replace(peer, host="192.0.2.7"))  # it is elsewhere now
    await site.followed()
    await site.client.collect(site.to(), listen=0.7)
    assert site.results == []
    directory.put_peer(peer)
    await site.followed()
    await site.collected()


async def test_a_request_that_cannot_be_judged_fails_as_a_whole(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hilum.errors import StorageFailed
    from hilum.gateway.flow import commitment

    def broken(*args: object, **options: object) -> Result:
        raise StorageFailed("the database cannot be read")

    monkeypatch.setattr(commitment, "judge", broken)
    kind = site.gateway.kinds[commitment.JUDGE]
    monkeypatch.setitem(site.gateway.kinds._kinds, commitment.JUDGE, replace(kind, max_attempts=1))
    uid = await site.client.commit_instances(site.to(), refs(*SOPS), stay=WAIT)
    result = await site.client.result(uid, timeout=0)
    assert {f.reason for f in result.failed} == {FailureReason.PROCESSING_FAILURE}


# ── crossing ──────────────────────────────────────────────────────────────────────────────────


async def test_reports_cross_requests_and_images(site: Site) -> None:
    """Requests and images go on while reports come; neither side waits for the other."""
    association = await connect(
        "127.0.0.1",
        site.port,
        called="HILUM",
        calling="CT1",
        contexts=[*COMMITMENT_CONTEXTS, (CT, (EXPLICIT,))],
        handlers=site.client.handlers,
    )
    async with association:
        for n in range(50):
            await request_commitment(association, Action(f"2.25.{n}", refs("1.2.3", f"1.9.{n}")))
            response = await association.c_store(
                [encode(image(f"1.9.{n}", pixels=100_000))],
                sop_class_uid=CT,
                sop_instance_uid=f"1.9.{n}",
                transfer_syntax_uid=EXPLICIT,
            )
            assert response.status == 0
        await site.got(50)
    await site.settled()
    assert {r.transaction_uid for r in site.results} == {f"2.25.{n}" for n in range(50)}
    assert len(site.results) == 50


async def test_a_peer_that_cannot_process_the_report_gets_it_again(site: Site) -> None:
    await site.deliver("new")
    answers = iter([0x0110, 0x0110])
    seen: list[Result] = []

    async def moody(request: Request) -> Reply:
        assert request.data is not None
        seen.append(parse_result(request.data, request.context.transfer_syntax))
        return Reply(next(answers, 0x0000))

    site.client.handlers = {CommandField.N_EVENT_REPORT_RQ: moody}
    await site.listen()
    await site.client.commit_instances(site.to(), refs("1.2.3"))
    await site.settled()
    assert len(seen) == 3
    assert seen == [seen[0]] * 3


async def test_a_peer_that_takes_implicit_vr_only(site: Site) -> None:
    await site.deliver("new")
    seen: list[str] = []

    def accept(rq: object, peer: object) -> object:
        from hilum.net.service import Accept, service_policy

        async def note(request: Request) -> Reply:
            seen.append(request.context.transfer_syntax)
            return await site.client.handle(request)

        return Accept(  # and no role selection is answered
            policy=service_policy((STORAGE_COMMITMENT_PUSH_MODEL,), transfer_syntaxes=(IMPLICIT,)),
            handlers={CommandField.N_EVENT_REPORT_RQ: note},
        )

    site.client.authorise = accept  # type: ignore[method-assign,assignment]
    await site.listen()
    uid = await site.client.commit_instances(site.to(), refs("1.2.3", "1.2.404"))
    result = await site.client.result(uid, timeout=WAIT)
    assert (result.committed, len(result.failed)) == (refs("1.2.3"), 1)
    assert seen == [IMPLICIT]


async def test_thousands_of_instances(site: Site) -> None:
    asked = refs(*(f"1.2.840.99999.{n}" for n in range(30_000)))
    uid = await site.client.commit_instances(site.to(), (*asked, *refs("1.2.3")), stay=60)
    result = await site.client.result(uid, timeout=0)
    assert len(result.failed) == 30_000
    assert result.committed == refs("1.2.3")


# ── the gateway as client of another ──────────────────────────────────────────────────────────


async def test_a_result_that_comes_to_the_gateway_is_recorded(site: Site) -> None:
    """It asks itself: the report comes to its own listener, over a new association."""
    directory = site.gateway._storage.directory
    directory.put_peer(
        Peer("me", "HILUM", "127.0.0.1", site.port, calling_ae="HILUM", commitment="new")
    )
    await site.followed()
    user = site.gateway.commitment_user
    peer = next(p for p in directory.snapshot().peers if p.name == "me")
    work = user.request(peer, refs(*SOPS), owner_id=0, origin="forward:1")
    from hilum.gateway.store.work import enqueue

    with site.gateway._storage.database.write() as connection:
        enqueue(connection, [work])
    uid = str(work.payload["transaction"])

    def answered() -> bool:
        found = user._requests.find(uid)
        return found is not None and found.result is not None

    await until(answered, "no result", WAIT)
    found = user._requests.find(uid)
    assert found is not None and found.result == Result(uid, refs(*SOPS))
    with pytest.raises(Refused, match="0115H"):
        await _report_nonsense(site)


async def _report_nonsense(site: Site) -> None:
    from hilum.net.commitment import REPORTING_ROLE
    from hilum.services.commitment import encode_result

    async with await connect(
        "127.0.0.1",
        site.port,
        called="HILUM",
        calling="PACS",
        contexts=COMMITMENT_CONTEXTS,
        roles=(REPORTING_ROLE,),
    ) as association:
        context = association.context_for(STORAGE_COMMITMENT_PUSH_MODEL)
        response = await association.n_event_report(
            encode_result(Result("2.25.404", refs("1.2.3")), context.transfer_syntax),
            sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
            event_type_id=1,
        )
        if response.status:
            raise Refused(response.status)
