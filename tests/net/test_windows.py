"""The asynchronous operations window on both sides, and requests that come before their time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import HeldCommit, SlowSink, Store
from tests.net.test_association import image, status
from tests.net.test_services import CLASSES, dial, keys, matches, serving
from tests.net.test_store import SMALL, noise
from tests.unit.wire.playbook import (
    EXPLICIT,
    PDV,
    an_rq,
    command_pdv,
    echo_rq,
    pdata,
    store_rq,
)

from hilum.net.limits import Limits
from hilum.net.receiving import Held
from hilum.net.server import Server, serve
from hilum.net.service import Accept, Outcome, Reply, Request, service_policy
from hilum.services.sop_classes import STUDY_ROOT_FIND
from hilum.wire.command import Command, CommandField
from hilum.wire.items import AsynchronousOperationsWindow, MaximumLength
from hilum.wire.pdu import PresentationContext


class Gate:
    """A handler whose requests wait until the test lets each one go."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.doors: list[asyncio.Event] = []

    async def __call__(self, request: Request) -> Reply:
        door = asyncio.Event()
        self.requests.append(request)
        self.doors.append(door)
        await door.wait()
        return Reply(0)


def find_rq(number: int, data: bytes | None = b"ab") -> bytes:
    command = Command(
        CommandField.C_FIND_RQ,
        has_data_set=data is not None,
        message_id=number,
        affected_sop_class_uid=STUDY_ROOT_FIND,
    )
    said = pdata(command_pdv(5, command)).encode()
    return said if data is None else said + pdata(PDV(5, data)).encode()


async def associate(server: Server, window: tuple[int, int] | None = None) -> RawPeer:
    contexts = (
        *an_rq().contexts[:2],
        PresentationContext(5, STUDY_ROOT_FIND, (EXPLICIT,)),
    )
    items: Any = (MaximumLength(16384),)
    if window is not None:
        items = (*items, AsynchronousOperationsWindow(*window))
    return await RawPeer.associate(server.port, an_rq(contexts, items=items))


async def test_our_requests_wait_for_the_window(listen: Listen) -> None:
    gate = Gate()
    server = await listen(serving({CommandField.C_FIND_RQ: gate}, window=(3, 1)))
    async with await dial(server, window=(0, 1)) as association:
        finding = [
            asyncio.create_task(association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND).last())
            for _ in range(7)
        ]
        for begun in range(3, 8):
            await until(lambda n=begun: len(gate.requests) == n, "the requests")  # type: ignore[misc]
            assert len(association.requests.operations) == 3
            gate.doors[begun - 2].set()  # not the oldest: answers come in any order
        for door in gate.doors:
            door.set()
        assert {response.status for response in await asyncio.gather(*finding)} == {0}
    assert [request.command.message_id for request in gate.requests] == list(range(1, 8))


async def test_a_place_in_the_queue_that_is_cancelled_is_passed_on(listen: Listen) -> None:
    gate = Gate()
    server = await listen(serving({CommandField.C_ECHO_RQ: gate}))
    async with await dial(server) as association:
        echoing = [asyncio.create_task(association.c_echo()) for _ in range(4)]
        await until(lambda: gate.requests, "the first")
        echoing[1].cancel()
        gate.doors[0].set()
        await echoing[0]
        await until(lambda: len(gate.requests) == 2, "the next")
        echoing[2].cancel()  # sent already: its place is free when its answer has come
        gate.doors[1].set()
        await until(lambda: len(gate.requests) == 3, "the last")
        gate.doors[2].set()
        assert (await echoing[3]).status == 0
        await asyncio.gather(*echoing, return_exceptions=True)


async def test_early_requests_are_read_and_served_in_turn(listen: Listen) -> None:
    """The peer had no window; what lies behind its requests is heard all the same."""
    gate = Gate()
    server = await listen(serving({CommandField.C_FIND_RQ: gate}))
    async with await associate(server) as peer:
        for number in (1, 2, 3):
            peer.send(find_rq(number))
        cancel = Command(CommandField.C_CANCEL_RQ, message_id_being_responded_to=3)
        peer.send(pdata(command_pdv(5, cancel)), pdata(command_pdv(1, echo_rq(4))))
        assert await status(peer) == 0  # the echo
        assert len(gate.requests) == 1
        for number in (0, 1, 2):
            await until(lambda n=number: len(gate.doors) > n, "its turn")  # type: ignore[misc]
            gate.doors[number].set()
            assert await status(peer) == 0
    assert [request.is_cancelled for request in gate.requests] == [False, False, True]


