"""Requests for commitment: kept, judged, exempt from deletion; each failure for its reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update
from tests.unit.gateway.store.archive_world import (
    CT,
    World,
    destination,
    encode,
    image,
    keep,
)

from hilum.cli.committing import Archive
from hilum.errors import StorageFailed
from hilum.gateway.app import Storage, reindex
from hilum.gateway.store import schema
from hilum.gateway.store.claims import Wanted
from hilum.gateway.store.commitment_requests import CommitmentRequests
from hilum.gateway.store.commitments import (
    DELIVER,
    JUDGE,
    Asked,
    Commitments,
    TooManyOpen,
    pack_result,
)
from hilum.gateway.store.delivery import Level
from hilum.gateway.store.jobs import Steering, listed
from hilum.gateway.store.judgement import judge
from hilum.gateway.store.removal import Scope, remove
from hilum.gateway.store.retention import (
    cancel_deletion,
    committed_elsewhere,
    deletable,
    plan_deletion,
)
from hilum.gateway.store.states import CommitmentState, DuplicatePolicy, InstanceFlag
from hilum.gateway.store.work import WorkTable
from hilum.services.commitment import Action, Failure, FailureReason, Reference, Result
from hilum.services.sop_classes import VERIFICATION, may_store

MR = "1.2.840.10008.5.1.4.1.1.4"
SOPS = ("1.1", "1.2", "1.3")
CLIENT = Asked(0, "HILUM", "CT1")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Three instances of everyone's, one of alice's."""
    made = World(tmp_path / "data")
    alice = made.storage.directory.add_account("alice")
    committer = made.committer()
    await keep(committer, *((encode(image(sop)), sop) for sop in SOPS))
    await keep(
        committer,
        (encode(image("1.9")), "1.9"),
        where=destination(owner_id=alice.id, owner="alice"),
    )
    await committer.stop()
    yield made
    made.close()


def refs(*sops: str, sop_class: str = CT) -> tuple[Reference, ...]:
    return tuple(Reference(sop_class, sop) for sop in sops)


def judged(
    world: World,
    *references: Reference,
    owners: tuple[int, ...] = (0,),
    level: Level = Level.CHECKSUM,
    most: int = 100,
) -> Result:
    return judge(
        world.storage.database,
        world.storage.blobs,
        Action("2.25.1", references),
        owners=owners,
        level=level,
        supports=may_store,
        max_references=most,
    )


def reasons(result: Result) -> dict[str, int]:
    return {failure.sop_instance_uid: failure.reason for failure in result.failed}


def path(world: World, sop: str) -> Path:
    return world.data / next(row.path for row in world.listed() if row.sop_uid == sop)


def number(world: World, sop: str) -> int:
    with world.storage.database.read() as connection:
        return int(
            connection.scalar(select(schema.instance.c.id).where(schema.instance.c.sop_uid == sop))
            or 0
        )


def flags(world: World, sop: str) -> int:
    with world.storage.database.read() as connection:
        statement = select(schema.instance.c.flags).where(schema.instance.c.sop_uid == sop)
        return int(connection.scalar(statement) or 0)


def work(world: World, kind: str) -> int:
    with world.storage.database.read() as connection:
        return len(
            connection.execute(
                select(schema.work.c.id).where(
                    schema.work.c.kind == kind, schema.work.c.state == "ready"
                )
            ).all()
        )


# ── judging ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("level", list(Level))
def test_what_is_here_and_whole_is_committed(world: World, level: Level) -> None:
    result = judged(world, *refs(*SOPS), level=level)
    assert result == Result("2.25.1", refs(*SOPS))
    assert all(flags(world, sop) & InstanceFlag.COMMITTED for sop in SOPS)
    assert judged(world, *refs(*SOPS), level=level) == result


def test_each_failure_has_its_reason(world: World) -> None:
    result = judged(
        world,
        *refs("1.1", "1.2", "1.2", "1.404"),
        Reference(MR, "1.3"),
        Reference(VERIFICATION, "1.3"),
    )
    assert result.committed == refs("1.1", "1.2")
    assert result.failed == (
        Failure(CT, "1.404", FailureReason.NO_SUCH_OBJECT_INSTANCE),
        Failure(MR, "1.3", FailureReason.CLASS_INSTANCE_CONFLICT),
        Failure(VERIFICATION, "1.3", FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED),
    )
    assert not flags(world, "1.3") & InstanceFlag.COMMITTED


