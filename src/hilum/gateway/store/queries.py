"""What the index answers: lists, paths, versions and totals, for one viewer.

A study that a viewer sees twice, as everyone's and as his own, is listed once, with counts of
distinct SOP Instance UIDs; his own wins. Lists are read in pages: give `Page.next` as `after`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    case,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from hilum.errors import LocalProtocolError
from hilum.gateway.store import schema
from hilum.gateway.store.database import Database
from hilum.gateway.store.filters import Filters, conditions
from hilum.gateway.store.keys import INSTANCE_KEYS, PATIENT_KEYS, SERIES_KEYS, STUDY_KEYS, Key
from hilum.gateway.store.results import (
    FOUND,
    Cursor,
    Found,
    InstanceRow,
    Page,
    PatientRow,
    SeriesRow,
    Statistics,
    StudyRow,
    Version,
    Viewer,
)
from hilum.gateway.store.siblings import (
    count_studies,
    merged_series,
    merged_studies,
    preferred_instance,
    preferred_patient,
    preferred_series,
    preferred_study,
    split_values,
)

__all__ = [
    "Filters",
    "Found",
    "InstanceRow",
    "Order",
    "Page",
    "PatientRow",
    "SeriesRow",
    "Statistics",
    "StudyRow",
    "Version",
    "Viewer",
    "find_instances",
    "list_instances",
    "list_patients",
    "list_series",
    "list_studies",
    "statistics",
    "versions",
]

Order = Literal["date", "received", "name"]
"""Of studies: newest Study Date first; newest arrival first; by folded patient name."""

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance


# ── lists ─────────────────────────────────────────────────────────────────────────────────────


def list_patients(
    database: Database,
    viewer: Viewer,
    filters: Filters = Filters(),  # noqa: B008
    *,
    limit: int = 100,
    after: Cursor | None = None,
) -> Page[PatientRow]:
    """Patients by folded name."""
    order = [_patient.c.patient_name_folded, _patient.c.id]
    visible = _study.alias()
    statement = (
        select(_patient)
        .where(
            viewer.may_see(_patient.c.owner_id),
            ~preferred_patient(viewer),
            select(literal_column("1"))
            .where(
                visible.c.patient_ref == _patient.c.id,
                visible.c.n_instances > 0,
                *_of_patients(viewer, visible.c.study_uid),
            )
            .exists(),
            *conditions(filters, "patient"),
        )
        .order_by(*order)
    )
    with database.read() as connection:
        rows, following = _page(
            connection, statement, order, ("patient_name_folded", "id"), limit, after
        )
        counts = [count_studies(connection, viewer, row) for row in rows]
    return Page(
        tuple(
            PatientRow(
                row.id, row.owner_id, row.patient_id, row.issuer, row.patient_name, count,
                _attributes(PATIENT_KEYS, row),
            )
            for row, count in zip(rows, counts, strict=True)
        ),
        following,
    )  # fmt: skip


def list_studies(
    database: Database,
    viewer: Viewer,
    filters: Filters = Filters(),  # noqa: B008
    *,
    order: Order = "date",
    limit: int = 100,
    after: Cursor | None = None,
) -> Page[StudyRow]:
    """Studies, each once."""
    by, names, descending = _STUDY_ORDERS[order]
    # An expression cannot be sought: the planner has to begin with patients, in order of names,
    # where it would otherwise read all studies and sort them.
    patient_id = _patient.c.id + literal_column("0") if order == "name" else _patient.c.id
    patient_columns = [_patient.c[key.column].label(f"p_{key.column}") for key in PATIENT_KEYS]
    statement = (
        select(_study, *patient_columns, _patient.c.lone_study_uid, _patient.c.patient_name_folded)
        .select_from(_study)
        .join(_patient, _study.c.patient_ref == patient_id)
        .where(
            viewer.may_see(_study.c.owner_id),
            _study.c.n_instances > 0,
            *_of_patients(viewer, _study.c.study_uid),
            ~preferred_study(viewer),
            *conditions(filters, "study"),
        )
        .order_by(*(column.desc() if descending else column for column in by))
    )
    with database.read() as connection:
        rows, following = _page(
            connection, statement, by, names, limit, after, descending=descending
        )
        merged = merged_studies(connection, viewer, rows)
    return Page(tuple(_study_row(row, merged.get(row.id)) for row in rows), following)


def list_series(
    database: Database,
    viewer: Viewer,
    filters: Filters = Filters(),  # noqa: B008
    *,
    limit: int = 1000,
    after: Cursor | None = None,
) -> Page[SeriesRow]:
    """Series by number; meant for one study (`Filters.study_uid`)."""
    number = func.coalesce(_series.c.series_number, -1)
    order = [number, _series.c.id]
    statement = (
        select(_series, _study.c.owner_id, _study.c.study_uid, number.label("number"))
        .join(_study, _series.c.study_ref == _study.c.id)
        .join(_patient, _study.c.patient_ref == _patient.c.id)
        .where(
            viewer.may_see(_study.c.owner_id),
            _series.c.n_instances > 0,
            *_of_patients(viewer, _study.c.study_uid),
            ~preferred_series(viewer),
            *conditions(filters, "series"),
        )
        .order_by(*order)
    )
    with database.read() as connection:
        rows, following = _page(connection, statement, order, ("number", "id"), limit, after)
        merged = merged_series(connection, viewer, rows)
    return Page(
        tuple(
            SeriesRow(
                row.id, row.owner_id, row.study_uid, row.series_uid, n_instances, total_bytes,
                _attributes(SERIES_KEYS, row),
            )
            for row in rows
            for n_instances, total_bytes in [
                merged.get(row.id, (row.n_instances, row.total_bytes))
            ]
        ),
        following,
    )  # fmt: skip


def list_instances(
    database: Database,
    viewer: Viewer,
    filters: Filters = Filters(),  # noqa: B008
    *,
    limit: int = 1000,
    after: Cursor | None = None,
    every_owner: bool = False,
) -> Page[InstanceRow]:
    """Current versions by Instance Number; meant for one series (`Filters.series_uid`).

    Objects of no patient are listed here and nowhere else; they have no study and no series.

    Args:
        database: see `open_database`.
        viewer: who asks.
        filters: what the list is narrowed to.
        limit: rows of a page.
        after: where the page before ended.
        every_owner: an instance that several owners have is listed once for each of them.
    """
    number = func.coalesce(_instance.c.instance_number, -1)
    order = [number, _instance.c.id]
    statement = (
        select(_instance, _study.c.study_uid, _series.c.series_uid, number.label("number"))
        .select_from(_instance)
        .join(_series, _instance.c.series_ref == _series.c.id)
        .join(_study, _series.c.study_ref == _study.c.id)
        .join(_patient, _study.c.patient_ref == _patient.c.id)
        .where(
            viewer.may_see(_instance.c.owner_id),
            _instance.c.superseded == 0,
            *(() if every_owner else (~preferred_instance(viewer),)),
            *conditions(filters, "instance"),
        )
        .order_by(*order)
    )
    with database.read() as connection:
        rows, following = _page(connection, statement, order, ("number", "id"), limit, after)
    return Page(
        tuple(
            InstanceRow(
                row.id, row.owner_id, row.study_uid, row.series_uid, row.sop_uid, row.sop_class,
                row.transfer_syntax, row.path, row.data_offset, row.size, row.flags,
                row.received_at, row.sending_ae, row.receiving_ae,
                _attributes(INSTANCE_KEYS, row),
            )
            for row in rows
        ),
        following,
    )  # fmt: skip


# ── single questions ──────────────────────────────────────────────────────────────────────────


def find_instances(
    database: Database,
    viewer: Viewer,
    *,
    study_uids: Sequence[str] = (),
    series_uids: Sequence[str] = (),
    sop_uids: Sequence[str] = (),
    limit: int = 100_000,
) -> list[Found]:
    """Where the current versions of these are, each SOP Instance UID once, the viewer's own first.

    Args:
        database: see `open_database`.
        viewer: who asks.
        study_uids: in one of these; empty: any.
        series_uids: and in one of these.
        sop_uids: and one of these.
        limit: instances at most.

    Raises:
        LocalProtocolError: no UID is given.
        StorageFailed: the database cannot be read.
    """
    wanted = [
        column.in_(uids)
        for column, uids in (
            (_study.c.study_uid, study_uids),
            (_series.c.series_uid, series_uids),
            (_instance.c.sop_uid, sop_uids),
        )
        if uids
    ]
    if not wanted:
        raise LocalProtocolError("finding instances needs a UID")
    statement = (
        select(*FOUND)
        .select_from(_instance)
        .join(_series, _instance.c.series_ref == _series.c.id)
        .join(_study, _series.c.study_ref == _study.c.id)
        .where(
            viewer.may_see(_instance.c.owner_id),
            _instance.c.superseded == 0,
            ~preferred_instance(viewer),
            *wanted,
        )
        .order_by(_instance.c.id)
        .limit(limit)
    )
    with database.read() as connection:
        return [Found(*row) for row in connection.execute(statement)]


def versions(database: Database, viewer: Viewer, sop_uid: str) -> list[Version]:
    """All versions of an instance that the viewer may see: current ones first, then the newest."""
    statement = (
        select(_instance)
        .where(_instance.c.sop_uid == sop_uid, viewer.may_see(_instance.c.owner_id))
        .order_by(_instance.c.superseded != 0, _instance.c.id.desc())
    )
    with database.read() as connection:
        return [
            Version(
                row.id, row.owner_id, row.superseded == 0, row.received_at, row.size, row.digest,
                row.transfer_syntax, row.path,
            )
            for row in connection.execute(statement)
        ]  # fmt: skip


def statistics(database: Database, viewer: Viewer) -> Statistics:
    """Totals from the counts that the writer keeps: studies are added up, not instances."""
    of_patients = and_(*_of_patients(viewer, _study.c.study_uid), true())
    sums = select(
        func.count(case((of_patients, _study.c.patient_ref)).distinct()),
        func.count(case((of_patients, _study.c.id))),
        func.coalesce(func.sum(case((of_patients, _study.c.n_series))), 0),
        *(
            func.coalesce(func.sum(column), 0)
            for column in (_study.c.n_instances, _study.c.total_bytes)
        ),
    ).where(viewer.may_see(_study.c.owner_id), _study.c.n_instances > 0)
    with database.read() as connection:
        return Statistics(*(int(value) for value in connection.execute(sums).one()))


def _of_patients(viewer: Viewer, study_uid: ColumnElement[str]) -> list[ColumnElement[bool]]:
    """Leaves out what stands for objects of no patient: a study without UID.

    In the quarantine it is what came without one, and is listed.
    """
    return [] if viewer.quarantine else [study_uid != ""]


# ── pages ─────────────────────────────────────────────────────────────────────────────────────

_STUDY_ORDERS: dict[str, tuple[list[ColumnElement[Any]], tuple[str, ...], bool]] = {
    "date": (
        [_study.c.study_date, _study.c.study_time, _study.c.id],
        ("study_date", "study_time", "id"),
        True,
    ),
    # Ids are given in order of arrival.
    "received": ([_study.c.id], ("id",), True),
    "name": (
        [_patient.c.patient_name_folded, _patient.c.id, _study.c.id],
        ("patient_name_folded", "patient_ref", "id"),
        False,
    ),
}
"""Of each order: its columns, their names in a row, and whether it descends."""


def _page(
    connection: Connection,
    statement: Select[*tuple[Any, ...]],
    order: Sequence[ColumnElement[Any]],
    names: Sequence[str],
    limit: int,
    after: Cursor | None,
    *,
    descending: bool = False,
) -> tuple[Sequence[Row[*tuple[Any, ...]]], Cursor | None]:
    """One page by keyset: a row inserted meanwhile moves none from page to page."""
    if after is not None:
        if len(after) != len(order):
            raise LocalProtocolError("the page to continue after is not of this list and order")
        here, there = tuple_(*order), tuple_(*after)
        statement = statement.where(here < there if descending else here > there)
    rows = connection.execute(statement.limit(limit + 1)).all()
    if len(rows) <= limit:
        return rows, None
    rows = rows[:limit]
    last = rows[-1]
    return rows, tuple(getattr(last, name) for name in names)


def _study_row(row: Row[*tuple[Any, ...]], merged: dict[str, Any] | None) -> StudyRow:
    counts = merged or {
        "n_instances": row.n_instances,
        "n_series": row.n_series,
        "total_bytes": row.total_bytes,
        "modalities": split_values(row.modalities),
        "sop_classes": split_values(row.sop_classes),
        "first_received": row.first_received,
        "last_received": row.last_received,
    }
    patient = {key.keyword: row._mapping[f"p_{key.column}"] for key in PATIENT_KEYS}
    return StudyRow(
        id=row.id,
        owner_id=row.owner_id,
        study_uid=row.study_uid,
        patient_id=row.p_patient_id,
        issuer=row.p_issuer,
        patient_name=row.p_patient_name,
        n_series=counts["n_series"],
        n_instances=counts["n_instances"],
        total_bytes=counts["total_bytes"],
        modalities=tuple(counts["modalities"]),
        sop_classes=tuple(counts["sop_classes"]),
        conflict=bool(row.conflict),
        first_received=counts["first_received"],
        last_received=counts["last_received"],
        attributes=patient | _attributes(STUDY_KEYS, row),
    )


def _attributes(keys: Sequence[Key], row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    return {key.keyword: row._mapping[key.column] for key in keys}
