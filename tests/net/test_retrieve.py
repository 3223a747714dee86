"""C-GET and C-MOVE between our two roles: what is sent, what is counted, what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydicom import Dataset
from tests.net.conftest import Listen
from tests.net.peer import until
from tests.net.sinks import HeldCommit, Sink, Store
from tests.net.test_services import dial, keys, serving
from tests.unit.wire.playbook import CT_IMAGE, EXPLICIT, IMPLICIT

from hilum.errors import AssociationAborted
from hilum.net.association import Association, Response, Responses
from hilum.net.limits import Timeouts
from hilum.net.retrieve import PENDING_EVERY, Destination, Sources, move_to, retrieve_on
from hilum.net.server import Server
from hilum.net.service import Accept, Outcome, Reject, Reply, Request
from hilum.net.sources import Source
from hilum.services.datasets import decode, encode
from hilum.services.part10 import FileHead
from hilum.services.sop_classes import STUDY_ROOT_GET, STUDY_ROOT_MOVE
from hilum.wire.command import CommandField
from hilum.wire.items import RoleSelection

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
JPEG = "1.2.840.10008.1.2.4.50"
SCP_ROLES = tuple(RoleSelection(uid, False, True) for uid in (CT_IMAGE, MR_IMAGE))
CONTEXTS = (
    (STUDY_ROOT_GET, (EXPLICIT,)),
    (STUDY_ROOT_MOVE, (EXPLICIT,)),
    (CT_IMAGE, (EXPLICIT,)),
    (MR_IMAGE, (IMPLICIT,)),
)


class Made:
    """A source that is made, not found; ``kept`` in memory or read like a file."""

    def __init__(
        self, number: int, *, sop_class: str = CT_IMAGE, syntax: str = EXPLICIT, kept: bool = False
    ) -> None:
        dataset = Dataset()
        dataset.SOPInstanceUID = self.uid = f"1.2.{number}"
        dataset.PatientName = "Made"
        self.data = encode(dataset, syntax) if syntax != JPEG else bytes(100)
        self.head = FileHead(0, sop_class, self.uid, syntax)
        self.length = len(self.data)
        self.content = self.data if kept else None
        self.name = self.uid
        self.broken = False

    def pieces(self) -> Any:
        if self.broken:
            raise OSError("gone")
        yield self.data


def made(count: int, **arguments: Any) -> list[Made]:
    return [Made(number, **arguments) for number in range(count)]


def getting(sources: Sources, total: int | None = None, **arguments: Any) -> Any:
    def get(request: Request) -> AsyncIterator[Sequence[Reply]]:
        return retrieve_on(request, sources, total)

    roles = {CT_IMAGE: (True, True), MR_IMAGE: (True, True)}
    accept = serving({CommandField.C_GET_RQ: get})(None, None)
    granted = Accept(policy=accept.policy, handlers=accept.handlers, **{"roles": roles} | arguments)
    return lambda rq, peer: granted


async def get(server: Server, store: Any, **arguments: Any) -> list[Response]:
    arguments = {"contexts": CONTEXTS, "roles": SCP_ROLES} | arguments
    async with await dial(server, open_store=store, **arguments) as association:
        responses = association.c_get(keys(), sop_class_uid=STUDY_ROOT_GET)
        return [response async for response in responses]


def counters(response: Response) -> tuple[int | None, ...]:
    return tuple(
        response.command.get(f"number_of_{name}_suboperations")
        for name in ("remaining", "completed", "failed", "warning")
    )


def failed_uids(response: Response) -> list[str]:
    value = response.dataset().FailedSOPInstanceUIDList
    return [value] if isinstance(value, str) else list(value)


def uids(store: Store) -> list[str]:
    return [command.affected_sop_instance_uid for command in store.commands]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read"])
async def test_get(listen: Listen, kept: bool) -> None:
    sources = made(100, kept=kept)
    store = Store()
    server = await listen(getting(sources))
    *pending, final = await get(server, store)
    assert uids(store) == [source.uid for source in sources]
    assert [bytes(sink.content) for sink in store.sinks] == [source.data for source in sources]
    assert (final.status, counters(final), final.data) == (0, (None, 100, 0, 0), None)
    assert {response.status for response in pending} == {0xFF00}
    assert counters(pending[0]) == (99, 1, 0, 0)
    assert len(pending) == 1 + 99 // PENDING_EVERY
    assert {command.get("move_originator_message_id") for command in store.commands} == {None}


async def test_get_of_nothing(listen: Listen) -> None:
    (final,) = await get(await listen(getting([])), Store())
    assert (final.status, counters(final)) == (0, (None, 0, 0, 0))


async def in_pages(sources: Sequence[Source], size: int = 7) -> AsyncIterator[Sequence[Source]]:
    for start in range(0, len(sources), size):
        await asyncio.sleep(0)
        yield sources[start : start + size]
        yield []


@pytest.mark.parametrize("announced", [0, 20, 50, 90])
async def test_get_of_pages(listen: Listen, announced: int) -> None:
    sources = made(50)
    store = Store()
    *pending, final = await get(await listen(getting(in_pages(sources), announced)), store)
    assert uids(store) == [source.uid for source in sources]
    assert (final.status, counters(final)[1:]) == (0, (50, 0, 0))
    assert all(remaining is not None and remaining > 0 for remaining, *_ in map(counters, pending))


async def broken_pages() -> AsyncIterator[Sequence[Source]]:
    yield made(3)
    raise LookupError("the index is gone")


async def test_pages_that_break_off(listen: Listen) -> None:
    store = Store()
    *_, final = await get(await listen(getting(broken_pages(), 10)), store)
    assert final.status == 0xC000
    assert len(store.sinks) == 3


async def test_what_the_requestor_does_not_take_fails_alone(listen: Listen) -> None:
    """Class not accepted, syntax not accepted, no SCP role, cannot be read (field notes A 19)."""
    sources = [
        Made(0),
        Made(1, sop_class="1.2.840.10008.5.1.4.1.1.7"),
        Made(2, syntax=JPEG),
        Made(3, sop_class=MR_IMAGE, syntax=IMPLICIT),
        Made(4, sop_class=MR_IMAGE, syntax=EXPLICIT),
        Made(1, sop_class="1.2.840.10008.5.1.4.1.1.7"),
        Made(5),
    ]
    sources[-1].broken = True
    store = Store()
    *_, final = await get(await listen(getting(sources)), store)
    assert uids(store) == ["1.2.0", "1.2.3", "1.2.4"]
    assert decode(store.sinks[2].content, IMPLICIT).SOPInstanceUID == "1.2.4"  # converted
    assert (final.status, counters(final)) == (0xB000, (None, 3, 4, 0))
    assert failed_uids(final) == ["1.2.1", "1.2.2", "1.2.5"]


async def test_get_without_roles_fails_every_one(listen: Listen) -> None:
    store = Store()
    *_, final = await get(await listen(getting(made(3))), store, roles=())
    assert (final.status, counters(final)) == (0xA702, (None, 0, 3, 0))
    assert failed_uids(final) == ["1.2.0", "1.2.1", "1.2.2"]
    assert not store.commands


async def test_what_the_requestor_answers_is_counted(listen: Listen) -> None:
    outcomes = [Outcome(0), Outcome(0xB000), Outcome(0xA700), Outcome(0xC123)]

    class Answering(Sink):
        def commit(self) -> Any:
            future = asyncio.get_running_loop().create_future()
            future.set_result(outcomes[len(store.sinks) - 1])
            return future

    store = Store(Answering)
    *_, final = await get(await listen(getting(made(4))), store)
    assert (final.status, counters(final)) == (0xB000, (None, 1, 2, 1))
    assert failed_uids(final) == ["1.2.2", "1.2.3"]


async def test_a_cancelled_get(listen: Listen) -> None:
    store = Store()
    server = await listen(getting(in_pages(made(5000), 1000), 5000))
    async with await dial(
        server, contexts=CONTEXTS, roles=SCP_ROLES, open_store=store
    ) as association:
        responses = association.c_get(keys(), sop_class_uid=STUDY_ROOT_GET)
        await anext(responses)
        await responses.cancel()
        final = await responses.last()
    remaining, completed, failed, warning = counters(final)
    assert final.status == 0xFE00
    assert remaining is not None
    assert completed is not None
    assert remaining + completed == 5000
    assert completed == len(store.sinks) < 5000
    assert (failed, warning, final.data) == (0, 0, None)


async def test_get_with_a_window(listen: Listen) -> None:
    """Several sub-operations outstanding; the C-GET itself takes none of their places."""
    store = Store(HeldCommit)
    server = await listen(getting(made(6), window=(1, 4)))
    getting_all = asyncio.create_task(get(server, store, window=(1, 4)))
    await until(lambda: len([s for s in store.sinks if s.commits]) == 4, "four at once")
    for number in (3, 1, 0, 2, 5, 4):
        await until(lambda n=number: len(store.sinks) > n, "the sink")  # type: ignore[misc]
        sink = store.sinks[number]
        assert isinstance(sink, HeldCommit)
        sink.outcome.set_result(Outcome(0))
    *_, final = await getting_all
    assert (final.status, counters(final)) == (0, (None, 6, 0, 0))


async def test_a_requestor_that_goes_away_ends_the_get(listen: Listen) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Sequence[Source]]:
        try:
            while True:
                yield made(10)
        finally:
            closed.set()

    store = Store()
    server = await listen(getting(endless(), 10))
    association = await dial(server, contexts=CONTEXTS, roles=SCP_ROLES, open_store=store)
    responses = association.c_get(keys(), sop_class_uid=STUDY_ROOT_GET)
    await anext(responses)
    association.abort()
    with pytest.raises(AssociationAborted):
        await responses.last()
    async with asyncio.timeout(5):
        await closed.wait()


# ── C-MOVE ──────────────────────────────────────────────────────────────────────────────────


class Workstation:
    """A C-MOVE destination, and how many associations came to it."""

    def __init__(self, make: Any = Sink, **accept: Any) -> None:
        self.store = Store(make)
        self.requests: list[Any] = []
        self.accept = accept

    def authorise(self, rq: Any, peer: Any) -> Accept:
        self.requests.append(rq)
        return Accept(open_store=self.store, **self.accept)


def moving(sources: Any, destination: Any, total: int | None = None) -> Any:
    def move(request: Request) -> AsyncIterator[Sequence[Reply]]:
        return move_to(request, sources, destination, total)

    return serving({CommandField.C_MOVE_RQ: move})


def to(server: Server, **arguments: Any) -> Destination:
    return Destination("127.0.0.1", server.port, "WS", "QR", **arguments)


def c_move(association: Association) -> Responses:
    return association.c_move(keys(), sop_class_uid=STUDY_ROOT_MOVE, destination="WS")


async def move(server: Server) -> list[Response]:
    async with await dial(server, calling="ASKER") as association:
        return [response async for response in c_move(association)]


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("lazily", [False, True])
async def test_move(listen: Listen, parallel: int, lazily: bool) -> None:
    sources = made(100)
    workstation = Workstation()
    destination = to(await listen(workstation.authorise), parallel=parallel)
    given = in_pages(sources, 20) if lazily else sources
    server = await listen(moving(given, destination, 100 if lazily else None))
    *pending, final = await move(server)
    assert (final.status, counters(final), final.data) == (0, (None, 100, 0, 0), None)
    assert counters(pending[0]) == (99, 1, 0, 0)
    assert {response.data for response in pending} == {None}
    assert sorted(uids(workstation.store)) == sorted(source.uid for source in sources)
    assert 1 <= len(workstation.requests) <= parallel
    (rq, *_) = workstation.requests
    assert (rq.called_ae_title, rq.calling_ae_title) == ("WS", "QR")
    # Field notes A 20: who asked, not who performs.
    for command in workstation.store.commands:
        assert command.move_originator_application_entity_title == "ASKER"
        assert command.move_originator_message_id == 1


async def test_move_of_nothing_opens_no_association(listen: Listen) -> None:
    workstation = Workstation()
    destination = to(await listen(workstation.authorise))
    (final,) = await move(await listen(moving([], destination)))
    assert (final.status, counters(final)) == (0, (None, 0, 0, 0))
    assert not workstation.requests


async def test_an_unknown_destination(listen: Listen) -> None:
    (final,) = await move(await listen(moving(made(3), None)))
    assert final.status == 0xA801
    assert final.command.error_comment == "unknown move destination WS"


@pytest.mark.parametrize("how", ["nobody", "rejecting"])
async def test_a_destination_that_cannot_be_reached(
    listen: Listen, unused_tcp_port: int, how: str
) -> None:
    destination = Destination("127.0.0.1", unused_tcp_port, "WS", "QR", retries=0)
    if how == "rejecting":
        destination = to(await listen(lambda rq, peer: Reject.unknown_called_title()))
    *_, final = await move(await listen(moving(made(3), destination)))
    assert (final.status, counters(final)) == (0xA702, (None, 0, 3, 0))
    assert failed_uids(final) == ["1.2.0", "1.2.1", "1.2.2"]
    assert final.command.error_comment[:10] in ("no connect", "associatio")


async def test_what_the_destination_does_not_take(listen: Listen) -> None:
    workstation = Workstation(
        lambda: Outcome(0xA700) if len(workstation.store.commands) % 2 else Sink()
    )
    destination = to(await listen(workstation.authorise))
    sources = [*made(4), Made(9, sop_class="1.2.840.10008.5.1.1.9")]
    *_, final = await move(await listen(moving(sources, destination)))
    assert (final.status, counters(final)) == (0xB000, (None, 2, 3, 0))
    assert failed_uids(final) == ["1.2.1", "1.2.3", "1.2.9"]


async def test_a_cancelled_move(listen: Listen) -> None:
    workstation = Workstation()
    destination = to(await listen(workstation.authorise))
    server = await listen(moving(in_pages(made(5000), 1000), destination, 5000))
    async with await dial(server) as association:
        responses = c_move(association)
        await anext(responses)
        await responses.cancel()
        final = await responses.last()
    remaining, completed, *_ = counters(final)
    assert final.status == 0xFE00
    assert remaining is not None
    assert completed is not None
    assert remaining + completed == 5000
    assert completed == len(workstation.store.sinks)


async def test_a_slow_move_says_that_it_is_alive(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.net.retrieve.PENDING_SECONDS", 0.05)
    workstation = Workstation(HeldCommit)
    destination = to(await listen(workstation.authorise))
    server = await listen(moving(made(2), destination))
    async with await dial(server, timeouts=Timeouts(dimse=5)) as association:
        responses = c_move(association)
        for _ in range(3):
            assert counters(await anext(responses)) == (2, 0, 0, 0)
        for number in range(2):
            await until(lambda n=number: len(workstation.store.sinks) > n, "a sink")  # type: ignore[misc]
            sink = workstation.store.sinks[number]
            assert isinstance(sink, HeldCommit)
            sink.outcome.set_result(Outcome(0))
        assert (await responses.last()).status == 0


async def test_counters_never_go_back(listen: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that are due by number and by time come close together, and stay in order."""
    monkeypatch.setattr("hilum.net.retrieve.PENDING_SECONDS", 0.0003)
    monkeypatch.setattr("hilum.net.retrieve.PENDING_EVERY", 1)
    workstation = Workstation()
    destination = to(await listen(workstation.authorise), parallel=3)
    *pending, final = await move(await listen(moving(made(1000), destination)))
    left = [counters(response)[0] or 0 for response in pending]
    assert left == sorted(left, reverse=True)
    assert counters(final) == (None, 1000, 0, 0)


async def test_an_asker_who_goes_away_ends_the_move(listen: Listen) -> None:
    ends: list[Exception | None] = []
    workstation = Workstation(HeldCommit, ended=lambda association, error: ends.append(error))
    destination = to(await listen(workstation.authorise))
    server = await listen(moving(made(5), destination))
    association = await dial(server)
    moving_all = asyncio.create_task(c_move(association).last())
    await until(lambda: workstation.store.sinks, "the first sub-operation")
    association.abort()
    with pytest.raises(AssociationAborted):
        await moving_all
    await until(lambda: ends, "the end of the sub-association")
    assert len(workstation.store.sinks) == 1
