"""Copies for the outside: the same data set, and nothing that says anything of this archive."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from tests.unit.gateway.store.archive_world import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    LARGE,
    World,
    arrival,
    destination,
    encode,
    image,
    spill,
    submit,
)

from hilum.errors import ConfigurationError, NotFound
from hilum.gateway.store import export as module
from hilum.gateway.store.export import export
from hilum.gateway.store.file_meta import PRIVATE_INFORMATION_CREATOR_UID


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "data")
    alice = made.storage.directory.add_account("alice")
    committer = made.committer()
    hers = destination(owner_id=alice.id, owner="alice")
    for what in (
        arrival(SENT["1.1"], "1.1"),
        arrival(SENT["1.2"], "1.2", transfer_syntax=IMPLICIT, where=hers),
        arrival(SENT["1.4"], "1.4", transfer_syntax=DEFLATED),
        await spill(committer, SENT["1.3"], "1.3"),
    ):
        assert (await submit(committer, what)).status == 0
    await committer.stop()
    yield made
    made.close()


def _padded() -> bytes:
    data_set = image("1.1")
    data_set.add_new(0x00091010, "UN", b"private!")
    data_set.add_new(0xFFFCFFFC, "OB", bytes(100))
    return encode(data_set)


SENT = {
    "1.1": _padded(),
    "1.2": encode(image("1.2"), IMPLICIT),
    "1.3": encode(
        image("1.3", pixels=LARGE, StudyInstanceUID="../../etc", SeriesInstanceUID="x/y")
    ),
    "1.4": encode(image("1.4")),
}


def data_set_of(file: bytes) -> bytes:
    """What follows the file meta information, whose length (0002,0000) says."""
    assert file[:132] == bytes(128) + b"DICM"
    assert file[132:140] == b"\2\0\0\0UL\4\0", "(0002,0000) comes first (PS3.10 7.1)"
    return file[144 + int.from_bytes(file[140:144], "little") :]


def test_data_sets_are_byte_for_byte_what_came(world: World, tmp_path: Path) -> None:
    target = tmp_path / "out"
    names = list(export(world.storage.blobs, world.listed(), target))
    assert {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()} == set(names)
    found = {}
    for name in names:
        file = (target / name).read_bytes()
        meta = pydicom.dcmread(target / name, stop_before_pixels=True, force=False).file_meta
        found[meta.MediaStorageSOPInstanceUID] = data_set_of(file)
        assert meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        # 1.4 was sent as deflated and is not: whoever reads the copy is told what it is.
        expected = IMPLICIT if meta.MediaStorageSOPInstanceUID == "1.2" else EXPLICIT
        assert meta.TransferSyntaxUID == expected
    assert found == SENT
    assert "1.2/1.2.1/1.1.dcm" in names


def test_copies_say_nothing_of_this_archive(world: World, tmp_path: Path) -> None:
    for name in export(world.storage.blobs, world.listed(), tmp_path / "out"):
        head = (tmp_path / "out" / name).read_bytes()[:2000]
        for ours in (b"HILU", b"alice", b"RAIVEN", b"SENDER"):
            assert ours not in head.replace(b"HILUM", b"")
        assert PRIVATE_INFORMATION_CREATOR_UID.encode() not in head


def test_names_stay_inside_the_target(world: World, tmp_path: Path) -> None:
    target = tmp_path / "here" / "out"
    list(export(world.storage.blobs, world.listed(), target))
    assert {p.name for p in (tmp_path / "here").iterdir()} == {"out"}
    assert len(list(target.rglob("*.dcm"))) == 4


def test_a_zip_holds_the_same_files(world: World, tmp_path: Path) -> None:
    target = tmp_path / "out.ZIP"
    names = list(export(world.storage.blobs, world.listed(), target))
    list(export(world.storage.blobs, world.listed(), tmp_path / "out"))
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == names
        assert archive.testzip() is None
        for name in names:
            assert archive.read(name) == (tmp_path / "out" / name).read_bytes()


def test_what_is_there_is_not_touched(world: World, tmp_path: Path) -> None:
    for target in (tmp_path / "out", tmp_path / "out.zip"):
        list(export(world.storage.blobs, world.listed(), target))
        before = {p: p.read_bytes() for p in tmp_path.glob("out*/**/*.dcm")}
        with pytest.raises(ConfigurationError, match="exists"):
            list(export(world.storage.blobs, world.listed(), target))
        assert {p: p.read_bytes() for p in tmp_path.glob("out*/**/*.dcm")} == before


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_an_export_that_fails_leaves_no_half_file(
    world: World, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = module._copy
    count: Iterator[int] = iter(range(10))

    def full(*arguments: Any) -> None:
        copy(*arguments)
        if next(count) == 2:
            raise OSError(errno.ENOSPC, "as asked")

    monkeypatch.setattr(module, "_copy", full)
    with pytest.raises(OSError, match="as asked"):
        list(export(world.storage.blobs, world.listed(), tmp_path / name))
    assert len(list((tmp_path / name).rglob("*.dcm"))) == (2 if name == "out" else 0)
    assert not (tmp_path / "out.zip").exists()


def test_an_instance_whose_file_is_gone_is_named(world: World, tmp_path: Path) -> None:
    (world.data / world.listed()[0].path).unlink()
    with pytest.raises(NotFound, match="verify"):
        list(export(world.storage.blobs, world.listed(), tmp_path / "out.zip"))
    assert not (tmp_path / "out.zip").exists()
