"""The records of a medium: their types, keys, links, and what none can be made of."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import DIRECTORY_RECORDERS

from hilum.errors import InvalidDicom
from hilum.services import media_records
from hilum.services.media import read_directory
from hilum.services.media_records import Directory, record_type
from hilum.services.sop_classes import STORAGE_SOP_CLASSES

EXPLICIT = "1.2.840.10008.1.2.1"
ARC = "1.2.840.10008.5.1.4.1.1."


def image(sop: str | None = "1.2.3", **elements: object) -> Dataset:
    """A CT image without pixels; an element given as None is left out."""
    data_set = Dataset()
    values = {
        "SOPClassUID": ARC + "2",
        "SOPInstanceUID": sop,
        "StudyDate": "20260301",
        "Modality": "CT",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.1",
        "InstanceNumber": 1,
        **elements,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(data_set, keyword, value)
    return data_set


RECORD_TYPES = {
    ARC + "2": "IMAGE",
    ARC + "4": "IMAGE",
    ARC + "4.2": "SPECTROSCOPY",
    ARC + "4.3": "IMAGE",
    ARC + "66": "RAW DATA",
    ARC + "66.4": "IMAGE",
    ARC + "77.1.5.3": "STEREOMETRIC",
    ARC + "77.1.5.1": "IMAGE",
    ARC + "11.1": "PRESENTATION",
    ARC + "9.1.1": "WAVEFORM",
    ARC + "9.100.1": "PRESENTATION",
    ARC + "88.59": "KEY OBJECT DOC",
    ARC + "88.67": "SR DOCUMENT",
    ARC + "104.1": "ENCAP DOC",
    ARC + "481.5": "RT PLAN",
    "1.2.840.10008.5.1.4.39.1": "PALETTE",
    ARC + "200.2": None,
    ARC + "201.1": None,
    "1.3.12.2.1107.5.9.1": None,
    "1.2.840.10008.1.1": None,
    "": None,
}


def test_record_types() -> None:
    assert {uid: record_type(uid) for uid in RECORD_TYPES} == RECORD_TYPES


def test_record_types_are_pydicoms() -> None:
    from pydicom.fileset import _four_level_record_type

    for uid in sorted(STORAGE_SOP_CLASSES):
        data_set = Dataset()
        data_set.SOPClassUID = uid
        theirs, ours = _four_level_record_type(data_set), record_type(uid)
        # It calls everything that it does not know an image.
        assert theirs in (ours, "IMAGE"), uid


def records(directory: Directory) -> list[Dataset]:
    read = dcmread(io.BytesIO(directory.encode("1.2.3")))
    return list(read.DirectoryRecordSequence)


def test_links_lead_through_all_records() -> None:
    directory = Directory("LABEL")
    for number in range(1, 5):
        directory.add(
            image(f"1.2.{number}", PatientID=f"P{number % 2}", StudyInstanceUID=f"1.{number % 2}",
                  StudyTime="101010", StudyID="1", SeriesNumber=1),
            EXPLICIT,
        )  # fmt: skip
    data = directory.encode("1.2.3")
    read = dcmread(io.BytesIO(data))
    assert read.FileSetID == "LABEL"
    by_place = {record.seq_item_tell: record for record in read.DirectoryRecordSequence}
    seen = []

    def walk(place: int, depth: int) -> None:
        while place:
            record = by_place[place]
            seen.append((depth, record.DirectoryRecordType))
            walk(record.OffsetOfReferencedLowerLevelDirectoryEntity, depth + 1)
            last[depth] = place
            place = record.OffsetOfTheNextDirectoryRecord

    last: dict[int, int] = {}
    walk(read.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity, 0)
    assert last[0] == read.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity
    one = [(0, "PATIENT"), (1, "STUDY"), (2, "SERIES"), (3, "IMAGE"), (3, "IMAGE")]
    assert seen == one * 2
    assert read_directory(data) == [
        ("DICOM", f"PT00000{p}", "ST000001", "SE000001", f"IM00000{i}")
        for p in (1, 2)
        for i in (1, 2)
    ]


def test_an_empty_directory() -> None:
    read = dcmread(io.BytesIO(Directory().encode("1.2.3")))
    assert read.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity == 0
    assert list(read.DirectoryRecordSequence) == []


def test_what_an_image_lacks_is_given_a_value_here_alone() -> None:
    directory = Directory()
    bare = image(
        PatientID="",
        StudyDate=None,
        InstanceNumber=None,
        Modality=None,
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Müller",
    )
    before = bare.to_json()
    _, invented = directory.add(bare, EXPLICIT)
    assert invented == ["PatientID", "StudyDate", "StudyTime", "StudyID", "Modality",
                        "SeriesNumber", "InstanceNumber"]  # fmt: skip
    assert bare.to_json() == before
    # Another image of the study joins it; one of another study is another patient.
    directory.add(image("1.2.4", PatientID=""), EXPLICIT)
    directory.add(image("1.2.5", PatientID="", StudyInstanceUID="1.9"), EXPLICIT)
    kinds = [record.DirectoryRecordType for record in records(directory)]
    assert (kinds.count("PATIENT"), kinds.count("STUDY"), kinds.count("IMAGE")) == (2, 2, 3)
    assert [r.PatientID for r in records(directory) if "PatientID" in r] == ["UNKNOWN1", "UNKNOWN2"]


@pytest.mark.parametrize(
    ("data_set", "reason"),
    [
        (image("1.2.3"), "on the medium already"),
        (image(None), "no SOP Instance UID"),
        (image("1.2.4", SOPClassUID="1.2.3.4"), "no directory record"),
        (image("1.2.4", SOPClassUID=None), "no directory record"),
        (image("1.2.4", StudyInstanceUID=None), "is missing"),
        (image("1.2.4", SeriesInstanceUID=""), "is missing"),
        (image("1.2.4", SOPClassUID=ARC + "481.2", PatientID="P9"), "Dose Summation Type"),
    ],
)
def test_what_has_no_record_changes_nothing(data_set: Dataset, reason: str) -> None:
    directory = Directory()
    directory.add(image("1.2.3"), EXPLICIT)
    before = directory.encode("1.2.3")
    with pytest.raises(InvalidDicom, match=reason):
        directory.add(data_set, EXPLICIT)
    assert directory.encode("1.2.3") == before


def test_more_than_names_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_records, "_MOST", 1)
    directory = Directory()
    directory.add(image("1.2.3"), EXPLICIT)
    with pytest.raises(InvalidDicom, match="more than 1 IMAGE"):
        directory.add(image("1.2.4"), EXPLICIT)


def test_values_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(data_set: Dataset) -> Dataset:
        record = Dataset()
        record.add_new("InstanceNumber", "US", "no number")
        return record

    monkeypatch.setitem(DIRECTORY_RECORDERS, "IMAGE", odd)
    directory = Directory()
    with pytest.raises(InvalidDicom, match="cannot be written"):
        directory.add(image("1.2.3"), EXPLICIT)
    assert records(directory) == []


def test_an_object_of_no_patient_stands_alone() -> None:
    palette = image(
        SOPClassUID="1.2.840.10008.5.1.4.39.1", StudyInstanceUID=None, ContentLabel="HOT"
    )
    directory = Directory()
    file_id, _ = directory.add(palette, EXPLICIT)
    assert file_id == ("DICOM", "OB000001")
    assert [r.DirectoryRecordType for r in records(directory)] == ["PALETTE"]
