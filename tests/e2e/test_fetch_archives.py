"""hilum fetch: what an archive lacks, what was deleted meanwhile, peers with Patient Root only."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.gateway import HILUM, environment, hilum
from tests.e2e.test_fetch import ARCHIVES, ROOT, World, _world, fill, over, states, until
from tests.studies import Made, Series, make

pytestmark = [pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(params=ARCHIVES)
def world(request, tmp_path: Path) -> Iterator[World]:
    yield from _world(request.param, tmp_path)


@pytest.fixture(params=ARCHIVES[:2])
def by_patient(request, tmp_path: Path) -> Iterator[World]:
    """A dcmqrscp that has the Patient Root model only."""
    yield from _world(request.param, tmp_path, options=("--no-study-root",))


@pytest.fixture(params=ARCHIVES[:2])
def dcmqrscp(request, tmp_path: Path) -> Iterator[World]:
    yield from _world(request.param, tmp_path)


def remove(world: World, studies: list[Made]) -> None:
    """As after extraction."""
    for study in studies:
        hilum("rm", "--study", study.uid, "--yes", "--data", world.data)


@pytest.mark.crash
def test_filtered_deleted_after_extraction_killed_resumed_repeated(world, tmp_path):
    f = tmp_path / "files"
    wanted = [
        make(f, Series("CT", 8), Series("CT", 5), patient=f"P{n}", description="CT Head")
        for n in range(7)
    ]
    others = [
        make(f, Series("CT", 2), patient="P1", description="CT Chest"),
        make(f, Series("MR", 2), patient="P2", description="MR Head"),
        make(f, Series("CT", 2), patient="P3", description="CT Head", date="20250101"),
    ]
    fill(world, *wanted, *others)
    filters = ("--modality", "CT", "--since", "2026-01-01", "--description", "head")
    expected = {uid for study in wanted for uid in study.uids}
    by_uid = {study.uid: study for study in wanted}
    choose = random.Random(7)
    gone: dict[str, Made] = {}
    number = 0

    def extracted() -> list[Made]:
        of_now = states(world.show(number)).items()
        return [by_uid[uid] for uid, state in of_now if state == "fetched" and uid not in gone]

    for round_ in range(3):
        with world.gateway() as gateway:
            if not round_:
                number = world.fetch(*filters, wait=False)["id"]
            until(lambda n=number: bool(extracted()) or over(world, n))
            of_this = extracted()[:2]
            remove(world, of_this)
            gone |= {study.uid: study for study in of_this}
            time.sleep(choose.uniform(0, 0.3))
            gateway.kill()
    removed = {uid for study in gone.values() for uid in study.uids}
    assert removed
    with world.gateway():
        until(lambda: world.show(number)["state"] == "done")
        shown = world.show(number)
        assert {uid for uid, state in states(shown).items() if state == "fetched"} == set(by_uid)
        assert shown["n_wanted"] == shown["n_here"] + shown["n_arrived"] == len(expected)
        assert world.here() == Counter(expected - removed)
        again = world.fetch(*filters)
        assert (again["n_arrived"], again["n_here"]) == (0, len(expected))
        assert world.here() == Counter(expected - removed)
        assert hilum("verify", "--data", world.data)["findings"] == []


def test_a_study_is_complete_when_all_of_it_is_here_and_not_before(dcmqrscp, tmp_path):
    """dcmqrscp names what it has lost the file of."""
    world = dcmqrscp
    study = make(tmp_path / "files", Series("MR", 5))
    whole = make(tmp_path / "files", Series("MR", 2), patient="P2")
    fill(world, study, whole)
    some = next(
        path
        for path in world.archive.files()
        if path.name != "index.dat" and any(_holds(path, uid) for uid in study.uids)
    )
    lost = some.rename(tmp_path / "lost")
    with world.gateway(HILUM_FETCH_ATTEMPTS="2"):
        failed = world.fetch(code=1)
        assert failed["state"] != "done"
        assert failed["problem"].startswith("1 of 5 instances are missing")
        found = {one["study_uid"]: one for one in world.show(failed["id"])["by_study"]}
        assert (found[study.uid]["work"], found[study.uid]["n_arrived"]) == ("dead", 4)
        assert found[whole.uid]["state"] == "fetched"
        assert len(world.here()) == 6
        lost.rename(some)
        subprocess.run(
            [*HILUM, "fetch", "retry", str(failed["id"]), "--data", world.data],
            cwd=ROOT, env=environment(), check=True,
        )  # fmt: skip
        until(lambda: world.show(failed["id"])["state"] == "done")
        (of_study,) = (
            one for one in world.show(failed["id"])["by_study"] if one["study_uid"] == study.uid
        )
        assert of_study["state"] == "fetched"
        assert (of_study["n_here"], of_study["n_arrived"]) == (4, 1)
        assert world.here() == Counter(study.uids | whole.uids)


def _holds(path: Path, uid: str) -> bool:
    return uid.encode() + b"\0" * (len(uid) % 2) in path.read_bytes()


def test_a_peer_that_has_only_patient_root(by_patient, tmp_path):
    world = by_patient
    f = tmp_path / "files"
    first = make(f, Series("MR", 3), Series("MR", 2), patient="P1")
    second = make(f, Series("CT", 2), patient="P1")
    third = make(f, Series("MR", 2), patient="P2")
    fill(world, first, second, third)
    with world.gateway():
        done = world.fetch("--patient", "P2")
        assert states(world.show(done["id"])) == {third.uid: "fetched"}
        done = world.fetch("--study", second.uid)
        assert states(world.show(done["id"])) == {second.uid: "fetched"}
        assert world.here() == Counter(second.uids | third.uids)
        hilum("rm", "--series", second.series[0], "--yes", "--data", world.data)
        # part of a study, by series and by image
        everything = first.uids | second.uids | third.uids
        assert world.fetch()["n_arrived"] == len(first.uids)
        assert world.fetch("--again")["n_arrived"] == len(second.uids)
        assert world.here() == Counter(everything)
        assert world.fetch()["n_arrived"] == 0
