"""Files of the bare receiver: whole or not there, always in their folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from hilum.cli.received import SMALL, Counter, Folder, Writer
from hilum.net.service import Context, Outcome
from hilum.services.part10 import parse_head
from hilum.wire.command import Command, CommandField

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


@pytest_asyncio.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Folder]:
    made = Folder(tmp_path)
    yield made
    await made.close()


def open_store(receiver: Counter, uid: str = "1.2.3", number: int = 0) -> Any:
    command = Command(
        CommandField.C_STORE_RQ,
        has_data_set=True,
        message_id=1,
        affected_sop_class_uid=CT,
        affected_sop_instance_uid=uid,
    )
    association: Any = SimpleNamespace(number=number)
    return receiver.open_store(command, Context(1, CT, EXPLICIT), association)


async def store(receiver: Counter, data: bytes, uid: str = "1.2.3", piece: int = 30_000) -> Outcome:
    sink = open_store(receiver, uid)
    for start in range(0, len(data), piece):
        part = bytearray(data[start : start + piece])
        if not sink.write([memoryview(part)[:100], memoryview(part)[100:]]):
            await sink.drained()
        part[:] = bytes(len(part))  # the receive buffer is used for what comes next
    return await sink.commit()  # type: ignore[no-any-return]


def data_set_of(path: Path) -> bytes:
    raw = path.read_bytes()
    head = parse_head(raw, final=True)
    assert head is not None
    assert (head.sop_class_uid, head.transfer_syntax_uid) == (CT, EXPLICIT)
    return raw[head.data_set_offset :]


@pytest.mark.parametrize("size", [2, SMALL - 1, SMALL, SMALL + 1, 400_000])
async def test_a_data_set_becomes_a_file(folder: Folder, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    assert await store(folder, data) == Outcome(0)
    assert [path.name for path in tmp_path.iterdir()] == ["1.2.3.dcm"]
    assert data_set_of(tmp_path / "1.2.3.dcm") == data
    assert (folder.received, folder.bytes) == (1, size)


@pytest.mark.parametrize("uid", ["../../outside", "/absolute", "a/b", "..", "1.2\\3", "C:x", "ä"])
async def test_no_uid_leaves_the_folder(folder: Folder, tmp_path: Path, uid: str) -> None:
    before = set(tmp_path.parent.iterdir())
    assert await store(folder, b"data", uid) == Outcome(0)
    assert set(tmp_path.parent.iterdir()) == before
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("uid-")
    assert data_set_of(path) == b"data"


async def test_the_newest_of_a_uid_stays(folder: Folder, tmp_path: Path) -> None:
    await store(folder, b"first")
    await store(folder, b"second")
    assert data_set_of(tmp_path / "1.2.3.dcm") == b"second"


@pytest.mark.parametrize("size", [100, 400_000])
async def test_what_is_aborted_leaves_nothing(tmp_path: Path, size: int) -> None:
    folder = Folder(tmp_path)
    sink = open_store(folder)
    sink.write([bytes(size)])
    sink.abort(ConnectionError())
    sink.abort(ConnectionError())
    await folder.close()
    assert list(tmp_path.iterdir()) == []
    assert folder.received == 0


@pytest.mark.parametrize("size", [100, 400_000])
async def test_a_folder_that_is_gone_is_said(tmp_path: Path, size: int) -> None:
    (tmp_path / "out").mkdir()
    folder = Folder(tmp_path / "out")
    (tmp_path / "out").rmdir()
    outcome = await store(folder, bytes(size))
    assert outcome.status == 0xA700
    assert folder.received == 0
    await folder.close()


async def test_many_at_once(folder: Folder, tmp_path: Path) -> None:
    sets = {f"1.2.{number}": os.urandom(1000 + number) for number in range(300)}
    answers = await asyncio.gather(*(store(folder, data, uid) for uid, data in sets.items()))
    assert set(answers) == {Outcome(0)}
    assert {path.name: data_set_of(path) for path in tmp_path.iterdir()} == {
        f"{uid}.dcm": data for uid, data in sets.items()
    }


async def test_a_counter_keeps_nothing(tmp_path: Path) -> None:
    counter = Counter()
    assert await store(counter, bytes(400_000)) == Outcome(0)
    assert (counter.received, counter.bytes) == (1, 400_000)
    await counter.close()


async def test_a_writer_does_its_jobs_in_order() -> None:
    writer = Writer("test")
    done: list[int] = []
    futures = [writer.do(lambda number=number: done.append(number)) for number in range(1000)]  # type: ignore[misc]
    failing = writer.do(lambda: 1 // 0)
    await asyncio.gather(*futures)
    with pytest.raises(ZeroDivisionError):
        await failing
    assert done == list(range(1000))
    last = writer.do(lambda: "done before the end")
    await writer.close()
    assert await last == "done before the end"
