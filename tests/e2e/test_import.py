"""``hilum import`` of folders, archives and media: without a gateway, beside one, cut short."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from tests import samples
from tests.e2e.gateway import HILUM, Gateway, environment, hilum, prepare

DICOMDIR = next(
    p for p in samples.paths() if p.name == "DICOMDIR" and p.parent.name == "dicomdirtests"
)
ON_MEDIUM = 31
SETTINGS = {"HILUM_STORE_RESERVE": "0"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    prepare(tmp_path / "data")
    return tmp_path / "data"


def run_import(data: Path, *words: str | Path) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [*HILUM, "import", *words, "--data", data, "--json"],
        env=environment(SETTINGS),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def instances(data: Path, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hilum("ls", "--level", "instance", "--data", data, *words)
    return found


def many(folder: Path, count: int) -> Path:
    """Images of one study each with UIDs of its own, as files."""
    data_set = dcmread(next(p for p in samples.paths() if p.name == "CT_small.dcm"))
    folder.mkdir()
    for number in range(count):
        data_set.SOPInstanceUID = f"1.2.826.0.1.{number}"
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.save_as(folder / f"{number}.dcm")
    return folder


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a gateway"])
def test_a_medium_is_taken_in_and_again(data: Path, beside: bool) -> None:
    if beside:
        with Gateway(data) as gateway:
            _take_in_twice(data)
            assert gateway.stop() == 0
    else:
        _take_in_twice(data)
    assert hilum("verify", "--data", data)["findings"] == []


def _take_in_twice(data: Path) -> None:
    for _ in range(2):
        code, said, errors = run_import(data, DICOMDIR)
        assert code == 0, errors
        assert said["summary"]["sent"] == ON_MEDIUM
        assert len(instances(data)) == ON_MEDIUM
    kept = {row["sop_uid"] for row in instances(data)}
    with samples.file_set(DICOMDIR) as there:
        assert kept == {str(instance.SOPInstanceUID) for instance in there}
    assert {row["sending_ae"] for row in instances(data)} == {"IMPORT"}


def test_for_one_user_from_a_folder_and_a_zip(data: Path, tmp_path: Path) -> None:
    folder = many(tmp_path / "images", 3)
    (folder / "notes.txt").write_text("nothing")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(samples.named("MR_small.dcm").path, "../../MR")
    code, said, errors = run_import(data, "--user", "alice", folder, tmp_path / "more.zip")
    assert code == 0, errors
    assert (said["summary"]["sent"], said["summary"]["skipped"]) == (4, 1)
    assert instances(data, "--user", "bob") == []
    assert len(instances(data, "--user", "alice")) == 4
    assert not (tmp_path / "MR").exists()
    assert not (tmp_path.parent / "MR").exists()


def test_what_cannot_be_taken_is_said_and_the_rest_is_kept(data: Path, tmp_path: Path) -> None:
    folder = many(tmp_path / "images", 2)
    (folder / "cut.dcm").write_bytes((folder / "0.dcm").read_bytes()[:300])
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.dcm", (folder / "0.dcm").read_bytes() + bytes(100 << 20))
    (folder / "out").symlink_to("/etc/hostname")
    code, said, _ = run_import(data, folder, bomb)
    assert code == 1
    assert said["summary"]["sent"] == 2
    reasons = " ".join(str(each["reason"]) for each in said["files"] if each["outcome"] == "failed")
    assert "over 200:1" in reasons
    assert len(instances(data)) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--title", "NOBODY"], "NOBODY"),
        (["--user", "carol"], "carol"),
        (["--user", "alice", "--title", "RAIVEN"], "either"),
        (["--calling", "A\\B"], "AE title"),
    ],
)
def test_what_is_wrong_is_one_line(data: Path, words: list[str], reason: str) -> None:
    code, said, errors = run_import(data, DICOMDIR, *words)
    assert (code, said) == (1, {})
    assert errors.count("\n") == 1
    assert reason in errors
    assert instances(data) == []


def test_no_file_and_no_store(data: Path, tmp_path: Path) -> None:
    assert "none" in run_import(data, tmp_path / "none")[2]
    (tmp_path / "empty").mkdir()
    assert run_import(data, tmp_path / "empty")[0] == 1, "nothing was taken in"
    assert run_import(tmp_path / "nowhere", DICOMDIR)[0] == 1
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.crash
def test_an_import_that_was_killed_is_run_again(data: Path, tmp_path: Path) -> None:
    folder = many(tmp_path / "images", 400)
    process = subprocess.Popen(
        [*HILUM, "import", folder, "--data", data, "-v"],
        env=environment(SETTINGS),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(20)]
    process.kill()
    said += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    stored = sum(line.startswith("sent ") for line in said)
    code, document, errors = run_import(data, folder)
    assert code == 0, errors
    assert document["summary"]["sent"] == 400
    assert len(instances(data)) == 400 > stored >= 19
    assert hilum("verify", "--data", data)["findings"] == []


def test_a_gateway_that_serves_nobody_here_says_so(data: Path) -> None:
    with Gateway(data, settings={"HILUM_ACCESS_ALLOW_LOCAL": "false"}) as gateway:
        code, said, _ = run_import(data, DICOMDIR)
        assert code == 1
        assert said["summary"]["not_sent"] == ON_MEDIUM
        assert "calling AE title" in said["summary"]["error"]
        # Once on each of its four associations.
        assert 1 <= gateway.log.count("is no peer") <= 4, "it was told so, and asked again"
