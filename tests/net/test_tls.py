"""TLS: certificates on both sides, silent handshakes, large data sets, and DCMTK."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import zlib
from pathlib import Path
from typing import Any

import pytest
from tests import peers
from tests.net.certificates import Authority
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import SlowSink, Store
from tests.net.test_association import dial, image, status
from tests.net.test_store import SMALL, noise
from tests.unit.wire.playbook import PDV, an_rq, command_pdv, echo_rq, pdata, store_rq

from hilum.errors import AssociationError, ConfigurationError, ConnectFailed
from hilum.net.limits import Limits, Timeouts
from hilum.net.link import Sweeper
from hilum.net.proxy import SIGNATURE
from hilum.net.service import Accept, Peer
from hilum.net.tls import client_context, server_context
from hilum.wire.pdu import AssociateAC, AssociateRQ


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
def ours(authority: Authority) -> ssl.SSLContext:
    return server_context(*authority.issue("server"))


@pytest.fixture
def mutual(authority: Authority) -> ssl.SSLContext:
    return server_context(*authority.issue("server"), client_ca=authority.ca)


class Gate:
    def __init__(self, store: Store | None = None) -> None:
        self.peers: list[Peer] = []
        self.certificates: list[Any] = []
        self.store = store

    def __call__(self, rq: AssociateRQ, peer: Peer) -> Accept:
        self.peers.append(peer)
        self.certificates.append(peer.certificate)
        return Accept(open_store=self.store)


async def test_an_association_over_tls(
    listen: Listen, authority: Authority, ours: ssl.SSLContext
) -> None:
    gate = Gate()
    server = await listen(gate, tls=ours)
    async with await dial(server, tls=client_context(ca=authority.ca)) as association:
        assert (await association.c_echo()).status == 0
        assert association.peer.tls is not None
        assert association.peer.certificate is not None
        with_name = client_context(ca=authority.ca)
        async with await dial(server, tls=with_name, server_hostname="localhost") as other:
            assert (await other.c_echo()).status == 0
    assert gate.peers[0].tls is not None
    assert gate.certificates == [None, None]


async def test_a_balancers_header_comes_before_the_handshake(
    listen: Listen, authority: Authority, ours: ssl.SSLContext
) -> None:
    """PROXY v2, as balancers that leave TLS to us send it: in plain, first of all."""
    gate = Gate()
    server = await listen(gate, tls=ours, proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    addresses = bytes((198, 51, 100, 7, 10, 0, 0, 1)) + (40000).to_bytes(2) + (104).to_bytes(2)
    header = SIGNATURE + b"\x21\x11" + len(addresses).to_bytes(2) + addresses
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", server.port))
    await loop.sock_sendall(sock, header)
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=client_context(ca=authority.ca), server_hostname="localhost"
    )
    writer.write(an_rq().encode())
    assert (await reader.readexactly(1)) == b"\2"
    (peer,) = gate.peers
    assert (peer.address, peer.port, peer.proxied) == ("198.51.100.7", 40000, True)
    assert peer.tls is not None
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def test_a_header_inside_the_tls_session_is_no_header(
    listen: Listen, authority: Authority, ours: ssl.SSLContext
) -> None:
    gate = Gate()
    server = await listen(gate, tls=ours, proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    with pytest.raises(ConnectFailed):
        await dial(server, tls=client_context(ca=authority.ca))
    assert gate.peers == []


@pytest.mark.parametrize("make", ["Sink", "SlowSink"])
async def test_large_data_sets_over_tls(
    listen: Listen, authority: Authority, ours: ssl.SSLContext, make: str
) -> None:
    store = Store(SlowSink) if make == "SlowSink" else Store()
    server = await listen(Gate(store), tls=ours, limits=SMALL)
    content = noise(4 << 20)
    async with await dial(server, tls=client_context(ca=authority.ca)) as association:
        for number in range(3):
            response = await association.c_store([content], **image(f"1.{number}"))
            assert response.status == 0
            assert (await association.c_echo()).status == 0
    for sink in store.sinks:
        assert zlib.crc32(sink.content) == zlib.crc32(content)
        assert not getattr(sink, "disturbed", False)


async def test_a_client_certificate_is_known_when_it_is_decided(
    listen: Listen, authority: Authority, mutual: ssl.SSLContext
) -> None:
    """Also where A-ASSOCIATE-RQ comes in one segment with the end of the handshake."""
    gate = Gate()
    server = await listen(gate, tls=mutual)
    certificate, key = authority.issue("modality")
    context = client_context(ca=authority.ca, certificate=certificate, key=key)
    for _ in range(10):
        async with await dial(server, tls=context) as association:
            assert (await association.c_echo()).status == 0
    assert len(gate.certificates) == 10
    for seen in gate.certificates:
        assert seen is not None
        assert seen["subject"] == ((("commonName", "modality"),),)


async def test_a_request_in_the_same_write_as_the_handshakes_end(
    listen: Listen, authority: Authority, mutual: ssl.SSLContext
) -> None:
    gate = Gate()
    server = await listen(gate, tls=mutual)
    certificate, key = authority.issue("modality")
    context = client_context(ca=authority.ca, certificate=certificate, key=key)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    async with await RawPeer.connect(server.port) as peer:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.send(outgoing.read())
                incoming.write(await peer.reader.read(65536))
        tls.write(an_rq().encode())
        peer.send(outgoing.read())
        await until(lambda: gate.peers, "the request")
    assert gate.certificates[0] is not None


async def test_a_client_without_a_certificate_or_with_a_strangers(
    listen: Listen,
    authority: Authority,
    stranger: Authority,
    mutual: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await listen(Gate(), tls=mutual)
    certificate, key = stranger.issue("intruder")
    strange = client_context(ca=authority.ca, certificate=certificate, key=key)
    for context in (client_context(ca=authority.ca), strange):
        with pytest.raises(AssociationError):
            await dial(server, tls=context)
    await until(lambda: not server._unassociated, "their ends")
    assert server.accepted == 0
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_a_client_certificate_that_is_asked_for_but_not_required(
    listen: Listen, authority: Authority
) -> None:
    optional = server_context(
        *authority.issue("server"), client_ca=authority.ca, require_client_certificate=False
    )
    gate = Gate()
    server = await listen(gate, tls=optional)
    async with await dial(server, tls=client_context(ca=authority.ca)) as association:
        assert (await association.c_echo()).status == 0
    assert gate.certificates == [None]


async def test_a_server_that_we_do_not_trust(
    listen: Listen, stranger: Authority, authority: Authority, ours: ssl.SSLContext
) -> None:
    server = await listen(Gate(), tls=ours)
    with pytest.raises(ConnectFailed, match="certificate"):
        await dial(server, tls=client_context(ca=stranger.ca))
    with pytest.raises(ConnectFailed, match="certificate"):
        await dial(server, tls=client_context())
    with pytest.raises(ConnectFailed, match=r"mismatch|not valid"):
        await dial(server, tls=client_context(ca=authority.ca), server_hostname="pacs.invalid")
    for context in (
        client_context(verify=False),
        client_context(ca=authority.ca, check_hostname=False),
    ):
        async with await dial(server, tls=context, server_hostname="pacs.invalid") as association:
            assert (await association.c_echo()).status == 0
    await until(lambda: not server._unassociated, "their ends")


async def test_plain_and_tls_do_not_mix(
    listen: Listen, authority: Authority, ours: ssl.SSLContext
) -> None:
    timeouts = Timeouts(artim=1, connect=1, associate=1)
    secure, plain = await listen(Gate(), tls=ours, timeouts=timeouts), await listen()
    with pytest.raises(AssociationError):
        await dial(secure, timeouts=timeouts)
    with pytest.raises(AssociationError):
        await dial(plain, tls=client_context(ca=authority.ca), timeouts=timeouts)


async def test_silent_handshakes_hold_up_nobody_and_are_bounded(
    listen: Listen, authority: Authority, ours: ssl.SSLContext
) -> None:
    """Field notes A 27."""
    server = await listen(Gate(), tls=ours, limits=Limits(max_unassociated=10))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            peer = await RawPeer.connect(server.port)
            await stack.enter_async_context(peer)
            peer.send(bytes.fromhex("160301"))
        async with await dial(server, tls=client_context(ca=authority.ca)) as association:
            assert (await association.c_echo()).status == 0
        # Of those that were evicted in their handshake, nothing is left either.
        await until(lambda: len(server._tasks) <= 12, "the end of the evicted ones' tasks")
        async with asyncio.timeout(5):
            await server.close()


async def test_a_silent_handshake_ends_after_artim(listen: Listen, ours: ssl.SSLContext) -> None:
    server = await listen(Gate(), tls=ours, timeouts=Timeouts(artim=0.1))
    async with await RawPeer.connect(server.port) as peer:
        await peer.hear_end()
    await until(lambda: not server._unassociated, "the end")


async def test_a_peer_that_ends_without_saying_so(
    listen: Listen, authority: Authority, ours: ssl.SSLContext
) -> None:
    store = Store()
    server = await listen(Gate(store), tls=ours)
    context = client_context(ca=authority.ca)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
    )
    async with RawPeer(reader, writer) as peer:
        peer.send(an_rq())
        assert isinstance(await peer.hear(), AssociateAC)
        peer.send(pdata(command_pdv(1, echo_rq())))
        assert await status(peer) == 0
        peer.send(pdata(command_pdv(3, store_rq()), PDV(3, bytes(9000), last=False)))
        await until(lambda: store.sinks, "the sink")
        writer.transport.abort()
    await until(lambda: not server.associations, "the end")
    assert len(store.sinks[0].aborts) == 1


def test_files_that_are_not_there_or_do_not_fit(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("one")
    _, other = authority.issue("two")
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for call in (
        lambda: server_context(tmp_path / "none.pem"),
        lambda: server_context(certificate, other),
        lambda: server_context(junk, key),
        lambda: server_context(certificate, key, client_ca=junk),
        lambda: client_context(ca=tmp_path / "none.pem"),
        lambda: client_context(ca=authority.ca, certificate=certificate, key=other),
    ):
        with pytest.raises(ConfigurationError):
            call()


def test_what_the_contexts_allow(authority: Authority) -> None:
    context = server_context(*authority.issue("server"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    older = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert older
    assert all(name.startswith(("ECDHE-", "DHE-")) for name in older)
    assert all("GCM" in name or "CHACHA20" in name for name in older)


@pytest.mark.interop
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_dcmtk_over_tls(
    listen: Listen, authority: Authority, mutual: ssl.SSLContext, dcmtk: None, tmp_path: Path
) -> None:
    gate = Gate(Store())
    server = await listen(gate, tls=mutual)
    certificate, key = authority.issue("dcmtk")
    options = ["+tls", str(key), str(certificate), "+cf", str(authority.ca)]
    done = await asyncio.to_thread(peers.echoscu, "HILUM", server.port, *options)
    done.check()
    assert gate.certificates[0] is not None
    anonymous = ["+tla", "-ic"]
    refused = await asyncio.to_thread(peers.echoscu, "HILUM", server.port, *anonymous)
    assert refused.returncode != 0
    await until(lambda: not Sweeper.of(asyncio.get_running_loop())._links, "the links' ends")


@pytest.mark.interop
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_dcmtk_stores_over_tls_and_plain(
    listen: Listen, authority: Authority, ours: ssl.SSLContext, dcmtk: None
) -> None:
    from pydicom.data import get_testdata_file

    file = get_testdata_file("CT_small.dcm")
    assert isinstance(file, str)
    store = Store()
    secure = await listen(Gate(store), tls=ours)
    plain = await listen(Gate(store))
    for server, options in ((secure, ["+tla", "-ic"]), (plain, []), (plain, ["-pdu", "4096"])):
        for _ in range(2):
            done = await asyncio.to_thread(
                peers.storescu, "HILUM", server.port, [file], "-xe", *options
            )
            done.check()
    assert len(store.sinks) == 6
    assert len({bytes(sink.content) for sink in store.sinks}) == 1
    assert len(store.sinks[0].content) > 30_000
