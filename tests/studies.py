"""Studies made for tests: small objects with the attributes that queries and rules look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

__all__ = ["ESR", "RDSR", "RRDSR", "Made", "Series", "make"]

RDSR = "1.2.840.10008.5.1.4.1.1.88.67"
ESR = "1.2.840.10008.5.1.4.1.1.88.22"
RRDSR = "1.2.840.10008.5.1.4.1.1.88.68"
BASIC_SR = "1.2.840.10008.5.1.4.1.1.88.11"

_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "PX": "1.2.840.10008.5.1.4.1.1.1.1",
    "XA": "1.2.840.10008.5.1.4.1.1.12.1",
    "RF": "1.2.840.10008.5.1.4.1.1.12.2",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "SR": BASIC_SR,
}


class Series(NamedTuple):
    """A series to make: SOP classes of its images, or their number."""

    modality: str
    images: int | Sequence[str] = 1
    description: str = ""
    station: str = "STATION1"


@dataclass(frozen=True)
class Made:
    """A study that was made.

    Args:
        uid: Study Instance UID.
        files: of its objects.
        images: SOP Instance UIDs of each series, in order of their numbers.
        series: Series Instance UIDs.
    """

    uid: str
    files: tuple[Path, ...]
    images: tuple[tuple[str, ...], ...]
    series: tuple[str, ...]

    @property
    def uids(self) -> set[str]:
        """Every SOP Instance UID."""
        return {uid for series in self.images for uid in series}


def make(
    folder: Path,
    *series: Series,
    date: str = "20260110",
    time: str = "120000",
    description: str = "STUDY",
    patient: str = "P1",
) -> Made:
    """Make a study's objects as files."""
    study_uid = generate_uid()
    files: list[Path] = []
    images: list[tuple[str, ...]] = []
    series_uids: list[str] = []
    for number, one in enumerate(series, 1):
        series_uid = generate_uid()
        series_uids.append(series_uid)
        classes = (
            [_CLASSES[one.modality]] * one.images if isinstance(one.images, int) else one.images
        )
        made: list[str] = []
        for instance, sop_class in enumerate(classes, 1):
            dataset = Dataset()
            dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
            dataset.PatientID, dataset.PatientName = patient, "Test^Fetch"
            dataset.PatientBirthDate, dataset.PatientSex = "", ""
            dataset.StudyDate, dataset.StudyTime = date, time
            dataset.StudyDescription, dataset.SeriesDescription = description, one.description
            dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "", "", ""
            dataset.Modality, dataset.StationName = one.modality, one.station
            dataset.SeriesNumber, dataset.InstanceNumber = number, instance
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID = sop_class
            meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.file_meta = meta
            path = folder / f"{dataset.SOPInstanceUID}.dcm"
            folder.mkdir(parents=True, exist_ok=True)
            dataset.save_as(path, enforce_file_format=True)
            files.append(path)
            made.append(dataset.SOPInstanceUID)
        images.append(tuple(made))
    return Made(study_uid, tuple(files), tuple(images), tuple(series_uids))