async def test_too_many_early_requests_wait_unread(listen: Listen) -> None:
    gate = Gate()
    server = await listen(serving({CommandField.C_FIND_RQ: gate}))
    async with await associate(server) as peer:
        (association,) = server.associations
        for number in range(1, 40):
            peer.send(find_rq(number))
        await until(lambda: association.receiving.blocked, "the pause")
        assert len(association.serving._early) == 16
        for number in range(39):
            await until(lambda n=number: len(gate.doors) > n, "its turn")  # type: ignore[misc]
            gate.doors[number].set()
            assert await status(peer) == 0
        assert not association.receiving.blocked


async def test_a_message_id_that_is_in_use(listen: Listen) -> None:
    gate = Gate()
    server = await listen(serving({CommandField.C_FIND_RQ: gate}, window=(5, 1)))
    async with await associate(server, (5, 1)) as peer:
        peer.send(find_rq(1), find_rq(1))
        assert await status(peer) == 0x0210
        gate.doors[0].set()
        assert await status(peer) == 0


async def test_a_request_with_too_large_a_data_set(listen: Listen) -> None:
    """Answered, not aborted; the data set was passed over."""
    gate = Gate()
    limits = Limits(max_data_set_in_memory=1000)
    server = await listen(serving({CommandField.C_FIND_RQ: gate}), limits=limits)
    async with await associate(server) as peer:
        peer.send(find_rq(1, bytes(1002)), pdata(command_pdv(1, echo_rq(2))))
        heard = await peer.hear()
        (pdv,) = heard.pdvs  # type: ignore[union-attr]
        answer = Command.decode(pdv.data)
        assert (answer.status, answer.error_comment) == (0x0213, "data set over 1000 bytes")
        assert await status(peer) == 0
    assert not gate.requests


def held_now() -> int:
    """Without what other tests have left for the garbage collector, which may come meanwhile."""
    gc.collect()
    return Held.bytes


async def test_requests_of_many_associations_take_so_much_memory_together(
    listen: Listen,
) -> None:
    """Each of them is within its own limit; what is over the common one is passed over."""
    gate = Gate()
    limits = Limits(max_data_set_in_memory=100_000, max_requests_in_memory=150_000)
    server = await listen(serving({CommandField.C_FIND_RQ: gate}), limits=limits)
    before = held_now()
    async with await associate(server) as first, await associate(server) as second:
        first.send(find_rq(1, bytes(100_000)))
        await until(lambda: len(gate.requests) == 1, "the first request")
        second.send(find_rq(1, bytes(60_000)))
        heard = await second.hear()
        answer = Command.decode(heard.pdvs[0].data)  # type: ignore[union-attr]
        assert (answer.status, answer.error_comment) == (
            0x0213,
            "requests take 150000 bytes already; ask again later",
        )
        # A small one has its place beside the large one; both give theirs back.
        second.send(find_rq(2, bytes(10_000)))
        await until(lambda: len(gate.requests) == 2, "the small request")
        gate.doors[0].set()
        assert await status(first) == 0
        gate.requests[0] = gate.requests[1]
        await until(lambda: Held.bytes - before <= 10_000, "the first one's memory")
        first.send(find_rq(3, bytes(100_000)))
        await until(lambda: len(gate.requests) == 3, "another large request")
    gate.requests.clear()
    for door in gate.doors:
        door.set()
    await until(lambda: Held.bytes == before, "all memory")


async def test_what_was_half_sent_takes_no_memory_any_more(listen: Listen) -> None:
    server = await listen(serving({CommandField.C_FIND_RQ: Gate()}))
    before = held_now()
    async with await associate(server) as peer:
        command = Command(
            CommandField.C_FIND_RQ,
            has_data_set=True,
            message_id=1,
            affected_sop_class_uid=STUDY_ROOT_FIND,
        )
        peer.send(pdata(command_pdv(5, command)))
        for _ in range(200):
            peer.send(pdata(PDV(5, bytes(10_000), last=False)))
        await until(lambda: Held.bytes - before >= 1_000_000, "half a request")
    await until(lambda: Held.bytes == before, "its memory")


