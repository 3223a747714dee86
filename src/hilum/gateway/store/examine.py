"""What a data set says about itself, held against the command it came with.

Standard: PS3.4 B.2.3 (A900H data set does not match SOP class), GG.3 (objects of no patient).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hilum.errors import HilumError
from hilum.gateway.store.keys import INDEX_KEYS
from hilum.gateway.store.states import InstanceFlag, MissingUidPolicy
from hilum.services.header import HeaderScan
from hilum.services.sop_classes import NON_PATIENT_STORAGE_SOP_CLASSES
from hilum.services.status import Status
from hilum.services.text import uid

__all__ = ["HEADER_KEYS", "Examined", "Mismatch", "examine"]

#: What a scanner must read for ``examine`` and the index.
HEADER_KEYS = ("SOPClassUID", "SOPInstanceUID", *INDEX_KEYS)

_OF_NO_PATIENT = ("SOPInstanceUID",)


class Mismatch(HilumError):
    """The data set is refused.

    Args:
        status: what the C-STORE is answered with.
        comment: error comment, without any value of the data set.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found.

    Args:
        values: raw header values by keyword.
        study_uid: Study Instance UID, "" where there is none: an object of no patient, or
            quarantined.
        series_uid: Series Instance UID, likewise.
        flags: what is odd about the data set.
    """

    values: Mapping[str, bytes]
    study_uid: str
    series_uid: str
    flags: InstanceFlag


def examine(
    scan: HeaderScan,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    missing: MissingUidPolicy,
) -> Examined:
    """Check a scanned header against the command.

    Args:
        scan: of the data set, with the index's keys.
        sop_class_uid: Affected SOP Class UID.
        sop_instance_uid: Affected SOP Instance UID.
        missing: what to do where Study or Series Instance UID is missing and should not be.

    Raises:
        Mismatch: A900H, with the reason.
    """
    values = scan.values
    for keyword, commanded in (
        ("SOPClassUID", sop_class_uid),
        ("SOPInstanceUID", sop_instance_uid),
    ):
        raw = values.get(keyword)
        if raw is not None and (said := uid(raw)) and said != commanded:
            raise Mismatch(
                Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, f"{keyword} differs from the command's"
            )
    flags = InstanceFlag(0)
    if scan.mislabelled:
        flags |= InstanceFlag.MISLABELLED
    if scan.deflated:
        flags |= InstanceFlag.DEFLATED
    if scan.group2:
        flags |= InstanceFlag.GROUP_2
    if scan.problem is not None:
        flags |= InstanceFlag.MALFORMED
    found = {
        keyword: uid(values.get(keyword, b""))
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    }
    # Palettes, protocols, templates belong to no patient and no study (PS3.4 GG.3).
    needed = _OF_NO_PATIENT if sop_class_uid in NON_PATIENT_STORAGE_SOP_CLASSES else tuple(found)
    absent = [keyword for keyword in needed if not found[keyword]]
    if absent:
        if missing is not MissingUidPolicy.QUARANTINE:
            raise Mismatch(Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, f"{absent[0]} is missing")
        flags |= InstanceFlag.QUARANTINED
    return Examined(values, found["StudyInstanceUID"], found["SeriesInstanceUID"], flags)