def test_a_flipped_byte_is_found_by_the_checksum_only(world: World) -> None:
    file = path(world, "1.2")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert reasons(judged(world, *refs(*SOPS))) == {"1.2": FailureReason.PROCESSING_FAILURE}
    assert reasons(judged(world, *refs(*SOPS), level=Level.FILE)) == {}


def test_a_cut_file_is_found_by_its_length(world: World) -> None:
    file = path(world, "1.2")
    file.write_bytes(file.read_bytes()[:-2])
    assert reasons(judged(world, *refs("1.2"), level=Level.FILE)) == {
        "1.2": FailureReason.PROCESSING_FAILURE
    }
    assert reasons(judged(world, *refs("1.2"), level=Level.ROW)) == {}


def test_a_file_that_is_gone_is_no_instance(world: World) -> None:
    path(world, "1.2").unlink()
    for level in (Level.CHECKSUM, Level.FILE):
        assert reasons(judged(world, *refs("1.2"), level=level)) == {
            "1.2": FailureReason.NO_SUCH_OBJECT_INSTANCE
        }


def test_anothers_instance_is_none(world: World) -> None:
    alice = next(a.id for a in world.storage.directory.snapshot().accounts)
    assert reasons(judged(world, *refs("1.9"))) == {"1.9": FailureReason.NO_SUCH_OBJECT_INSTANCE}
    assert not flags(world, "1.9") & InstanceFlag.COMMITTED
    assert judged(world, *refs("1.9", "1.1"), owners=(alice, 0)).failed == ()
    # A title that answers for nobody: quarantine, pipelines.
    assert set(reasons(judged(world, *refs("1.9", "1.1"), owners=()))) == {"1.9", "1.1"}


def test_more_than_allowed_fail_all(world: World) -> None:
    result = judged(world, *refs(*SOPS), most=2)
    assert reasons(result) == dict.fromkeys(SOPS, FailureReason.RESOURCE_LIMITATION)
    assert result.committed == ()


def test_a_planned_deletion_forbids_commitment(world: World) -> None:
    database = world.storage.database
    with database.write() as connection:
        assert plan_deletion(connection, [number(world, "1.2")], due_at=1, reason="rule") != []
    assert reasons(judged(world, *refs(*SOPS))) == {"1.2": FailureReason.PROCESSING_FAILURE}
    with database.write() as connection:
        cancel_deletion(connection, [number(world, "1.2")])
    assert judged(world, *refs("1.2")).failed == ()


def test_a_downstream_archive_makes_a_planned_deletion_harmless(world: World) -> None:
    database = world.storage.database
    ids = [number(world, "1.2")]
    with database.write() as connection:
        plan_deletion(connection, ids, due_at=1, reason="rule")
        committed_elsewhere(connection, ids)
    assert judged(world, *refs("1.2")).failed == ()
    with database.write() as connection:
        assert deletable(connection, ids) == ids


def test_a_commitment_forbids_deletion(world: World) -> None:
    judged(world, *refs("1.1"))
    ids = [number(world, "1.1"), number(world, "1.2")]
    with world.storage.database.write() as connection:
        assert deletable(connection, ids) == ids[1:]
        assert plan_deletion(connection, ids, due_at=1, reason="rule") == ids[1:]


def test_what_is_removed_while_it_is_judged_is_not_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hilum.gateway.store import judgement

    look = judgement._file_reason

    def slow(blobs: object, row: object, level: Level) -> object:
        remove(world.storage.database, Scope(sop_uid="1.2"), by="test", reason="test")
        return look(blobs, row, level)  # type: ignore[arg-type]

    monkeypatch.setattr(judgement, "_file_reason", slow)
    assert reasons(judged(world, *refs(*SOPS))) == {"1.2": FailureReason.PROCESSING_FAILURE}


