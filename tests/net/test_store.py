"""Receiving data sets: the two buffers, slow and failing sinks, requests that come early."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Any

import pytest
from tests.net.conftest import Listen
from tests.net.peer import RawPeer, until
from tests.net.sinks import Broken, HeldCommit, Sink, SlowSink, Store
from tests.net.test_association import BOTH_ROLES, dial, image, rq_with_roles, status
from tests.unit.wire.playbook import PDV, command_pdv, echo_rq, pdata, store_rq

from hilum.errors import AssociationAborted, AssociationError, RemoteProtocolError
from hilum.net.limits import BufferPool, Limits
from hilum.net.link import Sweeper
from hilum.net.service import Outcome
from hilum.wire.command import Command, CommandField
from hilum.wire.pdu import Abort

SMALL = Limits(buffer_size=64 << 10)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def pool(size: int) -> BufferPool:
    return Sweeper.of(asyncio.get_running_loop()).pools[size]


@pytest.mark.parametrize("make", [Sink, SlowSink])
async def test_eight_megabytes(listen: Listen, make: Any) -> None:
    store = Store(make)
    server = await listen(store.authorise)
    content = noise(8 << 20)
    async with await dial(server) as association:
        assert (await association.c_store([content], **image())).status == 0
        # And once more, with what the first left behind.
        assert (await association.c_store([content], **image())).status == 0
    for sink in store.sinks:
        assert zlib.crc32(sink.content) == zlib.crc32(content)
        assert (sink.commits, sink.aborts) == (1, [])
        if isinstance(sink, SlowSink):
            assert not sink.disturbed
            assert sink.most_at_once <= server.limits.buffer_size
            assert sink.writes >= 16
    assert len(pool(server.limits.buffer_size)._free) <= 2


async def test_many_at_once_through_slow_sinks(listen: Listen) -> None:
    """Nobody's buffer is given to another while it is read from."""
    store = Store(SlowSink)
    server = await listen(store.authorise, limits=SMALL)

    async def send(number: int) -> None:
        async with await dial(server) as association:
            for size in (300_000, 10, 65_000, 130_000):
                content = noise(size, number * 1000 + size)
                uid = f"1.{number}.{size}"
                response = await association.c_store([content], **image(uid))
                assert response.status == 0
                found[uid] = content

    found: dict[str, bytes] = {}
    await asyncio.gather(*(send(number) for number in range(12)))
    for command, sink in zip(store.commands, store.sinks, strict=True):
        assert isinstance(sink, SlowSink)
        assert not sink.disturbed
        assert sink.content == found[command.affected_sop_instance_uid]


async def test_a_full_buffer_pauses_the_peer_until_the_sink_has_drained(listen: Listen) -> None:
    release = asyncio.Event()
    store = Store(lambda: SlowSink(release))
    server = await listen(store.authorise, limits=SMALL)
    content = noise(32 << 20)
    association = await dial(server)
    storing = asyncio.create_task(association.c_store([content], **image()))
    await until(lambda: server.associations, "the association")
    (receiving,) = server.associations
    await until(lambda: receiving.link._paused, "the pause")
    read = receiving.link.bytes_received
    assert read < 1 << 20
    # Other associations do not notice.
    async with await dial(server) as other:
        assert (await other.c_echo()).status == 0
    assert receiving.link.bytes_received == read
    assert receiving.is_busy
    release.set()
    assert (await storing).status == 0
    assert zlib.crc32(store.sinks[0].content) == zlib.crc32(content)
    await association.release()


