"""After two hundred associations of every fate, no descriptor, task, link or loop is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import weakref

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import Broken, Sink, SlowSink, Store
from tests.net.test_association import dial, image
from tests.net.test_store import SMALL, noise
from tests.unit.wire.playbook import PDV, an_rq, command_pdv, pdata, store_rq

from hilum.errors import HilumError
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.link import Link, Sweeper
from hilum.net.server import serve
from hilum.net.service import Accept, Peer, Reject
from hilum.wire.pdu import Abort, AssociateRQ, ReleaseRQ


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
async def test_two_hundred_associations(listen: Listen, caplog: pytest.LogCaptureFixture) -> None:
    # A record that is kept for the report keeps its traceback, and that our associations.
    caplog.set_level(logging.CRITICAL + 1, "hilum")
    fates = [
        Sink,
        SlowSink,
        lambda: Broken("write", later=False),
        lambda: Broken("commit", later=True),
    ]
    store = Store(lambda: fates[len(store.commands) % len(fates)]())

    def authorise(rq: AssociateRQ, peer: Peer) -> Accept | Reject:
        if rq.called_ae_title == "NO":
            return Reject()
        if rq.called_ae_title == "FAIL":
            raise ValueError("a bug")
        return Accept(open_store=store)

    server = await listen(authorise, limits=SMALL)

    async def one(number: int) -> None:
        kind = number % 8
        if kind == 0:
            async with await RawPeer.associate(server.port) as peer:
                peer.send(pdata(command_pdv(3, store_rq()), PDV(3, bytes(16_000), last=False)))
                peer.send(Abort() if number % 16 else b"nonsense")
                return
        if kind == 1:
            async with await RawPeer.connect(server.port) as peer:
                peer.send(an_rq().encode()[: number % 100])
                return
        if kind == 2:
            async with await RawPeer.associate(server.port) as peer:
                peer.send(ReleaseRQ())
                peer.reset()
                return
        called = {3: "NO", 4: "FAIL"}.get(kind, "YES")
        with contextlib.suppress(HilumError):
            async with await dial(server, called=called) as association:
                await association.c_echo()
                await association.c_store([noise(200_000)], **image())
                if kind == 5:
                    association.abort()
                if kind == 6:
                    storing = asyncio.create_task(association.c_store([noise(2 << 20)], **image()))
                    await asyncio.sleep(0)
                    storing.cancel()
                    await asyncio.gather(storing, return_exceptions=True)

    async def quiet() -> None:
        links = Sweeper.of(asyncio.get_running_loop())._links
        await until(lambda: not server.associations and not server._unassociated, "associations")
        await until(lambda: not links, "links are left")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "tasks are left")

    tasks = len(asyncio.all_tasks()) + 1
    await asyncio.gather(*(one(number) for number in range(8)))
    await quiet()
    gc.collect()
    before = descriptors()
    for start in range(0, 200, 20):
        await asyncio.gather(*(one(number) for number in range(start, start + 20)))
    await quiet()
    store.sinks.clear()  # which keep the errors they were aborted with
    gc.collect()
    await until(lambda: descriptors() <= before, "descriptors are left")
    assert not [each for each in gc.get_objects() if isinstance(each, Link) and not each.closed]
    alive = [each for each in gc.get_objects() if isinstance(each, Association)]
    assert len(alive) < 5


def test_a_loop_that_has_ended_is_forgotten() -> None:
    """With it go its buffers: a program may run many loops one after another."""

    async def session() -> None:
        async with (
            await serve("127.0.0.1", 0, lambda rq, peer: Accept(open_store=Store())) as server,
            await connect("127.0.0.1", server.port) as association,
        ):
            await association.c_echo()
        await until(lambda: not Sweeper.of(asyncio.get_running_loop())._links, "links are left")

    loops = []
    for _ in range(3):
        with asyncio.Runner() as runner:
            runner.run(session())
            loops.append(weakref.ref(runner.get_loop()))
    del runner
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3
