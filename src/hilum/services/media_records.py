"""The directory of a medium, built: records of patients, studies, series and objects.

Keys that a record needs and an image may lack (Patient ID, Study Date …) are given a value in the
directory alone; `Directory.add` says which. The images stay as they are.

Standard: PS3.3 F.3 (Basic Directory), F.4 (relations of records), F.5 (keys of each record).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hilum.errors import InvalidDicom
from hilum.services.media import FileId
from hilum.services.part10 import MEDIA_STORAGE_DIRECTORY, encode_head
from hilum.services.sop_classes import is_private_class
from hilum.services.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Directory", "record_type"]

_ARC = "1.2.840.10008.5.1.4.1.1."

# PS3.3 Table F.4-1, by the last part of the SOP class; what begins so where a dot ends it. What is
# not here and is a storage class of patients is an IMAGE.
_TYPES = {
    "481.2": "RT DOSE", "481.3": "RT STRUCTURE SET", "481.5": "RT PLAN", "481.8": "RT PLAN",
    "481.4": "RT TREAT RECORD", "481.6": "RT TREAT RECORD", "481.7": "RT TREAT RECORD",
    "481.9": "RT TREAT RECORD",
    "11.": "PRESENTATION", "131": "PRESENTATION", "9.100.": "PRESENTATION", "9.": "WAVEFORM",
    "88.59": "KEY OBJECT DOC", "88.": "SR DOCUMENT", "78.6": "SR DOCUMENT", "79.1": "SR DOCUMENT",
    "104.": "ENCAP DOC", "4.2": "SPECTROSCOPY", "66": "RAW DATA", "66.1": "REGISTRATION",
    "66.3": "REGISTRATION", "66.2": "FIDUCIAL", "66.5": "SURFACE", "66.6": "TRACT",
    "67": "VALUE MAP", "68.": "SURFACE SCAN", "77.1.5.3": "STEREOMETRIC", "78.": "MEASUREMENT",
    "80.1": "MEASUREMENT", "90.1": "ASSESSMENT",
}  # fmt: skip
_OF_NO_PATIENT = {
    "1.2.840.10008.5.1.4.38.1": "HANGING PROTOCOL",
    "1.2.840.10008.5.1.4.39.1": "PALETTE",
    "1.2.840.10008.5.1.4.43.1": "IMPLANT",
    "1.2.840.10008.5.1.4.44.1": "IMPLANT ASSY",
    "1.2.840.10008.5.1.4.45.1": "IMPLANT GROUP",
}
_PREFIX = {"PATIENT": "PT", "STUDY": "ST", "SERIES": "SE", "IMAGE": "IM"}
_MOST = 999_999  # what six digits behind two letters can count

# Values for keys of type 1, by level; a number stands for the place in its level.
_INVENTED: dict[str, dict[str, str]] = {
    "PATIENT": {"PatientID": "UNKNOWN{0}"},
    "STUDY": {"StudyDate": "19000101", "StudyTime": "000000", "StudyID": "{0}"},
    "SERIES": {"Modality": "OT", "SeriesNumber": "{0}"},
    "object": {"InstanceNumber": "{0}", "ContentDate": "19000101", "ContentTime": "000000",
               "ContentLabel": "UNKNOWN"},
}  # fmt: skip
_UL = struct.Struct("<HH2sHI")


def record_type(sop_class_uid: str) -> str | None:
    """The type of an object's record, None where the standard has none for it.

    Standard: PS3.3 Table F.4-1.
    """
    if sop_class_uid in _OF_NO_PATIENT:
        return _OF_NO_PATIENT[sop_class_uid]
    if is_private_class(sop_class_uid):
        return None
    last = sop_class_uid.removeprefix(_ARC)
    if last == sop_class_uid or last.startswith(("200.", "201.")):
        return None
    found = _TYPES.get(last)
    parts = last.split(".")
    for count in range(len(parts) - 1, 0, -1):
        found = found or _TYPES.get(".".join(parts[:count]) + ".")
    return found or "IMAGE"


@dataclass(slots=True, eq=False)
class _Node:
    """A record and those below it."""

    record: Dataset | None = None
    name: str = ""
    below: dict[object, _Node] = field(default_factory=dict)
    encoded: bytes = b""
    position: int = 0


class Directory:
    """The records of a file-set.

    Args:
        label: File-set ID, up to 16 capitals, digits, spaces and underscores.
    """

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._root = _Node()
        self._here: set[str] = set()

    def add(self, header: Dataset, transfer_syntax: str) -> tuple[FileId, list[str]]:
        """Make the records of one object.

        Args:
            header: its data set; pixel data is not needed.
            transfer_syntax: what it is written in.

        Returns:
            Where its file must be, and the keywords that have a value in the directory alone.

        Raises:
            InvalidDicom: the standard has no record for it, or it lacks what none can be without;
                the directory is as it was.
        """
        instance = str(header.get("SOPInstanceUID") or "")
        if not instance or instance in self._here:
            raise InvalidDicom(
                "it is on the medium already" if instance else "it has no SOP Instance UID"
            )
        kind = record_type(str(header.get("SOPClassUID", "")))
        if kind is None:
            raise InvalidDicom("there is no directory record for this SOP class")
        study, series = (
            str(header.get(keyword) or "") for keyword in ("StudyInstanceUID", "SeriesInstanceUID")
        )
        levels: list[tuple[str, object]] = []
        if kind not in _OF_NO_PATIENT.values():
            if not study or not series:
                raise InvalidDicom("Study or Series Instance UID is missing")
            # Objects without Patient ID never become one patient, but those of a study do.
            patient = str(header.get("PatientID") or "") or ("", study)
            levels = [("PATIENT", patient), ("STUDY", study), ("SERIES", series)]
        levels.append((kind, instance))
        made, invented = self._made(header, levels)
        file_id = ("DICOM", *(node.name for _, _, node in made))
        leaf = made[-1][2].record
        assert leaf is not None
        leaf.ReferencedFileID = list(file_id)
        leaf.ReferencedSOPClassUIDInFile = header.SOPClassUID
        leaf.ReferencedSOPInstanceUIDInFile = header.SOPInstanceUID
        leaf.ReferencedTransferSyntaxUIDInFile = transfer_syntax
        for _, _, node in made:
            node.encoded = node.encoded or _encoded(node.record, 0, 0)
        for parent, key, node in made:
            parent.below[key] = node
        self._here.add(instance)
        return file_id, invented

    def _made(
        self, header: Dataset, levels: list[tuple[str, object]]
    ) -> tuple[list[tuple[_Node, object, _Node]], list[str]]:
        """The chain of nodes for one object, those that are there and those that are new."""
        invented: list[str] = []
        chain = []
        parent = self._root
        for level, key in levels:
            node = parent.below.get(key)
            if node is None:
                number = len(parent.below) + 1
                if number > _MOST:
                    raise InvalidDicom(f"more than {_MOST} {level} records below one")
                name = f"{_PREFIX.get(level, 'OB')}{number:06}"
                node = _Node(_record(header, level, number, invented), name)
            chain.append((parent, key, node))
            parent = node
        return chain, invented

    def encode(self, sop_instance_uid: str) -> bytes:
        """The DICOMDIR, whole.

        Standard: PS3.3 F.3.2.2, PS3.10 8.6.

        Args:
            sop_instance_uid: its own.
        """
        head = encode_head(MEDIA_STORAGE_DIRECTORY, sop_instance_uid, EXPLICIT_VR_LITTLE_ENDIAN)
        label = self.label.encode("ascii")
        label += b" " * (len(label) % 2)
        fixed = struct.pack("<HH2sH", 4, 0x1130, b"CS", len(label)) + label
        nodes = list(_in_order(self._root))
        # Two offsets and the consistency flag, then the sequence's own header.
        position = len(head) + len(fixed) + 12 + 12 + 10 + 12
        for node in nodes:
            node.position = position
            position += 8 + len(node.encoded)
        items = b"".join(
            struct.pack("<HHI", 0xFFFE, 0xE000, len(encoded)) + encoded
            for encoded in _linked(self._root)
        )
        roots = list(self._root.below.values())
        first, last = (roots[0].position, roots[-1].position) if roots else (0, 0)
        return b"".join(
            (
                head,
                fixed,
                _UL.pack(4, 0x1200, b"UL", 4, first),
                _UL.pack(4, 0x1202, b"UL", 4, last),
                struct.pack("<HH2sHH", 4, 0x1212, b"US", 2, 0),
                struct.pack("<HH2sHI", 4, 0x1220, b"SQ", 0, len(items)),
                items,
            )
        )


def _in_order(node: _Node) -> Iterator[_Node]:
    for child in node.below.values():
        yield child
        yield from _in_order(child)


def _linked(parent: _Node) -> Iterator[bytes]:
    """Encoded records in order, each with the offsets of its next and its first lower one."""
    children = list(parent.below.values())
    for index, node in enumerate(children):
        following = children[index + 1].position if index + 1 < len(children) else 0
        lower = next(iter(node.below.values())).position if node.below else 0
        yield _encoded(node.record, following, lower)
        yield from _linked(node)


def _record(header: Dataset, level: str, number: int, invented: list[str]) -> Dataset:
    """A record with the keys of its level."""
    from pydicom.fileset import DIRECTORY_RECORDERS

    values = _INVENTED.get(level, _INVENTED["object"])
    lacking = [keyword for keyword in values if header.get(keyword) in (None, "")]
    filled = _filled(header, {key: values[key].format(number) for key in lacking})
    try:
        record: Dataset = DIRECTORY_RECORDERS[level](filled)
    except (ValueError, KeyError, AttributeError) as error:
        raise InvalidDicom(str(error)) from error
    invented += [keyword for keyword in lacking if keyword in record]
    record.DirectoryRecordType = level
    record.RecordInUseFlag = 0xFFFF
    if charset := header.get("SpecificCharacterSet"):
        record.SpecificCharacterSet = charset
    return record


def _filled(header: Dataset, values: dict[str, str]) -> Dataset:
    """The header with values for keys that it lacks."""
    from pydicom import Dataset as DatasetType

    filled = DatasetType()
    filled.update(header)
    for keyword, value in values.items():
        filled.pop(keyword, None)  # the element is the header's own, and stays as it is
        setattr(filled, keyword, value)
    return filled


def _encoded(record: Dataset | None, following: int, lower: int) -> bytes:
    """A record's elements; its length does not depend on the offsets."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    assert record is not None
    record.OffsetOfTheNextDirectoryRecord = following
    record.OffsetOfReferencedLowerLevelDirectoryEntity = lower
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    try:
        write_dataset(out, record)
    except Exception as error:  # values that their own VR or character set does not allow
        raise InvalidDicom(f"its record cannot be written: {error}") from error
    return out.getvalue()