async def test_fragments_of_every_size_reach_a_slow_sink(listen: Listen) -> None:
    store = Store(SlowSink)
    server = await listen(store.authorise, limits=SMALL)
    chance = random.Random(7)
    async with await RawPeer.associate(server.port) as peer:
        for number in range(6):
            content = noise(200_000, number)
            peer.send(pdata(command_pdv(3, store_rq(number))))
            position = 0
            while position < len(content):
                size = chance.choice([1, 2, 7, 100, 5000, 16000, 60000])
                piece = content[position : position + size]
                position += len(piece)
                peer.send(pdata(PDV(3, piece, last=False)))
                if chance.random() < 0.3:
                    peer.send(pdata(PDV(3, b"", last=False)))
                if chance.random() < 0.1:
                    await peer.writer.drain()
                    await asyncio.sleep(0)
            peer.send(pdata(PDV(3, b"")))
            assert await status(peer) == 0
            sink = store.sinks[number]
            assert isinstance(sink, SlowSink)
            assert sink.content == content
            assert not sink.disturbed


async def test_a_flood_of_tiny_fragments_is_handed_on_in_time(listen: Listen) -> None:
    """Each costs a view of some 200 bytes: a buffer full of them would hold 15 MB."""
    most = 0

    class Counting(Sink):
        def write(self, parts: Any) -> bool:
            nonlocal most
            most = max(most, len(parts))
            return super().write(parts)

    store = Store(Counting)
    server = await listen(store.authorise)
    async with await RawPeer.associate(server.port) as peer:
        one = pdata(*[PDV(3, b"x", last=False)] * 2000)
        peer.send(pdata(command_pdv(3, store_rq())))
        for _ in range(40):
            peer.send(one)
        peer.send(pdata(PDV(3, b"")))
        assert await status(peer) == 0
    assert store.sinks[0].content == b"x" * 80_000
    assert most <= 1024


async def test_empty_fragments_do_not_fill_the_buffer(listen: Listen) -> None:
    store = Store()
    server = await listen(store.authorise, limits=SMALL)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq()), PDV(3, bytes(9000), last=False)))
        empty = pdata(PDV(3, b"", last=False)).encode() * 5000
        for _ in range(4):
            peer.send(empty)
        peer.send(pdata(PDV(3, b"end")))
        assert await status(peer) == 0
    assert store.sinks[0].content == bytes(9000) + b"end"


@pytest.mark.parametrize("later", [False, True], ids=["at once", "awaited"])
@pytest.mark.parametrize("where", ["write", "drained", "commit"])
@pytest.mark.parametrize("size", [10, 400_000])
async def test_a_sink_that_fails(
    listen: Listen, caplog: pytest.LogCaptureFixture, where: str, later: bool, size: int
) -> None:
    """The answer is no success, the association goes on, and the sink is told once."""
    store = Store(lambda: Broken(where, later=later))
    server = await listen(store.authorise, limits=SMALL)
    async with await dial(server) as association:
        response = await association.c_store([noise(size)], **image())
        assert response.status == 0xA700
        assert "space" not in response.command.error_comment
        assert (await association.c_echo()).status == 0
        store.make = Sink
        assert (await association.c_store([noise(size)], **image())).status == 0
    assert len(store.sinks[0].aborts) == 1
    assert store.sinks[1].content == noise(size)
    assert "no space left on device" in caplog.text


async def test_a_sink_that_cannot_be_aborted(
    listen: Listen, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(lambda: Broken("abort", later=False))
    server = await listen(store.authorise)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq()), PDV(3, b"ab", last=False)))
        await until(lambda: store.sinks, "the sink")
    await until(lambda: not server.associations, "the end")
    assert "could not be aborted" in caplog.text


@pytest.mark.parametrize("how", ["abort", "reset", "close", "nonsense", "release"])
@pytest.mark.parametrize("size", [10, 150_000, 1_000_000])
async def test_an_end_in_the_middle_of_a_data_set(listen: Listen, how: str, size: int) -> None:
    release = asyncio.Event()
    store = Store(lambda: SlowSink(release))
    server = await listen(store.authorise, limits=SMALL)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq())))
        for start in range(0, size, 16_000):
            peer.send(pdata(PDV(3, noise(size)[start : start + 16_000], last=False)))
        await until(lambda: store.sinks and store.sinks[0].writes, "the first write")
        sink = store.sinks[0]
        assert isinstance(sink, SlowSink)
        if how == "abort":
            peer.send(Abort())
        elif how == "nonsense":
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
        elif how == "release":
            peer.send(b"\5\0\0\0\0\4\0\0\0\0")
        elif how == "reset":
            peer.reset()
        else:
            peer.close()
        # Another association takes buffers while the first sink still reads from its own.
        plain = Store()
        store.make = plain.make
        async with await dial(server) as other:
            assert (await other.c_store([noise(500_000, 2)], **image())).status == 0
        release.set()
        await until(lambda: sink.aborts, "the sink's abort")
        await until(lambda: not sink._reading, "the sink's rest")
    await until(lambda: not server.associations, "the end")
    assert len(sink.aborts) == 1
    assert not sink.disturbed
    assert sink.commits == 0


