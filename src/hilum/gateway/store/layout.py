"""Where an object lies below the data directory: names that a person can follow.

``objects/2026/11/21-003/user.alice/<Study UID>/<Series UID>/<SOP Instance UID>.dcm``

A valid UID is its own folder name. Anything else a peer sent (letters, 65 characters, ``../..``,
nothing at all) becomes ``_`` + what is readable of it + ``-`` + 16 hexadecimal digits of a hash.
A name never escapes its folder, means the same on file systems that ignore case, and is legal on
Windows; different values have different names, and two that ever met would only share a folder.

A small object may lie in the spool until it is moved (`spool.py`). Its path then says both places:
the file it will have, and after ``@`` the segment and the offset at which it lies now,
``objects/…/<SOP Instance UID>.dcm@00064b1f2c3a5b10+40960``. Whoever kept such a path longer than
the object lay there finds it in the file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "OBJECTS",
    "PATH_MAXIMUM",
    "SPOOL",
    "UNKNOWN",
    "ObjectPath",
    "Spooled",
    "another_name",
    "bucket_name",
    "is_bucket",
    "is_segment",
    "object_directory",
    "object_name",
    "owner_folder",
    "parse_path",
    "record_path",
    "segment_path",
    "spooled",
    "spooled_path",
]

OBJECTS = "objects"
SPOOL = "spool"  # the folder of segments below the objects; no year is called so
UNKNOWN = "_"  # the folder of a Study or Series UID that is not known
# Windows stops at 260 with the data directory's own path; 240 leaves C:\hilum-data\ and NUL.
PATH_MAXIMUM = 239

_SUFFIX = ".dcm"
# PS3.5 9.1, except that components may begin with zeros: real devices send them.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_UID_MAXIMUM = 64
# No capitals: Alice and alice would meet on a file system that ignores case.
_OWNER = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,31})", re.ASCII)
_NOT_READABLE = re.compile(r"[^a-z0-9.-]+")
_READABLE = 24
_BUCKET = re.compile(r"[0-9]{4}/(?:0[1-9]|1[0-2])/(?:0[1-9]|[12][0-9]|3[01])-[0-9]{3,4}")
_COMPONENT = r"(?:[0-9.]{1,64}|_|_[a-z0-9._-]{0,24}-[0-9a-f]{16})"
_OWNER_FOLDER = r"(?:global|quarantine|(?:user|quarantine)\.[a-z0-9_][a-z0-9._-]{0,41})"
_PATH = re.compile(
    rf"{OBJECTS}/(?P<bucket>{_BUCKET.pattern})/(?P<owner>{_OWNER_FOLDER})"
    rf"/(?P<study>{_COMPONENT})/(?P<series>{_COMPONENT})"
    rf"/(?P<instance>{_COMPONENT})(?:~[0-9a-f]{{8}})?\.dcm",
    re.ASCII,
)
_BUCKET_LENGTH = len("2026/11/21-0000")
_SEGMENT = re.compile(r"[0-9a-f]{16}", re.ASCII)
_SPOOLED = re.compile(
    rf"(?:(?P<own>{_PATH.pattern})@|(?P<record>{OBJECTS}/{SPOOL}/))"
    rf"(?P<segment>{_SEGMENT.pattern})\+(?P<offset>[0-9]{{1,12}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """The parts of a relative path; for valid UIDs the names are the UIDs."""

    bucket: str
    owner_folder: str
    study: str
    series: str
    instance: str


def _safe_name(value: str) -> str:
    """A name for what may not be a name; lower case, so that case never decides."""
    digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    readable = _NOT_READABLE.sub("_", value[: 4 * _READABLE].lower())[:_READABLE]
    return f"_{readable}-{digest}"


def _uid_name(uid: str, maximum: int) -> str:
    if len(uid) <= maximum and _UID.fullmatch(uid):
        return uid
    return _safe_name(uid)


def owner_folder(owner: str | None, *, quarantined: bool = False) -> str:
    """The folder of an owner: ``global``, ``user.alice``, ``quarantine``, ``quarantine.alice``.

    Args:
        owner: a user name, or None for what belongs to everyone.
        quarantined: whether the object is kept aside until someone looks at it.
    """
    if owner is None:
        return "quarantine" if quarantined else "global"
    kind = "quarantine" if quarantined else "user"
    return f"{kind}.{owner if _OWNER.fullmatch(owner) else _safe_name(owner)}"


@lru_cache(maxsize=256)
def _longest_uid(folder: str) -> int:
    """How long a UID may be to appear as it is, so that the longest path keeps its limit.

    It depends on the owner alone: a study has one folder whatever its instances are called. Only
    below a user's folder is it less than 64.
    """
    fixed = len(OBJECTS) + 1 + _BUCKET_LENGTH + 1 + len(folder) + 1
    ends = len("//") + len("~00000000") + len(_SUFFIX)
    return min(_UID_MAXIMUM, (PATH_MAXIMUM - fixed - ends) // 3)


def object_directory(folder: str, study_uid: str, series_uid: str) -> tuple[str, str, str]:
    """The three folder names below a bucket: owner, study, series.

    Args:
        folder: from `owner_folder`.
        study_uid: as the data set says it; empty when not known.
        series_uid: the same.
    """
    longest = _longest_uid(folder)
    study = _uid_name(study_uid, longest) if study_uid else UNKNOWN
    series = _uid_name(series_uid, longest) if series_uid else UNKNOWN
    return folder, study, series


def object_name(folder: str, sop_instance_uid: str) -> str:
    """The file name of an instance in a folder from `owner_folder`."""
    return _uid_name(sop_instance_uid, _longest_uid(folder)) + _SUFFIX


def another_name(name: str) -> str:
    """The same file name with a random part, for when the name is taken."""
    return f"{name.removesuffix(_SUFFIX)}~{secrets.token_hex(4)}{_SUFFIX}"


def bucket_name(time: float, number: int) -> str:
    """The name of a bucket, ``2026/11/21-003``.

    Args:
        time: seconds since 1970; the day is that of UTC.
        number: from 1, at most 9999 in a day.
    """
    if not 0 < number <= 9999:
        raise ValueError(f"bucket number {number} is not between 1 and 9999")
    return f"{datetime.fromtimestamp(time, UTC):%Y/%m/%d}-{number:03d}"


def is_bucket(name: str) -> bool:
    """Whether a name has the form of a bucket's."""
    return _BUCKET.fullmatch(name) is not None


