"""Folders, archives and media: what a DICOMDIR names is found whatever its case, and nothing else."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests import samples
from tests.unit.services.test_media import directory

from hilum.net.media import find_on_media
from hilum.net.sources import Found
from hilum.services.media import read_directory

CT = next(path for path in samples.paths() if path.name == "CT_small.dcm").read_bytes()
REAL = next(p for p in samples.paths() if p.name == "DICOMDIR" and p.parent.name == "dicomdirtests")


def medium(top: Path, files: dict[str, bytes], *file_ids: Sequence[str]) -> Path:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "DICOMDIR").write_bytes(directory(*file_ids))
    return top / "DICOMDIR"


def look(*paths: Path) -> tuple[list[str], list[tuple[str, str]]]:
    with find_on_media(paths) as found:
        return [Path(s.name).name for s in found.sources], failed(found)


def failed(found: Found) -> list[tuple[str, str]]:
    return [(Path(name).name, reason) for name, reason in found.failed]


# ── what it names ───────────────────────────────────────────────────────────────────────────


def test_a_real_medium() -> None:
    names, lost = look(REAL)
    assert len(names) == len(set(read_directory(REAL.read_bytes()))) == 31
    assert lost == []
    in_folder, _ = look(REAL.parent)
    assert set(names) <= set(in_folder)


def test_case_and_versions_make_no_difference(tmp_path: Path) -> None:
    files = {"images/im1": CT, "IMAGES2/IM2;1": CT, "Images3/IM3.": CT, "beside": CT}
    path = medium(tmp_path, files, ("IMAGES", "IM1"), ("IMAGES2", "IM2"), ("IMAGES3", "IM3"))
    assert look(path) == (["im1", "IM2;1", "IM3."], [])
    names, lost = look(tmp_path)
    assert (sorted(names), lost) == (["IM2;1", "IM3.", "beside", "im1"], [])


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_missing_or_no_dicom_is_reported(tmp_path: Path, whole: bool) -> None:
    path = medium(tmp_path, {"A": CT, "B": b"no DICOM"}, ("A",), ("B",), ("NOT", "HERE"))
    names, lost = look(tmp_path if whole else path)
    assert names == ["A"]
    assert sorted(name for name, _ in lost) == ["B", "HERE"]
    assert ("HERE", "named by the DICOMDIR, but not there") in lost


@pytest.mark.parametrize("whole", [True, False])
def test_a_hostile_directory_takes_nothing(tmp_path: Path, whole: bool) -> None:
    (tmp_path / "secret").write_bytes(CT)
    path = medium(tmp_path / "cd", {"A": CT}, ("..", "secret"))
    names, lost = look(path.parent if whole else path)
    assert names == (["A"] if whole else [])
    assert [name for name, _ in lost] == ["DICOMDIR"]


@pytest.mark.parametrize("whole", [True, False])
def test_links_out_of_the_tree_are_refused(tmp_path: Path, whole: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "X").write_bytes(CT)
    path = medium(tmp_path / "cd", {"A": CT}, ("A",), ("OUT",), ("INSIDE",), ("FOLDER", "X"))
    (tmp_path / "cd" / "OUT").symlink_to(tmp_path / "elsewhere" / "X")
    (tmp_path / "cd" / "INSIDE").symlink_to("A")
    (tmp_path / "cd" / "FOLDER").symlink_to(tmp_path / "elsewhere")
    names, lost = look(path.parent if whole else path)
    assert sorted(names) == ["A", "INSIDE"]
    assert ("OUT", "a link that leads out of what was named") in lost
    assert any(name == "X" for name, _ in lost), "nothing in a linked folder is there"


def test_an_archive_that_a_link_brings_in_is_refused_too(tmp_path: Path) -> None:
    for name in ("elsewhere", "cd"):
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / "a.zip", "w") as archive:
            archive.writestr("DICOMDIR", directory(("IM",), ("LOST",)))
            archive.writestr("IM", CT)
    (tmp_path / "cd" / "out.zip").symlink_to(tmp_path / "elsewhere" / "a.zip")
    names, lost = look(tmp_path / "cd")
    assert names == ["a.zip:IM"]
    assert ("out.zip", "a link that leads out of what was named") in lost
    assert [name for name, _ in lost if name.startswith("out.zip:")] == []


def test_a_medium_in_an_archive(tmp_path: Path) -> None:
    target = tmp_path / "cd.zip"
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("disc/images/im1", CT)
        archive.writestr("disc/beside", CT)
        archive.writestr("disc/junk", b"no DICOM")
        archive.writestr("disc/DICOMDIR", directory(("IMAGES", "IM1"), ("JUNK",), ("GONE",)))
        archive.writestr("../evil/DICOMDIR", directory(("..", "X")))
    with find_on_media([target]) as found:
        assert sorted(s.name.rpartition(":")[2] for s in found.sources) == [
            "disc/beside",
            "disc/images/im1",
        ]
        assert sorted(name.rpartition(":")[2].strip() for name, _ in found.failed) == [
            "../evil/DICOMDIR",
            "GONE",
            "disc/junk",
        ]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_on_media([tmp_path, tmp_path / "none"])


def test_the_count_goes_on_over_paths(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CT)
    (tmp_path / "b").write_bytes(b"no DICOM")
    counts: list[int] = []
    find_on_media([tmp_path / "a", tmp_path / "b", tmp_path], on_file=counts.append).close()
    assert counts == [1, 2, 3, 4]
