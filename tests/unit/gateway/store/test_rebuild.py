"""``hilum reindex``: everything comes back from the files, and the rest from the old database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.store.archive_world import World, destination, encode, image, keep

from hilum.errors import StorageFailed, StoreUnavailable
from hilum.gateway import app
from hilum.gateway.app import reindex
from hilum.gateway.store.directory import CalledTitle, Listener, Peer
from hilum.gateway.store.queries import list_studies, versions
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.results import Viewer
from hilum.gateway.store.states import MissingUidPolicy
from hilum.gateway.store.verify import verify


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Everyone's, alice's, a long-named user's, a removed user's, quarantine, two versions."""
    made = World(tmp_path / "data")
    directory = made.storage.directory
    committer = made.committer()
    for name, alias in (("alice", None), ("radiology-research", "RESEARCH"), ("gone", None)):
        account = directory.add_account(name, alias_title=alias)
        where = destination(owner_id=account.id, owner=name)
        await keep(committer, (encode(image("1.1")), "1.1"), where=where)
        await keep(
            committer, (encode(image(f"1.{account.id}.9")), f"1.{account.id}.9"), where=where
        )
    await keep(committer, (encode(image("1.2")), "1.2"))
    await keep(committer, (encode(image("1.2", InstanceNumber=2)), "1.2"))
    aside = destination(missing_uids=MissingUidPolicy.QUARANTINE)
    await keep(committer, (encode(image("1.3", StudyInstanceUID=None)), "1.3"), where=aside)
    await keep(committer, (encode(image("1.4")), "1.4"))
    await committer.stop()
    directory.remove_account("gone")
    remove(made.storage.database, Scope(sop_uid="1.4"), by="test", reason="test")
    yield made
    made.close()


def facts(world: World) -> dict[str, Any]:
    """What must be the same after the index was made anew."""
    database = world.storage.database
    quarantine = Viewer(quarantine=True)
    plain = [
        replace(row, id=0)
        for viewer in (Viewer(all=True), quarantine)
        for row in world.listed(viewer)
    ]
    return {
        "instances": sorted(plain, key=lambda row: row.path),
        "studies": [
            (s.study_uid, s.owner_id, s.n_instances, s.attributes, s.patient_name)
            for s in list_studies(database, Viewer(all=True)).rows
        ],
        "versions": [(v.path, v.current) for v in versions(database, Viewer(all=True), "1.2")],
    }


def directory_of(world: World) -> tuple[Any, ...]:
    found = world.storage.directory.snapshot()
    return found.accounts, found.called_titles, found.listeners, found.peers, found.settings


def test_everything_comes_back_beside_the_old_directory(world: World) -> None:
    directory = world.storage.directory
    directory.put_called_title(CalledTitle("TRIAL"))
    directory.put_listener(Listener("dose", 8104))
    directory.put_peer(Peer("ct", "CT1", "10.0.0.1", 104))
    before, known = facts(world), directory_of(world)
    world.close()
    report, old = reindex(world.config)
    assert old is not None
    assert old.exists()
    assert (report.indexed, report.damaged, report.incomplete) == (9, 0, 0)
    world.__init__(world.data)  # type: ignore[misc]
    assert facts(world) == before
    assert directory_of(world) == known
    assert world.storage.reconcile().files == 0
    world.storage.delete_files()
    assert not verify(world.storage.database, world.storage.blobs).findings
    assert len(world.files()) == 9, "what was removed stays removed"


