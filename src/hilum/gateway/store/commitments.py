"""Requests for storage commitment made of us: kept from the moment that they are answered.

A request is known by owner, calling AE title and Transaction UID. The same list under the same
Transaction UID is the same request, however often it comes; another list is a request that fails
with 0131H. Once the result is known it does not change, so that every repetition says the same.

Standard: PS3.4 J.3.2 and J.3.3; PS3.3 C.14.1.1.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from hilum.gateway.store import schema
from hilum.gateway.store.claims import NewWork
from hilum.gateway.store.database import Database
from hilum.gateway.store.jobs import UNFINISHED
from hilum.gateway.store.states import CommitmentState, WorkState
from hilum.gateway.store.work import enqueue
from hilum.services.commitment import (
    Action,
    FailureReason,
    Result,
    encode_action,
    encode_result,
    failed_as_a_whole,
    parse_action,
    parse_result,
)
from hilum.services.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN

__all__ = [
    "DELIVER",
    "JUDGE",
    "Asked",
    "Commitment",
    "Commitments",
    "Entry",
    "TooManyOpen",
    "pack_action",
    "pack_result",
    "unpack_action",
    "unpack_result",
]

JUDGE = "commitment.judge"
"""Work: find out what can be committed. Payload: ``id``."""

DELIVER = "commitment.deliver"
"""Work: report the result. Payload: ``id``; its key names the destination."""

_table, _work = schema.commitment, schema.work
_OPEN = _table.c.answered_at.is_(None)
_PIECE = 100


class TooManyOpen(Exception):
    """A caller has so many requests without a delivered result that no more are taken."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks whom.

    Args:
        owner_id: whose instances the called AE title keeps.
        called_ae: called AE title.
        calling_ae: calling AE title.
        peer: name of the peer that it is; "" for none.
    """

    owner_id: int
    called_ae: str
    calling_ae: str
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Commitment:
    """A request, whole.

    Args:
        id: of the row.
        asked: by whom.
        action: what was asked for.
        digest: the action's.
        state: see `CommitmentState`.
        asked_at: µs since 1970.
        result: once it is known.
    """

    id: int
    asked: Asked
    action: Action
    digest: bytes
    state: CommitmentState
    asked_at: int
    result: Result | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A request as people see it; times are µs since 1970."""

    id: int
    transaction_uid: str
    called_ae: str
    calling_ae: str
    state: str
    references: int
    failed: int
    asked_at: int
    answered_at: int | None
    way: str
    cause: str


