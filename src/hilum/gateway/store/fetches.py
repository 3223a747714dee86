"""Fetches as rows: what is wanted of a peer, study by study, and what became of it.

A study is one work row; what it needs is found again after a crash, and everything that is dropped
stays here with its reason.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from hilum.errors import NotFound
from hilum.gateway.store import schema
from hilum.gateway.store.claims import NewWork
from hilum.gateway.store.clock import moment
from hilum.gateway.store.database import Database
from hilum.gateway.store.jobs import UNFINISHED, cancel
from hilum.gateway.store.states import FetchState, StudyState, WorkState, quarantine_owner
from hilum.gateway.store.work import enqueue, state_is

__all__ = ["FETCH", "STUDY", "Fetch", "FetchStudy", "Fetches", "Named", "Report"]

FETCH = "fetch"
"""Kind of the work that asks a peer which studies there are."""
STUDY = "fetch.study"
"""Kind of the work that fetches one study."""

# Some 60 µs a study: row, work row, index entries.
_PIECE = 50
_LOOK_UP = 400  # UIDs in one statement; SQLite takes 999 parameters in older versions

_fetch, _study, _work = schema.fetch, schema.fetch_study, schema.work


@dataclass(frozen=True, slots=True)
class Named:
    """A study that a peer named.

    Args:
        uid: Study Instance UID.
        about: what the peer says of it, for people.
        dropped: why it is not fetched; "" when it is.
    """

    uid: str
    about: Mapping[str, Any]
    dropped: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What is fetched of a study.

    Args:
        wanted: SOP Instance UIDs by Series Instance UID.
        whole: series of which every image is wanted.
        only: everything of the study is wanted.
        dropped: (level, UID, reason) of series and images.
        sop_classes: of what is wanted, as far as the peer says.
        modalities: of the study, from its series.
    """

    wanted: Mapping[str, Sequence[str]] = field(default_factory=dict)
    whole: Sequence[str] = ()
    only: bool = False
    dropped: Sequence[Sequence[str]] = ()
    sop_classes: Sequence[str] = ()
    modalities: Sequence[str] = ()

    @property
    def uids(self) -> list[str]:
        """Every SOP Instance UID that is wanted."""
        return [uid for uids in self.wanted.values() for uid in uids]


@dataclass(frozen=True, slots=True)
class FetchStudy:
    """A study of a fetch.

    Args:
        id: number.
        fetch_id: of which fetch.
        study_uid: Study Instance UID.
        state: see `StudyState`.
        reason: why it was dropped; of one that is planned, why the last attempt failed.
        about: what the peer says of it.
        work: its work row's state; None when it has none any more.
        work_id: its work row's number.
        n_wanted: instances.
        n_here: of them, here before.
        n_arrived: of the others.
        n_dropped: series and images that are not fetched.
        finished_at: µs since 1970.
    """

    id: int
    fetch_id: int
    study_uid: str
    state: StudyState
    reason: str
    about: Mapping[str, Any]
    work: WorkState | None
    work_id: int | None
    n_wanted: int
    n_here: int
    n_arrived: int
    n_dropped: int
    finished_at: int | None


@dataclass(frozen=True, slots=True)
class Fetch:
    """A fetch.

    Args:
        id: number.
        peer: name of the peer.
        origin: who wanted it: "command line", "schedule:3".
        request: what is wanted, and how.
        state: see `FetchState`.
        problem: why it cannot come to its end by itself; "" when it can, or has.
        duplicates: responses that named a study again; they were passed over.
        created_at: µs since 1970.
        finished_at: µs since 1970.
        studies: how many there are in each state.
        failed: studies whose attempts are used up, or were cancelled.
        n_wanted: instances, of studies whose series are known.
        n_here: of them, here before.
        n_arrived: of the others.
    """

    id: int
    peer: str
    origin: str
    request: Mapping[str, Any]
    state: FetchState
    problem: str
    duplicates: int
    created_at: int
    finished_at: int | None
    studies: Mapping[StudyState, int]
    failed: int
    n_wanted: int
    n_here: int
    n_arrived: int

    @property
    def is_over(self) -> bool:
        """Nothing more happens by itself."""
        return self.state in (FetchState.DONE, FetchState.CANCELLED) or bool(self.problem)


