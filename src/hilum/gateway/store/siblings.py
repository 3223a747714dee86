"""What a viewer has from several owners, listed once.

Of rows with one identity the highest owner id wins: a viewer's own before everyone's. Counts of
such a row are of distinct SOP Instance UIDs over all of them; they are counted for the rows of
one page only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, literal_column, select

from hilum.gateway.store import schema
from hilum.gateway.store.results import Viewer

__all__ = [
    "count_studies",
    "merged_patient",
    "merged_series",
    "merged_studies",
    "preferred_instance",
    "preferred_patient",
    "preferred_series",
    "preferred_study",
    "split_values",
]

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance


def preferred_patient(viewer: Viewer) -> ColumnElement[bool]:
    """Another owner's row of the same patient is listed instead of this one."""
    other = _patient.alias()
    return (
        select(literal_column("1"))
        .where(
            other.c.patient_id == _patient.c.patient_id,
            other.c.issuer == _patient.c.issuer,
            other.c.lone_study_uid == _patient.c.lone_study_uid,
            other.c.owner_id > _patient.c.owner_id,
            viewer.may_see(other.c.owner_id),
        )
        .exists()
    )


def preferred_study(viewer: Viewer) -> ColumnElement[bool]:
    """Another owner's row of the same study and patient is listed instead of this one."""
    other, whose = _study.alias(), _patient.alias()
    return (
        select(literal_column("1"))
        .select_from(other.join(whose, other.c.patient_ref == whose.c.id))
        .where(
            other.c.study_uid == _study.c.study_uid,
            other.c.owner_id > _study.c.owner_id,
            viewer.may_see(other.c.owner_id),
            other.c.n_instances > 0,
            whose.c.patient_id == _patient.c.patient_id,
            whose.c.issuer == _patient.c.issuer,
        )
        .correlate(_study, _patient)
        .exists()
    )


def preferred_series(viewer: Viewer) -> ColumnElement[bool]:
    """Another owner's row of the same series is listed instead of this one."""
    other, where = _series.alias(), _study.alias()
    return (
        select(literal_column("1"))
        .select_from(other.join(where, other.c.study_ref == where.c.id))
        .where(
            other.c.series_uid == _series.c.series_uid,
            where.c.study_uid == _study.c.study_uid,
            where.c.owner_id > _study.c.owner_id,
            viewer.may_see(where.c.owner_id),
            other.c.n_instances > 0,
        )
        .correlate(_series, _study)
        .exists()
    )


def preferred_instance(viewer: Viewer) -> ColumnElement[bool]:
    """Another owner's instance with this UID is listed instead of this one."""
    other = _instance.alias()
    return (
        select(literal_column("1"))
        .where(
            other.c.sop_uid == _instance.c.sop_uid,
            other.c.owner_id > _instance.c.owner_id,
            other.c.superseded == 0,
            viewer.may_see(other.c.owner_id),
        )
        .correlate(_instance)
        .exists()
    )


def count_studies(connection: Connection, viewer: Viewer, row: Row[*tuple[Any, ...]]) -> int:
    """How many studies of a patient the viewer sees, over all owners."""
    same = and_(
        _patient.c.patient_id == row.patient_id,
        _patient.c.issuer == row.issuer,
        _patient.c.lone_study_uid == row.lone_study_uid,
    )
    return int(
        connection.scalar(
            select(func.count(_study.c.study_uid.distinct()))
            .select_from(_study.join(_patient))
            .where(same, viewer.may_see(_study.c.owner_id), _study.c.n_instances > 0)
        )
        or 0
    )


def merged_patient(
    connection: Connection, viewer: Viewer, row: Row[*tuple[Any, ...]]
) -> tuple[int, int, int]:
    """How many studies, series and instances of a patient the viewer sees, over all owners."""
    statement = (
        select(_study)
        .select_from(_study.join(_patient))
        .where(
            _patient.c.patient_id == row.patient_id,
            _patient.c.issuer == row.issuer,
            _patient.c.lone_study_uid == row.lone_study_uid,
            viewer.may_see(_study.c.owner_id),
            _study.c.n_instances > 0,
        )
    )
    groups: dict[str, list[Row[*tuple[Any, ...]]]] = {}
    for study in connection.execute(statement):
        groups.setdefault(study.study_uid, []).append(study)
    n_series = n_instances = 0
    for group in groups.values():
        merged = _merge(connection, group) if len(group) > 1 else group[0]._mapping
        n_series += merged["n_series"]
        n_instances += merged["n_instances"]
    return len(groups), n_series, n_instances