class Commitments:
    """The requests; safe to use from any thread.

    Every method raises StorageFailed when the database cannot be read or written; nothing is
    changed then.

    Args:
        database: see `open_database`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, asked: Asked, action: Action, *, max_open: int) -> int:
        """Keep a request, and see to it that its result is found and reported.

        Args:
            asked: by whom.
            action: what is asked for.
            max_open: requests of one caller without a delivered result.

        Returns:
            The row's id: of the first one when the same request came before.

        Raises:
            TooManyOpen: there is no room; nothing is kept.
        """
        digest = action.digest
        packed = pack_action(action)
        with self._database.write() as connection:
            known = self._known(connection, asked, action.transaction_uid)
            for row in known:
                if row.digest == digest:
                    self._again(connection, row)
                    return int(row.id)
            if self._open(connection, asked) >= max_open:
                raise TooManyOpen
            result = None
            if known:
                reason = FailureReason.DUPLICATE_TRANSACTION_UID
                result = failed_as_a_whole(action, reason)
            return self._insert(connection, asked, action, digest, packed, result)

    def _known(self, connection: Connection, asked: Asked, transaction_uid: str) -> Sequence[Any]:
        return connection.execute(
            select(
                _table.c.id,
                _table.c.digest,
                _table.c.state,
                _table.c.calling_ae,
                _table.c.asked_at,
            ).where(
                _table.c.transaction_uid == transaction_uid,
                _table.c.calling_ae == asked.calling_ae,
                _table.c.owner_id == asked.owner_id,
            )
        ).all()

    def _open(self, connection: Connection, asked: Asked) -> int:
        here = and_(
            _OPEN, _table.c.calling_ae == asked.calling_ae, _table.c.owner_id == asked.owner_id
        )
        return connection.scalar(select(func.count()).select_from(_table).where(here)) or 0

    def _insert(
        self,
        connection: Connection,
        asked: Asked,
        action: Action,
        digest: bytes,
        packed: bytes,
        result: Result | None,
    ) -> int:
        now = _now()
        state = CommitmentState.ASKED if result is None else CommitmentState.JUDGED
        inserted = connection.execute(
            insert(_table).values(
                owner_id=asked.owner_id,
                called_ae=asked.called_ae,
                calling_ae=asked.calling_ae,
                peer=asked.peer,
                transaction_uid=action.transaction_uid,
                digest=digest,
                n_references=len(action.references),
                action=packed,
                result=None if result is None else pack_result(result),
                n_failed=0 if result is None else len(result.failed),
                state=state.value,
                asked_at=now,
                judged_at=None if result is None else now,
                way="",
                cause="",
            )
        )
        (number,) = inserted.inserted_primary_key or (0,)
        work = _judging(number) if result is None else _delivery(number, asked.calling_ae)
        enqueue(connection, [work])
        return int(number)

    def _again(self, connection: Connection, row: Row[Any]) -> None:
        """The same request once more: its result goes out once more."""
        here = _table.c.id == row.id
        # Another time: a report of which nothing is recorded yet may have been answered already,
        # and who asks after that wants one more.
        asked_at = max(_now(), row.asked_at + 1)
        if row.state in (CommitmentState.ASKED, CommitmentState.JUDGED):
            connection.execute(update(_table).where(here).values(asked_at=asked_at))
            _wake(connection, [row.id])
            if not _has_work(connection, row.id):  # an operator has cancelled it
                judged = row.state == CommitmentState.JUDGED
                work = _delivery(row.id, row.calling_ae) if judged else _judging(row.id)
                enqueue(connection, [work])
            return
        connection.execute(
            update(_table)
            .where(here)
            .values(
                state=CommitmentState.JUDGED.value, asked_at=asked_at, answered_at=None, cause=""
            )
        )
        enqueue(connection, [_delivery(row.id, row.calling_ae)])

    def resume(self) -> int:
        """Give work to requests that have none, as after the index was made anew; how many."""
        # An operator who cancelled one did not mean until the next start.
        has_work = set(WorkState) - {WorkState.DONE, WorkState.DEAD}
        with self._database.read() as connection:
            rows = connection.execute(
                select(_table.c.id, _table.c.state, _table.c.calling_ae).where(
                    _OPEN, _table.c.state.in_([CommitmentState.ASKED, CommitmentState.JUDGED])
                )
            ).all()
            busy = set(
                connection.scalars(
                    select(_work.c.origin).where(
                        _work.c.kind.in_((JUDGE, DELIVER)), _work.c.state.in_(has_work)
                    )
                )
            )
        idle = [row for row in rows if _origin(row.id) not in busy]
        for start in range(0, len(idle), _PIECE):
            with self._database.write() as connection:
                enqueue(
                    connection,
                    [
                        _judging(row.id)
                        if row.state == CommitmentState.ASKED
                        else _delivery(row.id, row.calling_ae)
                        for row in idle[start : start + _PIECE]
                    ],
                )
        return len(idle)

    def load(self, number: int) -> Commitment | None:
        """A request by its id; None when it is not kept any more."""
        with self._database.read() as connection:
            row = connection.execute(select(_table).where(_table.c.id == number)).first()
        if row is None:
            return None
        return Commitment(
            row.id,
            Asked(row.owner_id, row.called_ae, row.calling_ae, row.peer),
            unpack_action(row.action),
            row.digest,
            CommitmentState(row.state),
            row.asked_at,
            None if row.result is None else unpack_result(row.result),
        )

    def judged(self, connection: Connection, number: int, packed: bytes, failed: int) -> None:
        """Keep the result, once and for all, and see to its delivery; in a write transaction.

        Args:
            connection: in a write transaction.
            number: the row's id.
            packed: from `pack_result`.
            failed: how many instances are not committed.
        """
        changed = connection.execute(
            update(_table)
            .where(_table.c.id == number, _table.c.result.is_(None))
            .values(
                result=packed,
                n_failed=failed,
                state=CommitmentState.JUDGED.value,
                judged_at=_now(),
            )
        )
        if changed.rowcount:
            calling = connection.scalar(select(_table.c.calling_ae).where(_table.c.id == number))
            enqueue(connection, [_delivery(number, calling or "")])

    def delivered(self, found: Commitment, way: str) -> bool:
        """The peer has answered the report: it is not sent again unless it is asked for again.

        Args:
            found: the request as it was when its report was begun.
            way: by which the report went.

        Returns:
            False: it has been asked for again since; nothing was recorded.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                update(_table)
                .where(_table.c.id == found.id, _table.c.asked_at == found.asked_at)
                .values(
                    state=CommitmentState.DELIVERED.value, answered_at=_now(), way=way, cause=""
                )
            )
            return bool(changed.rowcount)

    def given_up(self, connection: Connection, found: Commitment, cause: str) -> None:
        """It could not be delivered; the same request gets it again.

        Args:
            connection: in the write transaction that ends the work.
            found: the request as it was when its delivery was tried.
            cause: for people.
        """
        changed = connection.execute(
            update(_table)
            .where(_table.c.id == found.id, _table.c.asked_at == found.asked_at)
            .values(state=CommitmentState.GIVEN_UP.value, answered_at=_now(), cause=cause[:2000])
        )
        if not changed.rowcount:  # asked for again meanwhile
            enqueue(connection, [_delivery(found.id, found.asked.calling_ae)])

    def waiting_for(self, calling_ae: str, owner_id: int, peer: str) -> list[int]:
        """Requests of a caller whose result is known and not delivered, oldest first.

        Args:
            calling_ae: its AE title.
            owner_id: whose instances.
            peer: the peer that it is; "" for none, who gets no peer's results.
        """
        with self._database.read() as connection:
            return list(
                connection.scalars(
                    select(_table.c.id)
                    .where(
                        _OPEN,
                        _table.c.calling_ae == calling_ae,
                        _table.c.owner_id == owner_id,
                        _table.c.peer.in_(("", peer)),
                        _table.c.state == CommitmentState.JUDGED.value,
                    )
                    .order_by(_table.c.id)
                )
            )

    def wake(self, numbers: Sequence[int]) -> None:
        """Deliver these now rather than when they are due."""
        for start in range(0, len(numbers), _PIECE):
            with self._database.write() as connection:
                _wake(connection, numbers[start : start + _PIECE])

    def listed(self, *, limit: int = 100, open_only: bool = False) -> list[Entry]:
        """The latest requests first."""
        statement = select(_table).order_by(_table.c.id.desc()).limit(limit)
        if open_only:
            statement = statement.where(_OPEN)
        with self._database.read() as connection:
            return [
                Entry(
                    row.id, row.transaction_uid, row.called_ae, row.calling_ae, row.state,
                    row.n_references, row.n_failed, row.asked_at, row.answered_at, row.way,
                    row.cause,
                )
                for row in connection.execute(statement)
            ]  # fmt: skip

    def forget(self, *, keep: float) -> int:
        """Delete requests that ended more than `keep` seconds ago, a hundred at most."""
        before = _now() - int(keep * 1_000_000)
        with self._database.write() as connection:
            old = (
                select(_table.c.id)
                .where(_table.c.asked_at < before, _table.c.answered_at < before)
                .order_by(_table.c.asked_at)
                .limit(_PIECE)
            )
            ids = list(connection.scalars(old))
            if ids:
                connection.execute(delete(_table).where(_table.c.id.in_(ids)))
            return len(ids)


