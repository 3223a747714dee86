"""The index writer: one transaction for a batch of received instances.

Used by one thread. The batch is planned in memory against what the writer remembers of patients,
studies and series (`tree.py`), then written with a few ``executemany`` calls on the driver's own
connection; SQLAlchemy compiles the statements once. The rare ways — the same SOP Instance UID
again, an attribute that was empty — go through SQLAlchemy in the same transaction.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, Transaction, select, update
from sqlalchemy.exc import DBAPIError

from hilum.errors import StorageFailed
from hilum.gateway.store import schema
from hilum.gateway.store.database import Database, begin_write, cause, is_full
from hilum.gateway.store.incoming import CommitUnknown, Existing, Incoming, Outcome, OutcomeKind
from hilum.gateway.store.keys import (
    INDEX_KEYS,
    INSTANCE_KEYS,
    PATIENT_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    convert_all,
    pack_raw,
    raw_text,
)
from hilum.gateway.store.removal import supersede, withdraw
from hilum.gateway.store.retention import deletable
from hilum.gateway.store.statements import Statements
from hilum.gateway.store.states import DuplicatePolicy, WorkState
from hilum.gateway.store.tree import (
    MODALITY_AT,
    PatientEntry,
    SeriesEntry,
    StudyEntry,
    Tree,
)
from hilum.services.text import fold_name

__all__ = [
    "INDEX_KEYS",
    "CommitUnknown",
    "Existing",
    "Incoming",
    "IndexWriter",
    "Outcome",
    "OutcomeKind",
]

# One small commit per 1,000 instances in new series; what a restart wastes is nothing in 63 bits.
_ID_BLOCK = 4096

# With back-off to an hour between attempts this is most of a day; the executor may set its own.
_WORK_ATTEMPTS = 20

# Rows in one statement: some 500 parameters; more save nothing.
_LARGEST_PIECE = 16

T = TypeVar("T")

_NAME_AT = [key.column for key in PATIENT_KEYS].index("patient_name")

# PostgreSQL: unique_violation, serialization_failure, deadlock_detected. Another receiver was
# first; the same batch once more finds its rows.
_AGAIN = {"23505", "40001", "40P01"}


@dataclass(slots=True)
class _Plan:
    """Rows of the present batch that are not written yet."""

    patients: list[PatientEntry] = field(default_factory=list)
    studies: list[StudyEntry] = field(default_factory=list)
    series: list[SeriesEntry] = field(default_factory=list)
    instances: list[tuple[object, ...]] = field(default_factory=list)
    work: list[tuple[object, ...]] = field(default_factory=list)
    identities: set[tuple[int, str]] = field(default_factory=set)
    study_uids: set[tuple[int, str]] = field(default_factory=set)
    counted: dict[int, SeriesEntry] = field(default_factory=dict)


class IndexWriter:
    """Writes received instances to the index.

    Belongs to one thread; on SQLite there is one in the whole system. Every error leaves it
    usable: it rolls back, forgets what it remembered and, where the connection may be broken,
    opens another.

    Args:
        database: see `open_database`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = Statements(database.engine.dialect)
        dbapi = database.engine.dialect.loaded_dbapi
        self._errors: tuple[type[Exception], ...] = (dbapi.Error, DBAPIError)
        self._failures = (StorageFailed, *self._errors)
        # The driver says these of values that the database cannot hold.
        self._refused = (UnicodeError, OverflowError, *self._errors)
        self._tree = Tree()
        self._plan = _Plan()
        # Of the batch in hand: what to compare, and what came of it, by the two paths.
        self._undecided: list[tuple[Existing, Incoming]] = []
        self._verdicts: dict[tuple[str, str], bool] = {}
        self._looked_up: dict[tuple[int, str], list[Existing]] = {}
        self._next_id = self._end_id = 0
        self._data_version = -1
        self._open: Connection | None = None
        self._cursor: Any = None

    def lookup(
        self, identities: Iterable[tuple[int, str]]
    ) -> dict[tuple[int, str], list[Existing]]:
        """Which versions of these instances are here, the current one first.

        Args:
            identities: from `Incoming.identity`.

        Returns:
            Nothing for an identity that is not here.

        Raises:
            StorageFailed: the database cannot be read.
        """
        try:
            connection = self._connection()
            found = {}
            # PostgreSQL's driver would leave a transaction open otherwise.
            with nullcontext() if self._database.is_sqlite else connection.begin():
                for owner_id, sop_uid in set(identities):
                    if versions := self._versions(owner_id, sop_uid):
                        found[owner_id, sop_uid] = versions
            return found
        except self._errors as error:
            self._reopen()
            raise StorageFailed(f"the index cannot be read: {cause(error)}") from error

    def commit(
        self,
        batch: Sequence[Incoming],
        *,
        deadline: float,
        compare: Callable[[Existing, Incoming], bool] | None = None,
    ) -> list[Outcome]:
        """Make a batch visible, all of it or nothing.

        Args:
            batch: 1 to some hundred instances, in the order they came.
            deadline: monotonic seconds until which the write lock is waited for.
            compare: asked whether a version that is here says the same as what has come, encoded
                otherwise; only when their bytes differ, and never while the lock is held. None:
                other bytes are other content, except by `Incoming.same_as`.

        Returns:
            One outcome for each, in order.

        Raises:
            StorageFailed: nothing of the batch is in the index; the writer is usable.
            CommitUnknown: it may be; ask `resolve`.
        """
        self._verdicts = {}
        while True:
            transaction = self._begin(deadline, 4 * len(batch))
            try:
                self._look_up(batch)
                outcomes = [self._add(item, comparing=compare is not None) for item in batch]
                undecided, self._undecided = self._undecided, []
                if compare is None or not undecided:
                    self._flush()
            except self._refused as error:
                self._reopen()
                if self._worth_repeating(error) and time.monotonic() < deadline:
                    time.sleep(random.uniform(0.001, 0.01))  # noqa: S311
                    continue
                raise StorageFailed(f"the index cannot be written: {cause(error)}") from error
            except BaseException:
                self._reopen()
                raise
            if compare is not None and undecided:
                self._roll_back(transaction)
                for version, item in undecided:
                    self._verdicts[version.path, item.path] = compare(version, item)
                continue
            try:
                transaction.commit()
            except self._errors as error:
                self._reopen()
                if is_full(error):
                    raise StorageFailed(f"the index cannot be written: {cause(error)}") from error
                raise CommitUnknown(
                    f"the index may or may not have been written: {cause(error)}", batch, outcomes
                ) from error
            return outcomes

    def resolve(self, unknown: CommitUnknown, *, deadline: float) -> list[Outcome]:
        """Find out what a failed COMMIT did.

        A write of our own comes first: SQLite may have left the failed transaction in the log,
        where a crash would bring it back; a later commit overwrites it or comes after it.

        Args:
            unknown: what `commit` raised.
            deadline: monotonic seconds.

        Returns:
            The outcomes: the batch is in the index.

        Raises:
            StorageFailed: nothing of it is, and nothing will be.
            CommitUnknown: the database cannot tell; keep the files.
        """
        witness = next(
            (
                item
                for item, outcome in zip(unknown.batch, unknown.outcomes, strict=True)
                if outcome.kind not in (OutcomeKind.SAME, OutcomeKind.REFUSED)
            ),
            None,
        )
        if witness is None:
            return unknown.outcomes
        try:
            self._reserve(deadline)
            versions = self.lookup([witness.identity]).get(witness.identity, [])
        except self._failures as error:
            raise CommitUnknown(
                f"what was committed cannot be looked up: {cause(error)}",
                unknown.batch,
                unknown.outcomes,
            ) from error
        if any(version.path == witness.path for version in versions):
            return unknown.outcomes
        raise StorageFailed("the index was not written: its commit failed") from unknown

    def close(self) -> None:
        """Close the connection; the writer opens another when it is used again."""
        if self._open is not None:
            self._open.close()
        self._open = self._cursor = None
        self._tree.clear()

    # ── one instance ──────────────────────────────────────────────────────────────────────────

    def _add(self, item: Incoming, *, comparing: bool) -> Outcome:
        identity = item.identity
        if identity in self._plan.identities:
            self._flush()
        # Asked once for the whole batch; what the batch itself changes is asked again.
        versions = self._looked_up.pop(identity, None)
        if versions is None:
            versions = self._versions(*identity)
        if versions:
            return self._add_again(item, identity, versions, comparing=comparing)
        return Outcome(OutcomeKind.STORED, self._insert(item, identity))

    def _add_again(
        self,
        item: Incoming,
        identity: tuple[int, str],
        versions: list[Existing],
        *,
        comparing: bool,
    ) -> Outcome:
        for version in versions:
            if version.id == item.same_as or _same_content(version, item):
                return Outcome(OutcomeKind.SAME, version.id)
        for version in versions if comparing else ():
            verdict = self._verdicts.get((version.path, item.path))
            if verdict is None:  # this attempt only finds out what has to be compared
                self._undecided.append((version, item))
            if verdict is not False:
                return Outcome(OutcomeKind.SAME, version.id)
        current = versions[0]
        if current.superseded:  # the current one was removed: nothing stands against this one
            return Outcome(OutcomeKind.STORED, self._insert(item, identity))
        if item.duplicates is DuplicatePolicy.KEEP_FIRST:
            return Outcome(OutcomeKind.REFUSED, current.id)
        connection = self._connection()
        self._flush()
        self._tree.clear()  # counts and rows below change behind its back
        # What somebody relies on by a storage commitment is not replaced: it becomes a version.
        if item.duplicates is DuplicatePolicy.KEEP_BOTH or not deletable(connection, [current.id]):
            supersede(connection, current.id)
            return Outcome(OutcomeKind.KEPT_AS_VERSION, self._insert(item, identity))
        withdraw(connection, [current.id], reason="replaced", now=item.received_at)
        return Outcome(OutcomeKind.REPLACED, self._insert(item, identity), current.path)

    def _insert(self, item: Incoming, identity: tuple[int, str]) -> int:
        values = item.values
        owner_id, sop_uid = identity
        series = self._place(item, owner_id)
        plan = self._plan  # not before: placing may have written the one that was
        series.count(item.size, item.sop_class_uid, item.received_at)
        plan.counted[series.id] = series
        plan.identities.add(identity)
        instance_id = self._take_id()
        charset = values.get("SpecificCharacterSet")
        plan.instances.append(
            (
                instance_id, owner_id, series.id, sop_uid, item.sop_class_uid, 0,
                item.transfer_syntax_uid, item.path, item.data_offset, item.size, item.digest,
                int(item.flags), item.received_at, item.sending_ae, item.receiving_ae, item.peer,
                *convert_all(INSTANCE_KEYS, values, charset, item.fallback_charset),
            )
        )  # fmt: skip
        for kind, payload in item.work:
            plan.work.append(
                (
                    kind, WorkState.READY.value, json.dumps(payload, ensure_ascii=False), 0,
                    item.received_at, 0, _WORK_ATTEMPTS, 0, instance_id, item.received_at, "",
                )
            )  # fmt: skip
        return instance_id

    # ── where it belongs ──────────────────────────────────────────────────────────────────────

    def _place(self, item: Incoming, owner_id: int) -> SeriesEntry:
        values = item.values
        get = values.get
        # Raw bytes identify as well as text does and need no decoding.
        key = (
            owner_id, get("SeriesInstanceUID"), get("StudyInstanceUID"), get("PatientID"),
            get("IssuerOfPatientID"), get("SpecificCharacterSet"), item.fallback_charset,
        )  # fmt: skip
        series = self._tree.places.get(key)
        if series is not None:
            self._fill(schema.patient, series.study.patient, item)
            self._fill(schema.study, series.study, item)
            self._fill(schema.series, series, item)
            return series
        patient = self._patient(item, owner_id)
        study = self._study(item, owner_id, patient)
        series = self._tree.places[key] = self._series(item, study)
        return series

    def _patient(self, item: Incoming, owner_id: int) -> PatientEntry:
        values, fallback = item.values, item.fallback_charset
        charset = values.get("SpecificCharacterSet")
        raw_id, raw_issuer = values.get("PatientID"), values.get("IssuerOfPatientID")
        patient_id = raw_text(raw_id, charset, fallback) if raw_id else ""
        issuer = raw_text(raw_issuer, charset, fallback) if raw_issuer else ""
        lone = "" if patient_id else _uid(values.get("StudyInstanceUID"))
        identity = (owner_id, patient_id, issuer, lone)
        patient = self._tree.patients.get(identity)
        if patient is None:
            found = self._all(self._sql.find_patient, (patient_id, issuer, lone, owner_id))
            if not found:
                patient = self._tree.patients[identity] = self._new_patient(item, owner_id, lone)
                return patient
            patient = self._tree.patients[identity] = PatientEntry(found[0][0], None, found[0][1:])
        self._fill(schema.patient, patient, item)
        return patient

    def _new_patient(self, item: Incoming, owner_id: int, lone: str) -> PatientEntry:
        values = item.values
        charset = values.get("SpecificCharacterSet")
        columns = convert_all(PATIENT_KEYS, values, charset, item.fallback_charset)
        patient_id = self._take_id()
        row: list[object] = [
            patient_id, owner_id, lone, *columns, fold_name(str(columns[_NAME_AT])),
            pack_raw(PATIENT_KEYS, values, charset),
        ]  # fmt: skip
        patient = PatientEntry(patient_id, row, columns)
        self._plan.patients.append(patient)
        return patient

    def _study(self, item: Incoming, owner_id: int, patient: PatientEntry) -> StudyEntry:
        study_uid = _uid(item.values.get("StudyInstanceUID"))
        study = self._tree.studies.get((patient.id, study_uid))
        if study is not None:
            self._fill(schema.study, study, item)
            return study
        if (owner_id, study_uid) in self._plan.study_uids:
            self._flush()  # the same study under another patient: let the rows below find it
        if not self._database.is_sqlite:
            # Two receivers must not both find that the study has one patient only.
            self._cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (study_uid,))
        rows = self._all(self._sql.find_study, (study_uid, owner_id))
        known = next((row for row in rows if row[1] == patient.id), None)
        if known is not None:
            study = StudyEntry.known(known, patient)
            self._fill(schema.study, study, item)
        else:
            study = self._new_study(item, owner_id, patient, study_uid, conflict=bool(rows))
            if rows:
                self._cursor.execute(self._sql.flag_conflict, (1, study_uid, owner_id))
        self._tree.studies[patient.id, study_uid] = study
        return study

    def _new_study(
        self, item: Incoming, owner_id: int, patient: PatientEntry, uid: str, *, conflict: bool
    ) -> StudyEntry:
        values = item.values
        charset = values.get("SpecificCharacterSet")
        columns = convert_all(STUDY_KEYS, values, charset, item.fallback_charset)
        study_id = self._take_id()
        row: list[object] = [
            study_id, owner_id, patient.id, uid, *columns, 0, 0, 0, "", "", int(conflict),
            item.received_at, 0, pack_raw(STUDY_KEYS, values, charset),
        ]  # fmt: skip
        study = StudyEntry(study_id, patient, row, columns)
        self._plan.studies.append(study)
        self._plan.study_uids.add((owner_id, uid))
        return study

    def _series(self, item: Incoming, study: StudyEntry) -> SeriesEntry:
        values = item.values
        series_uid = _uid(values.get("SeriesInstanceUID"))
        series = self._tree.series.get((study.id, series_uid))
        if series is not None:
            self._fill(schema.series, series, item)
            return series
        # A study that is not written has no series in the database.
        found = self._all(self._sql.find_series, (series_uid, study.id)) if not study.row else ()
        if found:
            series = SeriesEntry.known(found[0], study)
            self._fill(schema.series, series, item)
        else:
            charset = values.get("SpecificCharacterSet")
            columns = convert_all(SERIES_KEYS, values, charset, item.fallback_charset)
            series_id = self._take_id()
            row: list[object] = [
                series_id, study.id, series_uid, *columns, 0, 0, item.received_at,
                pack_raw(SERIES_KEYS, values, charset),
            ]  # fmt: skip
            series = SeriesEntry(series_id, study, row, columns)
            series.modality = str(columns[MODALITY_AT])
            self._plan.series.append(series)
        self._tree.series[study.id, series_uid] = series
        return series

    def _fill(
        self,
        table: Table,
        entry: PatientEntry | StudyEntry | SeriesEntry,
        item: Incoming,
    ) -> None:
        """Fill attributes that were empty so far."""
        values = item.values
        brought = [keyword for keyword in entry.gaps if values.get(keyword)]
        if not brought:
            return
        keys = [entry.gaps.pop(keyword) for keyword in brought]
        charset = values.get("SpecificCharacterSet")
        columns = convert_all(keys, values, charset, item.fallback_charset)
        changes: dict[str, object] = {
            key.column: value
            for key, value in zip(keys, columns, strict=True)
            if value != key.empty
        }
        if not changes:
            return
        self._flush()
        if "patient_name" in changes:
            changes["patient_name_folded"] = fold_name(str(changes["patient_name"]))
        connection = self._connection()
        if packed := pack_raw(keys, values, charset):
            before = connection.scalar(select(table.c.raw_header).where(table.c.id == entry.id))
            changes["raw_header"] = (before or b"") + packed
        connection.execute(update(table).where(table.c.id == entry.id).values(changes))
        if isinstance(entry, SeriesEntry) and "modality" in changes:
            entry.modality = str(changes["modality"])
            if entry.n_instances:
                entry.study.modalities.add(entry.modality)

    # ── the connection ────────────────────────────────────────────────────────────────────────

    def _look_up(self, batch: Sequence[Incoming]) -> None:
        """Find the versions of a whole batch at once."""
        self._looked_up = {}
        if not self._database.is_sqlite:
            return
        found: dict[tuple[int, str], list[Existing]] = {item.identity: [] for item in batch}
        uids = [uid for _, uid in found]
        for piece in _pieces(uids):
            statement = self._sql.find_all_versions(len(piece))
            for owner_id, uid, *row in self._all(statement, tuple(piece)):
                if (versions := found.get((owner_id, uid))) is not None:
                    versions.append(Existing(*row))
        self._looked_up = found

    def _versions(self, owner_id: int, sop_uid: str) -> list[Existing]:
        rows = self._all(self._sql.find_versions, (sop_uid, owner_id))
        return [Existing(*row) for row in rows]

    def _all(self, statement: str, parameters: tuple[object, ...]) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, parameters)
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    def _flush(self) -> None:
        """Write what is planned so far."""
        plan, sql = self._plan, self._sql
        counted = {series.study.id: series.study for series in plan.counted.values()}
        old_studies = [study.counts() for study in counted.values() if not study.row]
        old_series = [series.counts() for series in plan.counted.values() if not series.row]
        for statement, rows in (
            (sql.insert_patient, [patient.take_row() for patient in plan.patients]),
            (sql.insert_study, [study.take_row() for study in plan.studies]),
            (sql.insert_series, [series.take_row() for series in plan.series]),
            (sql.insert_instance, plan.instances),
            (sql.insert_work, plan.work),
        ):
            self._insert_all(statement, rows)
        for statement, rows in (
            # In one order, so that two receivers on PostgreSQL do not wait for each other.
            (sql.count_study, sorted(old_studies, key=itemgetter(-1))),
            (sql.count_series, sorted(old_series, key=itemgetter(-1))),
        ):
            if rows:
                self._cursor.executemany(statement, rows)
        self._plan = _Plan()

    def _insert_all(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        if not self._database.is_sqlite:
            if rows:
                self._cursor.executemany(statement, rows)
            return
        for piece in _pieces(rows):
            parameters = [value for row in piece for value in row]
            self._cursor.execute(self._sql.many(statement, len(piece)), parameters)

    def _take_id(self) -> int:
        taken = self._next_id
        assert taken < self._end_id
        self._next_id = taken + 1
        return taken

    def _reserve(self, deadline: float, count: int = _ID_BLOCK) -> None:
        """Take a block of ids, in a transaction of its own."""
        connection = self._connection()
        block = schema.id_block
        begin_write(connection, deadline)
        with connection.get_transaction() or connection.begin():
            connection.execute(update(block).values(next_id=block.c.next_id + count))
            end = connection.execute(select(block.c.next_id)).scalar_one()
        self._next_id, self._end_id = end - count, end

    def _begin(self, deadline: float, ids: int) -> Transaction:
        """Begin a write transaction; forget what is not certain any more."""
        try:
            if self._end_id - self._next_id < ids:
                self._reserve(deadline, max(ids, _ID_BLOCK))
            connection = self._connection()
            begin_write(connection, deadline)
            version = -1
            if self._database.is_sqlite:
                version = self._all("PRAGMA data_version", ())[0][0]
        except self._errors as error:
            self._reopen()
            raise StorageFailed(f"the index cannot be written: {cause(error)}") from error
        # On PostgreSQL other receivers write too: nothing is remembered between batches.
        if version != self._data_version or version == -1 or self._tree.full:
            self._tree.clear()
        self._data_version = version
        self._plan = _Plan()
        transaction = connection.get_transaction()
        assert transaction is not None
        return transaction

    def _connection(self) -> Connection:
        if self._open is None:
            self._open = self._database.engine.connect()
            raw = self._open.connection.driver_connection
            assert raw is not None
            self._cursor = raw.cursor()
        return self._open

    def _roll_back(self, transaction: Transaction) -> None:
        self._tree.clear()
        self._plan = _Plan()
        try:
            transaction.rollback()
        except self._errors:
            self._reopen()

    def _reopen(self) -> None:
        """Roll back and drop the connection; another is opened when it is needed."""
        broken, self._open, self._cursor = self._open, None, None
        self._tree.clear()
        self._plan = _Plan()
        self._undecided = []
        self._data_version = -1
        if broken is not None:
            with suppress(*self._errors):
                broken.invalidate()
            with suppress(*self._errors):
                broken.close()

    def _worth_repeating(self, error: BaseException) -> bool:
        original = getattr(error, "orig", None) or error
        return getattr(original, "sqlstate", None) in _AGAIN


def _pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Items in portions of 16, 8, 4, 2 and 1: so many statements the driver keeps prepared."""
    at, size = 0, _LARGEST_PIECE
    while at < len(items):
        while size > len(items) - at:
            size //= 2
        yield items[at : at + size]
        at += size


def _same_content(version: Existing, item: Incoming) -> bool:
    return (
        version.digest == item.digest
        and version.size == item.size
        and version.transfer_syntax_uid == item.transfer_syntax_uid
    )


def _uid(raw: bytes | None) -> str:
    return raw_text(raw, None, None) if raw else ""