async def test_text_is_read_by_the_character_sets_of_peers_and_titles(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    directory = world.storage.directory
    name = "王^小東".encode("gb18030")
    data = encode(image(PatientName="@" * len(name))).replace(b"@" * len(name), name)
    committer = world.committer()
    await keep(committer, (data, "1.2.3"), where=destination(fallback_charset="GB18030"))
    await committer.stop()
    shown = list_studies(world.storage.database, Viewer()).rows[0].patient_name
    assert shown == "王^小東"
    peer = Peer("wang", "SENDER", "10.0.0.1", fallback_charset="GB18030")
    title = CalledTitle("RAIVEN", fallback_charset="GB18030")
    for keep_peer, keep_title in ((True, False), (False, True)):
        if keep_peer:
            directory.put_peer(peer)
        if keep_title:
            directory.remove_peer("wang")
            directory.put_called_title(title)
        world.close()
        reindex(world.config)
        world.__init__(world.data)  # type: ignore[misc]
        directory = world.storage.directory
        (study,) = list_studies(world.storage.database, Viewer()).rows
        assert study.patient_name == shown
    world.close()


def test_without_any_database_owners_come_from_the_files(world: World) -> None:
    world.storage.delete_files()
    seen = {
        account.name: world.seen(Viewer(account_id=account.id))
        for account in world.storage.directory.snapshot().accounts
    }
    everyone = world.seen(Viewer())
    world.close()
    for part in world.data.glob("hilum.db*"):
        part.unlink()
    with pytest.raises(StoreUnavailable, match="reindex"):
        World(world.data)
    report, old = reindex(world.config)
    assert old is None
    assert report.indexed == 9
    world.__init__(world.data)  # type: ignore[misc]
    accounts = world.storage.directory.snapshot().accounts
    assert {account.name for account in accounts} == {"alice", "radiology-research", "gone"}
    assert all(account.titles for account in accounts)
    for account in accounts:
        if account.name in seen:
            assert world.seen(Viewer(account_id=account.id)) == seen[account.name]
    assert world.seen(Viewer()) == everyone
    assert world.seen(Viewer(quarantine=True)) == ["1.3"]


@pytest.mark.parametrize("kept", [0, 100, 4096, 20_000])
def test_a_damaged_database_gives_what_it_can(world: World, kept: int) -> None:
    world.storage.delete_files()
    everyone = world.seen(Viewer())
    world.close()
    database = world.data / "hilum.db"
    database.write_bytes(database.read_bytes()[:kept])
    report, old = reindex(world.config)
    assert old is not None
    assert report.indexed == 9
    world.__init__(world.data)  # type: ignore[misc]
    assert world.seen(Viewer()) == everyone
    assert world.storage.directory.snapshot().resolve("RAIVEN") is not None


def test_an_interrupted_rebuild_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = facts(world)
    world.close()

    class Interrupted(BaseException):
        pass

    def interrupt(report: Any) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        reindex(world.config, interrupt)

    def fail(database: Path) -> None:
        raise StorageFailed("as asked")

    with monkeypatch.context() as patch, pytest.raises(StorageFailed):
        patch.setattr(app, "put_in_place", fail)
        reindex(world.config)
    assert list(world.data.glob("*.before-*")) == []
    world.__init__(world.data)  # type: ignore[misc]
    assert facts(world) == before
    world.close()
    report, _ = reindex(world.config)
    assert report.indexed == 9
    world.__init__(world.data)  # type: ignore[misc]
    assert facts(world) == before
    assert list(world.data.glob("hilum.db.new*")) == []


def test_a_running_gateway_is_not_disturbed(world: World) -> None:
    before = facts(world)
    with pytest.raises(StoreUnavailable, match="is locked by"):
        reindex(world.config)
    assert facts(world) == before
    assert {p.name for p in world.data.glob("hilum.db*")} <= {
        "hilum.db",
        "hilum.db-wal",
        "hilum.db-shm",
    }


def test_the_database_of_another_store_is_refused_until_it_is_rebuilt(
    world: World, tmp_path: Path
) -> None:
    world.close()
    other = World(tmp_path / "other")
    other.close()
    (world.data / "hilum.db").write_bytes((other.data / "hilum.db").read_bytes())
    with pytest.raises(StoreUnavailable, match="belongs to store"):
        World(world.data)
    assert reindex(world.config)[0].files == 10
    world.__init__(world.data)  # type: ignore[misc]
    assert world.seen(Viewer()) == ["1.2", "1.4"]
