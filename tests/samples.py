"""pydicom's and pydicom-data's test files, as raw data sets.

Only files that are on this disk are named: asking pydicom for all of them would download others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import data_store
import pydicom
from pydicom.fileset import FileSet

_FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data")
_LONG = {b"OB", b"OW", b"UN", b"UT", b"SQ"}


@dataclass(frozen=True)
class Sample:
    """A file's data set without preamble and file meta; `transfer_syntax` is None without meta."""

    path: Path
    data: bytes
    transfer_syntax: str | None

    @property
    def name(self) -> str:
        return self.path.name


@cache
def paths() -> tuple[Path, ...]:
    """Every file that holds a data set, whatever its name."""
    found = (path for folder in _FOLDERS for path in folder.rglob("*") if path.is_file())
    return tuple(
        sorted(
            path
            for path in found
            if path.suffix in (".dcm", ".dic", "") or path.name == "DICOMDIR"
            if path.stat().st_size < 8_000_000
        )
    )


FEW = ("CT_small.dcm", "ExplVR_BigEnd.dcm", "JPEG2000.dcm", "SC_rgb_rle_2frame.dcm",
       "SC_rgb_small_odd.dcm", "UN_sequence.dcm", "chrX1.dcm", "image_dfl.dcm",
       "nested_priv_SQ.dcm", "no_meta_group_length.dcm", "reportsi.dcm")  # fmt: skip
"""One file of each kind, for unit tests; all of them are read in tests/conformance."""


@cache
def few() -> tuple[Path, ...]:
    """The files of `FEW`."""
    return tuple(path for path in paths() if path.name in FEW)


@contextmanager
def file_set(path: Path) -> Iterator[FileSet]:
    """A DICOMDIR as pydicom reads it, whose temporary folder is gone afterwards."""
    found = FileSet(path)
    try:
        yield found
    finally:
        found._stage["t"].cleanup()


@cache
def sample(path: Path) -> Sample:
    """Cut a file into file meta and data set."""
    raw = path.read_bytes()
    if raw[128:132] != b"DICM":
        return Sample(path, raw, None)
    position, transfer_syntax = 132, None
    while raw[position : position + 2] == b"\2\0":
        long = raw[position + 4 : position + 6] in _LONG
        start = position + (12 if long else 8)
        length = int.from_bytes(raw[position + 8 if long else position + 6 : start], "little")
        if raw[position + 2 : position + 4] == b"\x10\0":
            transfer_syntax = raw[start : start + length].rstrip(b"\0 ").decode()
        position = start + length
    return Sample(path, raw[position:], transfer_syntax)


def named(name: str) -> Sample:
    """The sample of a file name."""
    return sample(next(path for path in paths() if path.name == name))
