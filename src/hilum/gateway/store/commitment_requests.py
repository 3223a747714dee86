"""Requests for storage commitment that we made, and the results that came.

A request is kept before it is sent: a result may come at any moment after that, over any
association, in any process that listens for us.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update

from hilum.gateway.store import schema
from hilum.gateway.store.commitments import pack_action, pack_result, unpack_action, unpack_result
from hilum.gateway.store.database import Database
from hilum.gateway.store.retention import committed_elsewhere
from hilum.services.commitment import Action, Reference, Result

__all__ = ["ASK", "CommitmentRequest", "CommitmentRequests", "RequestEntry"]

ASK = "commitment.ask"
"""Work: make a request, and see to its result. Payload: ``transaction``; its key is the peer."""

_table, _instance = schema.commitment_request, schema.instance
_PIECE = 100


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """A request of ours; times are µs since 1970.

    Args:
        id: of the row.
        peer: its name, or how it was written.
        called_ae: the peer's AE title.
        calling_ae: ours.
        owner_id: whose instances in our archive it is about; None where they are only files.
        action: what we asked for.
        created_at: when it was kept.
        asked_at: when the peer had taken it; None before, or when it refused.
        answered_at: when the result came; None before.
        result: None before it came.
        origin: who wanted it; "" for a person.
        cause: why the peer did not take it; "" where it did.
    """

    id: int
    peer: str
    called_ae: str
    calling_ae: str
    owner_id: int | None
    action: Action
    created_at: int
    asked_at: int | None
    answered_at: int | None
    result: Result | None
    origin: str
    cause: str


@dataclass(frozen=True, slots=True)
class RequestEntry:
    """A request of ours as people see it; times are µs since 1970."""

    transaction_uid: str
    peer: str
    references: int
    failed: int
    created_at: int
    asked_at: int | None
    answered_at: int | None
    cause: str


class CommitmentRequests:
    """Our requests; safe to use from any thread.

    Every method raises StorageFailed when the database cannot be read or written.

    Args:
        database: see `open_database`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        action: Action,
        *,
        peer: str,
        called_ae: str,
        calling_ae: str,
        owner_id: int | None,
        origin: str = "",
    ) -> int:
        """Keep a request that is about to be sent; returns its id."""
        packed = pack_action(action)
        with self._database.write() as connection:
            inserted = connection.execute(
                insert(_table).values(
                    transaction_uid=action.transaction_uid,
                    peer=peer,
                    called_ae=called_ae,
                    calling_ae=calling_ae,
                    n_references=len(action.references),
                    action=packed,
                    owner_id=owner_id,
                    n_failed=0,
                    created_at=_now(),
                    origin=origin,
                    cause="",
                )
            )
            (number,) = inserted.inserted_primary_key or (0,)
            return int(number)

    def asked(self, transaction_uid: str, cause: str = "") -> None:
        """The peer has taken the request, or refused it for a cause."""
        values: dict[str, Any] = {"cause": cause[:2000]} if cause else {"asked_at": _now()}
        with self._database.write() as connection:
            connection.execute(
                update(_table).where(_table.c.transaction_uid == transaction_uid).values(**values)
            )

    def answered(self, result: Result) -> bool:
        """Keep a result; instances of ours that it commits are marked so.

        The first result counts: a repetition changes nothing.

        Returns:
            Whether we ever asked for it.
        """
        request = self.find(result.transaction_uid)
        if request is None:
            return False
        if request.result is not None:
            return True
        asked = set(request.action.references)
        committed = [each for each in result.committed if each in asked]
        # Before the result is kept: a crash in between makes the peer report again.
        if request.owner_id is not None:
            self._mark(committed, request.owner_id, request.created_at)
        packed = pack_result(result)
        with self._database.write() as connection:
            connection.execute(
                update(_table)
                .where(
                    _table.c.transaction_uid == result.transaction_uid,
                    _table.c.answered_at.is_(None),
                )
                .values(
                    result=packed,
                    n_failed=len(asked) - len(set(committed)),
                    answered_at=_now(),
                )
            )
        return True

    def _mark(self, references: Sequence[Reference], owner_id: int, before: int) -> None:
        """What came later is not what was sent to the peer."""
        for start in range(0, len(references), _PIECE):
            page = references[start : start + _PIECE]
            with self._database.write() as connection:
                ids = connection.scalars(
                    select(_instance.c.id).where(
                        _instance.c.sop_uid.in_([each.sop_instance_uid for each in page]),
                        _instance.c.owner_id == owner_id,
                        _instance.c.superseded == 0,
                        _instance.c.received_at <= before,
                    )
                )
                committed_elsewhere(connection, list(ids))

    def find(self, transaction_uid: str) -> CommitmentRequest | None:
        """A request by its Transaction UID."""
        with self._database.read() as connection:
            row = connection.execute(
                select(_table).where(_table.c.transaction_uid == transaction_uid)
            ).first()
        return None if row is None else _request(row)

    def listed(self, *, limit: int = 100, open_only: bool = False) -> list[RequestEntry]:
        """The latest requests first."""
        statement = select(_table).order_by(_table.c.id.desc()).limit(limit)
        if open_only:
            statement = statement.where(_table.c.answered_at.is_(None))
        with self._database.read() as connection:
            return [
                RequestEntry(
                    row.transaction_uid, row.peer, row.n_references, row.n_failed, row.created_at,
                    row.asked_at, row.answered_at, row.cause,
                )
                for row in connection.execute(statement)
            ]  # fmt: skip

    def open(self) -> list[CommitmentRequest]:
        """Requests that the peer has taken and that no result has come for, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_table)
                .where(_table.c.asked_at.is_not(None), _table.c.answered_at.is_(None))
                .order_by(_table.c.id)
                .limit(1000)
            ).all()
        return [_request(row) for row in rows]

    def forget(self, *, keep: float) -> int:
        """Delete requests of more than `keep` seconds ago, a hundred at most."""
        before = _now() - int(keep * 1_000_000)
        with self._database.write() as connection:
            old = select(_table.c.id).where(_table.c.created_at < before).limit(_PIECE)
            ids = list(connection.scalars(old))
            if ids:
                connection.execute(delete(_table).where(_table.c.id.in_(ids)))
            return len(ids)


def _request(row: Row[Any]) -> CommitmentRequest:
    return CommitmentRequest(
        row.id,
        row.peer,
        row.called_ae,
        row.calling_ae,
        row.owner_id,
        unpack_action(row.action),
        row.created_at,
        row.asked_at,
        row.answered_at,
        None if row.result is None else unpack_result(row.result),
        row.origin,
        row.cause,
    )


def _now() -> int:
    return time.time_ns() // 1000
