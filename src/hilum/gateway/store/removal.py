"""Taking instances out of the index, so that every count stays what a recount would give.

A removal leaves a tombstone for each instance, which also names the file until it is deleted: a
crash between the commit and the deletion leaves nothing behind and brings nothing back.

A removed current version does not bring an older one back into sight: what was superseded was
superseded for a reason. It stays listed by `queries.versions`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from hilum.errors import LocalProtocolError
from hilum.gateway.store import schema
from hilum.gateway.store.database import Database
from hilum.gateway.store.retention import is_elsewhere, is_kept

__all__ = [
    "Removal",
    "Scope",
    "files_deleted",
    "files_to_delete",
    "remove",
    "supersede",
    "withdraw",
]

# Some 40 µs an instance: a piece stays under the 5 ms that the receiver may be held.
PIECE = 100

_patient, _study, _series, _instance = schema.patient, schema.study, schema.series, schema.instance


@dataclass(frozen=True, slots=True)
class Scope:
    """What to remove: the instances that fit every field that is given.

    Args:
        owner_id: whose; None for every owner's.
        patient_id: with `issuer`, which is "" where the patient has none.
        issuer: issuer of the Patient ID.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID, in all its versions.
    """

    owner_id: int | None = None
    patient_id: str = ""
    issuer: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed.

    Args:
        instances: how many rows, older versions included.
        paths: their files, to be deleted now; then tell `files_deleted`.
        kept: how many were not, because we have given storage commitment for them.
    """

    instances: int
    paths: tuple[str, ...]
    kept: int = 0


def remove(
    database: Database,
    scope: Scope,
    *,
    by: str,
    reason: str,
    even_committed: bool = False,
    only_elsewhere: bool = False,
) -> Removal:
    """Remove instances with their pending work; leave tombstones and one event.

    Instances that somebody relies on by a storage commitment stay, unless told otherwise.

    Large scopes go in pieces of 100 instances, each in a transaction of its own with all that
    belongs to it; after a failure the pieces before it stay removed, and a second call goes on.

    Args:
        database: see `open_database`.
        scope: what; at least one UID or a Patient ID.
        by: who asked, for the event.
        reason: why, for event and tombstones.
        even_committed: a person has said that commitments do not matter.
        only_elsewhere: only what another archive has given us storage commitment for. Of several
            versions nobody knows which one it has: they stay.

    Raises:
        LocalProtocolError: the scope names nothing.
        StorageFailed: the database cannot be written.
    """
    if not (scope.patient_id or scope.study_uid or scope.series_uid or scope.sop_uid):
        raise LocalProtocolError(
            "a removal needs a Patient ID or a UID; removing all is not offered"
        )
    found = _in_scope(scope)
    if only_elsewhere:
        found = found.where(is_elsewhere(), ~_has_versions())
    kept = 0
    if not even_committed:
        with database.read() as connection:
            committed = found.where(is_kept()).order_by(None).subquery()
            kept = connection.scalar(select(func.count()).select_from(committed)) or 0
        found = found.where(~is_kept())
    paths: list[str] = []
    total = 0
    while True:
        with database.write() as connection:
            ids = list(connection.scalars(found.limit(PIECE)))
            if ids and not total:
                _log_removal(connection, scope, by, reason)
            paths += withdraw(connection, ids, reason=reason, now=_now())
        total += len(ids)
        if len(ids) < PIECE:
            return Removal(total, tuple(paths), kept)


def files_to_delete(database: Database, limit: int = 1000) -> list[str]:
    """Files of removed instances that nobody has reported as deleted yet, oldest first."""
    tombstone = schema.tombstone
    with database.read() as connection:
        return list(
            connection.scalars(
                select(tombstone.c.path)
                # A literal, so that SQLite sees that the partial index applies.
                .where(tombstone.c.path != literal_column("''"))
                .order_by(tombstone.c.id)
                .limit(limit)
            )
        )


