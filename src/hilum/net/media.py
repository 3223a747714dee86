"""What can be taken from media: folders, zip archives, and what a DICOMDIR names.

A folder or archive is looked through whether it has a DICOMDIR or not; one that is there is held
against what was found, so that a file that the medium should have is missed. Nothing outside what
was named is read: neither by a DICOMDIR's word nor by a symbolic link.

Standard: PS3.10 8, PS3.11.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from hilum.net.sources import (
    KEEP,
    READ_ERRORS,
    FileSource,
    Found,
    PassedOver,
    ZipLimits,
    find_sources,
    why,
)
from hilum.services.media import DIRECTORY_MAXIMUM, FileId, read_directory

__all__ = ["find_on_media"]

_DIRECTORY = "DICOMDIR"
_OUTSIDE = "a link that leads out of what was named"
_NOT_THERE = "named by the DICOMDIR, but not there"


def find_on_media(
    paths: Iterable[str | os.PathLike[str]],
    *,
    limits: ZipLimits | None = None,
    on_file: Callable[[int], None] | None = None,
) -> Found:
    """Look through folders, archives, files, and media by their DICOMDIR.

    Args:
        paths: what to look through; a DICOMDIR stands for the files that it names.
        limits: of archives.
        on_file: called after each file with the number looked at so far.

    Raises:
        FileNotFoundError: one of ``paths`` does not exist; nothing was looked at.
    """
    names = [os.fspath(path) for path in paths]
    for name in names:
        if not os.path.lexists(name):
            raise FileNotFoundError(name)
    whole = Found()
    count, keep = 0, KEEP
    for name in names:
        before = count
        counted = (lambda n, start=before: on_file(start + n)) if on_file else None
        found = find_sources([name], keep=keep, limits=limits, on_file=counted)
        directories = [Path(e.name) for e in found.skipped if e.reason == _DIRECTORY]
        if Path(name).is_dir():
            top = Path(name).resolve()
            _check_links(found, top)
            for directory in directories:
                if directory.is_file() and _is_below(directory, top):  # else in an archive
                    _hold_against(found, directory)
        elif directories and not found.archives:
            _follow(found, Path(name))
        for archive in found.archives:
            _hold_archive_against(found, archive)
        count += len(found.sources) + len(found.skipped) + len(found.failed)
        keep -= sum(len(source.content) for source in found.sources if source.content is not None)
        whole.sources += found.sources
        whole.skipped += found.skipped
        whole.failed += found.failed
        whole.archives += found.archives
    return whole


def _check_links(found: Found, top: Path) -> None:
    """Leave out what a link brought in from elsewhere."""
    for source in tuple(found.sources):
        if isinstance(source, FileSource) and not _is_below(Path(source.name), top):
            found.sources.remove(source)
            found.failed.append(PassedOver(source.name, _OUTSIDE))
    for archive in tuple(found.archives):
        name = str(archive.filename)
        if not _is_below(Path(name), top):
            _leave_out(found, archive)
            found.failed.append(PassedOver(name, _OUTSIDE))


def _leave_out(found: Found, archive: ZipFile) -> None:
    """Take an archive and all that is in it out of what was found."""
    of_it = f"{archive.filename}:"
    found.sources = [one for one in found.sources if not one.name.startswith(of_it)]
    found.skipped = [one for one in found.skipped if not one.name.startswith(of_it)]
    found.failed = [one for one in found.failed if not one.name.startswith(of_it)]
    found.archives.remove(archive)
    archive.close()


def _is_below(path: Path, top: Path) -> bool:
    return not path.is_symlink() or path.resolve().is_relative_to(top)


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(DIRECTORY_MAXIMUM + 1)


def _follow(found: Found, path: Path) -> None:
    """Take the files that a DICOMDIR names, and nothing else."""
    top = path.resolve().parent
    for name in _named(found, str(path), lambda: _read(path), _Names(top)):
        if not _is_below(Path(name), top):
            found.failed.append(PassedOver(name, _OUTSIDE))
            continue
        try:
            found.sources.append(FileSource.open(name))
        except READ_ERRORS as error:
            found.failed.append(PassedOver(name, why(error)))


def _hold_against(found: Found, path: Path) -> None:
    """Report what a DICOMDIR names and a folder does not have, or not as a DICOM file."""
    named = _named(found, str(path), lambda: _read(path), _Names(path.parent))
    _not_dicom(found, set(map(Path, named)))


def _hold_archive_against(found: Found, archive: ZipFile) -> None:
    members = {_normal(info.filename): info for info in archive.infolist() if not info.is_dir()}
    for name, info in members.items():
        folder, _, base = name.rpartition("/")
        if base != _normal(_DIRECTORY):
            continue

        def read(info: ZipInfo = info) -> bytes:
            with archive.open(info) as member:
                return member.read(DIRECTORY_MAXIMUM + 1)

        at = f"{folder}/" if folder else ""

        def there(file_id: FileId, at: str = at) -> str | None:
            key = at + "/".join(map(_normal, file_id))
            return f"{archive.filename}:{members[key].filename}" if key in members else None

        shown = f"{archive.filename}:{info.filename}"
        _not_dicom(found, set(map(Path, _named(found, shown, read, there))))


def _named(
    found: Found,
    shown: str,
    read: Callable[[], bytes],
    there: Callable[[FileId], str | None],
) -> list[str]:
    """The files that a DICOMDIR names and that are there, each once; the others are reported."""
    try:
        file_ids = read_directory(read())
    except READ_ERRORS as error:
        found.failed.append(PassedOver(shown, why(error)))
        return []
    names: dict[str, None] = {}
    for file_id in dict.fromkeys(file_ids):
        name = there(file_id)
        if name is None:
            found.failed.append(PassedOver(f"{shown}: {'/'.join(file_id)}", _NOT_THERE))
        else:
            names[name] = None
    return list(names)


def _not_dicom(found: Found, named: set[Path]) -> None:
    """What a DICOMDIR names is no bystander: it fails where it is no DICOM file."""
    for entry in tuple(found.skipped):
        if Path(entry.name) in named:
            found.skipped.remove(entry)
            found.failed.append(entry)


class _Names:
    """Finds files below a folder whatever case their names are in, as media are mounted."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self._listed: dict[Path, dict[str, Path]] = {}

    def __call__(self, file_id: FileId) -> str | None:
        path = self._top
        for component in file_id:
            found = self._list(path).get(_normal(component))
            if found is None:
                return None
            path = found
        return str(path) if path.is_file() else None

    def _list(self, folder: Path) -> dict[str, Path]:
        listed = self._listed.get(folder)
        if listed is None:
            listed = self._listed[folder] = {}
            # A linked folder may lead anywhere.
            if folder == self._top or not folder.is_symlink():
                with suppress(OSError):
                    listed.update((_normal(path.name), path) for path in folder.iterdir())
        return listed


def _normal(name: str) -> str:
    """A name without case, and without the version that ISO 9660 gives it (``;1``, last dot)."""
    return name.strip().casefold().partition(";")[0].rstrip(".")
