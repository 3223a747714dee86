"""What keeps a message from waiting for an acknowledgement: nothing here is timed, it is looked at."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import Store
from tests.net.test_association import dial, image
from tests.unit.wire.playbook import PDV, an_rq, command_pdv, pdata, store_rq

from hilum.net import link
from hilum.net.link import Link
from hilum.net.service import Accept


class Writes:
    """An observer that counts what is given to the transport at once."""

    def __init__(self) -> None:
        self.sent_by: dict[Link, list[int]] = {}

    def opened(self, link: Link) -> None:
        self.sent_by[link] = []

    def received(self, link: Link, data: memoryview) -> None:
        """Not of interest."""

    def sent(self, link: Link, data: list[Any]) -> None:
        self.sent_by[link].append(sum(map(len, data)))

    def closed(self, link: Link, error: Exception | None) -> None:
        """Not of interest."""


async def test_a_response_is_one_write_with_nagle_off(listen: Listen) -> None:
    """Two small writes cost 44 ms an instance with an ordinary peer (field notes A 37)."""
    writes = Writes()
    server = await listen(lambda rq, peer: Accept(open_store=Store()), observer=writes)
    async with await dial(server) as association:
        mine = association.link.transport.get_extra_info("socket")
        assert mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for _ in range(3):
            response = await association.c_store((b"ab" * 100,), **image())
            assert response.status == 0
        (theirs,) = writes.sent_by
        assert theirs.transport is not None
        sock = theirs.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        # A-ASSOCIATE-AC, then one write for each response: header and command set together.
        assert len(writes.sent_by[theirs]) == 4


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux has it")
async def test_a_message_half_received_is_acknowledged_at_once(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender's Nagle holds back the rest until then (field notes A 37)."""
    asked: list[int] = []
    acknowledge = Link.quick_acknowledge

    def counted(self: Link) -> None:
        acknowledge(self)
        assert self._sock is not None, "the system refused it"
        asked.append(self.bytes_received)

    monkeypatch.setattr(Link, "quick_acknowledge", counted)
    assert link._QUICKACK == socket.TCP_QUICKACK
    server = await listen(lambda rq, peer: Accept(open_store=Store()))
    async with await RawPeer.connect(server.port) as peer:
        peer.send(an_rq())
        await peer.hear()
        before = len(asked)
        # A command whose data set has not come yet, as two writes of the sender with Nagle on.
        peer.send(pdata(command_pdv(3, store_rq())))
        await until(lambda: len(asked) > before, "nothing was acknowledged at once")
        peer.send(pdata(PDV(3, b"ab")))
        await peer.hear()
        settled = len(asked)
    assert settled <= before + 2, "whole messages are acknowledged by their response"
