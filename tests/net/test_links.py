"""Links that split, stall and cut what is said, under every kind of service at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from tests.net.conftest import Listen
from tests.net.sinks import Store
from tests.net.test_association import BOTH_ROLES, image
from tests.net.test_retrieve import made
from tests.net.test_services import CONTEXTS, keys, matches, serving
from tests.net.test_store import noise

from hilum.errors import AssociationError
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.retrieve import retrieve_on
from hilum.net.service import Reply, Request
from hilum.services.sop_classes import STUDY_ROOT_FIND, STUDY_ROOT_GET
from hilum.wire.command import CommandField

LARGE = noise(3 << 20)


class Proxy:
    """Carries bytes both ways in pieces of ``size``; after ``most`` bytes it stalls or cuts."""

    def __init__(self, port: int, size: int, most: int | None = None, *, cut: bool = True) -> None:
        self.port, self.size, self.most, self.cut = port, size, most, cut
        self.carried = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self.take, "127.0.0.1", 0)
        self.listens = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        ways = [
            asyncio.ensure_future(self.carry(reader, back)),
            asyncio.ensure_future(self.carry(there, writer)),
        ]
        self.tasks.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (writer, back):
                each.transport.abort()

    async def carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while piece := await source.read(self.size):
            if self.most is not None and self.carried > self.most:
                if self.cut:
                    return
                await asyncio.Event().wait()
            self.carried += len(piece)
            target.write(piece)
            await target.drain()


async def find(request: Request) -> AsyncIterator[Sequence[Reply]]:
    yield matches(50)
    yield [Reply(0xFF00, LARGE), *matches(3)]


async def act(request: Request) -> Reply:
    return Reply(0, request.data)


def get(request: Request) -> AsyncIterator[Sequence[Reply]]:
    return retrieve_on(request, made(20))


HANDLERS: Any = {
    CommandField.C_FIND_RQ: find,
    CommandField.C_GET_RQ: get,
    CommandField.N_ACTION_RQ: act,
}


async def everything(association: Association, rounds: int = 1) -> None:
    from tests.net.test_services import COMMITMENT

    for number in range(rounds):
        assert (await association.c_store([noise(90_000)], **image(f"1.{number}"))).status == 0
        found = [
            response.data
            async for response in association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND)
        ]
        assert found == [
            *(reply.data for reply in matches(50)),
            LARGE,
            *(reply.data for reply in matches(3)),
            None,
        ]
        assert (await association.c_get(keys(), sop_class_uid=STUDY_ROOT_GET).last()).status == 0
        response = await association.n_action(noise(70_000), action_type_id=1, **COMMITMENT)
        assert response.data == noise(70_000)


async def dial(port: int, store: Store, **arguments: Any) -> Association:
    return await connect(
        "127.0.0.1", port, contexts=CONTEXTS, roles=(BOTH_ROLES,), open_store=store, **arguments
    )


@pytest.mark.parametrize("size", [11, 1000, 70_000])
async def test_pieces_of_any_size(listen: Listen, size: int, monkeypatch: Any) -> None:
    if size == 11:
        monkeypatch.setattr("tests.net.test_links.LARGE", LARGE[: 1 << 16])
    store, got = Store(), Store()
    server = await listen(serving(HANDLERS, open_store=store))
    async with Proxy(server.port, size) as proxy:
        association = await dial(proxy.listens, got, limits=Limits(buffer_size=64 << 10))
        await everything(association)
        await association.release()
    assert store.sinks[0].content == noise(90_000)
    assert [bytes(sink.content) for sink in got.sinks] == [source.data for source in made(20)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "stalled"])
async def test_links_that_fail(listen: Listen, seed: int, cut: bool) -> None:
    """Whoever waits is told; nothing is left behind on either side."""
    store, got = Store(), Store()
    times = Timeouts(dimse=0.3, message=0.3, write=0.3, artim=0.3, release=0.3)
    server = await listen(serving(HANDLERS, open_store=store), timeouts=times)
    most = random.Random(seed).randrange(600, 4 << 20)
    async with Proxy(server.port, 16_384, most, cut=cut) as proxy:
        association = await dial(proxy.listens, got, timeouts=times)
        with pytest.raises(AssociationError):
            await everything(association, 3)
        with pytest.raises(AssociationError):
            await association.c_echo()
        await association.wait_closed()
    for sink in (*store.sinks, *got.sinks):
        assert sink.commits + len(sink.aborts) >= 1


async def test_a_page_in_the_middle_of_a_message_of_ours(listen: Listen) -> None:
    """A large reply takes its turn with what else is being sent; a handler that goes is passed."""
    server = await listen(serving(HANDLERS, window=(4, 4), open_store=Store()))
    gate = asyncio.Event()

    async def gated() -> Any:
        yield b"ab"
        await gate.wait()
        yield b"cd"

    got = Store()
    association = await dial(server.port, got, window=(4, 4))
    (other,) = server.associations
    storing = asyncio.create_task(other.c_store(gated(), **image()))
    responses = association.c_find(keys(), sop_class_uid=STUDY_ROOT_FIND)
    finding = asyncio.create_task(responses.last())
    await asyncio.sleep(0.02)
    assert not finding.done()
    gate.set()
    assert (await storing).status == 0
    assert (await finding).status == 0
    await association.release()
    assert got.sinks[0].content == b"abcd"
