"""A slow, obviously right matcher: C-FIND over pydicom data sets, written apart from our engine.

It reads PS3.4 C.2.2.2 and C.6 once more, with pydicom's values instead of ours, plain loops instead
of indexes, and Python's dates instead of texts that compare like them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

LEVELS = ["PATIENT", "STUDY", "SERIES", "IMAGE"]
NAMES = {
    "PATIENT": ["PatientID", "IssuerOfPatientID"],
    "STUDY": ["StudyInstanceUID"],
    "SERIES": ["SeriesInstanceUID"],
    "IMAGE": ["SOPInstanceUID"],
}
"""What tells the entities of a level apart, together with those above."""

_PATIENT = """PatientID IssuerOfPatientID PatientName PatientBirthDate PatientBirthTime PatientSex
    OtherPatientIDs OtherPatientNames EthnicGroup PatientComments"""
_STUDY = """StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID ReferringPhysicianName
    StudyDescription InstitutionName NameOfPhysiciansReadingStudy AdmittingDiagnosesDescription
    PatientAge PatientSize PatientWeight Occupation AdditionalPatientHistory
    TimezoneOffsetFromUTC"""
_SERIES = """SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime
    PerformedProcedureStepStartDate PerformedProcedureStepStartTime BodyPartExamined Laterality
    ProtocolName PerformingPhysicianName OperatorsName Manufacturer ManufacturerModelName
    StationName"""
_IMAGE = """SOPInstanceUID SOPClassUID InstanceNumber ContentDate ContentTime AcquisitionDate
    AcquisitionTime ImageType NumberOfFrames"""
ATTRIBUTES = {
    "PATIENT": _PATIENT.split(),
    "STUDY": _STUDY.split(),
    "SERIES": _SERIES.split(),
    "IMAGE": _IMAGE.split(),
}
COUNTS = {
    "PATIENT": ["NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries",
                "NumberOfPatientRelatedInstances"],
    "STUDY": ["NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "ModalitiesInStudy",
              "SOPClassesInStudy"],
    "SERIES": ["NumberOfSeriesRelatedInstances"],
    "IMAGE": [],
}  # fmt: skip


def values_of(dataset: Dataset, keyword: str) -> list[str]:
    """The values of an element as texts without padding; none when it is empty or absent."""
    element = dataset.get(keyword)
    if element is None or element == "" or element == []:
        return []
    several = element if isinstance(element, list | tuple) or _is_multi(element) else [element]
    return [text for one in several if (text := str(one).strip(" \0")) != ""]


def _is_multi(value: object) -> bool:
    return type(value).__name__ == "MultiValue"


class Reference:
    """What can be found in data sets.

    Args:
        datasets: in order of arrival.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self.datasets = datasets
        self._known: dict[str, list[dict[str, list[str]]]] = {}

    def find(self, identifier: Dataset) -> list[dict[str, list[str]]]:
        """The answers to a query: for each match, the values of every key that was asked for."""
        level = identifier.QueryRetrieveLevel
        if level not in self._known:
            self._known[level] = [
                _attributes(entity, self.datasets, level)
                for entity in _entities(self.datasets, level)
            ]
        answers = []
        for attributes in self._known[level]:
            asked = [element.keyword for element in identifier if element.keyword in attributes]
            if all(_matches(identifier, keyword, attributes[keyword]) for keyword in asked):
                answers.append({keyword: attributes[keyword] for keyword in asked})
        return answers


def _identity(dataset: Dataset, level: str) -> tuple[object, ...]:
    found: list[object] = []
    for above in LEVELS[: LEVELS.index(level) + 1]:
        found += [tuple(values_of(dataset, keyword)) for keyword in NAMES[above]]
    if not values_of(dataset, "PatientID"):  # nameless patients are as many as their studies
        found.append(str(dataset.StudyInstanceUID))
    return tuple(found)


def _entities(datasets: Iterable[Dataset], level: str) -> list[list[Dataset]]:
    groups: dict[tuple[object, ...], list[Dataset]] = {}
    for dataset in datasets:
        groups.setdefault(_identity(dataset, level), []).append(dataset)
    return list(groups.values())