def files_deleted(database: Database, paths: Sequence[str]) -> None:
    """Record that these files of removed instances are gone."""
    tombstone = schema.tombstone
    for start in range(0, len(paths), PIECE):
        with database.write() as connection:
            connection.execute(
                update(tombstone)
                .where(
                    tombstone.c.path != literal_column("''"),
                    tombstone.c.path.in_(paths[start : start + PIECE]),
                )
                .values(path="")
            )


def withdraw(
    connection: Connection, instance_ids: Sequence[int], *, reason: str, now: int
) -> list[str]:
    """Delete instance rows with their work, adjust counts, write tombstones.

    Args:
        connection: in a write transaction.
        instance_ids: at most a few hundred.
        reason: for the tombstones.
        now: µs since 1970.

    Returns:
        The files to delete once the transaction is committed.
    """
    if not instance_ids:
        return []
    rows = _leaving(connection, instance_ids)
    ids = [row.id for row in rows]
    connection.execute(insert(schema.tombstone), [_tombstone(row, reason, now) for row in rows])
    connection.execute(delete(schema.work).where(schema.work.c.instance_ref.in_(ids)))
    connection.execute(delete(_instance).where(_instance.c.id.in_(ids)))
    _subtract(connection, [row for row in rows if not row.superseded])
    _prune(connection, rows)
    return [row.path for row in rows]


def supersede(connection: Connection, instance_id: int) -> None:
    """Make the current version of an instance an older one, out of lists and counts."""
    rows = _leaving(connection, [instance_id])
    connection.execute(
        update(_instance).where(_instance.c.id == instance_id).values(superseded=_instance.c.id)
    )
    _subtract(connection, rows)


def _has_versions() -> ColumnElement[bool]:
    other = _instance.alias()
    return exists().where(
        other.c.sop_uid == _instance.c.sop_uid,
        other.c.owner_id == _instance.c.owner_id,
        other.c.id != _instance.c.id,
    )


def _in_scope(scope: Scope) -> Select[int]:
    statement = (
        select(_instance.c.id)
        .select_from(_instance.join(_series).join(_study).join(_patient))
        .order_by(_instance.c.id)
    )
    if scope.owner_id is not None:
        statement = statement.where(_instance.c.owner_id == scope.owner_id)
    if scope.patient_id:
        statement = statement.where(
            _patient.c.patient_id == scope.patient_id, _patient.c.issuer == scope.issuer
        )
    for column, uid in (
        (_study.c.study_uid, scope.study_uid),
        (_series.c.series_uid, scope.series_uid),
        (_instance.c.sop_uid, scope.sop_uid),
    ):
        if uid:
            statement = statement.where(column == uid)
    return statement


def _leaving(connection: Connection, ids: Sequence[int]) -> Sequence[Row[*tuple[Any, ...]]]:
    studies = (
        select(_series.c.study_ref)
        .join(_instance, _instance.c.series_ref == _series.c.id)
        .where(_instance.c.id.in_(ids))
    )
    # The study's row is the lock of everything below it (PostgreSQL; SQLite has one writer).
    connection.execute(
        select(_study.c.id).where(_study.c.id.in_(studies)).order_by(_study.c.id).with_for_update()
    )
    return connection.execute(
        select(
            _instance.c.id,
            _instance.c.owner_id,
            _instance.c.series_ref,
            _instance.c.sop_uid,
            _instance.c.sop_class,
            _instance.c.superseded,
            _instance.c.size,
            _instance.c.digest,
            _instance.c.received_at,
            _instance.c.path,
            _series.c.series_uid,
            _series.c.study_ref,
            _study.c.study_uid,
            _study.c.patient_ref,
        )
        .select_from(_instance.join(_series).join(_study))
        .where(_instance.c.id.in_(ids))
        .order_by(_instance.c.id)
    ).all()


def _tombstone(row: Row[*tuple[Any, ...]], reason: str, now: int) -> dict[str, object]:
    copied = ("owner_id", "study_uid", "series_uid", "sop_uid", "sop_class", "digest", "size",
              "received_at", "path")  # fmt: skip
    return {name: getattr(row, name) for name in copied} | {"reason": reason, "removed_at": now}


