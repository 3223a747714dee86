"""Data sets ↔ bytes. pydicom is imported at the first use, not before: a receiver needs none of it.

Standard: PS3.5 7 and annex A.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import TYPE_CHECKING

from hilum.errors import InvalidDicom
from hilum.services.inflate import Inflation, inflate
from hilum.services.transfer_syntaxes import TransferSyntax, properties

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["MAX_INFLATED", "decode", "encode"]

MAX_INFLATED = 64 << 20
"""Bytes that a deflated data set may become: identifiers and event information are a few KB."""


def _properties(transfer_syntax: str) -> TransferSyntax:
    syntax = properties(transfer_syntax)
    if syntax.referenced and syntax.deflated:
        raise InvalidDicom(f"data sets in {transfer_syntax} are neither written nor read")
    return syntax


def encode(dataset: Dataset, transfer_syntax: str) -> bytes:
    """A data set's bytes, without file meta.

    Standard: PS3.5 annex A.

    Raises:
        InvalidDicom: it cannot be written in this transfer syntax, or holds what no VR allows.
    """
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    syntax = _properties(transfer_syntax)
    out = DicomBytesIO()
    out.is_little_endian = syntax.little_endian
    out.is_implicit_VR = not syntax.explicit
    try:
        write_dataset(out, dataset)
    except Exception as error:  # whatever a value's own encoder raises
        raise InvalidDicom(f"a data set cannot be written: {error}") from error
    encoded = out.getvalue()
    if syntax.deflated:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        encoded = deflater.compress(encoded) + deflater.flush()
    return encoded + b"\0" * (len(encoded) % 2)


def decode(data: bytes | bytearray | memoryview, transfer_syntax: str) -> Dataset:
    """The data set that the bytes say; its elements are converted when they are looked at.

    Standard: PS3.5 annex A.

    Raises:
        InvalidDicom: they are cut, or no data set in this transfer syntax.
    """
    from pydicom import Dataset
    from pydicom.filereader import read_dataset

    syntax = _properties(transfer_syntax)
    if syntax.deflated:
        data, _, why = inflate(data, 0, MAX_INFLATED)
        if why is not Inflation.ENDED:
            raise InvalidDicom(f"a deflated data set is damaged or over {MAX_INFLATED} bytes")
    if not data:
        return Dataset()
    source = _Source(data)
    try:
        dataset: Dataset = read_dataset(
            source, not syntax.explicit, syntax.little_endian, bytelength=len(data)
        )
    except Exception as error:  # pydicom raises whatever its reading came upon
        raise InvalidDicom(f"a data set cannot be read: {error}") from error
    if source.cut:
        raise InvalidDicom("a data set is cut short, or in another transfer syntax than agreed")
    return dataset


class _Source(BytesIO):
    """Notes where less was there than was asked for, which pydicom takes for an end."""

    cut = False

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        # Eight bytes are asked for where the next element begins: none are there at the end, or
        # one, the padding to an even length.
        if size is not None and len(found) < size and (size != 8 or len(found) > 1):
            self.cut = True
        return found
