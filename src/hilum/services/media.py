"""The directory of a DICOM medium: which files it names.

Standard: PS3.3 F.3 (Basic Directory), PS3.10 8.2 (File IDs), PS3.11.
"""

from __future__ import annotations

import io

from hilum.errors import InvalidDicom
from hilum.services.part10 import parse_head
from hilum.services.transfer_syntaxes import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN

__all__ = ["DIRECTORY_MAXIMUM", "FileId", "read_directory"]

FileId = tuple[str, ...]
"""The components of a Referenced File ID: folders from the medium's root, then the file."""

DIRECTORY_MAXIMUM = 256 << 20
"""A DICOMDIR with more bytes is refused; a record takes about 500, a DVD holds some 10,000."""

_IN_USE = 0xFFFF
_NO_COMPONENT = frozenset({"", ".", ".."})


def read_directory(data: bytes) -> list[FileId]:
    """The files that a DICOMDIR names, in its order, records out of use left out.

    Standard: PS3.3 F.3.2.2, PS3.10 8.2: at most 8 components of at most 8 characters. Longer ones
    and lower case are everyday and are taken; what could lead out of the medium is not.

    Args:
        data: the whole file.

    Raises:
        InvalidDicom: it is no readable DICOMDIR, or names what cannot be on a medium.
    """
    from pydicom import dcmread

    if len(data) > DIRECTORY_MAXIMUM:
        raise InvalidDicom(f"DICOMDIR of {len(data)} bytes, at most {DIRECTORY_MAXIMUM} are read")
    if _is_deflated(data):
        # It would take a thousand times its size, in a syntax that no medium has (PS3.10 8.6).
        raise InvalidDicom("the DICOMDIR is deflated, as no medium's may be")
    try:
        directory = dcmread(io.BytesIO(data), specific_tags=["DirectoryRecordSequence"])
        records = directory.get("DirectoryRecordSequence") or ()
        found = [
            tuple([name] if isinstance(name, str) else map(str, name))
            for record in records
            if record.get("RecordInUseFlag", _IN_USE) == _IN_USE
            if (name := record.get("ReferencedFileID"))
        ]
    except Exception as error:  # pydicom raises whatever the bytes led it to
        raise InvalidDicom(f"the DICOMDIR cannot be read: {error}") from error
    for components in found:
        if any(_leads_out(component) for component in components):
            raise InvalidDicom(f"the DICOMDIR names {components!a}, which is no file of a medium")
    return found


def _is_deflated(data: bytes) -> bool:
    try:
        head = parse_head(data, final=True)
    except InvalidDicom:
        return False
    assert head is not None
    return head.transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN


def _leads_out(component: str) -> bool:
    return component.strip() in _NO_COMPONENT or any(c in "/\\:\0" for c in component)