def _attributes(
    entity: list[Dataset], everything: Sequence[Dataset], level: str
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for above in LEVELS[: LEVELS.index(level) + 1]:
        identity = _identity(entity[0], above)
        same = [d for d in everything if _identity(d, above) == identity]
        for keyword in ATTRIBUTES[above]:
            # The first instance that has a value says it.
            found[keyword] = next((v for d in same if (v := values_of(d, keyword))), [])
            if dictionary_VR(keyword) in ("IS",) and found[keyword]:
                found[keyword] = [str(int(found[keyword][0]))]
        counts = {
            "Studies": len(_entities(same, "STUDY")),
            "Series": len(_entities(same, "SERIES")),
            "Instances": len(_entities(same, "IMAGE")),
        }
        for keyword in COUNTS[above]:
            if keyword == "ModalitiesInStudy":
                found[keyword] = sorted({v for d in same for v in values_of(d, "Modality")})
            elif keyword == "SOPClassesInStudy":
                found[keyword] = sorted({str(d.SOPClassUID) for d in same})
            else:
                name = next(name for name in counts if keyword.endswith(name))
                found[keyword] = [str(counts[name])]
    return found


# ── one key against one attribute ─────────────────────────────────────────────────────────────


def _matches(identifier: Dataset, keyword: str, values: list[str]) -> bool:
    vr = dictionary_VR(tag_for_keyword(keyword))
    asked = values_of(identifier, keyword)
    if vr in ("LT", "ST"):
        asked = ["\\".join(asked)] if asked else []
    bare = [_group(one) for one in asked] if vr == "PN" else asked  # delimiters mean nothing
    if not asked or any(not one.strip("*") for one in bare):
        return True
    if asked == ['""']:
        return not values
    if dictionary_VM(keyword) == "1" and len(values) > 1:
        values = ["\\".join(values)]
    return any(_one(vr, key, value) for key in asked for value in values)


def _one(vr: str, key: str, value: str) -> bool:
    if vr == "DA":
        first, last = _between(key)
        moment = _date(value)
        return moment is not None and (not first or _date(first) <= moment) and (
            not last or moment <= _date(last)
        )  # fmt: skip
    if vr == "TM":
        first, last = _between(key)
        moment = _time(value, last=False)
        return moment is not None and (not first or _time(first, last=False) <= moment) and (
            not last or moment <= _time(last, last=True)
        )  # fmt: skip
    if vr in ("IS", "DS"):
        return float(key) == float(value)
    if vr == "PN":
        return _name(key, value)
    return _glob(key, value)


def _between(key: str) -> tuple[str, str]:
    if "-" not in key:
        return key, key
    first, _, last = key.partition("-")
    return first.strip(), last.strip()


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text.replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None


def _time(text: str, *, last: bool) -> time | None:
    found = re.fullmatch(r"(\d\d)(\d\d)?(\d\d)?(?:\.(\d{1,6}))?", text.replace(":", ""))
    if found is None:
        return None
    hour, minute, second, fraction = found.groups()
    fill = ("59", "59", "9") if last else ("00", "00", "0")
    try:
        return time(
            int(hour), int(minute or fill[0]), int(second or fill[1]),
            int((fraction or "").ljust(6, fill[2])),
        )  # fmt: skip
    except ValueError:
        return None


def _glob(pattern: str, value: str) -> bool:
    """One wildcard at a time, in every way."""
    if not pattern:
        return not value
    if pattern[0] == "*":
        return any(_glob(pattern[1:], value[place:]) for place in range(len(value) + 1))
    return bool(value) and pattern[0] in ("?", value[0]) and _glob(pattern[1:], value[1:])


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in text if not unicodedata.combining(c))


def _group(text: str) -> str:
    return "^".join(" ".join(part.split()) for part in _plain(text).split("^")).rstrip("^")


def _name(key: str, value: str) -> bool:
    if "=" in key:
        groups = ["=".join(map(_group, value.split("="))).rstrip("=")]
        pattern = "=".join(map(_group, key.split("="))).rstrip("=")
    else:
        groups = [_group(group) for group in value.split("=")]
        pattern = _group(key)
        if pattern.isascii():
            groups = groups[:1]
    if not pattern:
        return True
    if any(_glob(pattern, group) for group in groups if group):
        return True
    return pattern.endswith("^*") and any(_glob(pattern[:-2], group) for group in groups if group)
