"""Who is let in: authorisation, limits, titles that are no text, PROXY headers, and intruders."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import resource
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.test_association import dial
from tests.unit.wire.playbook import CONTEXTS, an_rq, command_pdv, echo_rq, pdata

from hilum.errors import AssociationRejected, LocalProtocolError
from hilum.net.limits import Limits, Timeouts
from hilum.net.proxy import SIGNATURE
from hilum.net.service import Accept, Peer, Reject
from hilum.wire.items import ExtendedNegotiation
from hilum.wire.pdu import Abort, AssociateAC, AssociateRJ, AssociateRQ, PresentationContext

LIMIT = AssociateRJ(2, 3, 2)
CONGESTION = AssociateRJ(2, 3, 1)


async def answer(server: Any, rq: AssociateRQ | None = None) -> tuple[RawPeer, object]:
    peer = await RawPeer.connect(server.port)
    peer.send(rq or an_rq())
    return peer, await peer.hear()


# ── the decision ────────────────────────────────────────────────────────────────────────────


async def allow(rq: AssociateRQ, peer: Peer) -> Accept:
    await asyncio.sleep(0)
    return Accept()


async def deny(rq: AssociateRQ, peer: Peer) -> Reject:
    return Reject.unknown_calling_title()


async def fail_later(rq: AssociateRQ, peer: Peer) -> Accept:
    await asyncio.sleep(0)
    raise ValueError("a bug")


def fail_now(rq: AssociateRQ, peer: Peer) -> Accept:
    raise ValueError("a bug")


async def hang(rq: AssociateRQ, peer: Peer) -> Accept:
    await asyncio.Event().wait()
    raise AssertionError


def bad_policy(context: PresentationContext) -> str | int:
    raise KeyError("a bug")


def unsendable(rq: AssociateRQ, peer: Peer) -> Accept:
    return Accept(items=(ExtendedNegotiation("1.2", bytes(70_000)),))


@pytest.mark.parametrize(
    ("authorise", "expected"),
    [
        (allow, AssociateAC),
        (deny, AssociateRJ(1, 1, 3)),
        (fail_later, CONGESTION),
        (fail_now, CONGESTION),
        (hang, CONGESTION),
        (lambda rq, peer: Accept(policy=bad_policy), CONGESTION),
        (unsendable, CONGESTION),
        (lambda rq, peer: Reject(1, 1, 2), AssociateRJ(1, 1, 2)),
    ],
    ids=[
        "allow",
        "deny",
        "fail later",
        "fail now",
        "hang",
        "bad policy",
        "unsendable",
        "sync deny",
    ],
)
async def test_authorise(listen: Listen, authorise: Any, expected: Any) -> None:
    server = await listen(authorise, timeouts=Timeouts(associate=0.5))
    peer, heard = await answer(server)
    async with peer:
        assert heard == expected or (isinstance(expected, type) and isinstance(heard, expected))
        assert (server.accepted, server.rejected) == ((1, 0) if expected is AssociateAC else (0, 1))


async def test_a_decision_that_hangs_keeps_nobody_else_waiting(listen: Listen) -> None:
    def authorise(rq: AssociateRQ, peer: Peer) -> Any:
        return hang(rq, peer) if rq.calling_ae_title == "SLOW" else Accept()

    server = await listen(authorise)
    async with await RawPeer.connect(server.port) as slow:
        slow.send(
            AssociateRQ(called_ae_title="A", calling_ae_title="SLOW", contexts=CONTEXTS).encode()
        )
        async with await dial(server) as association:
            assert (await association.c_echo()).status == 0
        # And a server that stops does not wait for it.
        async with asyncio.timeout(5):
            await server.close()


async def test_a_peer_that_goes_before_the_decision(listen: Listen) -> None:
    decided = asyncio.Event()

    async def authorise(rq: AssociateRQ, peer: Peer) -> Accept:
        await decided.wait()
        return Accept(ended=lambda a, error: ends.append(error))

    ends: list[Exception | None] = []
    server = await listen(authorise)
    accepting = set(server._tasks)
    for end in ("abort", "close", "nonsense"):
        async with await RawPeer.connect(server.port) as peer:
            peer.send(an_rq())
            await until(
                lambda: any(a.connection.rq is not None for a in server._unassociated),
                "the request",
            )
            if end == "abort":
                peer.send(Abort())
            elif end == "nonsense":
                peer.send(b"nonsense")
                assert await peer.hear() == Abort(2, 1)
        await until(lambda: not server._unassociated, "the end")
        deciding = set(server._tasks)
        decided.set()
        await until(lambda d=deciding: all(task.done() or task in accepting for task in d), "it")  # type: ignore[misc]
        decided.clear()
    assert server.accepted == 0
    assert not server.associations
    assert not ends


# ── limits ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "limits",
    [Limits(max_associations=2), Limits(max_per_address=2), Limits(max_per_title=2)],
    ids=["total", "address", "title"],
)
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_a_limit_is_answered_2_3_2(
    listen: Listen, limits: Limits, asynchronous: bool
) -> None:
    server = await listen(allow if asynchronous else None, limits=limits)
    async with contextlib.AsyncExitStack() as stack:
        heard = []
        peers = [
            await stack.enter_async_context(await RawPeer.connect(server.port)) for _ in "1234"
        ]
        for peer in peers:
            peer.send(an_rq())
        for peer in peers:
            heard.append(await peer.hear())
        assert (
            sorted(type(each).__name__ for each in heard)
            == ["AssociateAC"] * 2 + ["AssociateRJ"] * 2
        )
        assert heard.count(LIMIT) == 2
        # A place that is left is free again.
        peers[[isinstance(each, AssociateAC) for each in heard].index(True)].send(Abort())
        await until(lambda: len(server.associations) == 1, "a free place")
        peer, now = await answer(server)
        await stack.enter_async_context(peer)
        assert isinstance(now, AssociateAC)
    await until(lambda: not server.associations, "the end")
    assert not server._of_address
    assert not server._of_title


async def test_a_titles_own_limit_goes_before(listen: Listen) -> None:
    def authorise(rq: AssociateRQ, peer: Peer) -> Accept:
        return Accept(max_for_title={"NONE": 0, "ONE": 1}.get(rq.called_ae_title))

    server = await listen(authorise, limits=Limits(max_per_title=2))
    for title, most in (("NONE", 0), ("ONE", 1), ("MORE", 2)):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(most):
                await stack.enter_async_context(await dial(server, called=title))
            with pytest.raises(AssociationRejected, match="local limit exceeded"):
                await dial(server, called=title)


async def test_rejected_connections_that_never_close_are_bounded(listen: Listen) -> None:
    server = await listen(lambda rq, peer: Reject(), limits=Limits(max_unassociated=5))
    async with contextlib.AsyncExitStack() as stack:
        peers = []
        for _ in range(20):
            peer, heard = await answer(server)
            peers.append(await stack.enter_async_context(peer))
            assert heard == AssociateRJ(1, 1, 1)
            assert len(server._unassociated) <= 5
        for peer in peers[:15]:
            assert await peer.hear() is None


async def test_silent_sockets_do_not_keep_a_speaker_out(listen: Listen) -> None:
    server = await listen(limits=Limits(max_unassociated=20))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(await RawPeer.connect(server.port))
        async with await dial(server) as association:
            assert (await association.c_echo()).status == 0
        assert len(server._unassociated) <= 20
        assert server.refused >= 40


async def test_a_burst_that_waits_in_the_backlog_is_bounded_too(listen: Listen) -> None:
    """All of them are accepted before any of their tasks has run."""
    limit = 10
    server = await listen(limits=Limits(max_unassociated=limit))
    import socket

    sockets = []
    for _ in range(100):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sockets.append(sock)
    from hilum.net.link import Sweeper

    links = Sweeper.of(asyncio.get_running_loop())._links
    await until(lambda: server.refused == 90, "the evictions")
    await until(lambda: len(links) <= limit, "their ends")
    for sock in sockets:
        sock.close()


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """How many sockets may be open at once here, after raising the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 12_000 if hard == resource.RLIM_INFINITY else min(12_000, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield max(soft, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_five_thousand_idle_sockets(listen: Listen, many_descriptors: int) -> None:
    """Memory is that of ``max_unassociated`` of them, and a normal client is served meanwhile."""
    import socket

    count = min(5000, many_descriptors // 2 - 200)
    server = await listen(limits=Limits(max_unassociated=100))
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    tracemalloc.start()
    try:
        async with await dial(server) as association:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(count):
                sock = socket.socket()
                sock.setblocking(False)
                sockets.append(sock)
                await loop.sock_connect(sock, ("127.0.0.1", server.port))
                if number % 500 == 0:
                    await loop.sock_sendall(sock, b"\1\0\0")
                    assert (await association.c_echo()).status == 0
                    async with await dial(server) as other:
                        assert (await other.c_echo()).status == 0
                    gc.collect()
                    grown = tracemalloc.get_traced_memory()[0] - before
                    # Our own sockets and their task debris included.
                    assert grown < 3 << 20
            await until(lambda: server.refused >= count - 100, "the evictions")
            assert len(server._unassociated) <= 100
    finally:
        tracemalloc.stop()
        for sock in sockets:
            sock.close()


# ── titles that are no text ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "raw", [b"A\r\nFORGED LINE", b"\x1b[2J\x1b[1;31m", "Ä日本".encode(), b"\xff" * 16, b"\0" * 16]
)
@pytest.mark.parametrize("accepted", [True, False])
async def test_titles_are_logged_escaped(
    listen: Listen, caplog: pytest.LogCaptureFixture, raw: bytes, accepted: bool
) -> None:
    caplog.set_level("INFO", "hilum")
    server = await listen(lambda rq, peer: Accept() if accepted else Reject())
    stream = bytearray(an_rq().encode())
    stream[10:26] = stream[26:42] = raw.ljust(16)[:16]
    async with await RawPeer.connect(server.port) as peer:
        peer.send(bytes(stream))
        assert isinstance(await peer.hear(), AssociateAC if accepted else AssociateRJ)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].isascii()
    assert lines[0].isprintable()


async def test_junk_transfer_syntaxes_are_answered(listen: Listen) -> None:
    from hilum.wire.items import encode_item

    body = (
        an_rq().encode()[6:74]
        + encode_item(0x10, b"1.2")
        + encode_item(
            0x20,
            bytes((1, 0, 0, 0)) + encode_item(0x30, b"\xff\xfe") + encode_item(0x40, b"\xc3\xa9\n"),
        )
        + encode_item(0x20, bytes((3, 0, 0, 0)))
    )
    server = await listen()
    async with await RawPeer.connect(server.port) as peer:
        peer.send(b"\1\0" + struct.pack(">I", len(body)) + body)
        ac = await peer.hear()
        assert isinstance(ac, AssociateAC)
        assert [context.context_id for context in ac.contexts] == [1, 3]
        assert ac.contexts[0].transfer_syntaxes == ("\xc3\xa9\n",)
        assert ac.contexts[1].result != 0


# ── intruders ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n" * 40,
        bytes.fromhex("16030100c8010000c40303") + bytes(200),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0" * 5000,
        struct.pack(">BBI", 1, 0, 0xFFFFFFFF) + bytes(1000),
        struct.pack(">BBI", 4, 0, 0xFFFFFFFF) + bytes(1000),
        an_rq().encode()[:6] + b"\xff" * 5000,
    ],
    ids=["http", "tls", "ssh", "zeros", "4 GiB", "4 GiB of data", "junk request"],
)
async def test_what_is_no_dicom_hears_an_abort_and_nothing_else(
    listen: Listen, caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    server = await listen(timeouts=Timeouts(artim=0.5))
    async with await RawPeer.connect(server.port) as peer:
        peer.send(said)
        heard = await peer.hear_end()
    assert len(heard) == 10
    assert heard[:9] == Abort(2, 0).encode()[:9]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_connections_that_close_at_once_are_quiet(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    server = await listen()
    for how in ("close", "reset", "half"):
        for _ in range(10):
            async with await RawPeer.connect(server.port) as peer:
                if how == "reset":
                    peer.reset()
                elif how == "half":
                    peer.end_sending()
                    assert await peer.hear() is None
    await until(lambda: not server._unassociated, "their ends")
    async with await dial(server) as association:
        assert (await association.c_echo()).status == 0
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


# ── PROXY v2 ────────────────────────────────────────────────────────────────────────────────


def header(address: bytes, family: int = 0x11, command: int = 0x21, rest: bytes = b"") -> bytes:
    body = address + rest
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


V4 = bytes((198, 51, 100, 7)) + bytes((10, 0, 0, 1)) + struct.pack(">HH", 40000, 104)
V6 = ipaddress.IPv6Address("2001:db8::7").packed + bytes(16) + struct.pack(">HH", 40000, 104)
LISTED = (ipaddress.ip_network("127.0.0.0/8"),)


class Gate:
    """Keeps the peers it saw."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def __call__(self, rq: AssociateRQ, peer: Peer) -> Accept:
        self.peers.append(peer)
        return Accept()


@pytest.mark.parametrize(
    ("sent", "address", "port"),
    [
        (header(V4), "198.51.100.7", 40000),
        (header(V4, rest=b"\4\0\2ab"), "198.51.100.7", 40000),
        (header(V6, 0x21), "2001:db8::7", 40000),
        (header(b"", 0, 0x20), "127.0.0.1", None),
        (header(bytes(216), 0x31), "127.0.0.1", None),
    ],
    ids=["IPv4", "with TLVs", "IPv6", "LOCAL", "unix"],
)
@pytest.mark.parametrize("pieces", [1, 5])
async def test_a_listed_balancer(
    listen: Listen, sent: bytes, address: str, port: int | None, pieces: int
) -> None:
    gate = Gate()
    server = await listen(gate, proxies=LISTED)
    stream = sent + an_rq().encode()
    async with await RawPeer.connect(server.port) as peer:
        step = len(stream) // pieces + 1
        for start in range(0, len(stream), step):
            peer.send(stream[start : start + step])
            await asyncio.sleep(0.001)
        assert isinstance(await peer.hear(), AssociateAC)
        peer.send(pdata(command_pdv(1, echo_rq())))
        await peer.hear()
    (seen,) = gate.peers
    assert (seen.address, seen.proxied) == (address, True)
    assert port is None or seen.port == port
    await until(lambda: not server._of_address, "the count")


@pytest.mark.parametrize(
    "sent",
    [
        b"PROXY TCP4 198.51.100.7 10.0.0.1 40000 104\r\n",
        an_rq().encode(),
        header(V4, command=0x31),
        header(V4, command=0x22),
        header(bytes(3000)),
        b"GET / HTTP/1.1\r\n",
    ],
    ids=["version 1", "none", "version 3", "command 2", "too long", "http"],
)
async def test_a_listed_balancer_with_no_such_header_is_closed(listen: Listen, sent: bytes) -> None:
    server = await listen(proxies=LISTED)
    async with await RawPeer.connect(server.port) as peer:
        peer.send(sent)
        assert await peer.hear_end() == b""
    assert server.accepted == 0


async def test_a_header_that_never_ends_is_closed_after_artim(listen: Listen) -> None:
    server = await listen(proxies=LISTED, timeouts=Timeouts(artim=0.1))
    async with await RawPeer.connect(server.port) as peer:
        peer.send(header(V4)[:20])
        assert await peer.hear_end() == b""


async def test_an_unlisted_peer_may_not_send_a_header(listen: Listen) -> None:
    gate = Gate()
    server = await listen(gate, proxies=(ipaddress.ip_network("10.0.0.0/8"),))
    async with await RawPeer.connect(server.port) as peer:
        peer.send(header(V4) + an_rq().encode())
        assert await peer.hear() == Abort(2, 1)
    async with await dial(server) as association:
        assert (await association.c_echo()).status == 0
    assert [peer.address for peer in gate.peers] == ["127.0.0.1"]


async def test_the_limit_per_address_counts_the_original_one(listen: Listen) -> None:
    server = await listen(proxies=LISTED, limits=Limits(max_per_address=1))
    async with contextlib.AsyncExitStack() as stack:
        for number in (1, 2, 3):
            peer = await stack.enter_async_context(await RawPeer.connect(server.port))
            peer.send(header(bytes((198, 51, 100, number)) + V4[4:]), an_rq())
            assert isinstance(await peer.hear(), AssociateAC)
        peer = await stack.enter_async_context(await RawPeer.connect(server.port))
        peer.send(header(bytes((198, 51, 100, 1)) + V4[4:]), an_rq())
        assert await peer.hear() == LIMIT


async def test_the_handler_of_an_end_that_fails(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(association: object, error: object) -> None:
        raise LocalProtocolError("a bug")

    server = await listen(lambda rq, peer: Accept(ended=fail))
    async with await dial(server) as association:
        assert (await association.c_echo()).status == 0
    await until(lambda: not server.associations, "the end")
    assert "handler of its end failed" in caplog.text


async def test_a_connection_that_cannot_be_opened_ends_no_accepting(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await listen()
    is_proxy, asked = server._from_proxy, []

    def fail_once(address: str) -> bool:
        asked.append(address)
        if len(asked) == 1:
            raise ValueError("a bug")
        return is_proxy(address)

    monkeypatch.setattr(server, "_from_proxy", fail_once)
    first = await RawPeer.connect(server.port)
    assert await first.hear() is None
    second, heard = await answer(server)
    assert isinstance(heard, AssociateAC)
    assert len(server.associations) == 1
    assert not server._unassociated
    first.close()
    second.close()
