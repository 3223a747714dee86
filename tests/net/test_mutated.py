"""Mutated conversations over TCP: whatever comes, nothing but the association ends."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.test_wire_fuzz import MESSAGES, REQUESTOR_SAYS, SHORT, mutate, split
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import Sink, SlowSink, Store
from tests.net.test_association import dial
from tests.net.test_store import SMALL


@pytest.mark.parametrize("seed", range(3))
async def test_a_server_survives_whatever_comes(
    listen: Listen, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    chance = random.Random(seed)
    store = Store(lambda: chance.choice((Sink, SlowSink))())
    server = await listen(store.authorise, limits=SMALL)
    for _ in range(150):
        stream = REQUESTOR_SAYS[0] if chance.random() < 0.9 else mutate(REQUESTOR_SAYS[0], chance)
        for _ in range(chance.randrange(8)):
            pdu = chance.choice((*REQUESTOR_SAYS, *SHORT) if chance.random() < 0.2 else MESSAGES)
            stream += mutate(pdu, chance) if chance.random() < 0.3 else pdu
        async with await RawPeer.connect(server.port) as peer:
            for piece in split(stream, chance):
                peer.send(piece)
            peer.end_sending()
            await peer.hear_end()
    async with await dial(server) as association:
        assert (await association.c_echo()).status == 0
    await until(lambda: not server.associations and not server._unassociated, "their ends")
    for sink in store.sinks:
        await until(lambda s=sink: s.commits or s.aborts, "each sink's end")  # type: ignore[misc]
        assert len(sink.aborts) <= 1
        assert sink.commits <= 1
        assert not getattr(sink, "disturbed", False)
    errors = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert not errors