class Fetches:
    """Reads and changes fetches; safe to use from any thread.

    Raises StorageFailed when the database cannot be read or written; nothing is changed then.

    Args:
        database: see `open_database`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # ── beginning ─────────────────────────────────────────────────────────────────────────────

    def create(self, peer: str, request: Mapping[str, Any], origin: str) -> int:
        """A new fetch with the work row that begins it; returns its number."""
        with self._database.write() as connection:
            (job,) = enqueue(connection, [NewWork(FETCH, {"request": request}, peer, origin)])
            return _create(connection, peer, request, origin, job)

    def of_work(self, work_id: int, peer: str, request: Mapping[str, Any], origin: str) -> Fetch:
        """The fetch of a work row, made if there is none yet: a schedule's run."""
        with self._database.write() as connection:
            number = connection.scalar(select(_fetch.c.id).where(_fetch.c.work_ref == work_id))
            if number is None:
                number = _create(connection, peer, request, origin, work_id)
        return self.find(number)

    def add_studies(
        self, fetch: Fetch, named: Sequence[Named], *, window: Mapping[str, str]
    ) -> None:
        """Add studies, with a work row for each that is not dropped; those it has are passed over.

        Args:
            fetch: of which.
            named: any number; they are added in small pieces.
            window: further payload of the work rows.

        Raises:
            NotFound: it is not being planned any more, as after a cancellation.
        """
        planning = select(_fetch.c.id).where(
            _fetch.c.id == fetch.id, _fetch.c.state == FetchState.PLANNING
        )
        for start in range(0, len(named), _PIECE):
            with self._database.write() as connection:
                if connection.scalar(planning.with_for_update()) is None:
                    raise NotFound(f"fetch {fetch.id} is not being planned any more")
                now = moment(connection).now
                piece = named[start : start + _PIECE]
                there = set(
                    connection.scalars(
                        select(_study.c.study_uid).where(
                            _study.c.fetch_ref == fetch.id,
                            _study.c.study_uid.in_([one.uid for one in piece]),
                        )
                    )
                )
                for one in piece:
                    if one.uid not in there:
                        there.add(one.uid)
                        _add_study(connection, fetch, one, window, now)

    def planned(self, connection: Connection, fetch_id: int, duplicates: int) -> None:
        """The peer has named all studies; in the transaction that finishes that work."""
        connection.execute(
            update(_fetch)
            .where(_fetch.c.id == fetch_id, _fetch.c.state == FetchState.PLANNING)
            .values(state=FetchState.RUNNING, duplicates=duplicates)
        )
        _finish_if_complete(connection, fetch_id)

    # ── one study ─────────────────────────────────────────────────────────────────────────────

    def report(self, study_id: int) -> Report | None:
        """What is fetched of a study; None while its series are not known.

        Raises:
            NotFound: no such study.
        """
        with self._database.read() as connection:
            found = connection.execute(
                select(_study.c.report).where(_study.c.id == study_id)
            ).one_or_none()
        if found is None:
            raise NotFound(f"no study {study_id} of a fetch")
        return None if found[0] is None else Report(**json.loads(zlib.decompress(found[0])))

    def keep_report(self, study_id: int, report: Report, *, here: int) -> None:
        """Record what is fetched of a study, before it is."""
        packed = zlib.compress(json.dumps(_plain(report)).encode())
        with self._database.write() as connection:
            about = connection.scalar(select(_study.c.about).where(_study.c.id == study_id))
            told = json.loads(about or "{}") | {"modalities": list(report.modalities)}
            connection.execute(
                update(_study)
                .where(_study.c.id == study_id)
                .values(
                    report=packed,
                    about=json.dumps(told, ensure_ascii=False),
                    n_wanted=len(report.uids),
                    n_here=here,
                    n_arrived=0,
                    n_dropped=len(report.dropped),
                )
            )

    def arrived(self, study_id: int, count: int) -> None:
        """Record how many of the instances have arrived so far."""
        with self._database.write() as connection:
            connection.execute(
                update(_study).where(_study.c.id == study_id).values(n_arrived=count)
            )

    def ended(
        self,
        connection: Connection,
        study_id: int,
        state: StudyState,
        *,
        reason: str = "",
        arrived: int | None = None,
    ) -> None:
        """A study came to its end; in the transaction that finishes its work."""
        values: dict[str, Any] = {
            "state": state,
            "reason": reason,
            "finished_at": moment(connection).now,
        }
        if arrived is not None:
            values["n_arrived"] = arrived
        number = connection.scalar(
            update(_study)
            .where(_study.c.id == study_id)
            .values(values)
            .returning(_study.c.fetch_ref)
        )
        if number is not None:
            _finish_if_complete(connection, number)

    def known(self, owner_id: int, uids: Sequence[str], *, removed: bool) -> AbstractSet[str]:
        """Which instances an owner has, in quarantine too; and with `removed`, has had.

        A tombstone stands for what was extracted and deleted, or removed by a person.
        """
        tables = [schema.instance, schema.tombstone] if removed else [schema.instance]
        return self._sop_classes(owner_id, uids, tables).keys()

    def sop_classes(self, owner_id: int, uids: Sequence[str]) -> dict[str, str]:
        """The SOP Class UIDs of those instances that an owner has or has had; see `known`."""
        return self._sop_classes(owner_id, uids, [schema.tombstone, schema.instance])

    def _sop_classes(
        self, owner_id: int, uids: Sequence[str], tables: Sequence[Table]
    ) -> dict[str, str]:
        found: dict[str, str] = {}
        owners = (owner_id, quarantine_owner(owner_id))
        for start in range(0, len(uids), _LOOK_UP):
            piece = uids[start : start + _LOOK_UP]
            with self._database.read() as connection:
                for table in tables:
                    statement = select(table.c.sop_uid, table.c.sop_class).where(
                        table.c.sop_uid.in_(piece), table.c.owner_id.in_(owners)
                    )
                    found |= {row.sop_uid: row.sop_class for row in connection.execute(statement)}
        return found

    # ── for people ────────────────────────────────────────────────────────────────────────────

    def find(self, number: int) -> Fetch:
        """One fetch.

        Raises:
            NotFound: there is none of that number.
        """
        for one in self._listed(_fetch.c.id == number, limit=1):
            return one
        raise NotFound(f"no fetch {number}; 'hilum fetch ls' lists them")

    def listed(self, *, limit: int = 50) -> list[Fetch]:
        """Fetches, newest first."""
        return self._listed(None, limit=limit)

    def _listed(self, condition: ColumnElement[bool] | None, *, limit: int) -> list[Fetch]:
        statement = select(_fetch).order_by(_fetch.c.id.desc()).limit(limit)
        if condition is not None:
            statement = statement.where(condition)
        with self._database.read() as connection:
            return [_read(connection, row) for row in connection.execute(statement).all()]

    def studies(
        self, fetch_id: int, *, limit: int = 1_000_000, study_id: int | None = None
    ) -> list[FetchStudy]:
        """Studies of a fetch, in the order in which the peer named them."""
        statement = (
            select(_study, _work.c.state.label("work_state"), _work.c.cause)
            .select_from(_study.outerjoin(_work, _work.c.id == _study.c.work_ref))
            .where(_study.c.fetch_ref == fetch_id)
            .order_by(_study.c.id)
            .limit(limit)
        )
        if study_id is not None:
            statement = statement.where(_study.c.id == study_id)
        with self._database.read() as connection:
            return [_read_study(row) for row in connection.execute(statement)]

    def cancel(self, number: int) -> bool:
        """End a fetch: what runs is stopped within seconds; what has arrived stays.

        Returns:
            False: it was over.

        Raises:
            NotFound: there is none of that number.
        """
        self.find(number)
        with self._database.write() as connection:
            now = moment(connection).now
            changed = connection.execute(
                update(_fetch)
                .where(
                    _fetch.c.id == number,
                    _fetch.c.state.in_([FetchState.PLANNING, FetchState.RUNNING]),
                )
                .values(state=FetchState.CANCELLED, finished_at=now)
            )
            cancel(connection, _work.c.id.in_(_work_of(number)))
            return bool(changed.rowcount)

    def retry(self, number: int) -> list[int]:
        """The numbers of the jobs of a fetch that have failed or were cancelled."""
        with self._database.write() as connection:
            again = dict(
                connection.execute(
                    select(_work.c.id, _work.c.kind).where(
                        _work.c.id.in_(_work_of(number)),
                        state_is(WorkState.DEAD, WorkState.CANCELLED),
                    )
                ).all()
            )
            # Cancelled before the peer had named all studies, it asks for them once more.
            state = FetchState.PLANNING if FETCH in again.values() else FetchState.RUNNING
            if again:
                connection.execute(
                    update(_fetch)
                    .where(_fetch.c.id == number, _fetch.c.state == FetchState.CANCELLED)
                    .values(state=state, finished_at=None)
                )
            return list(again)

    def forget(self, *, keep: float) -> int:
        """Delete a fetch that was over more than `keep` seconds ago; returns how many."""
        with self._database.write() as connection:
            before = moment(connection).now - int(keep * 1e6)
            number = connection.scalar(
                select(_fetch.c.id).where(_fetch.c.finished_at < before).limit(1)
            )
            if number is None:
                return 0
            some = select(_study.c.id).where(_study.c.fetch_ref == number).limit(_PIECE)
            ids = list(connection.scalars(some))
            connection.execute(delete(_study).where(_study.c.id.in_(ids)))
            if len(ids) < _PIECE:
                connection.execute(delete(_fetch).where(_fetch.c.id == number))
            return 1


