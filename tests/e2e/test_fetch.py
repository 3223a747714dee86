"""hilum fetch against live archives: filtered, killed, resumed, repeated; nothing twice."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from tests import peers, samples
from tests.conftest import require
from tests.e2e.gateway import HILUM, Gateway, environment, hilum, prepare
from tests.studies import ESR, RDSR, RRDSR, Made, Series, make

pytestmark = [pytest.mark.interop, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
QUICK = {"HILUM_FETCH_RETRY_LEAST": "0.5", "HILUM_FETCH_SETTLE": "2"}


@dataclass
class World:
    """A gateway's data directory, the port it listens on, and an archive that knows it."""

    data: Path
    port: int
    archive: peers.Server
    by: str = "move"

    @contextmanager
    def gateway(self, **settings: str) -> Iterator[Gateway]:
        words = ("--dicom", f"127.0.0.1:{self.port}")
        with Gateway(self.data, words=words, settings={**QUICK, **settings}) as gateway:
            yield gateway

    def fetch(self, *words: str, wait: bool = True, code: int = 0) -> dict[str, Any]:
        """Run ``hilum fetch PACS``; returns the fetch as it shows it."""
        import json

        command = [*HILUM, "fetch", "PACS", "--data", self.data, "--json", *words]
        done = subprocess.run(
            [*command, *(["--wait"] if wait else [])],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout + str(self.problems())
        return json.loads(done.stdout)

    def problems(self) -> list[str]:
        return [job["cause"] for job in hilum("jobs", "ls", "--data", self.data)]

    def show(self, number: int) -> dict[str, Any]:
        return hilum("fetch", "show", str(number), "--data", self.data)

    def here(self) -> Counter[str]:
        rows = hilum("ls", "--level", "instance", "--data", self.data)
        return Counter(row["sop_uid"] for row in rows)


def over(world: World, number: int) -> bool:
    return bool(world.show(number)["over"])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


ARCHIVES = ("dcmqrscp by move", "dcmqrscp by get", "Orthanc by move", "Orthanc by get")


@pytest.fixture(params=ARCHIVES)
def world(request, tmp_path: Path) -> Iterator[World]:
    yield from _world(request.param, tmp_path)


@pytest.fixture(params=("qrscp by move", "qrscp by get"))
def qrscp(request, tmp_path: Path) -> Iterator[World]:
    yield from _world(request.param, tmp_path)


@pytest.fixture(params=ARCHIVES[::2])
def moving(request, tmp_path: Path) -> Iterator[World]:
    yield from _world(request.param, tmp_path)


def _world(kind: str, tmp_path: Path, options: tuple[str, ...] = ()) -> Iterator[World]:
    program, _, how = kind.split()
    require("pynetdicom" if program == "qrscp" else program)
    data, port = tmp_path / "data", peers.free_port()
    prepare(data)
    with ExitStack() as stack:
        if program == "dcmqrscp":
            archive = stack.enter_context(
                peers.dcmqrscp(tmp_path / "archive", moves={"HILUM": port}, options=options)
            )
        elif program == "qrscp":
            archive = stack.enter_context(
                peers.pynetdicom_qrscp(tmp_path / "archive", moves={"HILUM": port})
            )
        else:
            modality = peers.Modality("HILUM", port)
            archive = stack.enter_context(
                peers.orthanc(tmp_path / "archive", modalities={"hilum": modality})
            )
        address = f"{archive.ae_title}@127.0.0.1:{archive.port}"
        command = [*HILUM, "peer", "add", "PACS", address, "--data", data]
        subprocess.run(
            [*command, *(["--get"] if how == "get" else [])],
            cwd=ROOT,
            env=environment(),
            check=True,
        )
        yield World(data, port, archive, how.removeprefix("by "))


def fill(world: World, *studies: Made) -> None:
    """Gently: dcmqrscp loses stores when many come at once."""
    for study in studies:
        where = f"{world.archive.ae_title}@127.0.0.1:{world.archive.port}"
        done = hilum("store", where, *study.files)
        assert done["ok"], done


def states(shown: dict[str, Any]) -> dict[str, str]:
    return {study["study_uid"]: study["state"] for study in shown["by_study"]}


@pytest.mark.parametrize("kind", ["dcmqrscp by get", "Orthanc by get"])
def test_images_come_in_the_syntax_they_are_kept_in(kind, tmp_path):
    (folder := tmp_path / "files").mkdir()
    files = {}
    for number, name in enumerate(
        ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm")
    ):
        if kind.startswith("dcmqrscp") and "jp2k" in name:
            continue  # it takes one compressed syntax
        ds = dcmread(samples.named(name).path)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "1.2.3", "1.2.3.4", "KEPT"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
        ds.save_as(folder / name)
        files[str(ds.SOPInstanceUID)] = ds
    for world in _world(kind, tmp_path, options=("+xr",)):
        where = f"{world.archive.ae_title}@127.0.0.1:{world.archive.port}"
        assert hilum("store", where, folder)["ok"]
        with world.gateway():
            assert world.fetch("--study", "1.2.3")["state"] == "done"
            assert set(world.here()) == files.keys()
        hilum("export", "-o", tmp_path / "out", "--study", "1.2.3", "--data", world.data)
    came = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, (tmp_path / "out").rglob("*.dcm"))}
    for uid, ds in files.items():
        assert came[uid].file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
        assert came[uid].PixelData == ds.PixelData