async def test_stores_in_flight_up_to_the_window(listen: Listen) -> None:
    """Their answers come in the order in which they are kept; no data set gets into another."""
    store = Store(HeldCommit)
    accept = Accept(open_store=store, window=(3, 1))
    server = await listen(lambda rq, peer: accept, limits=SMALL)
    sizes = (10, 200_000, 70_000, 10, 150_000)
    async with await associate(server, (0, 0)) as peer:
        for number, size in enumerate(sizes, 1):
            content = noise(size, number)
            peer.send(pdata(command_pdv(3, store_rq(number, f"1.{number}"))))
            for start in range(0, size, 10_000):
                last = start + 10_000 >= size
                peer.send(pdata(PDV(3, content[start : start + 10_000], last=last)))
        await until(lambda: sum(sink.commits for sink in store.sinks) == 3, "three commits")
        (association,) = server.associations
        await until(lambda: association.receiving.blocked, "the pause")
        for number in (2, 0, 1, 4, 3):
            await until(lambda n=number: len(store.sinks) > n, "the sink")  # type: ignore[misc]
            sink = store.sinks[number]
            await until(lambda s=sink: s.commits, "the commit")  # type: ignore[misc]
            assert isinstance(sink, HeldCommit)
            sink.outcome.set_result(Outcome(number))
            assert await status(peer) == number
    for number, sink in enumerate(store.sinks, 1):
        assert sink.content == noise(sizes[number - 1], number)


async def test_a_server_that_stops_answers_all_that_is_in_flight(listen: Listen) -> None:
    store, gate = Store(HeldCommit), Gate()
    server = await listen(serving({CommandField.C_FIND_RQ: gate}, window=(4, 1), open_store=store))
    association = await dial(server, window=(4, 1))
    storing = [
        asyncio.create_task(association.c_store([b"ab"], **image(f"1.{n}"))) for n in range(2)
    ]
    finding = asyncio.create_task(association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND).last())
    await until(lambda: gate.requests and sum(s.commits for s in store.sinks) == 2, "all three")
    closing = asyncio.create_task(server.close(5))
    await asyncio.sleep(0.02)
    for sink in store.sinks:
        assert isinstance(sink, HeldCommit)
        sink.outcome.set_result(Outcome(0))
    assert [response.status for response in await asyncio.gather(*storing)] == [0, 0]
    gate.doors[0].set()
    assert (await finding).status == 0
    await closing
    assert association.is_over


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_mixture_gets_its_own_answers(loop: str, data: st.DataObject) -> None:
    """Stores, queries, echoes, cancels and breaks, in any order, over any window."""
    actions = data.draw(
        st.lists(st.sampled_from(["echo", "store", "find", "break", "cancel"]), max_size=12)
    )
    window = data.draw(st.integers(0, 4))
    cut = data.draw(st.sampled_from([16, 128, 16384, 1 << 20]))

    async def find(request: Request) -> AsyncIterator[Sequence[Reply]]:
        for _ in range(3):
            yield matches(20)
            await asyncio.sleep(0)

    async def one(association: Any, what: str, number: int) -> None:
        if what == "echo":
            assert (await association.c_echo()).status == 0
        elif what == "store":
            content = [noise(70_000, number), noise(30, number)]
            assert (await association.c_store(content, **image(f"1.{number}"))).status == 0
        else:
            async with association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND) as responses:
                found = 0
                async for response in responses:
                    found += response.is_pending
                    if what == "break":
                        return
                    if what == "cancel":
                        await responses.cancel()
            assert responses.final.status in ((0,) if what == "find" else (0, 0xFE00))
            assert found <= 60
            assert what == "cancel" or found == 60

    async def session() -> None:
        store = Store(SlowSink)
        accept = Accept(
            policy=service_policy(CLASSES),
            open_store=store,
            window=(window, 1),
            handlers={CommandField.C_FIND_RQ: find},
        )
        limits = Limits(max_length=cut, buffer_size=64 << 10)
        async with (
            asyncio.timeout(30),
            await serve("127.0.0.1", 0, lambda rq, peer: accept, limits=limits) as server,
            await dial(server, window=(0, 1), limits=limits) as association,
        ):
            await asyncio.gather(
                *(one(association, what, number) for number, what in enumerate(actions))
            )
            assert len(association.requests.operations) <= actions.count("break")
        contents = sorted(bytes(sink.content) for sink in store.sinks)
        assert contents == sorted(
            noise(70_000, number) + noise(30, number)
            for number, what in enumerate(actions)
            if what == "store"
        )

    if loop == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        uvloop.run(session())
    else:
        asyncio.run(session())