async def test_an_end_while_the_answer_is_awaited(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq()), PDV(3, bytes(200_000), last=False)))
        peer.send(pdata(PDV(3, b"")))
        await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
        peer.send(Abort())
        await until(lambda: store.sinks[0].aborts, "the abort")
    sink = store.sinks[0]
    assert isinstance(sink, HeldCommit)
    sink.outcome.set_result(Outcome(0))
    await until(lambda: not server.associations, "the end")
    assert len(sink.aborts) == 1


async def test_a_commit_that_is_cancelled_is_no_success(listen: Listen) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    async with await dial(server) as association:
        storing = asyncio.create_task(association.c_store([b"ab"], **image()))
        await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
        sink = store.sinks[0]
        assert isinstance(sink, HeldCommit)
        sink.outcome.cancel()
        assert (await storing).status == 0xA700


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_second_request_that_comes_early_waits(listen: Listen, size: int) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise, limits=SMALL)
    async with await RawPeer.associate(server.port) as peer:
        for number in (1, 2, 3):
            peer.send(pdata(command_pdv(3, store_rq(number, f"1.{number}"))))
            for start in range(0, size, 10_000):
                piece = noise(size, number)[start : start + 10_000]
                peer.send(pdata(PDV(3, piece, last=start + 10_000 >= size)))
        peer.send(pdata(command_pdv(1, echo_rq(4))))
        for number in (1, 2, 3):
            await until(lambda n=number: len(store.sinks) == n, "the sink")  # type: ignore[misc]
            sink = store.sinks[number - 1]
            await until(lambda s=sink: s.commits, "the commit")  # type: ignore[misc]
            # The next one has not begun while this one is not answered.
            await asyncio.sleep(0)
            assert len(store.sinks) == number
            assert isinstance(sink, HeldCommit)
            sink.outcome.set_result(Outcome(number))
            assert await status(peer) == number
        assert await status(peer) == 0
    assert [sink.content for sink in store.sinks] == [noise(size, n) for n in (1, 2, 3)]


async def test_what_comes_while_a_commit_is_pending_does_not_reach_its_sink(
    listen: Listen,
) -> None:
    """A response with a data set, and a C-CANCEL that claims to have one."""
    store = Store(lambda: HeldThenSlow())
    server = await listen(store.authorise, limits=SMALL)
    cancel = Command(CommandField.C_CANCEL_RQ, has_data_set=True, message_id_being_responded_to=1)
    async with await RawPeer.associate(server.port) as peer:
        (association,) = server.associations
        asking = asyncio.create_task(association.c_echo())
        request = await peer.hear()
        echo = Command.decode(request.pdvs[0].data)  # type: ignore[union-attr]
        peer.send(pdata(command_pdv(3, store_rq()), PDV(3, noise(1000))))
        await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
        peer.send(pdata(command_pdv(1, cancel), PDV(1, b"not an image")))
        answer = echo.response(0, has_data_set=True)
        for piece in (noise(9000, 3), noise(100_000, 4)):
            peer.send(pdata(command_pdv(1, answer)))
            for start in range(0, len(piece), 10_000):
                last = start + 10_000 >= len(piece)
                peer.send(pdata(PDV(1, piece[start : start + 10_000], last=last)))
        assert (await asking).data == noise(9000, 3)
        sink = store.sinks[0]
        assert isinstance(sink, HeldThenSlow)
        sink.outcome.set_result(Outcome(0))
        assert await status(peer) == 0
        assert (await peer_echo(peer)) == 0
        sink.release.set()
        await until(lambda: not sink._reading, "the sink's rest")
    assert store.sinks[0].content == noise(1000)
    assert store.sinks[0].commits == 1


