"""The sink between an association and the committer: memory, then the file, in the order of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from tests.unit.gateway.store.archive_world import (
    CT,
    EXPLICIT,
    LARGE,
    World,
    destination,
    encode,
    image,
)

from hilum.gateway.flow.receive import ReceiveSink, opener
from hilum.gateway.store.blob import SPILL
from hilum.gateway.store.commit import Committer
from hilum.net.association import Association
from hilum.net.service import Context, Peer
from hilum.wire.command import Command, CommandField
from hilum.wire.pdu import AssociateRQ


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "data")
    yield made
    made.close()


class Caller:
    """What a sink asks of an association."""

    rq = AssociateRQ(called_ae_title="RVU-alice", calling_ae_title="CT1", contexts=())
    peer = Peer("10.1.2.3", 50000)


def sink_for(committer: Committer, sop: str = "1.2.3", owner: str | None = None) -> ReceiveSink:
    where = destination(owner_id=1, owner=owner) if owner else destination()
    command = Command(
        CommandField.C_STORE_RQ,
        has_data_set=True,
        message_id=1,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid=sop,
    )
    made = opener(committer, where, "ARCHIVE")(
        command, Context(1, CT, EXPLICIT), cast(Association, Caller())
    )
    assert isinstance(made, ReceiveSink)
    return made


async def feed(sink: ReceiveSink, data: bytes, piece: int, buffer: bytearray) -> None:
    """Give the sink views of one buffer, which is reused as soon as it says so."""
    for start in range(0, len(data), piece):
        part = data[start : start + piece]
        buffer[: len(part)] = part
        if not sink.write([memoryview(buffer)[: len(part)]]):
            await sink.drained()
        buffer[:] = bytes(len(buffer))


@pytest.mark.parametrize("pixels", [0, 500, SPILL, LARGE])
@pytest.mark.parametrize("piece", [37_000, 65_536, 500_000])
async def test_every_byte_arrives_in_order(world: World, pixels: int, piece: int) -> None:
    world.storage.directory.add_account("alice")
    committer = world.committer()
    data = encode(image(pixels=pixels))
    sink = sink_for(committer, owner="alice")
    await feed(sink, data, piece, bytearray(piece))
    assert (await sink.commit()).status == 0
    await committer.stop()
    (row,) = world.listed()
    assert world.content(row.path) == data
    file, meta = world.storage.blobs.open_read(row.path)
    file.close()
    assert (meta.sending_ae_title, meta.receiving_ae_title) == ("CT1", "RVU-alice")
    assert (meta.source_ae_title, meta.owner) == ("ARCHIVE", "alice")
    assert (row.sending_ae, row.receiving_ae) == ("CT1", "RVU-alice")


async def test_commit_may_come_before_the_last_bytes_are_drained(world: World) -> None:
    committer = world.committer()
    data = encode(image(pixels=LARGE))
    sink = sink_for(committer)
    assert sink.write([data]) is False
    assert (await sink.commit()).status == 0
    await committer.stop()
    assert world.content(world.listed()[0].path) == data


@pytest.mark.parametrize("pixels", [500, LARGE])
async def test_what_is_aborted_leaves_nothing(world: World, pixels: int) -> None:
    committer = world.committer()
    data = encode(image(pixels=pixels))
    for drained in (True, False):
        sink = sink_for(committer)
        if not sink.write([data[:-50]]) and drained:
            await sink.drained()
        sink.abort(ConnectionError("as asked"))
        sink.abort(ConnectionError("as asked"))
    await asyncio.sleep(0)
    kept = sink_for(committer, "1.2.4")
    kept.write([encode(image("1.2.4"))])
    assert (await kept.commit()).status == 0
    await committer.stop()
    assert world.seen() == ["1.2.4"]
    assert world.files() == {row.path for row in world.listed()}


async def test_an_answer_that_can_no_longer_be_sent_does_not_undo_a_commit(world: World) -> None:
    committer = world.committer()
    sink = sink_for(committer)
    sink.write([encode(image())])
    assert (await sink.commit()).status == 0
    sink.abort(ConnectionError("as asked"))
    await committer.stop()
    assert world.seen() == ["1.2.3"]


async def test_an_error_while_writing_is_the_answer_to_the_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = world.committer()
    data = encode(image(pixels=4 * LARGE))
    sink = sink_for(committer)
    assert not sink.write([data[:LARGE]])
    await sink.drained()
    with monkeypatch.context() as patch:

        def full(*_: object) -> int:
            raise OSError(28, "as asked")

        patch.setattr("hilum.gateway.store.posix.write_all", full)
        sink.write([data[LARGE : 2 * LARGE]])
        await sink.drained()
    sink.write([data[2 * LARGE :]])
    await sink.drained()
    assert (await sink.commit()).status == 0xA700
    await committer.stop()
    assert world.seen() == []
    assert world.files() == set()
