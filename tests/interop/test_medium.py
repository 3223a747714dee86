"""``hilum dicomdir``: media that pydicom's and DCMTK's readers accept, images byte for byte."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from tests import peers, samples
from tests.e2e.gateway import Gateway, hilum, prepare
from tests.interop.test_tools import HILUM, data_set_of, head_of

from hilum.services.media import read_directory
from hilum.services.part10 import parse_head

pytestmark = pytest.mark.interop

FITTING = {
    "1.2.840.10008.1.2" + tail for tail in (".1", ".4.50", ".4.51", ".4.70", ".4.90", ".4.91")
}
NATIVE = {"1.2.840.10008.1.2" + tail for tail in ("", ".1.99", ".2")}
VARIED = [
    "CT_small.dcm", "MR_small_RLE.dcm", "ExplVR_BigEnd.dcm", "JPEG2000.dcm",
    "rtplan.dcm", "rtdose.dcm", "rtstruct.dcm", "reportsi.dcm", "waveform_ecg.dcm",
    "image_dfl.dcm", "examples_palette.dcm", "chrH31.dcm", "chrGreek.dcm",
]  # fmt: skip


def run(*words: object, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [*HILUM, "dicomdir", *map(str, words), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    return found | {"errors": done.stderr}


def varied() -> list[Path]:
    return [
        samples.named(name).path for name in VARIED if any(p.name == name for p in samples.paths())
    ]


def check_folder(folder: Path, said: dict[str, Any]) -> None:
    """Everything that was said to be there is, read by pydicom; fitting data sets are the same."""
    for each in said["files"]:
        path = folder / each["file_id"]
        raw = path.read_bytes()
        head = parse_head(raw, final=True)
        assert head is not None
        assert head.transfer_syntax_uid == each["transfer_syntax_uid"]
        source = Path(each["file"])
        if not each["converted"]:
            assert raw[head.data_set_offset :] == data_set_of(source), source
        assert raw[:128] == bytes(128)
        components = path.relative_to(folder).parts
        assert len(components) <= 8
        assert all(len(c) <= 8 and c.isalnum() and c.isupper() for c in components)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with samples.file_set(folder / "DICOMDIR") as found:
            loaded = {str(instance.SOPInstanceUID): instance.load() for instance in found}
        assert set(loaded) == {each["sop_instance_uid"] for each in said["files"]}
        for each in said["files"]:
            mine, theirs = loaded[each["sop_instance_uid"]], dcmread(each["file"], force=True)
            assert mine.get("PixelData") == theirs.get("PixelData") or each["converted"]


def check_with_dcmtk(folder: Path, count: int) -> None:
    dump = peers.run([peers.native("dcmdump"), str(folder / "DICOMDIR")]).check()
    assert "E:" not in dump.output
    assert dump.output.count("(0004,1511)") == count
    copy = folder.parent / "for dcmmkdir"
    shutil.copytree(folder, copy)
    before = (copy / "DICOMDIR").read_bytes()
    # It reads our directory, checks its links and records against the files, and adds to it.
    one = sorted(p.relative_to(copy).as_posix() for p in (copy / "DICOM").rglob("*") if p.is_file())
    added = peers.run(
        [peers.native("dcmmkdir"), "+A", "+I", "-Nxc", "-Nec", "-Nrc", one[0]], directory=copy
    )
    added.check()
    assert "E:" not in added.output
    after = read_directory((copy / "DICOMDIR").read_bytes())
    assert set(read_directory(before)) <= set(after)


# ── from files ──────────────────────────────────────────────────────────────────────────────


def test_everything_that_can_be_on_a_medium(dcmtk: None, tmp_path: Path) -> None:
    seen: dict[str, Path] = {}
    for path in samples.paths():
        head = head_of(path)
        if head is not None and not head.is_directory:
            seen.setdefault(head.sop_instance_uid, path)
    said = run(*seen.values(), "-o", tmp_path / "cd", code=1)
    assert len(said["files"]) > 100
    for each in said["left_out"]:
        head = head_of(Path(each["file"]))
        why = each["reason"]
        assert (
            "general purpose profile" in why
            and head is not None
            and head.transfer_syntax_uid not in FITTING | NATIVE
        ) or any(
            known in why
            for known in ("no SOP Instance UID", "on the medium already", "is missing", "ends in the",
                          "cannot be empty", "no directory record", "cannot be converted", "element")
        ), each  # fmt: skip
    check_folder(tmp_path / "cd", said)
    check_with_dcmtk(tmp_path / "cd", len(said["files"]))


def test_record_types_and_what_was_given_a_value(dcmtk: None, tmp_path: Path) -> None:
    said = run(*varied(), "-o", tmp_path / "cd", "--any-syntax", "--label", "CASE 7")
    directory = dcmread(tmp_path / "cd" / "DICOMDIR")
    assert directory.FileSetID == "CASE 7"
    kinds = {record.DirectoryRecordType for record in directory.DirectoryRecordSequence}
    assert kinds >= {"PATIENT", "STUDY", "SERIES", "IMAGE", "RT PLAN", "RT DOSE",
                     "RT STRUCTURE SET", "SR DOCUMENT", "WAVEFORM"}  # fmt: skip
    for each in said["files"]:
        original = dcmread(each["file"], force=True)
        assert all(original.get(keyword) in (None, "") for keyword in each["invented"])
    names = {str(r.PatientName) for r in directory.DirectoryRecordSequence if "PatientName" in r}
    assert str(dcmread(samples.named("chrGreek.dcm").path, force=True).PatientName) in names
    check_folder(tmp_path / "cd", said)
    check_with_dcmtk(tmp_path / "cd", len(said["files"]))


def test_zip_and_iso_hold_the_same(tmp_path: Path) -> None:
    pycdlib = pytest.importorskip("pycdlib", reason='pip install "hilum[media]"')
    run(*varied(), "-o", tmp_path / "cd", code=1)
    run(*varied(), "-o", tmp_path / "cd.zip", code=1)
    run(*varied(), "-o", tmp_path / "cd.iso", code=1)
    folder = tmp_path / "cd"
    there = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).digest()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "DICOMDIR"  # which has a UID of its own
    }
    with zipfile.ZipFile(tmp_path / "cd.zip") as archive:
        zipped = {
            name: hashlib.sha256(archive.read(name)).digest()
            for name in archive.namelist()
            if name != "DICOMDIR"
        }
        archive.extractall(tmp_path / "unzipped")
    assert zipped == there
    image = pycdlib.PyCdlib()
    image.open(str(tmp_path / "cd.iso"))
    for name, digest in there.items():
        out = io.BytesIO()
        image.get_file_from_iso_fp(out, iso_path=f"/{name};1" if "." in name else f"/{name}.;1")
        assert hashlib.sha256(out.getvalue()).digest() == digest
    out = io.BytesIO()
    image.get_file_from_iso_fp(out, iso_path="/DICOMDIR.;1")
    image.close()
    assert read_directory(out.getvalue()) == read_directory((folder / "DICOMDIR").read_bytes())
    with samples.file_set(tmp_path / "unzipped" / "DICOMDIR") as found:
        assert len(found) == len(there) - 1  # less the README


def test_a_medium_read_back_is_what_was_written(tmp_path: Path) -> None:
    said = run(*varied(), "-o", tmp_path / "cd", code=1)
    again = run(tmp_path / "cd" / "DICOMDIR", "-o", tmp_path / "again.zip")
    assert {f["sop_instance_uid"] for f in again["files"]} == {
        f["sop_instance_uid"] for f in said["files"]
    }
    assert not any(f["converted"] for f in again["files"])


@pytest.mark.parametrize("target", ["there", "there.zip", "none/cd.zip", "cd"])
def test_what_cannot_be_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    (tmp_path / "there.zip").write_text("mine")
    words = ["--label", "lower case"] if target == "cd" else []
    said = run(varied()[0], "-o", tmp_path / target, *words, code=1)
    assert said["errors"].startswith("hilum: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there", "there.zip"]
    assert (tmp_path / "there" / "file").read_text() == "mine"


def test_nothing_to_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    assert run(tmp_path / "in", "-o", tmp_path / "cd", code=1)["ok"] is False
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


# ── from the archive ────────────────────────────────────────────────────────────────────────


def test_studies_from_the_archive(dcmtk: None, tmp_path: Path) -> None:
    data = tmp_path / "data"
    prepare(data)
    ct, mr = samples.named("CT_small.dcm").path, samples.named("MR_small.dcm").path
    hilum("import", ct, "--data", data)
    hilum("import", mr, "--data", data, "--user", "alice")
    study = {str(path): str(dcmread(path).StudyInstanceUID) for path in (ct, mr)}
    with Gateway(data):
        said = run(*study.values(), "-o", tmp_path / "cd", "--data", data)
    assert len(said["files"]) == 2
    originals = {str(dcmread(path).SOPInstanceUID): path for path in (ct, mr)}
    for each in said["files"]:
        path = tmp_path / "cd" / each["file_id"]
        assert data_set_of(path) == data_set_of(originals[each["sop_instance_uid"]])
    check_with_dcmtk(tmp_path / "cd", 2)
    for words in ([study[str(mr)], "--user", "bob"], ["1.2.3.4"], [study[str(ct)], "--user", "x"]):
        refused = run(*words, "-o", tmp_path / "no", "--data", data, code=1)
        assert refused["errors"].startswith("hilum: no ")
        assert not (tmp_path / "no").exists()
