"""Filters of lists, and the SQL conditions that they become.

This is what people type into a search field. The matching of C-FIND and QIDO-RS keys is another
thing and not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Column, ColumnElement, and_, exists, func, literal_column

from hilum.gateway.store import schema
from hilum.services.text import fold_name

__all__ = ["Filters", "conditions"]

Level = Literal["patient", "study", "series", "instance"]

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; every field that is given has to fit.

    ``*`` stands for any characters and ``?`` for one where it says *pattern*; anything else,
    ``%`` and ``_`` included, stands for itself.

    Args:
        patient_name: pattern; case, accents and width make no difference.
        patient_id: pattern.
        issuer: issuer of the Patient ID.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        accession_number: pattern.
        description: pattern of the Study Description; case of ASCII letters makes no difference.
        modality: a modality that the study has, or the series is of.
        date_from: first Study Date, YYYYMMDD.
        date_to: last Study Date, YYYYMMDD.
        received_since: µs since 1970; the study's last arrival.
        conflict: only studies whose UID came with more than one patient.
    """

    patient_name: str = ""
    patient_id: str = ""
    issuer: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    accession_number: str = ""
    description: str = ""
    modality: str = ""
    date_from: str = ""
    date_to: str = ""
    received_since: int | None = None
    conflict: bool = False


def conditions(filters: Filters, level: Level) -> list[ColumnElement[bool]]:
    """The conditions of a list at a level; patient and upper levels are joined there already.

    A list of patients is narrowed by the studies that they have.
    """
    found = _patient_conditions(filters)
    below = _study_conditions(filters)
    if level == "patient":
        if below:
            found.append(exists().where(_study.c.patient_ref == _patient.c.id, and_(*below)))
        return found
    found += below
    found += _lower_conditions(filters, level)
    return found


def _patient_conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.patient_name:
        found.append(_like(_patient.c.patient_name_folded, fold_name(filters.patient_name)))
    if filters.patient_id:
        found.append(_like(_patient.c.patient_id, filters.patient_id))
    if filters.issuer:
        found.append(_patient.c.issuer == filters.issuer)
    return found


def _study_conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.study_uid:
        found.append(_study.c.study_uid == filters.study_uid)
    if filters.accession_number:
        # The literal lets SQLite see that the partial index applies.
        found.append(_study.c.accession_number != literal_column("''"))
        found.append(_like(_study.c.accession_number, filters.accession_number))
    if filters.description:
        lowered = func.lower(_study.c.description)
        found.append(lowered.like(_pattern(filters.description.lower()), escape="\\"))
    if filters.date_from:
        found.append(_study.c.study_date >= filters.date_from)
    if filters.date_to:
        found.append(_study.c.study_date <= filters.date_to)
        found.append(_study.c.study_date != "")
    if filters.received_since is not None:
        found.append(_study.c.last_received >= filters.received_since)
    if filters.conflict:
        found.append(_study.c.conflict == 1)
    return found


def _lower_conditions(filters: Filters, level: Level) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.modality and level == "study":
        # Modalities are joined by backslashes; one more at each end makes all of them alike.
        joined = "\\" + _study.c.modalities + "\\"
        found.append(joined.like(_contains("\\" + filters.modality + "\\"), escape="!"))
    elif filters.modality:
        found.append(_series.c.modality == filters.modality)
    if filters.series_uid:
        same = _series.c.series_uid == filters.series_uid
        if level == "study":
            same = exists().where(_series.c.study_ref == _study.c.id, same)
        found.append(same)
    if filters.sop_uid and level == "instance":
        found.append(_instance.c.sop_uid == filters.sop_uid)
    elif filters.sop_uid:
        inside = (
            _series.c.id == _instance.c.series_ref
            if level == "series"
            else and_(_series.c.study_ref == _study.c.id, _series.c.id == _instance.c.series_ref)
        )
        found.append(exists().where(inside, _instance.c.sop_uid == filters.sop_uid))
    return found


def _like(column: Column[str], pattern: str) -> ColumnElement[bool]:
    """A pattern as a range of the index, where it begins with plain characters, and a LIKE."""
    prefix = pattern
    for wildcard in "*?":
        prefix = prefix.partition(wildcard)[0]
    if prefix == pattern:
        return column == pattern
    like = column.like(_pattern(pattern), escape="\\")
    if not prefix:
        return like
    return and_(column >= prefix, column <= prefix + "\U0010ffff", like)


def _pattern(pattern: str) -> str:
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, "\\" + special)
    return pattern.replace("*", "%").replace("?", "_")


def _contains(text: str) -> str:
    for special in ("!", "%", "_"):
        text = text.replace(special, "!" + special)
    return f"%{text}%"
