"""The attributes that the index keeps for each level, and how their raw bytes become columns.

One table per level drives the schema, the writer and the readers. Only attributes with textual
VRs are listed: their raw bytes mean the same in every transfer syntax.

Standard: PS3.4 C.6.1.1.2 to C.6.1.1.5 and C.6.2.1 (query keys of the Patient Root and Study Root
models).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from hilum.services import text

__all__ = [
    "INDEX_KEYS",
    "INSTANCE_KEYS",
    "PATIENT_KEYS",
    "SERIES_KEYS",
    "STUDY_KEYS",
    "Converter",
    "Key",
    "convert_all",
    "pack_raw",
    "raw_text",
    "unpack_raw",
]

# PostgreSQL cannot index a value over 2,700 bytes, and nothing that a person searches for is
# longer; the file keeps the whole value.
MAX_TEXT = 512

Value = str | int | None
Converter = Callable[[bytes, bytes | None, str | None], Value]


class Key(NamedTuple):
    """One query key.

    Args:
        keyword: as in PS3.6.
        column: the column that holds it.
        convert: raw bytes, raw (0008,0005) or None, fallback character set or None → column value.
        empty: the column's value when the attribute is absent or without value.
        text: the value depends on the character set, so that its raw bytes are worth keeping.
    """

    keyword: str
    column: str
    convert: Converter
    empty: Value = ""
    text: bool = False


def _tidy(value: str) -> str:
    # NUL is padding for many peers and an error for PostgreSQL; lone surrogates are one for both.
    return value.replace("\0", "").strip()[:MAX_TEXT]


def raw_text(raw: bytes, charset: bytes | None, fallback: str | None) -> str:
    """A value of VR LO, SH, ST, LT, CS … as text, without padding and never with NULs.

    Standard: PS3.5 6.1.2.
    """
    # ESC begins an ISO 2022 sequence; everything else below 80H reads alike in every repertoire.
    if raw.isascii() and b"\x1b" not in raw:
        value = raw.decode("ascii").strip(" \0")
        return value if len(value) <= MAX_TEXT and "\0" not in value else _tidy(value)
    return _tidy(text.decode_text(raw, "LO", charset, fallback))


def _name(raw: bytes, charset: bytes | None, fallback: str | None) -> str:
    if raw.isascii() and b"=" not in raw:
        return raw_text(raw, charset, fallback)
    return _tidy(text.decode_person_name(raw, charset, fallback))


# Names of devices, protocols and places: a few thousand values make nearly all there are.
_repeated_text = lru_cache(maxsize=4096)(raw_text)


@lru_cache(maxsize=4096)
def _code(raw: bytes, _charset: bytes | None, _fallback: str | None) -> str:
    return raw_text(raw, None, None)


@lru_cache(maxsize=4096)  # the same few dates come with every instance of a study
def _date(raw: bytes, _charset: bytes | None, _fallback: str | None) -> str:
    return text.da(raw) or ""


def _time(raw: bytes, _charset: bytes | None, _fallback: str | None) -> str:
    return text.tm(raw) or ""


def _integer(raw: bytes, _charset: bytes | None, _fallback: str | None) -> int | None:
    return text.integer(raw)


def _person(keyword: str, column: str) -> Key:
    return Key(keyword, column, _name, text=True)


def _words(keyword: str, column: str) -> Key:
    return Key(keyword, column, raw_text, text=True)


def _repeated(keyword: str, column: str) -> Key:
    return Key(keyword, column, _repeated_text, text=True)


def _plain(keyword: str, column: str) -> Key:
    return Key(keyword, column, _code)


PATIENT_KEYS: tuple[Key, ...] = (
    _words("PatientID", "patient_id"),
    _words("IssuerOfPatientID", "issuer"),
    _person("PatientName", "patient_name"),
    Key("PatientBirthDate", "birth_date", _date),
    Key("PatientBirthTime", "birth_time", _time),
    _plain("PatientSex", "sex"),
    _words("OtherPatientIDs", "other_ids"),
    _person("OtherPatientNames", "other_names"),
    _words("EthnicGroup", "ethnic_group"),
    _words("PatientComments", "comments"),
)

STUDY_KEYS: tuple[Key, ...] = (
    Key("StudyDate", "study_date", _date),
    Key("StudyTime", "study_time", _time),
    _words("AccessionNumber", "accession_number"),
    _words("StudyID", "study_id"),
    _person("ReferringPhysicianName", "referring_physician"),
    _repeated("StudyDescription", "description"),
    _repeated("InstitutionName", "institution"),
    _person("NameOfPhysiciansReadingStudy", "reading_physicians"),
    _words("AdmittingDiagnosesDescription", "admitting_diagnoses"),
    _plain("PatientAge", "patient_age"),
    _plain("PatientSize", "patient_size"),
    _plain("PatientWeight", "patient_weight"),
    _words("Occupation", "occupation"),
    _words("AdditionalPatientHistory", "additional_history"),
    _plain("TimezoneOffsetFromUTC", "timezone_offset"),
)

SERIES_KEYS: tuple[Key, ...] = (
    _plain("Modality", "modality"),
    Key("SeriesNumber", "series_number", _integer, empty=None),
    _repeated("SeriesDescription", "description"),
    Key("SeriesDate", "series_date", _date),
    Key("SeriesTime", "series_time", _time),
    Key("PerformedProcedureStepStartDate", "step_start_date", _date),
    Key("PerformedProcedureStepStartTime", "step_start_time", _time),
    _plain("BodyPartExamined", "body_part"),
    _plain("Laterality", "laterality"),
    _repeated("ProtocolName", "protocol_name"),
    _person("PerformingPhysicianName", "performing_physician"),
    _person("OperatorsName", "operators_name"),
    _repeated("Manufacturer", "manufacturer"),
    _repeated("ManufacturerModelName", "model_name"),
    _repeated("StationName", "station_name"),
)

INSTANCE_KEYS: tuple[Key, ...] = (
    Key("InstanceNumber", "instance_number", _integer, empty=None),
    Key("ContentDate", "content_date", _date),
    Key("ContentTime", "content_time", _time),
    Key("AcquisitionDate", "acquisition_date", _date),
    Key("AcquisitionTime", "acquisition_time", _time),
    _plain("ImageType", "image_type"),
    Key("NumberOfFrames", "number_of_frames", _integer, empty=None),
)

INDEX_KEYS: tuple[str, ...] = (
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    *(
        key.keyword
        for keys in (PATIENT_KEYS, STUDY_KEYS, SERIES_KEYS, INSTANCE_KEYS)
        for key in keys
    ),
)
"""DICOM keywords of every header value that the index reads: what to scan for."""


def convert_all(
    keys: Sequence[Key], values: Mapping[str, bytes], charset: bytes | None, fallback: str | None
) -> list[Value]:
    """The columns of `keys`, in their order."""
    get = values.get
    return [
        convert(raw, charset, fallback) if (raw := get(keyword)) else empty
        for keyword, _, convert, empty, _ in keys
    ]


def pack_raw(
    keys: Sequence[Key], values: Mapping[str, bytes], charset: bytes | None
) -> bytes | None:
    """The raw bytes of text values, to decode them anew when their character set was wrong.

    None when all are ASCII without escapes, which every repertoire reads alike. Otherwise
    (0008,0005) and then each value: one byte length, keyword, two bytes length (little endian),
    value. Several packs may follow each other.
    """
    joined = b"".join(values.values())
    if joined.isascii() and b"\x1b" not in joined:
        return None
    kept = [
        (key.keyword, raw)
        for key in keys
        if key.text and (raw := values.get(key.keyword)) and (not raw.isascii() or b"\x1b" in raw)
    ]
    if not kept:
        return None
    pieces: list[bytes] = []
    for keyword, raw in [("SpecificCharacterSet", charset or b""), *kept]:
        cut = raw[: 4 * MAX_TEXT]  # no repertoire takes more than 4 bytes a character
        pieces += (bytes((len(keyword),)), keyword.encode(), len(cut).to_bytes(2, "little"), cut)
    return b"".join(pieces)


def unpack_raw(packed: bytes) -> Iterator[tuple[str, bytes]]:
    """Keyword and raw bytes, as `pack_raw` joined them.

    Each ``SpecificCharacterSet`` holds for what follows it; ``b""`` when there was none.
    """
    position = 0
    while position < len(packed):
        middle = position + 1 + packed[position]
        end = middle + 2 + int.from_bytes(packed[middle : middle + 2], "little")
        yield packed[position + 1 : middle].decode(), packed[middle + 2 : end]
        position = end