class HeldThenSlow(SlowSink):
    """Still drains when commit is called, and answers when told."""

    def __init__(self) -> None:
        super().__init__(asyncio.Event())
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def commit(self) -> Any:
        self.commits += 1
        return self.outcome


async def peer_echo(peer: RawPeer) -> int:
    peer.send(pdata(command_pdv(1, echo_rq())))
    return await status(peer)


async def test_requests_both_ways_while_data_flows(listen: Listen) -> None:
    store, back = Store(SlowSink), Store(SlowSink)
    server = await listen(store.authorise, limits=SMALL)
    content = noise(3 << 20)
    async with await dial(
        server, limits=SMALL, roles=(BOTH_ROLES,), open_store=back
    ) as association:
        (other,) = server.associations
        answers = await asyncio.gather(
            association.c_store([content], **image("1.1")),
            other.c_store([content], **image("1.2")),
            *(each.c_echo() for each in (association, other) for _ in range(5)),
        )
        assert {answer.status for answer in answers} == {0}
    for sink in (store.sinks[0], back.sinks[0]):
        assert sink.content == content


async def test_a_message_over_the_limit(listen: Listen) -> None:
    store = Store()
    server = await listen(store.authorise, limits=Limits(max_message_length=100_000))
    async with await RawPeer.associate(server.port) as peer:
        peer.send(pdata(command_pdv(3, store_rq())))
        for _ in range(11):
            peer.send(pdata(PDV(3, bytes(10_000), last=False)))
        assert await peer.hear() == Abort(2, 6)
    await until(lambda: not server.associations, "the end")
    (cause,) = store.sinks[0].aborts
    assert isinstance(cause, RemoteProtocolError)
    assert store.sinks[0].commits == 0


async def test_cancelling_a_store_half_sent_aborts(listen: Listen) -> None:
    """PS3.7 knows no other end of a message half sent (field notes A 17)."""
    store = Store()
    server = await listen(store.authorise)
    association = await dial(server)
    reached = asyncio.Event()

    async def endless() -> Any:
        while True:
            yield bytes(1000)
            reached.set()
            await asyncio.sleep(0)

    storing = asyncio.create_task(association.c_store(endless(), **image()))
    await reached.wait()
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert association.is_over
    await until(lambda: store.sinks and store.sinks[0].aborts, "the abort")
    assert isinstance(store.sinks[0].aborts[0], AssociationAborted)
    assert store.sinks[0].commits == 0


async def test_cancelling_while_the_answer_is_awaited_leaves_the_association(
    listen: Listen,
) -> None:
    store = Store(HeldCommit)
    server = await listen(store.authorise)
    async with await dial(server) as association:
        storing = asyncio.create_task(association.c_store([b"ab"], **image()))
        await until(lambda: store.sinks and store.sinks[0].commits, "the commit")
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
        sink = store.sinks[0]
        assert isinstance(sink, HeldCommit)
        sink.outcome.set_result(Outcome(0))
        assert (await association.c_echo()).status == 0


async def test_a_source_that_fails_aborts_with_its_own_error(listen: Listen) -> None:
    server = await listen(Store().authorise)

    def parts() -> Any:
        yield bytes(10_000)
        yield bytes(10_000)
        raise TimeoutError("the file server is gone")

    association = await dial(server)
    with pytest.raises(TimeoutError, match="file server"):
        await association.c_store(parts(), **image())
    assert association.is_over
    association = await dial(server)
    with pytest.raises(LookupError):
        await association.c_store(iter(_Raises()), **image())
    assert association.is_over


class _Raises:
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> bytes:
        raise LookupError


