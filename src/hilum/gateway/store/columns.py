"""Where the index holds the attributes that can be asked for, and how each is compared.

Standard: PS3.4 C.6.1.1 (Patient Root), C.6.2.1 (Study Root): unique, required and optional keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, func, select

from hilum.gateway.store import schema
from hilum.gateway.store.keys import INSTANCE_KEYS, PATIENT_KEYS, SERIES_KEYS, STUDY_KEYS, Key
from hilum.services.dictionary import tag_for_keyword
from hilum.services.identifier import multiplicity, vr_of
from hilum.services.matching import Level

__all__ = ["COLUMNS", "PATIENT_COUNTS", "Column", "Kind"]

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance


class Kind(Enum):
    """How a column holds its attribute, which decides what SQL can compare."""

    TEXT = 1
    """One text, as it is."""
    FOLDED_NAME = 2
    """A name; `Column.folded` has what is compared."""
    NAMES = 3
    """Names; nothing but their presence can be compared."""
    VALUES = 4
    """Several texts with backslashes between them, as they came."""
    SET = 5
    """Several texts with backslashes between them, ours, without padding."""
    DATE = 6
    TIME = 7
    NUMBER = 8
    """A whole number, or NULL."""
    DECIMAL = 9
    """A number as a text."""
    COUNT = 10
    """A count of the index, never NULL; another one for a viewer of several owners."""


@dataclass(frozen=True, slots=True)
class Column:
    """An attribute in the index.

    Args:
        tag: of the attribute.
        level: that it belongs to.
        expression: of SQL.
        kind: see `Kind`.
        folded: of a FOLDED_NAME.
    """

    tag: int
    level: Level
    expression: ColumnElement[Any]
    kind: Kind
    folded: ColumnElement[str] | None = None

    @property
    def vr(self) -> str:
        """The attribute's VR."""
        return vr_of(self.tag)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return tag


def _kind(key: Key, tag: int) -> Kind:
    vr = vr_of(tag)
    if key.column == "patient_name":
        return Kind.FOLDED_NAME
    if vr in ("DA", "TM"):
        return Kind.DATE if vr == "DA" else Kind.TIME
    if vr == "PN":
        return Kind.NAMES
    if key.empty is None:
        return Kind.NUMBER
    if vr == "DS":
        return Kind.DECIMAL
    return Kind.VALUES if multiplicity(tag) != "1" and vr not in ("LT", "ST") else Kind.TEXT


def _columns() -> dict[int, Column]:
    found = []
    for level, table, keys in (
        (Level.PATIENT, _patient, PATIENT_KEYS),
        (Level.STUDY, _study, STUDY_KEYS),
        (Level.SERIES, _series, SERIES_KEYS),
        (Level.IMAGE, _instance, INSTANCE_KEYS),
    ):
        for key in keys:
            tag = _tag(key.keyword)
            kind = _kind(key, tag)
            folded = _patient.c.patient_name_folded if kind is Kind.FOLDED_NAME else None
            found.append(Column(tag, level, table.c[key.column], kind, folded))
    for keyword, level, expression, kind in (
        ("StudyInstanceUID", Level.STUDY, _study.c.study_uid, Kind.TEXT),
        ("SeriesInstanceUID", Level.SERIES, _series.c.series_uid, Kind.TEXT),
        ("SOPInstanceUID", Level.IMAGE, _instance.c.sop_uid, Kind.TEXT),
        ("SOPClassUID", Level.IMAGE, _instance.c.sop_class, Kind.TEXT),
        ("AvailableTransferSyntaxUID", Level.IMAGE, _instance.c.transfer_syntax, Kind.TEXT),
        ("ModalitiesInStudy", Level.STUDY, _study.c.modalities, Kind.SET),
        ("SOPClassesInStudy", Level.STUDY, _study.c.sop_classes, Kind.SET),
        ("NumberOfStudyRelatedSeries", Level.STUDY, _study.c.n_series, Kind.COUNT),
        ("NumberOfStudyRelatedInstances", Level.STUDY, _study.c.n_instances, Kind.COUNT),
        ("NumberOfSeriesRelatedInstances", Level.SERIES, _series.c.n_instances, Kind.COUNT),
        *(
            (keyword, Level.PATIENT, expression, Kind.COUNT)
            for keyword, expression in _patient_counts().items()
        ),
    ):
        found.append(Column(_tag(keyword), level, expression, kind))
    return {column.tag: column for column in found}


def _patient_counts() -> dict[str, ColumnElement[Any]]:
    inside = _study.alias()
    return {
        # PostgreSQL's sum of such numbers is a decimal.
        keyword: select(func.coalesce(expression, 0).cast(BigInteger))
        .where(inside.c.patient_ref == _patient.c.id, inside.c.n_instances > 0)
        .correlate(_patient)
        .scalar_subquery()
        for keyword, expression in (
            ("NumberOfPatientRelatedStudies", func.count(inside.c.study_uid.distinct())),
            ("NumberOfPatientRelatedSeries", func.sum(inside.c.n_series)),
            ("NumberOfPatientRelatedInstances", func.sum(inside.c.n_instances)),
        )
    }


COLUMNS: Mapping[int, Column] = _columns()
"""By tag."""

PATIENT_COUNTS = (0x00201200, 0x00201202, 0x00201204)
"""Numbers of studies, series and instances of a patient."""