def _work_of(number: int) -> Any:
    """The work rows of a fetch."""
    return (
        select(_fetch.c.work_ref)
        .where(_fetch.c.id == number)
        .union_all(
            select(_study.c.work_ref).where(
                _study.c.fetch_ref == number, _study.c.work_ref.is_not(None)
            )
        )
    )


def _create(
    connection: Connection, peer: str, request: Mapping[str, Any], origin: str, work_id: int
) -> int:
    values = {
        "peer": peer,
        "origin": origin,
        "request": json.dumps(request, ensure_ascii=False),
        "state": FetchState.PLANNING,
        "work_ref": work_id,
        "duplicates": 0,
        "created_at": moment(connection).now,
    }
    statement = insert(_fetch).values(values).returning(_fetch.c.id)
    return int(connection.execute(statement).scalar_one())


def _add_study(
    connection: Connection, fetch: Fetch, named: Named, window: Mapping[str, str], now: int
) -> None:
    values: dict[str, Any] = {
        "fetch_ref": fetch.id,
        "study_uid": named.uid,
        "state": StudyState.DROPPED if named.dropped else StudyState.PLANNED,
        "reason": named.dropped,
        "about": json.dumps(named.about, ensure_ascii=False),
        "n_wanted": 0,
        "n_here": 0,
        "n_arrived": 0,
        "n_dropped": 0,
        "finished_at": now if named.dropped else None,
    }
    statement = insert(_study).values(values).returning(_study.c.id)
    number = connection.execute(statement).scalar_one()
    if not named.dropped:
        payload = {"fetch": fetch.id, "study": number, **window}
        (job,) = enqueue(connection, [NewWork(STUDY, payload, fetch.peer, fetch.origin)])
        connection.execute(update(_study).where(_study.c.id == number).values(work_ref=job))


