"""What is found in files, folders and archives, and what archives may not do."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from hilum.errors import InvalidDicom
from hilum.net.sources import PIECE, FileSource, ZipLimits, ZipSource, find_sources
from hilum.services.part10 import encode_head

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def dicom(uid: str = "1.2.3", data: bytes = b"data set", sop_class: str = CT) -> bytes:
    return encode_head(sop_class, uid, EXPLICIT) + data


def names(found: list[object]) -> list[str]:
    return [Path(item.name).name for item in found]  # type: ignore[attr-defined]


def test_a_folder_is_searched_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2.dcm", "b/1.dcm", "a/x/3.dcm", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(dicom())
    (tmp_path / "a/notes.txt").write_text("no DICOM file")
    (tmp_path / "DICOMDIR").write_bytes(dicom(sop_class="1.2.840.10008.1.3.10"))
    with find_sources([tmp_path]) as found:
        assert names(found.sources) == ["c", "3.dcm", "1.dcm", "2.dcm"]
        assert {(Path(n).name, why.split(":")[0]) for n, why in found.skipped} == {
            ("notes.txt", "no DICOM file"),
            ("DICOMDIR", "DICOMDIR"),
        }
        assert found.failed == []
        assert found.bytes == 4 * len(b"data set")


def test_what_is_damaged_is_lost_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "cut.dcm").write_bytes(dicom()[:200])
    (tmp_path / "empty.dcm").write_bytes(dicom(data=b""))
    (tmp_path / "nothing").write_bytes(b"")
    found = find_sources([tmp_path])
    assert names([FileSource(n, None, 0) for n, _ in found.failed]) == ["cut.dcm", "empty.dcm"]  # type: ignore[arg-type]
    assert [Path(n).name for n, _ in found.skipped] == ["nothing"]


def test_a_name_that_does_not_exist_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(dicom())
    with pytest.raises(FileNotFoundError):
        find_sources([tmp_path / "a", tmp_path / "b"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_pipes_and_circular_links_do_not_hold_us_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.dcm").write_bytes(dicom())
    (tmp_path / "link.dcm").symlink_to(tmp_path / "a.dcm")
    found = find_sources([tmp_path])
    assert names(found.sources) == ["a.dcm", "link.dcm"]
    assert {Path(n).name for n, _ in found.skipped} == {"pipe", "again", "gone"}


def test_a_folder_deeper_than_the_stack(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)  # the whole path is longer than the system takes at once
    try:
        for _ in range(300):
            os.mkdir("d")
            os.chdir("d")
        Path("a.dcm").write_bytes(dicom())
    finally:
        os.chdir(before)
    assert names(find_sources([tmp_path]).sources) == ["a.dcm"]


@pytest.mark.parametrize("size", [1, 8, 70_000, PIECE, PIECE + 1, 3 * PIECE + 7])
@pytest.mark.parametrize("keep", [0, 1 << 20])
def test_pieces_make_the_data_set(tmp_path: Path, size: int, keep: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "a"
    path.write_bytes(dicom(data=data))
    source = FileSource.open(path, keep=keep)
    pieces = list(source.pieces())
    assert b"".join(pieces) == data
    assert source.length == size
    assert all(len(piece) % 2 == 0 for piece in pieces[:-1])
    assert all(len(piece) <= PIECE for piece in pieces)
    assert (source.content is not None) == (keep > 0 and size < 65_000)


def test_no_more_is_kept_than_was_allowed(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}").write_bytes(dicom(data=bytes(1000)))
    found = find_sources([tmp_path], keep=3500)
    kept = [source for source in found.sources if source.content is not None]
    assert len(found.sources) == 10
    assert len(kept) == 3


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(dicom(data=bytes(3 * PIECE)))
    source = FileSource.open(path)
    with path.open("r+b") as file:
        file.truncate(2 * PIECE)
    with pytest.raises(InvalidDicom, match="shorter"):
        list(source.pieces())


def test_a_head_longer_than_the_first_read(tmp_path: Path) -> None:
    head = encode_head(CT, "1.2.3", EXPLICIT)
    long = b"\2\0\2\1OB\0\0" + (20_000).to_bytes(4, "little") + bytes(20_000)
    path = tmp_path / "a"
    path.write_bytes(head + long + b"data set" + bytes(100_000))
    source = FileSource.open(path)
    assert source.head.data_set_offset == len(head + long)
    assert b"".join(source.pieces()) == b"data set" + bytes(100_000)


# ── archives ────────────────────────────────────────────────────────────────────────────────


def archive(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as zip_file:
        for name, content in members.items():
            zip_file.writestr(name, content)
    return path


def test_members_are_read_where_they_are(tmp_path: Path) -> None:
    large = os.urandom(2 * PIECE + 11)
    members = {
        "../../outside.dcm": dicom("1.1", b"one"),
        "/absolute.dcm": dicom("1.2", large),
        "C:\\windows.dcm": dicom("1.3", b"three"),
        "notes.txt": b"no DICOM file",
        "inner.zip": b"PK\3\4 and so on",
        "cut.dcm": dicom()[:150],
    }
    path = archive(tmp_path / "study.zip", members)
    before = sorted(tmp_path.parent.rglob("*"))
    with find_sources([path]) as found:
        contents = [b"".join(source.pieces()) for source in found.sources]
        assert [source.head.sop_instance_uid for source in found.sources] == ["1.1", "1.2", "1.3"]
        assert contents == [b"one", large, b"three"]
        assert found.sources[0].name == f"{path}:../../outside.dcm"
        assert len(found.skipped) == 2
        assert [name for name, _ in found.failed] == [f"{path}:cut.dcm"]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_member_name_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"\x1b[2J.dcm": dicom()})
    with find_sources([path]) as found:
        assert found.sources[0].name == f"{path}:\\x1b[2J.dcm"


def test_an_archive_in_a_folder_needs_its_suffix(tmp_path: Path) -> None:
    archive(tmp_path / "a.zip", {"1": dicom()})
    archive(tmp_path / "b.docx", {"1": dicom()})
    with find_sources([tmp_path]) as found:
        assert len(found.sources) == 1
        assert [Path(name).name for name, _ in found.skipped] == ["b.docx"]
    with find_sources([tmp_path / "b.docx"]) as found:
        assert len(found.sources) == 1


def test_bombs_are_refused(tmp_path: Path) -> None:
    small = ZipLimits(max_members=3, max_member_size=50_000, max_ratio=20, ratio_from=10_000)
    path = archive(
        tmp_path / "a.zip",
        {
            "flat.dcm": dicom("1.1", bytes(40_000)),
            "large.dcm": dicom("1.2", os.urandom(50_000)),
            "well.dcm": dicom("1.3", os.urandom(40_000)),
        },
    )
    with find_sources([path], limits=small) as found:
        assert [source.head.sop_instance_uid for source in found.sources] == ["1.3"]
        flat, large = found.failed
        assert "over 20:1" in flat.reason
        assert "at most 50000" in large.reason
    many = archive(tmp_path / "b.zip", {f"{n}": b"" for n in range(4)})
    with find_sources([many], limits=small) as found:
        assert (found.sources, len(found.failed)) == ([], 1)
        assert "at most 3" in found.failed[0].reason


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"1": dicom("1.1"), "2": dicom("1.2")})
    raw = bytearray(path.read_bytes())
    second = raw.rindex(b"PK\1\2")
    raw[second + 42 : second + 46] = bytes(4)  # both begin with the first one's bytes
    path.write_bytes(raw)
    with find_sources([path]) as found:
        assert found.sources == []
        assert "overlap" in found.failed[0].reason


def test_a_size_that_the_directory_lies_about(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"1": dicom(data=os.urandom(100_000))})
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\1\2")
    raw[entry + 24 : entry + 28] = (50_000).to_bytes(4, "little")
    path.write_bytes(raw)
    with zipfile.ZipFile(path) as zip_file:
        source = ZipSource.open(zip_file, zip_file.infolist()[0])
        read = 0
        with pytest.raises((zipfile.BadZipFile, InvalidDicom)):
            for piece in source.pieces():
                read += len(piece)
        assert read <= 50_000


@pytest.mark.parametrize("damage", ["crc", "encrypted", "cut", "method"])
def test_damaged_archives(tmp_path: Path, damage: str) -> None:
    path = archive(tmp_path / "a.zip", {"1": dicom(data=os.urandom(1000))})
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\1\2")
    if damage == "crc":
        raw[100] ^= 0xFF
    elif damage == "encrypted":
        raw[6] |= 1
        raw[entry + 8] |= 1
    elif damage == "method":
        raw[8] = raw[entry + 10] = 77
    else:
        del raw[entry + 10 :]
    path.write_bytes(raw)
    with find_sources([path]) as found:
        assert found.sources == []
        assert len(found.failed) == 1


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression(tmp_path: Path, how: int) -> None:
    data = os.urandom(200_000)
    with find_sources([archive(tmp_path / "a.zip", {"1": dicom(data=data)}, how)]) as found:
        assert b"".join(found.sources[0].pieces()) == data
