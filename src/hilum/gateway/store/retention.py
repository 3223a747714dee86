"""What may be deleted by itself: nothing that somebody relies on by a storage commitment.

Whatever deletes without a person's word asks `deletable` in the transaction that deletes. A
deletion that is planned stands in the way of a commitment, and a commitment in the way of a
deletion: whichever is written first.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update

from hilum.gateway.store import schema
from hilum.gateway.store.states import InstanceFlag

__all__ = [
    "cancel_deletion",
    "commit_instances",
    "committed_elsewhere",
    "deletable",
    "has_planned_deletion",
    "is_elsewhere",
    "is_kept",
    "plan_deletion",
]

_instance, _planned = schema.instance, schema.planned_deletion


def is_elsewhere() -> ColumnElement[bool]:
    """A condition on instances: another archive has given us storage commitment for it."""
    return _instance.c.flags.op("&")(int(InstanceFlag.COMMITTED_ELSEWHERE)) != 0


def is_kept() -> ColumnElement[bool]:
    """A condition on instances: committed by us, and no other archive has it for certain."""
    return and_(
        _instance.c.flags.op("&")(int(InstanceFlag.COMMITTED)) != 0,
        _instance.c.flags.op("&")(int(InstanceFlag.COMMITTED_ELSEWHERE)) == 0,
    )


def deletable(connection: Connection, instance_ids: Sequence[int]) -> list[int]:
    """Of these instances, those that may be deleted without a person's word.

    Those that we have given storage commitment for are exempt, unless another archive has given it
    to us.

    Args:
        connection: in the write transaction that deletes.
        instance_ids: at most a few hundred.
    """
    statement = select(_instance.c.id).where(_instance.c.id.in_(instance_ids), ~is_kept())
    return list(connection.scalars(statement.with_for_update()))


def plan_deletion(
    connection: Connection, instance_ids: Sequence[int], *, due_at: int, reason: str
) -> list[int]:
    """Say that instances are going to be deleted: no commitment is given for them any more.

    Args:
        connection: in a write transaction.
        instance_ids: at most a few hundred.
        due_at: µs since 1970.
        reason: for people.

    Returns:
        Those for which it is planned now; committed ones are exempt.
    """
    ids = deletable(connection, instance_ids)
    if ids:
        connection.execute(delete(_planned).where(_planned.c.instance_ref.in_(ids)))
        connection.execute(
            insert(_planned),
            [{"instance_ref": each, "due_at": due_at, "reason": reason} for each in ids],
        )
    return ids


def cancel_deletion(connection: Connection, instance_ids: Sequence[int]) -> None:
    """Plan it no longer."""
    connection.execute(delete(_planned).where(_planned.c.instance_ref.in_(instance_ids)))


def has_planned_deletion() -> ColumnElement[bool]:
    """A condition on instances: a deletion is planned, and no other archive has it for certain."""
    return and_(
        exists().where(_planned.c.instance_ref == _instance.c.id),
        _instance.c.flags.op("&")(int(InstanceFlag.COMMITTED_ELSEWHERE)) == 0,
    )


def commit_instances(connection: Connection, instance_ids: Sequence[int]) -> set[int]:
    """Take responsibility for instances: from now on they are exempt from automatic deletion.

    Args:
        connection: in a write transaction.
        instance_ids: at most a few hundred.

    Returns:
        Those that are committed now; not those that are gone, superseded, or whose deletion is
        planned.
    """
    statement = select(_instance.c.id).where(
        _instance.c.id.in_(instance_ids), _instance.c.superseded == 0, ~has_planned_deletion()
    )
    ids = set(connection.scalars(statement.with_for_update()))
    _raise(connection, ids, InstanceFlag.COMMITTED)
    return ids


def committed_elsewhere(connection: Connection, instance_ids: Sequence[int]) -> None:
    """Another archive has given us storage commitment for these instances."""
    _raise(connection, set(instance_ids), InstanceFlag.COMMITTED_ELSEWHERE)


def _raise(connection: Connection, ids: set[int], flag: InstanceFlag) -> None:
    flags = _instance.c.flags
    connection.execute(
        update(_instance)
        .where(_instance.c.id.in_(ids), flags.op("&")(int(flag)) == 0)
        .values(flags=flags.op("|")(int(flag)))
    )