def test_filters_leave_out_and_say_why(world, tmp_path):
    f = tmp_path / "files"
    head = make(f, Series("CT", 3), Series("CT", 2, station="OTHER"), description="CT Head")
    chest = make(f, Series("CT", 2), description="CT Chest")
    old = make(f, Series("CT", 1), date="20250101", description="CT Head")
    late = make(f, Series("CT", 1), time="180000", description="CT Head")
    sound = make(f, Series("US", 1), description="US Head")
    report = make(f, Series("MR", 1), Series("SR", 1), description="MR Head")
    fill(world, head, chest, old, late, sound, report)
    with world.gateway():
        done = world.fetch(
            *("--modality", "CT", "--since", "2026-01-10T08:00", "--until", "2026-01-10T17:00"),
            *("--description", "head", "--not-station", "other"),
        )
        assert done["state"] == "done"
        shown = world.show(done["id"])
        found = {study["study_uid"]: study for study in shown["by_study"]}
        assert states(shown)[head.uid] == "fetched"
        if world.archive.ae_title == "ARCHIVE":  # it does not say which station a series is of
            assert world.here() == Counter(head.uids)
        else:
            assert world.here() == Counter(head.images[0])
            (dropped,) = found[head.uid]["dropped"]
            assert (dropped["level"], dropped["uid"]) == ("series", head.series[1])
            assert "OTHER" in dropped["reason"]
        assert found[chest.uid]["reason"].startswith("its description has none of")
        assert found[late.uid]["reason"] == "after 20260110170000"
        assert old.uid not in found, "the peer matches dates"
        for other in (sound, report):
            if other.uid in found:
                assert "modalities" in found[other.uid]["reason"]
        # reports alone
        before = world.here()
        world.fetch("--modality", "SR")
        assert world.here() - before == Counter(report.images[1])


def test_everything_and_again_nothing(world, tmp_path):
    studies = [
        make(tmp_path / "files", Series("MR", 4), Series("MR", 3), patient=f"P{n}")
        for n in range(3)
    ]
    fill(world, *studies)
    everything = {uid for study in studies for uid in study.uids}
    with world.gateway():
        first = world.fetch()
        assert world.here() == Counter(everything)
        assert (first["n_arrived"], first["n_here"]) == (21, 0)
        again = world.fetch()
        assert set(states(world.show(again["id"])).values()) == {"here"}
        assert (again["n_arrived"], again["n_here"]) == (0, 21)
        # some are gone after extraction: a tombstone stands for them
        hilum("rm", "--series", studies[0].series[0], "--yes", "--data", world.data)
        hilum("rm", "--study", studies[1].uid, "--yes", "--data", world.data)
        gone = {*studies[0].images[0], *studies[1].uids}
        then = world.fetch()
        assert then["n_arrived"] == 0
        why = {study["study_uid"]: study["reason"] for study in world.show(then["id"])["by_study"]}
        assert why[studies[1].uid] == "7 were here and were removed; --again fetches them"
        assert why[studies[2].uid] == ""
        assert world.here() == Counter(everything - gone)
        # half a series is missing only
        assert world.fetch("--again")["n_arrived"] == len(gone)
        assert world.here() == Counter(everything)
        done = hilum("verify", "--data", world.data)
        assert done["findings"] == []


def test_an_archive_that_knows_few_keys(qrscp, tmp_path):
    """pynetdicom's qrscp names neither modalities of studies nor SOP classes."""
    study = make(tmp_path / "files", Series("MG", 2), Series("SR", [RDSR], "Dose Report"))
    other = make(tmp_path / "files", Series("US", 1), patient="P2")
    fill(qrscp, study, other)
    with qrscp.gateway(HILUM_FETCH_ATTEMPTS="3"):
        done = qrscp.fetch("--modality", "MG")
        assert qrscp.here() == Counter(study.uids)
        found = {one["study_uid"]: one for one in qrscp.show(done["id"])["by_study"]}
        assert "(US)" in found[other.uid]["reason"]
        assert qrscp.fetch("--modality", "MG")["n_arrived"] == 0


