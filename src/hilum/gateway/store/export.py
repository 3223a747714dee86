"""Copies of stored instances as Part 10 files that say nothing of this archive.

Standard: PS3.10 7.1.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from hilum.errors import ConfigurationError
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.layout import object_directory, object_name
from hilum.services.header import HeaderScanner
from hilum.services.part10 import encode_head
from hilum.services.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

__all__ = ["export"]

_CHUNK = 1 << 20
# Enough to see how the first elements are encoded.
_HEAD = 4096
_SCANNER = HeaderScanner(("SOPClassUID", "SOPInstanceUID"))
_NATIVE = {
    "implicit little": IMPLICIT_VR_LITTLE_ENDIAN,
    "explicit little": EXPLICIT_VR_LITTLE_ENDIAN,
    "explicit big": EXPLICIT_VR_BIG_ENDIAN,
}


class Exported(Protocol):
    """An instance of the index."""

    @property
    def path(self) -> str:
        """Its file, relative to the data directory."""

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""


def export(blobs: BlobStore, instances: Iterable[Exported], target: Path) -> Iterator[str]:
    """Copy instances to ``target/Study UID/Series UID/SOP Instance UID.dcm``, or into a zip.

    Args:
        blobs: the store.
        instances: what to copy.
        target: a directory, made where there is none, or a file name that ends in ``.zip``.

    Yields:
        The name of each file below ``target``, once it is whole.

    Raises:
        ConfigurationError: the target is there and is not ours to change.
        OSError: it cannot be written, or an instance cannot be read.
    """
    copied = _into_zip if target.suffix.lower() == ".zip" else _into_directory
    yield from copied(blobs, instances, target)


def _into_zip(blobs: BlobStore, instances: Iterable[Exported], target: Path) -> Iterator[str]:
    try:
        archive = zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=1)
    except FileExistsError:
        raise ConfigurationError(f"{target} exists; name another file") from None
    try:
        with archive:
            for instance in instances:
                file, meta = blobs.open_read(instance.path)
                name = _name(instance, meta)
                with file, archive.open(name, "w", force_zip64=True) as copy:
                    _copy(file, meta, copy)
                yield name
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _into_directory(blobs: BlobStore, instances: Iterable[Exported], target: Path) -> Iterator[str]:
    for instance in instances:
        file, meta = blobs.open_read(instance.path)
        name = _name(instance, meta)
        place = target / name
        with file:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                copy = open(place, "xb")  # noqa: SIM115 - closed below, removed when not whole
            except FileExistsError:
                raise ConfigurationError(f"{place} exists; name an empty directory") from None
            try:
                with copy:
                    _copy(file, meta, copy)
            except BaseException:
                place.unlink(missing_ok=True)
                raise
        yield name


def _name(instance: Exported, meta: ObjectMeta) -> str:
    folder, study, series = object_directory("global", instance.study_uid, instance.series_uid)
    return f"{study}/{series}/{object_name(folder, meta.sop_instance_uid)}"


def _copy(file: BinaryIO, meta: ObjectMeta, copy: IO[bytes]) -> None:
    syntax = _as_found(file) if meta.mislabelled else ""
    copy.write(
        encode_head(meta.sop_class_uid, meta.sop_instance_uid, syntax or meta.transfer_syntax_uid)
    )
    shutil.copyfileobj(file, copy, _CHUNK)


def _as_found(file: BinaryIO) -> str:
    """What a reader needs to be told of a data set that was sent under another transfer syntax."""
    start = file.tell()
    scan = _SCANNER.scan(file.read(_HEAD), EXPLICIT_VR_LITTLE_ENDIAN, final=False)
    file.seek(start)
    return DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN if scan.deflated else _NATIVE.get(scan.encoding, "")