def _subtract(connection: Connection, rows: Iterable[Row[*tuple[Any, ...]]]) -> None:
    """Take rows that were current, and are so no longer, out of the counts."""
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    classes: dict[int, set[str]] = {}
    for row in rows:
        counts[row.series_ref] += 1
        sizes[row.series_ref] += row.size
        classes.setdefault(row.study_ref, set()).add(row.sop_class)
    for series_ref, count in counts.items():
        connection.execute(
            update(_series)
            .where(_series.c.id == series_ref)
            .values(
                n_instances=_series.c.n_instances - count,
                total_bytes=_series.c.total_bytes - sizes[series_ref],
            )
        )
    for study_ref, left in classes.items():
        _refresh_study(connection, study_ref, left)


def _refresh_study(connection: Connection, study_ref: int, left: set[str]) -> None:
    filled = and_(_series.c.study_ref == study_ref, _series.c.n_instances > 0)
    totals = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(_series.c.n_instances), 0),
            func.coalesce(func.sum(_series.c.total_bytes), 0),
        ).where(filled)
    ).one()
    modalities = connection.scalars(
        select(_series.c.modality).where(filled, _series.c.modality != "").distinct()
    )
    before = connection.scalar(select(_study.c.sop_classes).where(_study.c.id == study_ref)) or ""
    gone = {uid for uid in left if not _has_class(connection, study_ref, uid)}
    connection.execute(
        update(_study)
        .where(_study.c.id == study_ref)
        .values(
            n_series=totals[0],
            n_instances=totals[1],
            total_bytes=totals[2],
            modalities="\\".join(sorted(modalities)),
            sop_classes="\\".join(uid for uid in before.split("\\") if uid not in gone),
        )
    )


def _has_class(connection: Connection, study_ref: int, sop_class: str) -> bool:
    # One row is enough, and usually the first one read.
    found = connection.scalar(
        select(_instance.c.id)
        .select_from(_instance.join(_series))
        .where(
            _series.c.study_ref == study_ref,
            _instance.c.sop_class == sop_class,
            _instance.c.superseded == 0,
        )
        .limit(1)
    )
    return found is not None


def _prune(connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> None:
    """Delete series, studies and patients that have nothing left, not even older versions."""
    series = {row.series_ref for row in rows}
    studies = {row.study_ref for row in rows}
    patients = {row.patient_ref for row in rows}
    connection.execute(
        delete(_series).where(
            _series.c.id.in_(series), ~exists().where(_instance.c.series_ref == _series.c.id)
        )
    )
    gone = connection.execute(
        delete(_study).where(
            _study.c.id.in_(studies), ~exists().where(_series.c.study_ref == _study.c.id)
        )
    )
    if not gone.rowcount:
        return
    connection.execute(
        delete(_patient).where(
            _patient.c.id.in_(patients), ~exists().where(_study.c.patient_ref == _patient.c.id)
        )
    )
    _settle_conflicts(connection, {(row.study_uid, row.owner_id) for row in rows})


def _settle_conflicts(connection: Connection, identities: set[tuple[str, int]]) -> None:
    for study_uid, owner_id in identities:
        here = and_(_study.c.study_uid == study_uid, _study.c.owner_id == owner_id)
        if connection.scalar(select(func.count()).select_from(_study).where(here)) == 1:
            connection.execute(update(_study).where(here).values(conflict=0))


def _log_removal(connection: Connection, scope: Scope, by: str, reason: str) -> None:
    given = {name: value for name, value in asdict(scope).items() if value not in ("", None)}
    subject = scope.sop_uid or scope.series_uid or scope.study_uid or "patient"
    connection.execute(
        insert(schema.event).values(
            at=_now(),
            action="remove",
            actor=by,
            subject=subject,
            detail=json.dumps({"scope": given, "reason": reason}, ensure_ascii=False),
        )
    )


def _now() -> int:
    return time.time_ns() // 1000