def test_a_part_of_a_series_is_fetched_alone(world, tmp_path):
    study = make(tmp_path / "files", Series("MR", 6))
    fill(world, study)
    with world.gateway() as gateway:
        peers.storescu("HILUM", gateway.port, study.files[:2]).check()
        done = world.fetch()
        assert (done["n_here"], done["n_arrived"]) == (2, 4)
        assert world.here() == Counter(study.uids)


@pytest.mark.crash
def test_killed_resumed_and_the_same_in_the_end(world, tmp_path):
    studies = [
        make(tmp_path / "files", Series("CT", 12), Series("CT", 8), patient=f"P{n}")
        for n in range(8)
    ]
    fill(world, *studies)
    everything = {uid for study in studies for uid in study.uids}
    choose = random.Random(4)
    number = 0
    for round_ in range(4):
        with world.gateway() as gateway:
            if not round_:
                number = world.fetch(wait=False)["id"]
            before = len(world.here())
            until(lambda n=before, f=number: len(world.here()) > n or over(world, f))
            time.sleep(choose.uniform(0, 0.3))
            gateway.kill()
    with world.gateway():
        until(lambda: world.show(number)["state"] == "done")
        shown = world.show(number)
        assert set(states(shown).values()) <= {"fetched", "here"}
        assert shown["n_wanted"] == shown["n_here"] + shown["n_arrived"] == len(everything)
        assert world.here() == Counter(everything)
        assert world.fetch()["n_arrived"] == 0
        assert hilum("verify", "--data", world.data)["findings"] == []


CASES = {
    "MG with RDSR": ([Series("MG", 2), Series("SR", [RDSR])], {(1, 0)}),
    "MG without": ([Series("MG", 2)], {(0, 0), (0, 1)}),
    "DX with RDSR": ([Series("DX", 2), Series("SR", [RDSR])], {(1, 0)}),
    "CR with another report": ([Series("CR", 1), Series("SR", 1)], {(0, 0)}),
    "XA with RDSR and ESR": ([Series("XA", 2), Series("SR", [RDSR, ESR])], {(1, 0)}),
    "RF with ESR": ([Series("RF", 1), Series("SR", [ESR])], {(1, 0)}),
    "RF without": ([Series("RF", 1)], set()),
    "CT with RDSR": ([Series("CT", 3), Series("CT", 1, "Dose Info"), Series("SR", [RDSR])], {(2, 0)}),
    "CT with ESR": ([Series("CT", 3), Series("SR", [ESR])], {(1, 0)}),
    "CT with Dose Info": ([Series("CT", 3), Series("CT", 1, "Dose Info")], {(1, 0)}),
    "CT without, first images": ([Series("CT", 3), Series("CT", 2)], {(0, 0), (1, 0)}),
    "PT with RRDSR": ([Series("PT", 3), Series("PT", 2), Series("SR", [RRDSR])],
                      {(0, 0), (1, 0), (2, 0)}),
    "NM with RRDSR": ([Series("NM", 2), Series("SR", [RRDSR])], {(1, 0)}),
    "NM without": ([Series("NM", 3)], {(0, 0)}),
    "PET/CT": ([Series("PT", 2), Series("CT", 2), Series("SR", [RDSR, RRDSR])],
               {(0, 0), (2, 0), (2, 1)}),
    "of no group": ([Series("US", 1)], set()),
}  # fmt: skip


def places(study: list[Series], modality: str) -> list[tuple[int, int]]:
    """The images of a modality, as a case names them."""
    return [
        (s, image)
        for s, series in enumerate(study)
        if series.modality == modality
        for image in range(series.images if isinstance(series.images, int) else len(series.images))
    ]


def sop_class_of(series: Series, image: int) -> str:
    """As the case says it; "" where it is what the modality makes."""
    return "" if isinstance(series.images, int) else series.images[image]


