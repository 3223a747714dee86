"""Providers that lie to our client: floods, silence, wrong numbers, stores that nobody asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.net.peer import RawPeer, until
from tests.net.sinks import Store
from tests.unit.wire.playbook import (
    CT_IMAGE,
    EXPLICIT,
    IMPLICIT,
    PDV,
    VERIFICATION,
    an_ac,
    command_pdv,
    echo_rq,
    pdata,
    store_rq,
)

from hilum.errors import (
    AssociationError,
    AssociationReleased,
    AssociationTimeout,
    LimitExceeded,
    RemoteProtocolError,
)
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.service import Reply, Request, while_retrieving
from hilum.services.sop_classes import STUDY_ROOT_FIND, STUDY_ROOT_GET
from hilum.wire.command import Command, CommandField
from hilum.wire.items import MaximumLength, RoleSelection
from hilum.wire.pdu import Abort, PresentationContext, ReleaseRP, ReleaseRQ

CONTEXTS = (
    (VERIFICATION, (IMPLICIT,)),
    (CT_IMAGE, (EXPLICIT,)),
    (STUDY_ROOT_FIND, (EXPLICIT,)),
    (STUDY_ROOT_GET, (EXPLICIT,)),
)
FIND, GET = 5, 7
ROLE = RoleSelection(CT_IMAGE, False, True)


class Provider:
    """A raw peer in the acceptor's place; ``associate`` gives it and our association."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[RawPeer] = asyncio.Queue()
        self.all: list[RawPeer] = []

    async def start(self) -> None:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = RawPeer(reader, writer)
            self.all.append(peer)
            self.peers.put_nowait(peer)

        self.server = await asyncio.start_server(take, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def associate(
        self, *, role: bool = True, **arguments: Any
    ) -> tuple[RawPeer, Association]:
        connecting = asyncio.create_task(
            connect("127.0.0.1", self.port, contexts=CONTEXTS, roles=(ROLE,), **arguments)
        )
        peer = await self.peers.get()
        await peer.hear()
        syntaxes = (IMPLICIT, EXPLICIT, EXPLICIT, EXPLICIT)
        accepted = tuple(
            PresentationContext(2 * n + 1, "", (syntax,)) for n, syntax in enumerate(syntaxes)
        )
        items = (MaximumLength(16384), *((ROLE,) if role else ()))
        peer.send(an_ac(accepted, items=items))
        return peer, await connecting


@pytest_asyncio.fixture
async def provider(nothing_is_left: None) -> AsyncIterator[Provider]:
    made = Provider()
    await made.start()
    yield made
    made.server.close()
    for peer in made.all:
        peer.writer.transport.abort()


async def asked(peer: RawPeer) -> Command:
    """The command set of the next message, its data set passed over."""
    heard = await peer.hear()
    (pdv,) = heard.pdvs  # type: ignore[union-attr]
    command = Command.decode(pdv.data)
    if command.has_data_set:
        await peer.hear()
    return command


def match(command: Command, data: bytes = b"ab", status: int = 0xFF00) -> Any:
    return pdata(command_pdv(FIND, command.response(status, has_data_set=True)), PDV(FIND, data))


def final(command: Command, status: int = 0, context: int = FIND) -> Any:
    return pdata(command_pdv(context, command.response(status)))


async def flood(peer: RawPeer, said: Any) -> None:
    """Say it for ever, as fast as it is read."""
    many = said.encode() * 100
    while True:
        peer.writer.write(many)
        await peer.writer.drain()


def find(association: Association, **arguments: Any) -> Any:
    return association.c_find(b"", sop_class_uid=STUDY_ROOT_FIND, **arguments)


async def test_silence(provider: Provider) -> None:
    peer, association = await provider.associate()
    with pytest.raises(AssociationTimeout, match="no response to C-FIND-RQ"):
        await anext(find(association, timeout=0.05))
    assert (await asked(peer)).name == "C-FIND-RQ"
    assert await peer.hear() == Abort()


async def test_silence_between_responses(provider: Provider) -> None:
    peer, association = await provider.associate(timeouts=Timeouts(dimse=0.5))
    responses = find(association)
    first = asyncio.create_task(anext(responses))
    peer.send(match(await asked(peer)))
    assert (await first).is_pending
    with pytest.raises(AssociationTimeout):
        await anext(responses)


async def test_endless_responses_are_held_back(provider: Provider) -> None:
    """A slow consumer's memory is bounded; an abort is possible at any moment."""
    peer, association = await provider.associate(limits=Limits(max_responses=50))
    responses = find(association)
    first = asyncio.create_task(anext(responses))
    flooding = asyncio.create_task(flood(peer, match(await asked(peer))))
    await first
    await until(lambda: association.receiving.blocked, "the pause")
    (operation,) = association.requests.operations.values()
    assert len(operation.responses) <= 51
    for _ in range(500):
        assert (await anext(responses)).data == b"ab"
    association.abort()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    await association.wait_closed()


async def test_held_back_by_bytes(provider: Provider) -> None:
    peer, association = await provider.associate(limits=Limits(max_response_bytes=10_000))
    responses = find(association)
    first = asyncio.create_task(anext(responses))
    flooding = asyncio.create_task(flood(peer, match(await asked(peer), bytes(1000))))
    await first
    await until(lambda: association.receiving.blocked, "the pause")
    (operation,) = association.requests.operations.values()
    assert len(operation.responses) <= 11
    association.abort()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)


