"""CT images of any size whose identity can be patched in place, so that none has to be encoded."""

from __future__ import annotations

import io
import itertools
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

Layout = Literal["series", "study"]
"""All instances of an association in one series, or every instance in a study of its own."""

KIB, MIB = 1 << 10, 1 << 20

SHAPES = {
    "10k": (64, 64),
    "512k": (512, 512),
    "64m": (8192, 4096),
    "1g": (32768, 16384),
}
"""Rows and Columns of 16-bit images with about that many bytes."""

_UID_LENGTH = 44

# Noise that repeats after 1 MiB: no server compresses it, and no gigabyte has to be made.
_PATTERN = os.urandom(MIB)
_PATTERN_TWICE = memoryview(_PATTERN * 2)


@dataclass(frozen=True)
class Identity:
    """What differs between two instances, each of fixed length."""

    sop_instance_uid: bytes
    study_instance_uid: bytes
    series_instance_uid: bytes
    patient_id: bytes
    accession_number: bytes
    instance_number: bytes


_PLACEHOLDER = Identity(
    b"2.25.100000000000000000000000000000000000001",
    b"2.25.100000000000000000000000000000000000002",
    b"2.25.100000000000000000000000000000000000003",
    b"PATIENT-HOLDER--",
    b"ACCESSION-HOLDER",
    b"000007",
)


@dataclass(frozen=True)
class Image:
    """A data set in Explicit VR Little Endian: ``header`` up to and with the header of Pixel Data,
    then ``pixel_bytes`` of noise. ``fields`` are the offsets of the parts of its identity.
    """

    header: bytes
    pixel_bytes: int
    fields: dict[str, int]

    @property
    def length(self) -> int:
        """Return the length of the data set in bytes."""
        return len(self.header) + self.pixel_bytes


def pixels(offset: int, length: int) -> memoryview:
    """Return a part of the noise; ``length`` is at most 1 MiB."""
    start = offset % MIB
    return _PATTERN_TWICE[start : start + length]


def image(size: str) -> Image:
    """Return the CT image of a size named in ``SHAPES``."""
    rows, columns = SHAPES[size]
    buffer = io.BytesIO()
    data_set = _ct(rows, columns)
    data_set.PixelData = b"\0\0"
    dcmwrite(buffer, data_set, implicit_vr=False, little_endian=True, enforce_file_format=False)
    pixel_bytes = rows * columns * 2
    header = buffer.getvalue()[:-6] + pixel_bytes.to_bytes(4, "little")
    fields = {}
    for name, value in vars(_PLACEHOLDER).items():
        if header.count(value) != 1:
            raise ValueError(f"placeholder of {name} occurs {header.count(value)} times, not once")
        fields[name] = header.index(value)
    return Image(header, pixel_bytes, fields)


def patched(source: Image, identity: Identity) -> bytes:
    """Return the header of an image with another identity."""
    header = bytearray(source.header)
    for name, offset in source.fields.items():
        value = getattr(identity, name)
        header[offset : offset + len(value)] = value
    return bytes(header)


def write_file(path: str, source: Image, identity: Identity) -> None:
    """Write an image as a PS3.10 file."""
    meta = _file_meta(identity.sop_instance_uid)
    with open(path, "wb") as file:
        file.write(bytes(128) + b"DICM" + meta + patched(source, identity))
        for start in range(0, source.pixel_bytes, MIB):
            file.write(pixels(start, min(MIB, source.pixel_bytes - start)))


class Identities:
    """Identities that no earlier run used, so that no receiver has seen an instance before."""

    def __init__(self) -> None:
        self._start = 10**38 + secrets.randbelow(10**37) * 10
        self._numbers = itertools.count()
        self._run = secrets.token_hex(3).upper().encode()

    def take(self, count: int, layout: Layout) -> Iterator[Identity]:
        """Yield identities, all in one new series or each in a new study of a new patient."""
        study = series = b""
        parent = 0
        for index in range(count):
            if index == 0 or layout == "study":
                study, series, parent = self._uid(), self._uid(), next(self._numbers)
            yield Identity(
                self._uid(),
                study,
                series,
                b"P%s%09d" % (self._run, parent),
                b"A%s%09d" % (self._run, parent),
                b"%06d" % (index % 10**6),
            )

    def _uid(self) -> bytes:
        uid = b"2.25.%d" % (self._start + next(self._numbers))
        assert len(uid) == _UID_LENGTH
        return uid


def _file_meta(sop_instance_uid: bytes) -> bytes:
    def element(number: int, vr: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return b"\x02\0" + number.to_bytes(2, "little") + vr + _us(len(value)) + value

    body = (
        b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01"
        + element(0x02, b"UI", CT_IMAGE_STORAGE.encode())
        + element(0x03, b"UI", sop_instance_uid)
        + element(0x10, b"UI", EXPLICIT_VR_LITTLE_ENDIAN.encode())
        + element(0x12, b"UI", b"2.25.7433")
    )
    return element(0x00, b"UL", len(body).to_bytes(4, "little")) + body


def _us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _ct(rows: int, columns: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20260301", "101512.250000"
    ds.SOPClassUID = CT_IMAGE_STORAGE
    ds.SOPInstanceUID = _PLACEHOLDER.sop_instance_uid.decode()
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260301"
    ds.StudyTime, ds.SeriesTime = "101005.000000", "101230.000000"
    ds.AcquisitionTime, ds.ContentTime = "101233.114000", "101233.114000"
    ds.AccessionNumber = _PLACEHOLDER.accession_number.decode()
    ds.Modality, ds.Manufacturer = "CT", "Loopback Imaging"
    ds.InstitutionName, ds.ReferringPhysicianName = "Benchmark Hospital", "Referrer^Rita"
    ds.StationName, ds.StudyDescription = "CT01", "CT thorax and abdomen"
    ds.SeriesDescription, ds.ManufacturerModelName = "Thorax 1.0 soft", "Replay 64"
    ds.PatientName, ds.PatientID = "Benchmark^Beatrice", _PLACEHOLDER.patient_id.decode()
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19620712", "F", "063Y"
    ds.PatientSize, ds.PatientWeight = "1.68", "71"
    ds.BodyPartExamined, ds.ScanOptions, ds.SliceThickness = "CHEST", "HELICAL MODE", "1.0"
    ds.KVP, ds.DataCollectionDiameter, ds.DeviceSerialNumber = "120", "500", "743301"
    ds.SoftwareVersions, ds.ProtocolName = "1.0.0", "Thorax routine"
    ds.ReconstructionDiameter, ds.DistanceSourceToDetector = "380", "1040"
    ds.DistanceSourceToPatient, ds.GantryDetectorTilt, ds.TableHeight = "570", "0", "152"
    ds.RotationDirection, ds.ExposureTime, ds.XRayTubeCurrent = "CW", "500", "220"
    ds.Exposure, ds.FilterType, ds.GeneratorPower = "110", "BODY", "26"
    ds.FocalSpots, ds.ConvolutionKernel, ds.PatientPosition = "0.7", "B31F", "HFS"
    ds.StudyInstanceUID = _PLACEHOLDER.study_instance_uid.decode()
    ds.SeriesInstanceUID = _PLACEHOLDER.series_instance_uid.decode()
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber = "1", "3", "1"
    ds.InstanceNumber = _PLACEHOLDER.instance_number.decode()
    ds.ImagePositionPatient = ["-190", "-190", "-512.5"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.FrameOfReferenceUID = "2.25.7433.1"
    ds.PositionReferenceIndicator, ds.SliceLocation = "", "-512.5"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = rows, columns, ["0.742", "0.742"]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    return ds
