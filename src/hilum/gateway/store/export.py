"""Copies of stored instances as Part 10 files that say nothing of this archive.

Standard: PS3.10 7.1.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from hilum.errors import ConfigurationError
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.file_meta import ObjectMeta
from hilum.gateway.store.layout import object_directory, object_name
from hilum.wire.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

__all__ = ["export"]

_CHUNK = 1 << 20


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
    if target.suffix.lower() == ".zip":
        try:
            archive = zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=1)
        except FileExistsError:
            raise ConfigurationError(f"{target} exists; name another file") from None
        with archive:
            for instance in instances:
                file, meta = blobs.open_read(instance.path)
                name = _name(instance, meta)
                with file, archive.open(name, "w", force_zip64=True) as copy:
                    _copy(file, meta, copy)
                yield name
        return
    for instance in instances:
        file, meta = blobs.open_read(instance.path)
        name = _name(instance, meta)
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file, open(place, "xb") as copy:
                _copy(file, meta, copy)
        except FileExistsError:
            raise ConfigurationError(f"{place} exists; name an empty directory") from None
        yield name


def _name(instance: Exported, meta: ObjectMeta) -> str:
    folder, study, series = object_directory("global", instance.study_uid, instance.series_uid)
    return f"{study}/{series}/{object_name(folder, meta.sop_instance_uid)}"


def _copy(file: BinaryIO, meta: ObjectMeta, copy: IO[bytes]) -> None:
    elements = FileMetaDataset()
    elements.FileMetaInformationVersion = b"\0\1"
    elements.MediaStorageSOPClassUID = UID(meta.sop_class_uid)
    elements.MediaStorageSOPInstanceUID = UID(meta.sop_instance_uid)
    elements.TransferSyntaxUID = UID(meta.transfer_syntax_uid)
    elements.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    elements.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    header = DicomBytesIO()
    header.is_little_endian, header.is_implicit_VR = True, False
    header.write(bytes(128) + b"DICM")
    write_file_meta_info(header, elements, enforce_standard=False)
    copy.write(header.getvalue())
    shutil.copyfileobj(file, copy, _CHUNK)