def _finish_if_complete(connection: Connection, fetch_id: int) -> None:
    open_still = select(_study.c.id).where(
        _study.c.fetch_ref == fetch_id, _study.c.state == StudyState.PLANNED
    )
    if connection.scalar(open_still.limit(1)) is None:
        connection.execute(
            update(_fetch)
            .where(_fetch.c.id == fetch_id, _fetch.c.state == FetchState.RUNNING)
            .values(state=FetchState.DONE, finished_at=moment(connection).now)
        )


def _read(connection: Connection, row: Row[*tuple[Any, ...]]) -> Fetch:
    totals = connection.execute(
        select(
            _study.c.state,
            func.count(),
            func.sum(_study.c.n_wanted).cast(BigInteger),
            func.sum(_study.c.n_here).cast(BigInteger),
            func.sum(_study.c.n_arrived).cast(BigInteger),
        )
        .where(_study.c.fetch_ref == row.id)
        .group_by(_study.c.state)
    ).all()
    state = FetchState(row.state)
    mine = select(_work.c.state, func.count()).where(_work.c.id.in_(_work_of(row.id)))
    work: dict[str, int] = dict(connection.execute(mine.group_by(_work.c.state)).all())
    failed = sum(work.get(one, 0) for one in (WorkState.DEAD, WorkState.CANCELLED))
    problem = ""
    goes_on = any(work.get(one) for one in UNFINISHED)
    if state in (FetchState.PLANNING, FetchState.RUNNING) and failed and not goes_on:
        cause = connection.scalar(
            select(_work.c.cause).where(
                _work.c.id.in_(_work_of(row.id)), state_is(WorkState.DEAD, WorkState.CANCELLED)
            )
        )
        problem = cause or "its jobs were cancelled"
    return Fetch(
        id=row.id,
        peer=row.peer,
        origin=row.origin,
        request=json.loads(row.request),
        state=state,
        problem=problem,
        duplicates=row.duplicates,
        created_at=row.created_at,
        finished_at=row.finished_at,
        studies={StudyState(one[0]): one[1] for one in totals},
        failed=failed,
        n_wanted=sum(one[2] for one in totals),
        n_here=sum(one[3] for one in totals),
        n_arrived=sum(one[4] for one in totals),
    )


def _read_study(row: Row[*tuple[Any, ...]]) -> FetchStudy:
    state = StudyState(row.state)
    return FetchStudy(
        id=row.id,
        fetch_id=row.fetch_ref,
        study_uid=row.study_uid,
        state=state,
        reason=row.cause or "" if state is StudyState.PLANNED else row.reason,
        about=json.loads(row.about),
        work=None if row.work_state is None else WorkState(row.work_state),
        work_id=row.work_ref,
        n_wanted=row.n_wanted,
        n_here=row.n_here,
        n_arrived=row.n_arrived,
        n_dropped=row.n_dropped,
        finished_at=row.finished_at,
    )


def _plain(report: Report) -> dict[str, Any]:
    return {
        "wanted": {series: list(uids) for series, uids in report.wanted.items()},
        "whole": list(report.whole),
        "only": report.only,
        "dropped": [list(one) for one in report.dropped],
        "sop_classes": list(report.sop_classes),
        "modalities": list(report.modalities),
    }
