"""Writing a medium: a file-set with its DICOMDIR in a folder, a zip archive or an ISO 9660 image.

Data sets go onto it byte for byte where their transfer syntax is one of the general purpose
profiles; other uncompressed ones are converted to Explicit VR Little Endian, which loses nothing.
Our own preamble and file meta precede them.

Standard: PS3.10 8 (file-sets, File IDs), PS3.11 D, H, J (general purpose profiles), PS3.12 (media).
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hilum.errors import ConfigurationError, InvalidDicom
from hilum.net.sources import READ_ERRORS, PassedOver, Source, why
from hilum.services.convert import CONVERTIBLE, convert
from hilum.services.media import FileId
from hilum.services.media_records import Directory
from hilum.services.part10 import encode_head
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

__all__ = ["PROFILE_SYNTAXES", "Medium", "Written", "write_medium"]

PROFILE_SYNTAXES = frozenset(
    "1.2.840.10008.1.2" + tail for tail in (".1", ".4.50", ".4.51", ".4.70", ".4.90", ".4.91")
)
"""Of the general purpose CD, DVD, USB and flash profiles, with JPEG and JPEG 2000 (PS3.11)."""

README = """This medium holds DICOM images. DICOMDIR lists them; a DICOM viewer opens it.
"""
_LARGEST_LABEL = 16


class Written(NamedTuple):
    """An object on the medium.

    Args:
        source: where it came from.
        file_id: components of its File ID.
        sop_instance_uid: as its data set says it.
        transfer_syntax: what it is written in.
        converted: it came in another uncompressed one.
        invented: keywords that have a value in the DICOMDIR alone.
    """

    source: Source
    file_id: FileId
    sop_instance_uid: str
    transfer_syntax: str
    converted: bool
    invented: tuple[str, ...]


@dataclass(slots=True)
class Medium:
    """What was written, and what was not."""

    target: Path
    written: list[Written] = field(default_factory=list)
    left_out: list[PassedOver] = field(default_factory=list)


def write_medium(
    sources: Iterable[Source],
    target: Path,
    *,
    label: str = "HILUM",
    any_syntax: bool = False,
    on_object: Callable[[], None] = lambda: None,
) -> Medium:
    """Write a file-set; ``target`` is there when it is whole, and only then.

    Args:
        sources: data sets.
        target: a folder that is not there yet or is empty, ``*.zip`` or ``*.iso``.
        label: File-set ID and volume label.
        any_syntax: write compressed data sets of other transfer syntaxes too, as they are.
        on_object: called after each source.

    Raises:
        ConfigurationError: target or label cannot be; nothing was written.
        OSError: it cannot be written; nothing is left of it.
    """
    _check_label(label)
    pack = {".zip": _zip, ".iso": _iso}.get(target.suffix.lower())
    if pack is _iso:
        _pycdlib()
    if target.exists() and (pack is not None or not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target} exists; name another, or an empty folder")
    with _folder_beside(target) as folder:
        medium = _write(sources, folder, target, label, any_syntax, on_object)
        if not medium.written:
            return medium
        if pack is None:
            if target.exists():
                target.rmdir()
            folder.rename(target)
        else:
            packed = folder.with_name(folder.name + ".part")
            try:
                pack(folder, packed, label)
                packed.rename(target)
            finally:
                packed.unlink(missing_ok=True)
    return medium


def _check_label(label: str) -> None:
    allowed = all(c.isdigit() or "A" <= c <= "Z" or c in " _" for c in label) and label.isascii()
    if len(label) > _LARGEST_LABEL or not allowed:
        raise ConfigurationError(
            f"label {label!r}; expected at most {_LARGEST_LABEL} capitals, digits and underscores"
        )


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A folder on the target's file system, gone in the end unless it became the target."""
    parent = target.absolute().parent
    if not parent.is_dir():
        raise ConfigurationError(f"{parent} is no folder")
    top = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
    folder = top / "medium"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _write(
    sources: Iterable[Source],
    folder: Path,
    target: Path,
    label: str,
    any_syntax: bool,
    on_object: Callable[[], None],
) -> Medium:
    medium, directory = Medium(target), Directory(label)
    incoming = folder / "DICOM" / "INCOMING"
    incoming.parent.mkdir()
    for source in sources:
        try:
            medium.written.append(_add(source, folder, incoming, directory, any_syntax))
        except READ_ERRORS as error:
            if isinstance(error, OSError) and error.filename == str(incoming):
                raise  # the target, not the source
            medium.left_out.append(PassedOver(source.name, why(error)))
        on_object()
    incoming.unlink(missing_ok=True)
    (folder / "DICOMDIR").write_bytes(directory.encode(f"2.25.{uuid.uuid4().int}"))
    (folder / "README.TXT").write_bytes(README.replace("\n", "\r\n").encode("ascii"))
    return medium


def _add(
    source: Source, folder: Path, incoming: Path, directory: Directory, any_syntax: bool
) -> Written:
    head = source.head
    syntax = head.transfer_syntax_uid
    converted = syntax not in PROFILE_SYNTAXES and syntax in CONVERTIBLE
    if not converted and syntax not in PROFILE_SYNTAXES and not any_syntax:
        raise InvalidDicom(
            f"transfer syntax {syntax} is in no general purpose profile; --any-syntax writes it"
        )
    written = EXPLICIT_VR_LITTLE_ENDIAN if converted else syntax

    def write(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
        pieces: Iterable[bytes] = source.pieces()
        if converted:
            pieces = convert(pieces, syntax, written)
        with open(incoming, "wb") as file:
            file.write(encode_head(sop_class_uid, sop_instance_uid, written))
            file.writelines(pieces)
        return _header(incoming)

    header = write(head.sop_class_uid, head.sop_instance_uid)
    said = str(header.get("SOPClassUID", "")), str(header.get("SOPInstanceUID", ""))
    # Some files' own file meta names another instance; a medium's must not.
    if all(said) and said != (head.sop_class_uid, head.sop_instance_uid):
        header = write(*said)
    file_id, invented = directory.add(header, written)
    place = folder.joinpath(*file_id)
    place.parent.mkdir(parents=True, exist_ok=True)
    incoming.rename(place)
    return Written(source, file_id, said[1], written, converted, tuple(invented))


def _header(path: Path) -> Dataset:
    """Everything but the pixel data."""
    from pydicom import dcmread

    try:
        return dcmread(path, stop_before_pixels=True)
    except Exception as error:  # pydicom raises whatever the bytes led it to
        raise InvalidDicom(f"its header cannot be read: {error}") from error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _zip(folder: Path, packed: Path, label: str) -> None:
    with zipfile.ZipFile(packed, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in _files(folder):
            archive.write(path, path.relative_to(folder).as_posix())


def _pycdlib() -> type:
    try:
        from pycdlib import PyCdlib
    except ImportError:
        raise ConfigurationError(
            'an ISO image needs: pip install "hilum[media]"; or write a folder or .zip'
        ) from None
    found: type = PyCdlib
    return found


def _iso(folder: Path, packed: Path, label: str) -> None:
    """ISO 9660 level 1, as PS3.12 F.2 wants it: names of 8 characters, folders at most 8 deep."""
    image = _pycdlib()()
    image.new(interchange_level=1, vol_ident=label.replace(" ", "_"))
    try:
        for path in sorted(folder.rglob("*")):
            name = "/" + path.relative_to(folder).as_posix()
            if path.is_dir():
                image.add_directory(name)
            else:
                image.add_file(str(path), f"{name};1" if "." in path.name else f"{name}.;1")
        image.write(str(packed))
    finally:
        image.close()