def parse_path(path: str) -> ObjectPath:
    """The parts of a relative path that this module made.

    Raises:
        ValueError: it is none of ours; what passes cannot point outside the data directory.
    """
    found = _PATH.fullmatch(path)
    if found is None or len(path) > PATH_MAXIMUM:
        raise ValueError(f"{path!r} is not the path of a stored object")
    parts = found.group("bucket", "owner", "study", "series", "instance")
    if any(part.strip(".") == "" for part in parts):
        raise ValueError(f"{path!r} is not the path of a stored object")
    return ObjectPath(*parts)


class Spooled(NamedTuple):
    """An object that lies in the spool, or did when its path was read.

    Attributes:
        own: the path of the file it will have; "" where that is not chosen.
        segment: the name of the segment.
        offset: where in it the object's file meta begins.
    """

    own: str
    segment: str
    offset: int


def spooled(path: str) -> Spooled | None:
    """Where in the spool an object lies; None for one in a file of its own, or none of ours."""
    if "+" not in path:
        return None
    found = _SPOOLED.fullmatch(path)
    if found is None:
        return None
    return Spooled(found["own"] or "", found["segment"], int(found["offset"]))


def spooled_path(own: str, segment: str, offset: int) -> str:
    """The path of an object in the spool whose own file will be `own`."""
    return f"{own}@{segment}+{offset}"


def record_path(segment: str, offset: int) -> str:
    """The path of an object in the spool of which only that is known."""
    return f"{OBJECTS}/{SPOOL}/{segment}+{offset}"


def segment_path(segment: str) -> str:
    """The path of a segment's file."""
    return f"{OBJECTS}/{SPOOL}/{segment}.seg"


def is_segment(file_name: str) -> bool:
    """Whether a file name has the form of a segment's."""
    return file_name.endswith(".seg") and _SEGMENT.fullmatch(file_name[:-4]) is not None
