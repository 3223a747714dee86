"""What a DICOMDIR names, and what no medium may name."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Sequence
from io import BytesIO

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from tests import samples

from hilum.errors import InvalidDicom
from hilum.services.media import read_directory
from hilum.services.part10 import encode_head, parse_head

CT = samples.named("CT_small.dcm").path.read_bytes()


def directory(*file_ids: Sequence[str] | None, unused: Sequence[int] = ()) -> bytes:
    """A DICOMDIR of one image record per file id; None is a record without a file."""
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    data_set.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data_set.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    records = []
    for index, file_id in enumerate(file_ids):
        record = Dataset()
        record.RecordInUseFlag = 0 if index in unused else 0xFFFF
        record.DirectoryRecordType = "IMAGE"
        if file_id is not None:
            record.ReferencedFileID = list(file_id)
        records.append(record)
    data_set.DirectoryRecordSequence = records
    file = BytesIO()
    data_set.save_as(file, enforce_file_format=True)
    return file.getvalue()


def test_read_directory() -> None:
    assert read_directory(directory(("A", "B"), None, ("C",), ("D",), unused=[3])) == [
        ("A", "B"),
        ("C",),
    ]


def test_real_directories() -> None:
    for path in samples.paths():
        if path.name.startswith("DICOMDIR") and "empty" not in path.name:
            assert read_directory(path.read_bytes()), path


@pytest.mark.parametrize(
    "file_id",
    [("..", "ETC", "PASSWD"), ("/etc", "passwd"), ("A", "..", "B"), ("C:", "X"), ("A\0B",), (".",)],
)
def test_what_leads_out_is_refused(file_id: tuple[str, ...]) -> None:
    with pytest.raises(InvalidDicom, match="no file of a medium"):
        read_directory(directory(("GOOD",), file_id))


@pytest.mark.parametrize("data", [b"", b"\0" * 1000, CT[:200], directory(("A",))[:-20]])
def test_a_damaged_directory(data: bytes) -> None:
    try:
        assert read_directory(data) == []
    except InvalidDicom as error:
        assert "DICOMDIR" in str(error)


def test_a_directory_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.services.media.DIRECTORY_MAXIMUM", 100)
    with pytest.raises(InvalidDicom, match="at most 100"):
        read_directory(directory(("A",)))


def test_a_deflated_directory_is_refused_before_it_is_inflated() -> None:
    plain = directory(("A",))
    head = parse_head(plain, final=True)
    assert head is not None
    packed = zlib.compress(plain[head.data_set_offset :] + bytes(1 << 20), wbits=-zlib.MAX_WBITS)
    bomb = encode_head("1.2.840.10008.1.3.10", "1.2.3", "1.2.840.10008.1.2.1.99") + packed
    tracemalloc.start()
    try:
        with pytest.raises(InvalidDicom, match="deflated"):
            read_directory(bomb)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20