async def test_an_odd_part_before_the_last_aborts(listen: Listen) -> None:
    association = await dial(await listen(Store().authorise))
    with pytest.raises(Exception, match="even length"):
        await association.c_store([b"abc", b"de"], **image())
    assert association.is_over


async def test_a_turn_to_send_that_is_cancelled_is_passed_on(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await listen(Store().authorise)
    gate = asyncio.Event()

    async def gated() -> Any:
        yield b"ab"
        await gate.wait()
        yield b"cd"

    async with await dial(server, window=(10, 10)) as association:
        first = asyncio.create_task(association.c_store(gated(), **image()))
        await until(lambda: association.sending.busy, "the first")
        second = asyncio.create_task(association.c_echo())
        third = asyncio.create_task(association.c_echo())
        await until(lambda: len(association.sending.turns) == 2, "the others")
        pass_on = association.sending.next_turn

        def pass_on_and_cancel() -> None:
            monkeypatch.setattr(association.sending, "next_turn", pass_on)
            pass_on()
            second.cancel()  # in the very step in which its turn has come

        monkeypatch.setattr(association.sending, "next_turn", pass_on_and_cancel)
        gate.set()
        async with asyncio.timeout(5):
            assert (await first).status == 0
            assert (await third).status == 0
        with pytest.raises(asyncio.CancelledError):
            await second


async def test_an_answer_waits_for_our_own_message(listen: Listen) -> None:
    """Fragments of two messages may not be mixed; the peer's further requests wait meanwhile."""
    server = await listen(Store().authorise)
    gate = asyncio.Event()

    async def gated() -> Any:
        yield b"ab"
        await gate.wait()
        yield b"cd"

    async with await RawPeer.associate(server.port, rq_with_roles()) as peer:
        (association,) = server.associations
        storing = asyncio.create_task(association.c_store(gated(), **image()))
        await until(lambda: association.sending.busy, "our message")
        peer.send(*[pdata(command_pdv(1, echo_rq(n))) for n in range(1, 2000)])
        await until(lambda: association.receiving.blocked, "the block")
        assert len(association.sending.deferred) == 1
        gate.set()
        heard = [await peer.hear() for _ in range(3)]
        assert [pdv.command for pdu in heard for pdv in pdu.pdvs] == [True, False, False]  # type: ignore[union-attr]
        for _ in range(1, 2000):
            assert await status(peer) == 0
        (ours,) = (Command.decode(pdv.data) for pdv in heard[0].pdvs)  # type: ignore[union-attr]
        peer.send(pdata(command_pdv(3, ours.response(0))))
        assert (await storing).status == 0


async def test_a_tiny_maximum_length_does_not_queue_everything_at_once(listen: Listen) -> None:
    """Sixteen bytes a PDU make a header and two objects for every ten bytes."""
    server = await listen(Store().authorise)
    async with await RawPeer.associate(server.port, rq_with_roles(16)) as peer:
        (association,) = server.associations
        storing = asyncio.create_task(association.c_store([bytes(8 << 20)], **image()))
        await until(lambda: association.link.is_full, "a full transport")
        assert association.link.transport is not None
        assert association.link.transport.get_write_buffer_size() < 2 << 20
        peer.reset()
        with pytest.raises(AssociationError):
            await storing


async def test_a_pause_of_ours_counts_against_nobody(listen: Listen) -> None:
    release = asyncio.Event()
    store = Store(lambda: SlowSink(release))
    server = await listen(store.authorise, limits=SMALL)
    async with await dial(server) as association:
        storing = asyncio.create_task(association.c_store([bytes(4 << 20)], **image()))
        await until(lambda: server.associations, "the association")
        (receiving,) = server.associations
        await until(lambda: receiving.link._paused, "the pause")
        now = asyncio.get_running_loop().time()
        for minutes in range(1, 20):
            receiving.link.check(now + 60 * minutes)
        receiving.link.check(now + 3 * 3600)
        release.set()
        assert (await storing).status == 0
