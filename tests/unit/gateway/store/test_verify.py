"""Verification finds each kind of damage, and nothing where there is none."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.gateway.store.archive_world import LARGE, World, encode, image, keep, spill

from hilum.gateway.store import verify as module
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.verify import Verification, verify

SOPS = ("1.1", "1.2", "1.3")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three instances of one length."""
    made = World(tmp_path / "data")
    committer = made.committer()
    await keep(committer, *((encode(image(sop)), sop) for sop in SOPS))
    await committer.stop()
    yield made
    made.close()


def path(world: World, sop: str) -> Path:
    return world.data / next(row.path for row in world.listed() if row.sop_uid == sop)


def check(world: World, *, digests: bool = True) -> Verification:
    return verify(world.storage.database, world.storage.blobs, digests=digests)


def old(file: Path) -> None:
    """Written to long ago."""
    os.utime(file, (1, 1))


def test_a_good_archive_has_no_findings(world: World) -> None:
    seen: list[int] = []
    result = verify(
        world.storage.database, world.storage.blobs, progress=lambda r: seen.append(r.files)
    )
    assert result.findings == []
    assert (result.instances, result.files) == (3, 3)
    assert result.bytes == sum(row.size for row in world.listed())
    assert seen[-1] == 3


def test_a_flipped_bit_is_found_wherever_it_is(world: World) -> None:
    file = path(world, "1.2")
    good = file.read_bytes()
    for at in (130, 150, 300, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[at] ^= 0x10
        file.write_bytes(bad)
        (finding,) = check(world).findings
        assert finding.sop_instance_uid == "1.2"
        assert str(world.data / finding.path) == str(file)
    file.write_bytes(good)
    assert check(world).findings == []


@pytest.mark.parametrize("digests", [True, False])
def test_a_missing_file_is_found(world: World, digests: bool) -> None:
    path(world, "1.1").unlink()
    (finding,) = check(world, digests=digests).findings
    assert finding.sop_instance_uid == "1.1"
    assert "no such file" in finding.problem


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("length", [0, 100, 800, -1])
def test_a_file_of_another_length_is_found(world: World, digests: bool, length: int) -> None:
    file = path(world, "1.1")
    with open(file, "r+b") as opened:
        opened.truncate(length if length >= 0 else file.stat().st_size + 1)
    (finding,) = check(world, digests=digests).findings
    assert finding.sop_instance_uid == "1.1"


@pytest.mark.parametrize("digests", [True, False])
def test_swapped_files_are_found(world: World, digests: bool) -> None:
    one, other = path(world, "1.1"), path(world, "1.3")
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    findings = check(world, digests=digests).findings
    assert sorted(finding.sop_instance_uid for finding in findings) == ["1.1", "1.3"]
    assert all("not the one" in finding.problem for finding in findings)


def test_a_link_out_of_the_archive_is_found(world: World) -> None:
    file = path(world, "1.1")
    outside = world.data.parent / "outside.dcm"
    file.rename(outside)
    file.symlink_to(outside)
    old(file)
    assert any(finding.sop_instance_uid == "1.1" for finding in check(world).findings)


def test_a_file_without_a_row_is_found_unless_it_has_just_been_written(world: World) -> None:
    folder = path(world, "1.1").parent
    strangers = [folder / "1.9.dcm", folder / "notes.txt"]
    strangers[0].write_bytes(path(world, "1.1").read_bytes())
    strangers[1].write_text("put here by hand")
    assert check(world).findings == []
    for stranger in strangers:
        old(stranger)
    found = {str(world.data / finding.path) for finding in check(world).findings}
    assert found == {str(stranger) for stranger in strangers}


async def test_what_is_being_received_and_what_is_being_deleted_are_no_findings(
    world: World,
) -> None:
    committer = world.committer()
    arriving = await spill(committer, encode(image("1.7", pixels=LARGE)), "1.7")
    remove(world.storage.database, Scope(sop_uid="1.1"), by="test", reason="test")
    for file in world.files():
        if "1.7" not in file:
            old(world.data / file)
    result = check(world)
    assert (result.instances, result.files) == (2, 4)
    assert result.findings == []
    committer.cancel(arriving)
    await committer.stop()


def test_an_instance_removed_while_it_is_checked_is_no_finding(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = module._rows

    def removed_meanwhile(database: object) -> object:
        for row in rows(world.storage.database):
            if row.sop_uid == "1.1":
                remove(world.storage.database, Scope(sop_uid="1.1"), by="test", reason="test")
                world.storage.delete_files()
            yield row

    monkeypatch.setattr(module, "_rows", removed_meanwhile)
    result = check(world)
    assert result.instances == 3
    assert result.findings == []


async def test_older_versions_and_the_quarantine_are_checked_too(world: World) -> None:
    committer = world.committer()
    await keep(committer, (encode(image("1.1", InstanceNumber=9)), "1.1"))
    await committer.stop()
    (old_version,) = world.files() - {row.path for row in world.listed()}
    (world.data / old_version).unlink()
    (finding,) = check(world).findings
    assert finding.path == old_version
