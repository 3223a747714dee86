"""Peers that are silent, trickle, do not read and do not close, and the deadlines that end them."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import HeldCommit, Store
from tests.net.test_association import dial, image, rq_with_roles, status
from tests.unit.wire.playbook import (
    PDV,
    an_ac,
    an_rq,
    command_pdv,
    echo_rq,
    pdata,
    store_rq,
)

from hilum.errors import AssociationTimeout, ConnectionLost
from hilum.net.association import Association
from hilum.net.client import connect
from hilum.net.limits import Limits, Timeouts
from hilum.net.server import Server
from hilum.net.service import Accept, Outcome, Reject
from hilum.wire.pdu import Abort, AssociateRJ, AssociateRQ, ReleaseRP, ReleaseRQ

# Shorter and a machine that stands still for a moment lets it pass before anything is said.
SHORT = 0.3


async def closed(server: Server) -> None:
    await until(
        lambda: not server._unassociated and not server.associations, "the connection's end"
    )


async def test_a_silent_connection_is_closed_after_artim(listen: Listen) -> None:
    server = await listen(timeouts=Timeouts(artim=SHORT))
    async with await RawPeer.connect(server.port) as peer:
        assert await peer.hear_end() == b""
    await closed(server)


async def test_a_request_that_trickles_is_closed_after_artim(listen: Listen) -> None:
    server = await listen(timeouts=Timeouts(artim=SHORT))
    async with await RawPeer.connect(server.port) as peer:
        ended = asyncio.create_task(peer.hear_end())
        for byte in an_rq().encode():
            if ended.done():
                break
            peer.send(bytes((byte,)))
            await asyncio.sleep(SHORT / 10)
        assert await ended == b""
        assert server.accepted == 0


@pytest.mark.parametrize("how", ["rejected", "aborted", "nonsense", "released", "abort of ours"])
async def test_a_peer_that_never_closes(listen: Listen, how: str) -> None:
    decision = Reject() if how == "rejected" else Accept()
    server = await listen(lambda rq, peer: decision, timeouts=Timeouts(artim=SHORT))
    async with await RawPeer.connect(server.port) as peer:
        peer.send(an_rq())
        heard = await peer.hear()
        if how == "rejected":
            assert heard == AssociateRJ(1, 1, 1)
        elif how == "aborted":
            peer.send(Abort())
        elif how == "nonsense":
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await peer.hear() == Abort(2, 1)
        elif how == "released":
            peer.send(ReleaseRQ())
            assert await peer.hear() == ReleaseRP()
        else:
            (association,) = server.associations
            association.abort()
            assert await peer.hear() == Abort()
        assert await peer.hear() is None
        await closed(server)


async def test_an_idle_association_is_aborted(listen: Listen) -> None:
    ends: list[Exception | None] = []
    server = await listen(
        lambda rq, peer: Accept(ended=lambda a, error: ends.append(error)),
        timeouts=Timeouts(idle=SHORT),
    )
    async with await RawPeer.associate(server.port) as peer:
        assert await peer.hear() == Abort()
    assert isinstance(ends[0], AssociationTimeout)
    assert "idle" in str(ends[0])


async def test_an_association_is_not_idle_while_an_answer_is_pending(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    async with await dial(server) as association:
        storing = asyncio.create_task(association.c_store([b"ab"], **image()))
        await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
        (other,) = server.associations
        hours = asyncio.get_running_loop().time() + 10_000
        for link in (association.link, other.link):
            link.check(hours)
        sink = store.sinks[0]
        assert isinstance(sink, HeldCommit)
        sink.outcome.set_result(Outcome(0))
        assert (await storing).status == 0


async def test_without_an_idle_timeout_nothing_ends(listen: Listen) -> None:
    server = await listen(timeouts=Timeouts(idle=None))
    async with await dial(server, timeouts=Timeouts(idle=None)) as association:
        (other,) = server.associations
        hours = asyncio.get_running_loop().time() + 1e6
        association.link.check(hours)
        other.link.check(hours)
        assert (await association.c_echo()).status == 0


@pytest.mark.parametrize("what", ["header", "command", "data", "between"])
async def test_a_message_that_trickles_is_aborted(listen: Listen, what: str) -> None:
    server = await listen(Store().authorise, timeouts=Timeouts(message=SHORT))
    message = pdata(command_pdv(3, store_rq())).encode() + pdata(PDV(3, bytes(5000))).encode()
    begun = {"header": 3, "command": 20, "data": 2000, "between": len(message) - 5012}[what]
    async with await RawPeer.associate(server.port) as peer:
        peer.send(message[:begun])
        ended = asyncio.create_task(peer.hear())
        for byte in message[begun : begun + 200]:
            if ended.done():
                break
            peer.send(bytes((byte,)))
            await asyncio.sleep(SHORT / 10)
        assert await ended == Abort()
    await closed(server)


async def test_a_steady_sender_is_not_aborted(listen: Listen) -> None:
    """Slow, but above ``min_receive_rate`` in every period."""
    store = Store()
    limits = Limits(min_receive_rate=1000)
    server = await listen(store.authorise, timeouts=Timeouts(message=1.0), limits=limits)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq())))
        for _ in range(25):
            peer.send(pdata(PDV(3, bytes(2000), last=False)))
            await asyncio.sleep(0.1)
        peer.send(pdata(PDV(3, b"")))
        assert await status(peer) == 0


async def test_a_peer_that_stops_reading_what_we_send(listen: Listen) -> None:
    server = await listen(Store().authorise, timeouts=Timeouts(write=SHORT))
    async with await RawPeer.associate(server.port, rq_with_roles()) as peer:
        (association,) = server.associations
        # Its stream reader stops reading by itself once it holds 128 KiB.
        with pytest.raises(AssociationTimeout, match="takes no data"):
            await association.c_store([bytes(64 << 20)], **image())
        await closed(server)
        assert len(await peer.hear_end()) < 64 << 20


async def test_a_peer_that_asks_and_does_not_read_the_answers(listen: Listen) -> None:
    """Its requests wait with its answers, so neither fills our memory."""
    server = await listen(timeouts=Timeouts(write=0.3))
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", server.port))
    await loop.sock_sendall(sock, an_rq().encode())
    await until(lambda: server.associations, "the association")
    (association,) = server.associations
    flood = pdata(command_pdv(1, echo_rq())).encode() * 1000
    most = 0

    async def ask() -> None:
        while True:
            await loop.sock_sendall(sock, flood)

    asking = asyncio.create_task(ask())
    transport = association.link.transport
    assert transport is not None
    while not association.is_over:
        most = max(most, transport.get_write_buffer_size())
        await asyncio.sleep(0.005)
    asking.cancel()
    sock.close()
    await asyncio.gather(asking, return_exceptions=True)
    assert most < 1 << 20
    assert "takes no data" in str(association.error)
    await closed(server)


async def test_a_peer_that_asks_much_and_reads_slowly_gets_every_answer(listen: Listen) -> None:
    server = await listen()
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        count = 100_000  # the kernel's buffers hold the answers to half of them
        peer.send(pdata(command_pdv(1, echo_rq())).encode() * count)
        await until(lambda: association.link.is_full, "a full transport")
        expected = pdata(command_pdv(1, echo_rq().response(0))).encode()
        async with asyncio.timeout(30):
            assert await peer.reader.readexactly(count * len(expected)) == expected * count


async def test_our_release_without_an_answer(listen: Listen) -> None:
    server = await listen()
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        with pytest.raises(AssociationTimeout, match="no answer to A-RELEASE-RQ"):
            await association.release(SHORT)
        assert await peer.hear() == ReleaseRQ()
        assert await peer.hear() == Abort()


async def test_cancelling_a_release_aborts(listen: Listen) -> None:
    server = await listen()
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        releasing = asyncio.create_task(association.release())
        assert await peer.hear() == ReleaseRQ()
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing
        assert await peer.hear() == Abort()
        assert association.is_over


async def test_a_release_collision_at_the_acceptor(listen: Listen) -> None:
    server = await listen()
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        releasing = asyncio.create_task(association.release())
        assert await peer.hear() == ReleaseRQ()
        peer.send(ReleaseRQ())
        peer.send(ReleaseRP())
        assert await peer.hear() == ReleaseRP()
        peer.close()
        await releasing
        assert association.error is None


class Acceptor:
    """A raw peer in the acceptor's place."""

    def __init__(self) -> None:
        self.peer: asyncio.Future[RawPeer] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Acceptor:
        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.peer.set_result(RawPeer(reader, writer))

        self.server = await asyncio.start_server(take, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        (await self.peer).writer.transport.abort()

    async def associate(self, timeouts: Timeouts | None = None) -> tuple[RawPeer, Association]:
        connecting = asyncio.create_task(connect("127.0.0.1", self.port, timeouts=timeouts))
        peer = await self.peer
        assert isinstance(await peer.hear(), AssociateRQ)
        peer.send(an_ac())
        return peer, await connecting


@pytest.mark.parametrize("answers", [True, False])
async def test_a_release_collision_at_the_requestor(answers: bool) -> None:
    async with Acceptor() as acceptor:
        peer, association = await acceptor.associate(Timeouts(release=0.2))
        releasing = asyncio.create_task(association.release())
        assert await peer.hear() == ReleaseRQ()
        peer.send(ReleaseRQ())
        assert await peer.hear() == ReleaseRP()
        if answers:
            peer.send(ReleaseRP())
            await releasing
            assert association.error is None
        else:
            with pytest.raises(AssociationTimeout):
                await releasing
            assert await peer.hear() == Abort()
        # Nobody waits for a peer that has no more to say.
        assert await peer.hear() is None


async def test_a_requestor_that_gives_up_closes_by_itself() -> None:
    async with Acceptor() as acceptor:
        peer, association = await acceptor.associate()
        association.abort()
        assert await peer.hear() == Abort()
        assert await peer.hear() is None
        await association.wait_closed()


async def test_an_abort_frees_a_sender_whom_the_peer_does_not_read() -> None:
    """The transport still holds bytes that nobody takes; whoever sends hears at once anyway."""
    async with Acceptor() as acceptor:
        peer, association = await acceptor.associate(Timeouts(artim=0.5))
        context = association.context_for("1.2.840.10008.1.1")
        storing = asyncio.create_task(
            association.c_store(
                [bytes(64 << 20)],
                sop_class_uid=context.abstract_syntax,
                sop_instance_uid="1.2",
                transfer_syntax_uid=context.transfer_syntax,
            )
        )
        await until(lambda: association.link.is_full, "a full transport")
        peer.send(Abort(2, 0))
        async with asyncio.timeout(5):
            with pytest.raises(Exception, match="aborted by the peer"):
                await storing
        await association.wait_closed()


async def test_a_connection_that_is_cut(listen: Listen) -> None:
    server = await listen()
    association = await dial(server)
    (other,) = server.associations
    other.link.kill()
    with pytest.raises(ConnectionLost):
        await association.c_echo()
    await association.wait_closed()
    assert isinstance(association.error, ConnectionLost)