async def test_endless_responses_after_being_given_up(provider: Provider) -> None:
    peer, association = await provider.associate(timeouts=Timeouts(dimse=1.0))
    responses = find(association)
    first = asyncio.create_task(anext(responses))
    flooding = asyncio.create_task(flood(peer, match(await asked(peer))))
    await first
    await responses.aclose()
    assert (await asked(peer)).name == "C-CANCEL-RQ"
    assert [each async for each in responses] == []
    with pytest.raises(AssociationTimeout, match="given up"):
        await association.c_echo()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)


async def test_a_release_in_a_flood(provider: Provider) -> None:
    """Responses that nobody took are dropped, so that A-RELEASE-RP is read."""
    peer, association = await provider.associate(limits=Limits(max_responses=50))
    responses = find(association)
    first = asyncio.create_task(anext(responses))
    command = await asked(peer)
    peer.send(match(command).encode() * 2000)
    await first
    await until(lambda: association.receiving.blocked, "the pause")
    releasing = asyncio.create_task(association.release())
    assert await peer.hear() == ReleaseRQ()
    peer.send(match(command), ReleaseRP())
    await releasing
    with pytest.raises(AssociationReleased):
        while True:
            await anext(responses)


async def test_what_else_the_peer_says_is_heard_below_the_limit(provider: Provider) -> None:
    """An N-EVENT-REPORT and a release behind responses that nobody has taken yet."""
    seen: list[Request] = []

    async def report(request: Request) -> Reply:
        seen.append(request)
        return Reply(0)

    peer, association = await provider.associate(handlers={CommandField.N_EVENT_REPORT_RQ: report})
    responses = find(association)
    first = asyncio.create_task(anext(responses))
    command = await asked(peer)
    event = Command(
        CommandField.N_EVENT_REPORT_RQ,
        message_id=1,
        affected_sop_class_uid="1.2",
        affected_sop_instance_uid="1.3",
        event_type_id=1,
    )
    peer.send(match(command), match(command), match(command), pdata(command_pdv(1, event)))
    await first
    await until(lambda: seen, "the report")
    assert (await asked(peer)).status == 0
    peer.send(ReleaseRQ())
    assert await peer.hear() == ReleaseRP()
    # What had come is still here.
    assert (await anext(responses)).is_pending
    assert (await anext(responses)).is_pending
    with pytest.raises(AssociationReleased):
        await anext(responses)


async def test_wrong_message_ids_and_responses_after_the_final_one(provider: Provider) -> None:
    peer, association = await provider.associate()
    responses = find(association)
    waiting = asyncio.create_task(responses.last())
    command = await asked(peer)
    other = Command(CommandField.C_FIND_RQ, message_id=99, affected_sop_class_uid=STUDY_ROOT_FIND)
    late = [match(command), final(command, 0xA700)]
    peer.send(match(other), final(other), match(command), final(command), *late)
    assert (await waiting).status == 0
    # They were nobody's, and the next operation is not theirs.
    echoing = asyncio.create_task(association.c_echo())
    peer.send(pdata(command_pdv(1, (await asked(peer)).response(0))))
    assert (await echoing).status == 0
    association.abort()


async def test_a_response_of_another_kind(provider: Provider) -> None:
    peer, association = await provider.associate()
    waiting = asyncio.create_task(find(association).last())
    command = await asked(peer)
    peer.send(pdata(command_pdv(1, echo_rq(command.message_id).response(0))))
    with pytest.raises(RemoteProtocolError, match="C-ECHO-RSP in answer to C-FIND-RQ"):
        await waiting
    assert await peer.hear() == Abort(2, 6)


