"""``hilum find``, ``get``, ``move``, ``mwl`` and ``scp qr``, ``scp mwl`` beside DCMTK, pynetdicom, Orthanc."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests import peers, samples
from tests.conftest import require

pytestmark = pytest.mark.interop

HILUM = [sys.executable, "-m", "hilum"]
HOST = peers.HOST
FILES = ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm", "JPEG2000.dcm", "reportsi.dcm",
         "ExplVR_BigEnd.dcm", "chrX1.dcm")  # fmt: skip
# What every archive takes and finds again: with a Patient ID, and not compressed.
UNCOMPRESSED = FILES[:3]


def hilum(*words: object, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HILUM, *map(str, words)], capture_output=True, text=True, timeout=seconds
    )


def document(*words: object) -> tuple[dict[str, Any], int]:
    done = hilum(*words, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def header(name: str) -> Dataset:
    return pydicom.dcmread(samples.named(name).path, stop_before_pixels=True)


def uids(names: tuple[str, ...]) -> set[str]:
    return {str(header(name).SOPInstanceUID) for name in names}


def studies(names: tuple[str, ...]) -> str:
    return "\\".join(sorted({str(header(name).StudyInstanceUID) for name in names}))


def received(folder: Path) -> set[str]:
    return {str(pydicom.dcmread(path).SOPInstanceUID) for path in folder.rglob("*.dcm")}


@contextmanager
def ours(kind: str, folder: Path, *options: str) -> Iterator[peers.Server]:
    """``hilum scp qr`` or ``mwl``, stopped by SIGTERM, which must end it well."""
    command = [*HILUM, "scp", kind, "--host", HOST, "--port", "0", "--folder", str(folder), "-q"]
    log = folder.with_suffix(".log")
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=errors)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith(f"listening on {HOST}:"), line + log.read_text()
        yield peers.Server("hilum", "HILUM", int(line.rpartition(":")[2]), process, folder, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (result := tmp_path / "archive").mkdir()
    for name in FILES:
        (result / name).write_bytes(samples.named(name).path.read_bytes())
    return result


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (result := tmp_path / "out").mkdir()
    return result


Archive = Callable[[dict[str, int]], AbstractContextManager[peers.Server]]


@pytest.fixture(params=["dcmqrscp", "pynetdicom", "orthanc", "hilum"])
def archive(request: pytest.FixtureRequest, tmp_path: Path, folder: Path) -> Archive:
    """An archive with ``UNCOMPRESSED`` in it; called with the move destinations that it knows."""
    kind = request.param
    require({"orthanc": "Orthanc", "hilum": "dcmqrscp"}.get(kind, kind))

    @contextmanager
    def opened(moves: dict[str, int]) -> Iterator[peers.Server]:
        if kind == "hilum":
            words = [w for t, p in moves.items() for w in ("--destination", f"{t}@{HOST}:{p}")]
            with ours("qr", folder, *words) as server:
                yield server
            return
        make: Any = {"dcmqrscp": peers.dcmqrscp, "pynetdicom": peers.pynetdicom_qrscp}.get(kind)
        if kind == "orthanc":
            known = {t: peers.Modality(t, p) for t, p in moves.items()}
            context = peers.orthanc(tmp_path / "peer", modalities=known)
        else:
            context = make(tmp_path / "peer", moves=moves)
        with context as server:
            stored = hilum(
                "store",
                f"{server.ae_title}@{HOST}:{server.port}",
                *(folder / name for name in UNCOMPRESSED),
            )
            assert stored.returncode == 0, stored.stderr
            yield server

    return opened


def at(server: peers.Server) -> str:
    return f"{server.ae_title}@{HOST}:{server.port}"


# ── our tools against archives ──────────────────────────────────────────────────────────────────


def test_find_get_and_move(archive: Archive, out: Path, tmp_path: Path) -> None:
    port = peers.free_port()
    with archive({"MOVER": port}) as server:
        found, code = document(
            "find", at(server), "-aet", "MOVER", "-k", "StudyInstanceUID", "-k", "PatientName",
            "-k", "0010,0020",
        )  # fmt: skip
        assert code == 0, found
        answers = {
            match["0020000D"]["Value"][0]: match["00100010"]["Value"][0]
            for match in found["matches"]
        }
        for name in UNCOMPRESSED:
            ds = header(name)
            assert (
                answers[str(ds.StudyInstanceUID)]["Alphabetic"] == str(ds.PatientName).split("=")[0]
            )

        ct = header("CT_small.dcm")
        one = hilum(
            "find", at(server), "-q", "--csv", "--level", "SERIES", "-k", "(0008,0060)",
            "-k", f"StudyInstanceUID={ct.StudyInstanceUID}", "-k", "SeriesInstanceUID",
        )  # fmt: skip
        rows = list(csv.reader(io.StringIO(one.stdout)))
        assert rows == [
            ["Modality", "StudyInstanceUID", "SeriesInstanceUID"],
            ["CT", str(ct.StudyInstanceUID), str(ct.SeriesInstanceUID)],
        ]

        names = ("CT_small.dcm", "MR_small.dcm", "waveform_ecg.dcm")
        got, code = document(
            "get", at(server), "-aet", "MOVER", "-od", out, "-k",
            f"StudyInstanceUID={ct.StudyInstanceUID}",
        )  # fmt: skip
        assert (code, got["completed"], got["received"]) == (0, 1, 1), got
        assert received(out) == {str(ct.SOPInstanceUID)}

        (moved_to := tmp_path / "moved").mkdir()
        for name in names:
            study = header(name).StudyInstanceUID
            moved, code = document(
                "move", at(server), "-aet", "MOVER", "+P", port, "-od", moved_to, "-k",
                f"StudyInstanceUID={study}",
            )  # fmt: skip
            assert (code, moved["received"]) == (0, 1), moved
        assert received(moved_to) == uids(names)

        unknown = hilum(
            "move", at(server), "-aem", "NOBODY", "-k", f"StudyInstanceUID={ct.StudyInstanceUID}"
        )
        assert unknown.returncode == 1
        assert unknown.stderr


def test_everything_of_our_own_archive(folder: Path, out: Path) -> None:
    with ours("qr", folder) as server:
        got, code = document(
            "get", at(server), "-od", out, "-k", f"StudyInstanceUID={studies(FILES)}"
        )
        assert (code, got["completed"], got["failed"]) == (0, len(FILES), 0), got
        assert received(out) == uids(FILES)
        jpeg = header("JPEG2000.dcm")
        assert pydicom.dcmread(out / f"{jpeg.SOPInstanceUID}.dcm").file_meta.TransferSyntaxUID == (
            jpeg.file_meta.TransferSyntaxUID
        )
        cancelled = hilum(
            "find", at(server), "--level", "PATIENT", "-P", "-k", "PatientID", "--cancel-after", "1"
        )
        assert cancelled.returncode == 0, cancelled.stderr
        partly, code = document(
            "get", at(server), "-od", out, "--sop-class", "CTImageStorage", "-k",
            f"StudyInstanceUID={studies(FILES)}",
        )  # fmt: skip
        assert code == 1
        assert (partly["status"], partly["completed"]) == ("B000", 1)
        assert set(partly["failed_uids"]) == uids(FILES) - uids(("CT_small.dcm",))


KEPT_AS = ("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
           "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm")  # fmt: skip
"""Of two classes, one of them in five transfer syntaxes."""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """One series of all ``KEPT_AS``."""
    (result := tmp_path / "kept").mkdir()
    for number, name in enumerate(KEPT_AS):
        ds = pydicom.dcmread(samples.named(name).path)
        ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = "KEPT", "1.2.3", "1.2.3.4"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{number}"
        ds.save_as(result / f"{ds.SOPInstanceUID}.dcm")
    return result


def came_as_kept(kept: Path, out: Path, *, byte_for_byte: bool = True) -> set[str]:
    """What came; every one in the transfer syntax that it is kept in, with the same pixel data."""
    names = {path.name for path in out.iterdir()}
    for name in names:
        came, stored = pydicom.dcmread(out / name), pydicom.dcmread(kept / name)
        assert came.file_meta.TransferSyntaxUID == stored.file_meta.TransferSyntaxUID
        assert came.PixelData == stored.PixelData
        if byte_for_byte:
            assert samples.sample(out / name).data == samples.sample(kept / name).data
    return names


@pytest.mark.parametrize("query", [True, False], ids=["asked", "not asked"])
@pytest.mark.parametrize("kind", ["orthanc", "hilum"])
def test_images_come_in_the_syntax_they_are_kept_in(
    kind: str, query: bool, kept: Path, out: Path, tmp_path: Path
) -> None:
    require("Orthanc" if kind == "orthanc" else "dcmqrscp")
    ours_or_not = ours("qr", kept) if kind == "hilum" else peers.orthanc(tmp_path / "peer")
    with ours_or_not as server:
        if kind == "orthanc":
            assert hilum("store", at(server), kept).returncode == 0
        words = () if query else ("--no-query",)
        got, code = document("get", at(server), "-od", out, "-k", "StudyInstanceUID=1.2.3", *words)
        assert (code, got["completed"], got["failed"]) == (0, len(KEPT_AS), 0), got
    if not query:
        # Explicit and implicit share a context, and few have one for JPEG-LS.
        for number in (1, 4):
            (out / f"1.2.3.4.{number}.dcm").unlink()
    names = came_as_kept(kept, out, byte_for_byte=kind == "hilum")
    assert len(names) == len(KEPT_AS) - (0 if query else 2)


@pytest.mark.parametrize("level", ["SERIES", "IMAGE", "PATIENT"])
def test_classes_are_asked_for_at_every_level(level: str, kept: Path, out: Path) -> None:
    keys = {
        "PATIENT": ("-P", "-k", "PatientID=KEPT"),
        "SERIES": ("-k", "StudyInstanceUID=1.2.3", "-k", "SeriesInstanceUID=1.2.3.4"),
        "IMAGE": ("-k", "StudyInstanceUID=1.2.3", "-k", "SeriesInstanceUID=1.2.3.4",
                  "-k", "SOPInstanceUID=1.2.3.4.1\\1.2.3.4.4"),
    }  # fmt: skip
    with ours("qr", kept) as server:
        got, code = document("get", at(server), "-od", out, "--level", level, *keys[level])
        assert code == 0, got
    names = came_as_kept(kept, out)
    assert names >= {"1.2.3.4.1.dcm", "1.2.3.4.4.dcm"}
    assert len(names) == (2 if level == "IMAGE" else len(KEPT_AS))


@pytest.mark.parametrize("option, compressed", [("+xr", 2), ("+xv", 3), ("+xt", 4)])
def test_compressed_images_of_a_provider_that_looks_at_the_first_context_alone(
    option: str, compressed: int, kept: Path, out: Path, tmp_path: Path
) -> None:
    require("dcmqrscp")
    mine = [kept / f"1.2.3.4.{number}.dcm" for number in (0, compressed)]
    with peers.dcmqrscp(tmp_path / "peer", options=[option]) as server:
        assert hilum("store", at(server), *mine).returncode == 0
        get = ("get", at(server), "-od", out, "-k", "StudyInstanceUID=1.2.3")
        got, _ = document(*get)
        assert (got["completed"], got["failed"]) == (1, 1), got
        got, _ = document(*get, "--compressed-first")
        assert got["received"] == 1, got
    assert came_as_kept(kept, out, byte_for_byte=False) == {path.name for path in mine}


def test_answers_as_files_are_queries_again(folder: Path, tmp_path: Path) -> None:
    (answers := tmp_path / "answers").mkdir()
    with ours("qr", folder) as server:
        name = header("CT_small.dcm").PatientName
        done = hilum("find", at(server), "-X", "-od", answers, "-k", f"PatientName={name}",
                     "-k", "StudyInstanceUID")  # fmt: skip
        assert done.returncode == 0, done.stderr
        (file,) = answers.iterdir()
        again, code = document("find", at(server), "-f", file, "-k", "StudyDate")
        assert (code, len(again["matches"])) == (0, 1), again
        assert again["matches"][0]["00080020"]["Value"] == [str(header("CT_small.dcm").StudyDate)]


def test_a_peer_that_is_not_there() -> None:
    port = peers.free_port()
    for command in ("find", "get", "move", "mwl"):
        done = hilum(command, f"{HOST}:{port}", "-k", "PatientID=1")
        assert done.returncode == 1
        assert "no connection" in done.stderr
        failed, code = document(command, f"{HOST}:{port}", "-k", "PatientID=1")
        assert (code, failed["ok"]) == (1, False)
        assert "no connection" in failed["error"]


# ── archives' clients against ours ──────────────────────────────────────────────────────────────


def test_dcmtk_against_our_archive(folder: Path, out: Path, tmp_path: Path) -> None:
    for program in ("findscu", "getscu", "movescu", "storescu"):
        require(program)
    port = peers.free_port()
    ct = header("CT_small.dcm")
    study = f"StudyInstanceUID={ct.StudyInstanceUID}"
    with ours("qr", folder, "--destination", f"MOVER@{HOST}:{port}") as server:

        def dcmtk(program: str, *words: str) -> peers.Finished:
            where = [peers.native(program), "-aec", "HILUM", "-aet", "MOVER", *words]
            return peers.run([*where, HOST, str(server.port)])

        for model in ("-S", "-P"):
            done = dcmtk("findscu", "-v", model, "-k", "0008,0052=STUDY", "-k", study,
                         "-k", "PatientName", "-k", "NumberOfStudyRelatedInstances")  # fmt: skip
            assert done.returncode == 0, done.output
            assert f"[{ct.PatientName}" in done.output
            assert "[1" in done.output
        done = dcmtk("getscu", "-S", "-od", str(out), "-k", "0008,0052=STUDY", "-k", study)
        assert done.returncode == 0, done.output
        assert {str(pydicom.dcmread(p).SOPInstanceUID) for p in out.iterdir()} == {
            ct.SOPInstanceUID
        }
        (moved := tmp_path / "moved").mkdir()
        done = dcmtk("movescu", "-S", "-od", str(moved), "+P", str(port), "-aem", "MOVER",
                     "-k", "0008,0052=STUDY", "-k", study)  # fmt: skip
        assert done.returncode == 0, done.output
        assert {str(pydicom.dcmread(p).SOPInstanceUID) for p in moved.iterdir()} == {
            ct.SOPInstanceUID
        }
        # What is stored can be found at once.
        new = samples.named("US1_UNCI.dcm").path
        assert peers.storescu("HILUM", server.port, [new]).returncode == 0
        done = dcmtk("findscu", "-v", "-S", "-k", "0008,0052=STUDY", "-k", "StudyInstanceUID="
                     f"{pydicom.dcmread(new, stop_before_pixels=True).StudyInstanceUID}")  # fmt: skip
        assert "Find Response: 1" in done.output


def test_pynetdicom_against_our_archive(folder: Path, out: Path) -> None:
    require("pynetdicom")
    ct = header("CT_small.dcm")
    with ours("qr", folder) as server:

        def app(program: str, *words: str) -> peers.Finished:
            where = [sys.executable, "-m", "pynetdicom", program, HOST, str(server.port)]
            return peers.run([*where, "-aec", "HILUM", *words])

        done = app(
            "findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=Compressed*"
        )
        assert done.returncode == 0, done.output
        assert "CompressedSamples^CT1" in done.output
        done = app("getscu", "-S", "-od", str(out), "-k", "QueryRetrieveLevel=STUDY", "-k",
                   f"StudyInstanceUID={ct.StudyInstanceUID}")  # fmt: skip
        assert done.returncode == 0, done.output
        assert {str(pydicom.dcmread(p).SOPInstanceUID) for p in out.iterdir()} == {
            ct.SOPInstanceUID
        }


def test_our_archive_refuses(folder: Path, out: Path) -> None:
    with ours("qr", folder, "--no-store") as server:
        wrong, code = document("get", at(server), "-od", out, "-k", "PatientID=1")
        assert (code, wrong["status"]) == (1, "A900")
        stored = hilum("store", at(server), folder / "CT_small.dcm")
        assert stored.returncode == 1


# ── worklists ───────────────────────────────────────────────────────────────────────────────────


def entry(number: int, modality: str, name: str, day: str = "20261126") -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.AccessionNumber = f"A{number}"
    ds.PatientName, ds.PatientID = name, f"P{number}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "O"
    ds.StudyInstanceUID = f"1.2.3.{number}"
    ds.RequestedProcedureID = f"R{number}"
    ds.RequestedProcedureDescription = "procedure"
    step = Dataset()
    step.Modality, step.ScheduledStationAETitle = modality, f"{modality}1"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = day, "100000"
    step.ScheduledPerformingPhysicianName = "Doctor"
    step.ScheduledProcedureStepDescription = "step"
    step.ScheduledProcedureStepID = f"S{number}"
    ds.ScheduledProcedureStepSequence = [step]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
    ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.9.{number}"
    ds.file_meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if number % 2 else ImplicitVRLittleEndian
    )
    return ds


@pytest.fixture
def worklist(tmp_path: Path) -> Path:
    """A folder as wlmscpfs wants it."""
    own = tmp_path / "worklists" / "WORKLIST"
    own.mkdir(parents=True)
    (own / "lockfile").touch()
    for number, (modality, name) in enumerate(
        (("CT", "Müller^Jörg"), ("CT", "Doe^Jane"), ("MR", "Doe^John")), 1
    ):
        entry(number, modality, name).save_as(own / f"{number}.wl", enforce_file_format=True)
    return own.parent


@pytest.mark.parametrize("kind", ["wlmscpfs", "hilum"])
def test_mwl(kind: str, worklist: Path) -> None:
    require("wlmscpfs")
    context = peers.wlmscpfs(worklist) if kind == "wlmscpfs" else ours("mwl", worklist)
    with context as server:
        peer = f"WORKLIST@{HOST}:{server.port}"
        found, code = document("mwl", peer, "--modality", "CT", "--date", "20261126")
        assert code == 0, found
        names = {match["00100010"]["Value"][0]["Alphabetic"] for match in found["matches"]}
        assert names == {"Müller^Jörg", "Doe^Jane"}
        for match in found["matches"]:
            (step,) = match["00400100"]["Value"]
            assert step["00080060"]["Value"] == ["CT"]
            assert step["00400001"]["Value"] == ["CT1"]
        for words in (
            ("find", "-W", "-k", "0040,0100[0].Modality=MR", "-k", "PatientName"),
            ("mwl", "-k", "ScheduledProcedureStepSequence[0].ScheduledStationAETitle=MR1",
             "-k", "PatientName"),
            ("mwl", "--station", "MR1", "-k", "(0010,0010)"),
        ):  # fmt: skip
            found, code = document(*words[:1], peer, *words[1:])
            assert code == 0, found
            assert [m["00100010"]["Value"][0]["Alphabetic"] for m in found["matches"]] == [
                "Doe^John"
            ]
        none, code = document("mwl", peer, "--date", "20270101")
        assert (code, none["matches"]) == (0, [])


def test_findscu_against_our_worklist(worklist: Path) -> None:
    require("findscu")
    with ours("mwl", worklist) as server:
        done = peers.run([
            peers.native("findscu"), "-W", "-v", "-aec", "WORKLIST", "-k", "PatientName=Doe*",
            "-k", "ScheduledProcedureStepSequence[0].Modality=MR",
            "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepID", HOST,
            str(server.port),
        ])  # fmt: skip
        assert done.returncode == 0, done.output
        assert "Doe^John" in done.output
        assert "[S3" in done.output
        assert "Doe^Jane" not in done.output
        # The folder is looked at anew; another called AE title sees what lies in the folder itself.
        entry(4, "MR", "Doe^Jim").save_as(worklist / "WORKLIST" / "4.wl", enforce_file_format=True)
        entry(5, "MR", "Doe^Joe").save_as(worklist / "5.wl", enforce_file_format=True)
        found, _ = document("mwl", f"WORKLIST@{HOST}:{server.port}", "--modality", "MR")
        assert len(found["matches"]) == 2
        found, _ = document("mwl", f"..@{HOST}:{server.port}", "--modality", "MR")
        assert [m["00100020"]["Value"] for m in found["matches"]] == [["P5"]]