def test_what_dose_needs_case_by_case(world, tmp_path):
    made = {
        name: make(tmp_path / "files", *series, description=name, patient=name[:8])
        for name, (series, _) in CASES.items()
    }
    fill(world, *made.values())
    # dcmqrscp says neither SOP classes nor series descriptions: every report is fetched to see what
    # it is, and a Dose Info series is one of those whose first image is fetched.
    is_silent = world.archive.ae_title == "ARCHIVE"
    # DCMTK 3.6.7 proposes no radiopharmaceutical dose SR when it performs a C-MOVE. The images are
    # fetched then that would be without it.
    cannot = RRDSR if is_silent and world.by == "move" else ""
    with world.gateway(HILUM_FETCH_ATTEMPTS="2" if cannot else "10"):
        done = world.fetch("--dose", "--first-images", code=int(bool(cannot)))
        here = world.here()
        assert max(here.values()) == 1
        for name, (series, expected) in CASES.items():
            study = made[name]
            chosen = set(expected)
            if is_silent:
                chosen |= set(places(series, "SR"))
                if series[-1].description == "Dose Info":
                    chosen.add((0, 0))
            if cannot:
                lost = {(s, i) for s, i in chosen if sop_class_of(series[s], i) == cannot}
                chosen -= lost
                if lost and series[0].modality == "NM":
                    chosen.add((0, 0))
            wanted = {study.images[s][image] for s, image in chosen}
            assert here.keys() & study.uids == wanted, name
        shown = world.show(done["id"])
        accounted = 0
        for study in shown["by_study"]:
            accounted += study["n_wanted"] + study["n_dropped"]
            assert all(one["reason"] for one in study["dropped"])
            whole = study["n_arrived"] == study["n_wanted"]
            state = "fetched" if whole else "planned"
            assert study["state"] == (state if study["n_wanted"] else "dropped")
            if not whole:
                assert study["reason"].startswith("1 of ")
        assert done["failed"] == (3 if cannot else 0)
        assert accounted >= sum(len(case) for case, _ in CASES.values())
        if not cannot:
            # what was extracted and deleted says still what it was
            gone = made["MG with RDSR"]
            hilum("rm", "--study", gone.uid, "--yes", "--data", world.data)
            assert world.fetch("--dose", "--first-images")["n_arrived"] == 0
            assert world.here() == Counter(here.keys() - gone.uids)


def test_a_fetch_may_keep_for_a_user(world, tmp_path):
    study = make(tmp_path / "files", Series("MR", 2))
    fill(world, study)
    with world.gateway():
        world.fetch("--title", "RVU-alice")
        mine = hilum("ls", "--level", "instance", "--user", "alice", "--data", world.data)
        others = hilum("ls", "--level", "instance", "--user", "bob", "--data", world.data)
        assert {row["sop_uid"] for row in mine} == study.uids
        assert others == []


def test_what_does_not_come_is_a_failure_with_its_cause(moving, tmp_path):
    study = make(tmp_path / "files", Series("MR", 2))
    fill(moving, study)
    subprocess.run(
        [*HILUM, "ae", "add", "STRANGER", "--data", moving.data],
        cwd=ROOT, env=environment(), check=True,
    )  # fmt: skip
    with moving.gateway(HILUM_FETCH_ATTEMPTS="2"):
        failed = moving.fetch("--destination", "STRANGER", code=1)
        assert failed["problem"].startswith("2 of 2 instances are missing")
        (shown,) = moving.show(failed["id"])["by_study"]
        assert (shown["work"], shown["reason"]) == ("dead", failed["problem"])
        assert moving.here() == Counter()


def test_cancel_stops_what_runs(world, tmp_path):
    studies = [make(tmp_path / "files", Series("CT", 15), patient=f"P{n}") for n in range(6)]
    fill(world, *studies)
    with world.gateway():
        number = world.fetch(wait=False)["id"]
        until(lambda: len(world.here()) > 0)
        subprocess.run(
            [*HILUM, "fetch", "cancel", str(number), "--data", world.data],
            cwd=ROOT, env=environment(), check=False,
        )  # fmt: skip
        until(lambda: not hilum("jobs", "ls", "--data", world.data))
        assert world.show(number)["state"] in ("cancelled", "done")
        assert world.fetch()["state"] == "done"
        assert world.here() == Counter({uid for study in studies for uid in study.uids})


def test_a_schedule_fetches(moving, tmp_path):
    study = make(tmp_path / "files", Series("MR", 2))
    fill(moving, study)
    data = ("--data", str(moving.data))

    def run(*words: str) -> None:
        subprocess.run([*HILUM, *words, *data], cwd=ROOT, env=environment(), check=True)

    run("schedule", "add", "nightly", "0 3 * * *", "PACS", "--modality", "CT")
    run("schedule", "add", "nightly", "0 3 * * *", "PACS", "--since", "2026-01-01")
    with moving.gateway():
        run("schedule", "run", "nightly")
        until(lambda: bool(hilum("fetch", "ls", *data)))
        until(lambda: hilum("fetch", "ls", *data)[0]["over"])
        (one,) = hilum("fetch", "ls", *data)
        assert (one["state"], one["origin"]) == ("done", "schedule:1")
        assert moving.here() == Counter(study.uids)
        (listed,) = hilum("schedule", "ls", *data)
        assert listed["last_result"] == "begun by hand"
    run("schedule", "rm", "nightly")
    assert hilum("schedule", "ls", *data) == []