def merged_studies(
    connection: Connection, viewer: Viewer, rows: Sequence[Row[*tuple[Any, ...]]]
) -> dict[int, dict[str, Any]]:
    """Counts, by id, for the studies of a page that the viewer sees from several owners."""
    by_identity = {(row.study_uid, row.p_patient_id, row.p_issuer): row.id for row in rows}
    siblings: dict[int, list[Row[*tuple[Any, ...]]]] = {}
    statement = (
        select(_study, _patient.c.patient_id, _patient.c.issuer)
        .select_from(_study.join(_patient))
        .where(
            _study.c.study_uid.in_({row.study_uid for row in rows}),
            viewer.may_see(_study.c.owner_id),
            _study.c.n_instances > 0,
        )
    )
    for row in connection.execute(statement) if rows else ():
        shown = by_identity.get((row.study_uid, row.patient_id, row.issuer))
        if shown is not None:
            siblings.setdefault(shown, []).append(row)
    return {shown: _merge(connection, group) for shown, group in siblings.items() if len(group) > 1}


def _merge(connection: Connection, group: Sequence[Row[*tuple[Any, ...]]]) -> dict[str, Any]:
    inside = and_(_series.c.study_ref.in_([row.id for row in group]), _instance.c.superseded == 0)
    each = (
        select(_instance.c.sop_uid, func.max(_instance.c.size).label("size"))
        .select_from(_instance.join(_series))
        .where(inside)
        .group_by(_instance.c.sop_uid)
        .subquery()
    )
    instances, size = connection.execute(
        select(func.count(), func.coalesce(func.sum(each.c.size), 0))
    ).one()
    series = connection.scalar(
        select(func.count(_series.c.series_uid.distinct())).where(
            _series.c.study_ref.in_([row.id for row in group]), _series.c.n_instances > 0
        )
    )
    return {
        "n_instances": int(instances),
        "n_series": int(series or 0),
        "total_bytes": int(size),
        "modalities": sorted({m for row in group for m in split_values(row.modalities)}),
        "sop_classes": sorted({c for row in group for c in split_values(row.sop_classes)}),
        "first_received": min(row.first_received for row in group),
        "last_received": max(row.last_received for row in group),
    }


def merged_series(
    connection: Connection, viewer: Viewer, rows: Sequence[Row[*tuple[Any, ...]]]
) -> dict[int, tuple[int, int]]:
    """Instances and bytes, by id, for the series of a page that come from several owners."""
    by_identity = {(row.study_uid, row.series_uid): row.id for row in rows}
    groups: dict[int, list[int]] = {}
    statement = (
        select(_series.c.id, _series.c.series_uid, _study.c.study_uid)
        .select_from(_series.join(_study))
        .where(
            _series.c.series_uid.in_({row.series_uid for row in rows}),
            viewer.may_see(_study.c.owner_id),
            _series.c.n_instances > 0,
        )
    )
    for row in connection.execute(statement) if rows else ():
        shown = by_identity.get((row.study_uid, row.series_uid))
        if shown is not None:
            groups.setdefault(shown, []).append(row.id)
    merged = {}
    for shown, ids in groups.items():
        if len(ids) > 1:
            each = (
                select(_instance.c.sop_uid, func.max(_instance.c.size).label("size"))
                .where(_instance.c.series_ref.in_(ids), _instance.c.superseded == 0)
                .group_by(_instance.c.sop_uid)
                .subquery()
            )
            count, size = connection.execute(select(func.count(), func.sum(each.c.size))).one()
            merged[shown] = (int(count), int(size or 0))
    return merged


def split_values(joined: str) -> list[str]:
    """The values of a text that joins them with backslashes."""
    return [value for value in joined.split("\\") if value]
