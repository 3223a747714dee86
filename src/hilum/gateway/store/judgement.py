"""What of a request for storage commitment can be committed, and for what reason the rest cannot.

Instances are looked up by SOP Instance UID among the owners that the asker may see, never among
others: nothing in the answer, nor the time it takes, tells of anybody else's. Files are looked at
before anything is written; then every hundred instances are taken responsibility for in one short
transaction, which leaves out what was removed meanwhile or is going to be.

Standard: PS3.4 J.3.3; PS3.3 C.14.1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Row, case, select

from hilum.errors import StorageFailed
from hilum.gateway.store import scan, schema
from hilum.gateway.store.blobs import BlobStore
from hilum.gateway.store.database import Database
from hilum.gateway.store.delivery import Level
from hilum.gateway.store.retention import commit_instances, has_planned_deletion
from hilum.gateway.store.scan import Problem
from hilum.services.commitment import (
    Action,
    Failure,
    FailureReason,
    Reference,
    Result,
    failed_as_a_whole,
)

__all__ = ["judge"]

_instance = schema.instance
_PIECE = 100  # some 20 µs a row while the write lock is held


def judge(
    database: Database,
    blobs: BlobStore,
    action: Action,
    *,
    owners: Sequence[int],
    level: Level,
    supports: Callable[[str], bool],
    max_references: int,
    is_over: Callable[[], bool] = lambda: False,
) -> Result:
    """Take responsibility for all that can be; blocks for as long as the files take to read.

    Idempotent: interrupted anywhere, it can be run again.

    Args:
        database: see `open_database`.
        blobs: the store.
        action: what is asked for.
        owners: whose instances the asker may see, his own first; none: nothing is here for him.
        level: how closely files are looked at.
        supports: whether a SOP class is one that is kept here.
        max_references: of more than these, all fail with 0213H.
        is_over: asked before each file, of which there may be hours to read.

    Raises:
        StorageFailed: the database cannot be read or written, or it is over.
    """
    asked = list(dict.fromkeys(action.references))
    if len(asked) > max_references:
        return failed_as_a_whole(action, FailureReason.RESOURCE_LIMITATION)
    reasons: dict[Reference, int] = {}
    for start in range(0, len(asked), _PIECE):
        page = asked[start : start + _PIECE]
        rows = _rows(database, {each.sop_instance_uid for each in page}, owners)
        good: dict[Reference, int] = {}
        for each in page:
            if is_over():
                raise StorageFailed("the gateway ends while files are looked at")
            row = rows.get(each.sop_instance_uid)
            reason = _reason(database, blobs, each, row, level, supports)
            if reason is not None:
                reasons[each] = reason
            elif row is not None:
                good[each] = row.id
        _commit(database, good, reasons)
    return Result(
        action.transaction_uid,
        tuple(each for each in asked if each not in reasons),
        tuple(Failure(*each, reasons[each]) for each in asked if each in reasons),
    )


def _rows(
    database: Database, sop_uids: Collection[str], owners: Sequence[int]
) -> dict[str, Row[Any]]:
    if not owners:
        return {}
    order = case({owner: place for place, owner in enumerate(owners)}, value=_instance.c.owner_id)
    statement = (
        select(
            _instance.c.id, _instance.c.sop_uid, _instance.c.sop_class, _instance.c.path,
            _instance.c.size, _instance.c.digest, has_planned_deletion().label("leaving"),
        )
        .where(
            _instance.c.sop_uid.in_(sop_uids),
            _instance.c.owner_id.in_(owners),
            _instance.c.superseded == 0,
        )
        .order_by(order.desc())
    )  # fmt: skip
    with database.read() as connection:
        return {row.sop_uid: row for row in connection.execute(statement)}


def _reason(
    database: Database,
    blobs: BlobStore,
    reference: Reference,
    row: Row[Any] | None,
    level: Level,
    supports: Callable[[str], bool],
) -> FailureReason | None:
    if not supports(reference.sop_class_uid):
        return FailureReason.REFERENCED_SOP_CLASS_NOT_SUPPORTED
    if row is None:
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    if row.sop_class != reference.sop_class_uid:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    if row.leaving:
        return FailureReason.PROCESSING_FAILURE
    if level is Level.ROW:
        return None
    reason = _file_reason(blobs, row, level)
    if reason is not None and (now := _moved(database, row)) is not None:
        reason = _file_reason(blobs, now, level)
    return reason


def _moved(database: Database, row: Row[Any]) -> Any:
    """The row as it is now, where its file has another place by now."""
    columns = (_instance.c.path, _instance.c.size, _instance.c.digest)
    with database.read() as connection:
        now = connection.execute(select(*columns).where(_instance.c.id == row.id)).first()
    return now if now is not None and now.path != row.path else None


def _file_reason(blobs: BlobStore, row: Row[Any], level: Level) -> FailureReason | None:
    found = scan.examine(blobs.root, row.path, digest=level is Level.CHECKSUM)
    if found.problem is Problem.MISSING:
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    meta = found.meta
    if found.problem is not None or meta is None:
        return FailureReason.PROCESSING_FAILURE
    if meta.length != row.size or meta.digest != row.digest:
        return FailureReason.PROCESSING_FAILURE
    return None


def _commit(database: Database, good: dict[Reference, int], reasons: dict[Reference, int]) -> None:
    if not good:
        return
    with database.write() as connection:
        committed = commit_instances(connection, sorted(good.values()))
    for each, number in good.items():
        if number not in committed:
            reasons[each] = FailureReason.PROCESSING_FAILURE