def test_judging_ends_with_the_gateway(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from hilum.gateway.store import judgement

    looked_at: list[str] = []
    look = judgement._file_reason

    def seen(blobs: object, row: object, level: Level) -> FailureReason | None:
        looked_at.append(row.sop_uid)  # type: ignore[attr-defined]
        return look(blobs, row, level)  # type: ignore[arg-type]

    monkeypatch.setattr(judgement, "_file_reason", seen)
    with pytest.raises(StorageFailed, match="ends"):
        judge(
            world.storage.database,
            world.storage.blobs,
            Action("2.25.1", refs(*SOPS)),
            owners=(0,),
            level=Level.CHECKSUM,
            supports=may_store,
            max_references=100,
            is_over=lambda: bool(looked_at),
        )
    assert looked_at == ["1.1"]


def test_removal_by_a_person_has_to_be_meant(world: World) -> None:
    judged(world, *refs("1.1"))
    database = world.storage.database
    done = remove(database, Scope(study_uid="1.2"), by="me", reason="")
    assert (done.instances, done.kept) == (3, 1)
    assert world.seen() == ["1.1"]
    done = remove(database, Scope(study_uid="1.2"), by="me", reason="", even_committed=True)
    assert (done.instances, done.kept) == (1, 0)
    assert world.seen() == []


async def test_a_committed_instance_is_not_replaced(world: World) -> None:
    judged(world, *refs("1.1"))
    before = path(world, "1.1")
    committer = world.committer()
    replacing = destination(duplicates=DuplicatePolicy.REPLACE)
    other = encode(image("1.1", PatientName="Other^Name"))
    assert await keep(committer, (other, "1.1"), where=replacing) == [0]
    await committer.stop()
    world.storage.delete_files()
    assert before.exists()
    assert path(world, "1.1") != before


# ── requests ──────────────────────────────────────────────────────────────────────────────────


def test_a_request_is_kept_with_its_work(world: World) -> None:
    commitments = Commitments(world.storage.database)
    action = Action("2.25.7", refs("1.1"))
    first = commitments.record(CLIENT, action, max_open=10)
    found = commitments.load(first)
    assert found is not None
    assert (found.asked, found.action, found.state) == (CLIENT, action, CommitmentState.ASKED)
    assert work(world, JUDGE) == 1
    # The same again is the same, in another order too.
    assert commitments.record(CLIENT, action, max_open=10) == first
    assert work(world, JUDGE) == 1


def settle(world: World, commitments: Commitments, number: int, result: Result) -> None:
    with world.storage.database.write() as connection:
        commitments.judged(connection, number, pack_result(result), len(result.failed))


def test_a_result_never_changes(world: World) -> None:
    commitments = Commitments(world.storage.database)
    number = commitments.record(CLIENT, Action("2.25.7", refs("1.1")), max_open=10)
    result = Result("2.25.7", refs("1.1"))
    settle(world, commitments, number, result)
    settle(world, commitments, number, Result("2.25.7", (), (Failure(CT, "1.1", 0x0110),)))
    found = commitments.load(number)
    assert found is not None and found.result == result
    assert work(world, DELIVER) == 1


def test_a_delivered_result_goes_out_again_when_asked_for_again(world: World) -> None:
    commitments = Commitments(world.storage.database)
    action = Action("2.25.7", refs("1.2", "1.1"))
    number = commitments.record(CLIENT, action, max_open=10)
    result = Result("2.25.7", refs("1.2", "1.1"))
    settle(world, commitments, number, result)
    found = commitments.load(number)
    assert found is not None
    assert commitments.delivered(found, "same")
    assert commitments.waiting_for("CT1", 0, "") == []
    assert commitments.record(CLIENT, Action("2.25.7", refs("1.1", "1.2")), max_open=10) == number
    assert commitments.waiting_for("CT1", 0, "") == [number]
    assert work(world, DELIVER) == 2
    found = commitments.load(number)
    assert found is not None and found.result == result
    assert [e.state for e in commitments.listed()] == ["judged"]


def test_who_asks_again_before_the_answer_is_recorded_gets_it_again(world: World) -> None:
    commitments = Commitments(world.storage.database)
    action = Action("2.25.7", refs("1.1"))
    number = commitments.record(CLIENT, action, max_open=10)
    settle(world, commitments, number, Result("2.25.7", refs("1.1")))
    reported = commitments.load(number)
    assert reported is not None
    commitments.record(CLIENT, action, max_open=10)
    assert not commitments.delivered(reported, "same")
    assert commitments.waiting_for("CT1", 0, "") == [number]
    again = commitments.load(number)
    assert again is not None
    assert commitments.delivered(again, "same")
    assert commitments.waiting_for("CT1", 0, "") == []


def test_another_list_under_the_same_transaction_fails(world: World) -> None:
    commitments = Commitments(world.storage.database)
    first = commitments.record(CLIENT, Action("2.25.7", refs("1.1")), max_open=10)
    other = commitments.record(CLIENT, Action("2.25.7", refs("1.1", "1.2")), max_open=10)
    assert other != first
    found = commitments.load(other)
    assert found is not None and found.result is not None
    assert reasons(found.result) == dict.fromkeys(
        ("1.1", "1.2"), FailureReason.DUPLICATE_TRANSACTION_UID
    )
    assert commitments.waiting_for("CT1", 0, "") == [other]
    # Of another caller, or for another user, it is another transaction: nothing tells of it.
    for asked in (Asked(0, "HILUM", "CT2"), Asked(7, "RVU-alice", "CT1")):
        third = commitments.load(
            commitments.record(asked, Action("2.25.7", refs("1.2")), max_open=10)
        )
        assert third is not None and third.result is None


def test_open_requests_have_a_limit(world: World) -> None:
    commitments = Commitments(world.storage.database)
    for n in range(3):
        commitments.record(CLIENT, Action(f"2.25.{n}", refs("1.1")), max_open=3)
    with pytest.raises(TooManyOpen):
        commitments.record(CLIENT, Action("2.25.9", refs("1.1")), max_open=3)
    commitments.record(Asked(0, "HILUM", "CT2"), Action("2.25.9", refs("1.1")), max_open=3)
    assert commitments.record(CLIENT, Action("2.25.1", refs("1.1")), max_open=3)


def test_what_a_peer_asked_for_is_for_that_peer(world: World) -> None:
    commitments = Commitments(world.storage.database)
    by_peer = commitments.record(
        Asked(0, "HILUM", "CT1", "ct1"), Action("2.25.7", refs("1.1")), max_open=10
    )
    settle(world, commitments, by_peer, Result("2.25.7", refs("1.1")))
    by_nobody = commitments.record(CLIENT, Action("2.25.8", refs("1.1")), max_open=10)
    settle(world, commitments, by_nobody, Result("2.25.8", refs("1.1")))
    assert commitments.waiting_for("CT1", 0, "ct1") == [by_peer, by_nobody]
    for other in ("", "ct2"):
        assert commitments.waiting_for("CT1", 0, other) == [by_nobody]


def test_waiting_deliveries_are_woken(world: World) -> None:
    database = world.storage.database
    commitments = Commitments(database)
    number = commitments.record(CLIENT, Action("2.25.7", refs("1.1")), max_open=10)
    settle(world, commitments, number, Result("2.25.7", refs("1.1")))
    for state in ("waiting", "dead"):
        with database.write() as connection:
            connection.execute(
                update(schema.work)
                .where(schema.work.c.kind == DELIVER)
                .values(state=state, ready_at=1 << 60)
            )
        assert work(world, DELIVER) == 0
        commitments.wake([number])
        assert work(world, DELIVER) == 1


def test_old_requests_are_forgotten_once_they_have_ended(world: World) -> None:
    commitments = Commitments(world.storage.database)
    number = commitments.record(CLIENT, Action("2.25.7", refs("1.1")), max_open=10)
    settle(world, commitments, number, Result("2.25.7", refs("1.1")))
    assert commitments.forget(keep=-1.0) == 0
    found = commitments.load(number)
    assert found is not None
    with world.storage.database.write() as connection:
        commitments.given_up(connection, found, "nobody there")
    assert [(e.state, e.cause) for e in commitments.listed()] == [("given up", "nobody there")]
    assert commitments.forget(keep=60.0) == 0
    assert commitments.forget(keep=-1.0) == 1
    assert commitments.load(number) is None


def test_requests_without_work_get_it_again(world: World) -> None:
    database = world.storage.database
    commitments = Commitments(database)
    commitments.record(CLIENT, Action("2.25.1", refs("1.1")), max_open=10)
    number = commitments.record(CLIENT, Action("2.25.2", refs("1.1")), max_open=10)
    settle(world, commitments, number, Result("2.25.2", refs("1.1")))
    assert commitments.resume() == 0
    with database.write() as connection:
        connection.execute(delete(schema.work))
    assert commitments.resume() == 2
    assert (work(world, JUDGE), work(world, DELIVER)) == (1, 1)


def test_promises_survive_the_loss_of_the_index(world: World) -> None:
    judged(world, *refs("1.1"))
    commitments = Commitments(world.storage.database)
    commitments.record(CLIENT, Action("2.25.1", refs("1.1")), max_open=10)
    world.close()
    reindex(world.config)
    world.storage = Storage(world.config)
    assert flags(world, "1.1") & InstanceFlag.COMMITTED
    assert not flags(world, "1.2") & InstanceFlag.COMMITTED
    assert Commitments(world.storage.database).resume() == 1


# ── requests of ours ──────────────────────────────────────────────────────────────────────────


def test_our_requests_get_the_first_result(world: World) -> None:
    requests = CommitmentRequests(world.storage.database)
    action = Action("2.25.5", refs("1.1", "1.2"))
    requests.create(action, peer="pacs", called_ae="PACS", calling_ae="HILUM", owner_id=0)
    assert requests.open() == []
    requests.asked("2.25.5")
    assert [each.action for each in requests.open()] == [action]
    result = Result("2.25.5", refs("1.1"), (Failure(CT, "1.2", 0x0112),))
    assert requests.answered(result)
    assert requests.answered(Result("2.25.5", refs("1.1", "1.2")))
    found = requests.find("2.25.5")
    assert found is not None and found.result == result
    assert requests.open() == []
    assert not requests.answered(Result("2.25.404", refs("1.1")))
    assert flags(world, "1.1") & InstanceFlag.COMMITTED_ELSEWHERE
    assert not flags(world, "1.2") & InstanceFlag.COMMITTED_ELSEWHERE


def test_only_what_was_asked_for_counts(world: World) -> None:
    requests = CommitmentRequests(world.storage.database)
    requests.create(
        Action("2.25.5", refs("1.1")), peer="p", called_ae="P", calling_ae="H", owner_id=0
    )
    requests.answered(Result("2.25.5", refs("1.1", "1.3")))
    assert not flags(world, "1.3") & InstanceFlag.COMMITTED_ELSEWHERE
    # What is not in the archive, or another's, is nobody's business.
    requests.create(
        Action("2.25.6", refs("1.9", "1.2")), peer="p", called_ae="P", calling_ae="H", owner_id=None
    )
    requests.answered(Result("2.25.6", refs("1.9", "1.2")))
    for sop in ("1.9", "1.2"):
        assert not flags(world, sop) & InstanceFlag.COMMITTED_ELSEWHERE


def test_a_refused_request_says_why(world: World) -> None:
    requests = CommitmentRequests(world.storage.database)
    requests.create(
        Action("2.25.5", refs("1.1")), peer="p", called_ae="P", calling_ae="H", owner_id=None
    )
    requests.asked("2.25.5", "status 0122H")
    found = requests.find("2.25.5")
    assert found is not None and (found.asked_at, found.cause) == (None, "status 0122H")
    assert requests.forget(keep=60.0) == 0
    assert requests.forget(keep=-1.0) == 1


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("gone", [False, True])
def test_a_request_whose_work_was_cancelled_has_work_when_it_is_made_again(
    world: World, judged: bool, gone: bool
) -> None:
    database = world.storage.database
    commitments = Commitments(database)
    action = Action("2.25.7", refs("1.1"))
    number = commitments.record(CLIENT, action, max_open=10)
    if judged:
        settle(world, commitments, number, Result("2.25.7", refs("1.1")))
    table = WorkTable(database, "test:1")
    for kind in (JUDGE, DELIVER):
        jobs = [entry.id for entry in listed(database, kind=kind)]
        Steering(database, actor="t").cancel(jobs)
    assert not table.due((JUDGE, DELIVER)).ready
    if gone:
        assert table.forget(keep=-1.0)
    # An operator has cancelled the work: the next start does not undo that, a new request does.
    assert commitments.resume() == (1 if gone else 0)
    for _ in range(2):
        assert commitments.record(CLIENT, action, max_open=10) == number
    assert len(table.claim([Wanted(DELIVER if judged else JUDGE, 10, 60.0, 3)])) == 1


# ── --delete-committed ────────────────────────────────────────────────────────────────────────


async def test_what_came_after_the_request_is_not_deleted_with_what_was_committed(
    world: World,
) -> None:
    database = world.storage.database
    requests = CommitmentRequests(database)
    committer = world.committer()
    await keep(committer, (encode(image("1.1", PatientName="First^Version")), "1.1"))
    asked = Action("2.25.9", refs("1.1", "1.2", "1.3"))
    requests.create(asked, peer="pacs", called_ae="PACS", calling_ae="US", owner_id=0)
    remove(database, Scope(sop_uid="1.2"), by="t", reason="t")
    await keep(committer, (encode(image("1.2", PatientName="Sent^Later")), "1.2"))
    await committer.stop()
    # Instances of this test arrived long ago: what came last comes after the request.
    with database.write() as connection:
        newest = select(func.max(schema.instance.c.id)).scalar_subquery()
        here = update(schema.instance).where(schema.instance.c.id == newest)
        connection.execute(here.values(received_at=2**60))
    assert requests.answered(Result("2.25.9", refs("1.1", "1.2", "1.3")))
    with Archive(world.config) as archive:
        # Of two versions nobody knows which one the peer has; the later one of 1.2 it has not.
        assert archive.delete(refs("1.1", "1.2", "1.3"), 0, "pacs") == 1
    assert world.seen() == ["1.1", "1.2", "1.9"]
    with database.read() as connection:
        left = connection.scalars(select(schema.instance.c.sop_uid)).all()
    assert sorted(left) == ["1.1", "1.1", "1.2", "1.9"]