async def test_a_flood_of_answers_to_nothing(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hilum.net")
    peer, association = await provider.associate()
    stray = pdata(command_pdv(1, echo_rq(77).response(0))).encode()
    peer.send(stray * 5000)
    echoing = asyncio.create_task(association.c_echo())
    peer.send(pdata(command_pdv(1, (await asked(peer)).response(0))))
    assert (await echoing).status == 0
    assert len([r for r in caplog.records if "to no request of ours" in r.getMessage()]) == 1
    association.abort()


async def test_pending_for_an_operation_that_has_none(provider: Provider) -> None:
    peer, association = await provider.associate()
    echoing = asyncio.create_task(association.c_echo())
    peer.send(pdata(command_pdv(1, (await asked(peer)).response(0xFF00))))
    assert (await echoing).status == 0xFF00
    association.abort()


async def test_an_identifier_without_an_end(provider: Provider) -> None:
    peer, association = await provider.associate(
        limits=Limits(max_data_set_in_memory=100_000, buffer_size=64 << 10)
    )
    waiting = asyncio.create_task(find(association).last())
    command = await asked(peer)
    peer.send(pdata(command_pdv(FIND, command.response(0xFF00, has_data_set=True))))
    for _ in range(20):
        peer.send(pdata(PDV(FIND, bytes(10_000), last=False)))
    with pytest.raises(LimitExceeded, match="data set over 100000 bytes"):
        await waiting
    assert await peer.hear() == Abort(2, 6)


async def test_a_pending_move_response_with_a_data_set(provider: Provider) -> None:
    """Field notes A 18: what it should not have is passed on and disturbs nothing."""
    peer, association = await provider.associate()
    responses = association.c_get(b"", sop_class_uid=STUDY_ROOT_GET)
    waiting = asyncio.create_task(anext(responses))
    command = await asked(peer)
    pending = command.response(0xFF00, has_data_set=True, number_of_remaining_suboperations=3)
    peer.send(pdata(command_pdv(GET, pending), PDV(GET, b"ab")), final(command, 0, GET))
    response = await waiting
    assert (response.data, response.command.number_of_remaining_suboperations) == (b"ab", 3)
    assert (await responses.last()).status == 0
    association.abort()


@pytest.mark.parametrize("role", [True, False])
async def test_a_store_that_nobody_asked_for(provider: Provider, role: bool) -> None:
    """Without the SCP role none is taken; with it, the sink's owner can see that none is due."""
    retrieving: list[bool] = []
    store = Store()

    def open_store(command: Any, context: Any, association: Association) -> Any:
        retrieving.append(association.is_retrieving)
        return store(command, context, association)

    peer, association = await provider.associate(role=role, open_store=open_store)
    peer.send(pdata(command_pdv(3, store_rq(1, "../../../etc/passwd")), PDV(3, b"ab")))
    answer = await asked(peer)
    assert answer.status == (0 if role else 0x0122)
    assert retrieving == [False] * role
    association.abort()


async def test_only_what_a_get_brings_is_taken_where_that_is_asked_for(provider: Provider) -> None:
    store = Store()
    peer, association = await provider.associate(open_store=while_retrieving(store))

    async def stored(number: int) -> int:
        peer.send(pdata(command_pdv(3, store_rq(number)), PDV(3, b"ab")))
        return (await asked(peer)).status

    assert await stored(1) == 0x0124
    waiting = asyncio.create_task(association.c_get(b"", sop_class_uid=STUDY_ROOT_GET).last())
    command = await asked(peer)
    assert [await stored(2), await stored(3)] == [0, 0]
    peer.send(final(command, 0, GET))
    assert (await waiting).status == 0
    assert await stored(4) == 0x0124
    assert len(store.sinks) == 2
    association.abort()


async def test_what_comes_after_we_asked_for_release_is_not_stored(provider: Provider) -> None:
    """It could not be answered: nothing may be sent after A-RELEASE-RQ (PS3.8 7.2)."""
    store = Store()
    peer, association = await provider.associate(open_store=store)
    releasing = asyncio.create_task(association.release())
    assert await peer.hear() == ReleaseRQ()
    for number in range(1, 100):
        peer.send(pdata(command_pdv(3, store_rq(number)), PDV(3, b"ab")))
    peer.send(ReleaseRP())
    await releasing
    assert store.sinks == []


async def test_stores_are_signs_of_life_of_a_get(provider: Provider) -> None:
    store = Store()
    peer, association = await provider.associate(open_store=store, timeouts=Timeouts(dimse=1.5))
    waiting = asyncio.create_task(association.c_get(b"", sop_class_uid=STUDY_ROOT_GET).last())
    command = await asked(peer)
    for number in range(1, 7):
        await asyncio.sleep(0.3)
        peer.send(pdata(command_pdv(3, store_rq(number)), PDV(3, b"ab")))
        assert (await asked(peer)).status == 0
    peer.send(final(command, 0, GET))
    assert (await waiting).status == 0
    # Silence is none.
    waiting = asyncio.create_task(association.c_get(b"", sop_class_uid=STUDY_ROOT_GET).last())
    await asked(peer)
    with pytest.raises(AssociationTimeout):
        await waiting


async def test_a_cancelled_wait_keeps_its_place_until_the_answer(provider: Provider) -> None:
    peer, association = await provider.associate()
    first = asyncio.create_task(association.c_echo())
    command = await asked(peer)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(association.c_echo())
    third = asyncio.create_task(association.c_echo())
    await asyncio.sleep(0.01)
    assert len(association.requests.operations) == 1
    third.cancel()
    peer.send(pdata(command_pdv(1, command.response(0))))
    peer.send(pdata(command_pdv(1, (await asked(peer)).response(0))))
    assert (await second).status == 0
    association.abort()
    with pytest.raises(AssociationError):
        await association.c_echo()
