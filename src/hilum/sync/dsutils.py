"""Data sets ↔ bytes, and file meta information.

Standard: PS3.5 7 and annex A; PS3.10 7.1.
"""

from __future__ import annotations

import logging
import zlib
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_preamble
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID

from hilum.services.inflate import Inflation, inflate
from hilum.services.transfer_syntaxes import properties
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = [
    "MAX_INFLATED",
    "create_file_meta",
    "decode",
    "decode_bytes",
    "encode",
    "encode_bytes",
    "encode_file_meta",
    "pretty_dataset",
    "split_dataset",
]

log = logging.getLogger("hilum.sync")

MAX_INFLATED = 1 << 30
"""Bytes that a deflated data set may become: the largest deflated objects, such as structured
reports, are far smaller, and a peer's few KB must not fill the memory."""


def create_file_meta(
    *,
    sop_class_uid: UID,
    sop_instance_uid: UID,
    transfer_syntax: UID,
    implementation_uid: UID | None = None,
    implementation_version: str = IMPLEMENTATION_VERSION_NAME,
) -> FileMetaDataset:
    """File meta information for a data set that was received."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.MediaStorageSOPInstanceUID = sop_instance_uid
    meta.TransferSyntaxUID = transfer_syntax
    meta.ImplementationClassUID = implementation_uid or UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = implementation_version
    meta.set_original_encoding(False, True)
    return meta


def encode_file_meta(file_meta: FileMetaDataset) -> bytes:
    """File meta information as it stands in a file, without preamble and prefix."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    write_file_meta_info(buffer, file_meta)
    return bytes(buffer.getvalue())


def decode(
    bytestring: BytesIO, is_implicit_vr: bool, is_little_endian: bool, deflated: bool = False
) -> Dataset:
    """The data set in a stream, from its beginning.

    Raises:
        ValueError: a deflated one that is damaged, or over ``MAX_INFLATED``.
    """
    bytestring.seek(0)
    if deflated:
        data, _, why = inflate(bytestring.getvalue(), 0, MAX_INFLATED)
        if why is not Inflation.ENDED:
            raise ValueError(f"a deflated data set is damaged or over {MAX_INFLATED} bytes")
        bytestring = BytesIO(data)
    return read_dataset(bytestring, is_implicit_vr, is_little_endian)


def decode_bytes(data: bytes, transfer_syntax: str) -> Dataset:
    """The data set that the bytes say in a transfer syntax.

    Raises:
        ValueError: see ``decode``.
    """
    syntax = properties(transfer_syntax)
    return decode(BytesIO(data), not syntax.explicit, syntax.little_endian, syntax.deflated)


def encode(
    ds: Dataset, is_implicit_vr: bool, is_little_endian: bool, deflated: bool = False
) -> bytes | None:
    """A data set's bytes, without file meta; None where it cannot be written, which is logged."""
    try:
        return _encode(ds, is_implicit_vr, is_little_endian, deflated)
    except Exception as error:  # whatever a value's own encoder raises
        log.error("a data set cannot be written: %s", error, exc_info=error)
        return None


def encode_bytes(ds: Dataset, transfer_syntax: str) -> bytes | None:
    """A data set's bytes in a transfer syntax; None where it cannot be written."""
    syntax = properties(transfer_syntax)
    return encode(ds, not syntax.explicit, syntax.little_endian, syntax.deflated)


def _encode(ds: Dataset, implicit: bool, little: bool, deflated: bool) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = implicit
    buffer.is_little_endian = little
    write_dataset(buffer, ds)
    encoded: bytes = buffer.getvalue()
    if deflated:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = deflater.compress(encoded) + deflater.flush()
        encoded += b"\0" * (len(encoded) % 2)
    return encoded


def pretty_dataset(ds: Dataset, indent: int = 0, indent_char: str = "  ") -> list[str]:
    """A data set for people, a line an element."""
    return [f"{indent_char * indent}{line}" for line in str(ds).splitlines()]


def split_dataset(path: Path) -> tuple[Dataset, int]:
    """A file's meta information, and where its data set begins."""
    with open(path, "rb") as file:
        read_preamble(file, False)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
        return meta, file.tell()