def _judging(number: int) -> NewWork:
    return NewWork(JUDGE, {"id": number}, origin=_origin(number))


def _delivery(number: int, calling_ae: str) -> NewWork:
    # One at a time to each caller, so that results arrive in order and one that is away holds
    # nobody else.
    return NewWork(DELIVER, {"id": number}, key=calling_ae, origin=_origin(number))


def _origin(number: int) -> str:
    return f"commitment:{number}"


def _has_work(connection: Connection, number: int) -> bool:
    here = and_(_work.c.origin == _origin(number), _work.c.kind.in_((JUDGE, DELIVER)))
    found = select(_work.c.id).where(here, _work.c.state.in_(UNFINISHED)).limit(1)
    return connection.scalar(found) is not None


def _wake(connection: Connection, numbers: Sequence[int]) -> None:
    here = and_(
        _work.c.origin.in_([_origin(number) for number in numbers]),
        _work.c.kind.in_((JUDGE, DELIVER)),
    )
    now: dict[str, Any] = {"state": WorkState.READY.value, "ready_at": _now()}
    connection.execute(
        update(_work).where(here, _work.c.state == WorkState.WAITING.value).values(now)
    )
    # One that has run to its end without success begins anew.
    connection.execute(
        update(_work)
        .where(here, _work.c.state == WorkState.DEAD.value)
        .values(now | {"attempts": 0, "finished_at": None})
    )


def pack_action(action: Action) -> bytes:
    """Action Information as it is kept: Implicit VR Little Endian, zlib (a tenth of it)."""
    return zlib.compress(encode_action(action, IMPLICIT_VR_LITTLE_ENDIAN), 1)


def unpack_action(packed: bytes) -> Action:
    """The inverse of `pack_action`."""
    return parse_action(zlib.decompress(packed), IMPLICIT_VR_LITTLE_ENDIAN)


def pack_result(result: Result) -> bytes:
    """Event Information as it is kept."""
    return zlib.compress(encode_result(result, IMPLICIT_VR_LITTLE_ENDIAN), 1)


def unpack_result(packed: bytes) -> Result:
    """The inverse of `pack_result`."""
    return parse_result(zlib.decompress(packed), IMPLICIT_VR_LITTLE_ENDIAN)


def _now() -> int:
    return time.time_ns() // 1000
