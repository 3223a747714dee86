"""Data sets ↔ bytes in every transfer syntax without images."""

from __future__ import annotations

import zlib

import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement

from hilum.errors import InvalidDicom
from hilum.services.datasets import decode, encode

IMPLICIT, EXPLICIT, DEFLATED, BIG = (
    f"1.2.840.10008.1.2{suffix}" for suffix in ("", ".1", ".1.99", ".2")
)


def sample() -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = "Müller^Jürgen"
    dataset.PatientID = "odd"
    dataset.Rows = 512
    dataset.ReferencedSOPSequence = [item]
    dataset.add_new(0x00091001, "UN", b"\1\2\3\4")
    return dataset


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG])
def test_there_and_back(syntax: str) -> None:
    encoded = encode(sample(), syntax)
    assert len(encoded) % 2 == 0
    for data in (encoded, bytearray(encoded), memoryview(encoded)):
        assert decode(data, syntax) == sample()


def test_the_bytes() -> None:
    dataset = Dataset()
    dataset.Rows = 0x0102
    assert encode(dataset, IMPLICIT) == b"\x28\0\x10\0\2\0\0\0\2\1"
    assert encode(dataset, EXPLICIT) == b"\x28\0\x10\0US\2\0\2\1"
    assert encode(dataset, BIG) == b"\0\x28\0\x10US\0\2\1\2"
    assert zlib.decompress(encode(dataset, DEFLATED), -15) == b"\x28\0\x10\0US\2\0\2\1"
    assert encode(Dataset(), EXPLICIT) == b""
    assert decode(b"", EXPLICIT) == Dataset()


def test_what_cannot_be_written() -> None:
    dataset = Dataset()
    dataset.add(DataElement(0x00280010, "US", "text", already_converted=True))
    with pytest.raises(InvalidDicom, match="cannot be written"):
        encode(dataset, EXPLICIT)
    with pytest.raises(InvalidDicom, match="neither written nor read"):
        encode(Dataset(), "1.2.840.10008.1.2.4.95")


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        (b"\x08\0\x05\0CS", EXPLICIT),
        (b"\x08\0\x05\0CS\x20\0ISO", EXPLICIT),
        (b"\x08\0\x05\0SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0", EXPLICIT),
        (b"not deflated at all", DEFLATED),
        (zlib.compress(bytes(100))[2:20], DEFLATED),
        (b"", "1.2.840.10008.1.2.4.95"),
    ],
)
def test_what_cannot_be_read(data: bytes, syntax: str) -> None:
    with pytest.raises(InvalidDicom):
        decode(data, syntax)


def test_a_deflate_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.services.datasets.MAX_INFLATED", 10_000)
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(bytes(100_000)) + deflater.flush()
    with pytest.raises(InvalidDicom, match="over 10000 bytes"):
        decode(bomb, DEFLATED)
