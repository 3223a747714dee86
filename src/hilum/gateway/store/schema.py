"""The database's tables, for SQLite and PostgreSQL alike.

Texts are never NULL: an absent value is ``""``, so that keyset pagination has one order on both
databases. Times of our own are microseconds since 1970 (UTC); dates and times from data sets are
DICOM's texts. JSON is kept as text, because the writer's hot path binds values itself.

Foreign keys guard the tree patient → study → series → instance → work. Owners are plain numbers:
data outlives the account it was sent to.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
    literal_column,
)
from sqlalchemy.types import TypeEngine

from hilum.gateway.store.keys import INSTANCE_KEYS, PATIENT_KEYS, SERIES_KEYS, STUDY_KEYS, Key
from hilum.gateway.store.states import WorkState

__all__ = ["HEAD", "metadata", "prepare_for_postgresql"]

HEAD = "0006"
"""The Alembic revision that this code works with."""

# Where a partial index keeps its condition.
_WHERE = "where"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _big() -> TypeEngine[int]:
    # SQLite's rowid is an alias of INTEGER PRIMARY KEY only, and takes 64 bits.
    return BigInteger().with_variant(Integer(), "sqlite")


def _string() -> TypeEngine[str]:
    # Collation "C" compares code points, as SQLite does: prefixes become index ranges on both.
    return String().with_variant(String(collation="C"), "postgresql")


def _text(name: str) -> Column[str]:
    return Column(name, _string(), nullable=False)


def _text_or_empty(name: str) -> Column[str]:
    """A text that the index writer, which names its columns, leaves out, or that came later."""
    return Column(name, _string(), nullable=False, server_default="")


def _number(name: str) -> Column[int]:
    return Column(name, _big(), nullable=False)


def _optional_number(name: str) -> Column[int]:
    return Column(name, _big())


def _identity() -> Column[int]:
    """A key that the index writer takes from its block of `id_block`."""
    return Column("id", _big(), primary_key=True, autoincrement=False)


def _serial() -> Column[int]:
    """A key that the database gives."""
    return Column("id", _big(), primary_key=True, autoincrement=True)


def _parent(name: str, target: str) -> Column[int]:
    return Column(name, _big(), ForeignKey(f"{target}.id"), nullable=False)


def _key_columns(keys: tuple[Key, ...]) -> list[Column[str] | Column[int]]:
    columns: list[Column[str] | Column[int]] = []
    for key in keys:
        columns.append(_text(key.column) if key.empty == "" else _optional_number(key.column))
    return columns


def _partial_index(name: str, *columns: ColumnElement[Any], where: ColumnElement[bool]) -> None:
    Index(name, *columns, sqlite_where=where, info={_WHERE: where})


def prepare_for_postgresql() -> None:
    """Give the partial indexes their conditions there; asked for at once, 2 MB would be imported."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if _WHERE in index.info:
                index.dialect_options["postgresql"]["where"] = index.info[_WHERE]


# ── index ─────────────────────────────────────────────────────────────────────────────────────

id_block = Table(
    "id_block",
    metadata,
    # One row: ids below next_id are given away. Patients, studies, series and instances share
    # the numbers, which are never used twice.
    Column("id", Integer, primary_key=True, autoincrement=False),
    _number("next_id"),
)

patient = Table(
    "patient",
    metadata,
    _identity(),
    _number("owner_id"),
    # The Study Instance UID when the Patient ID is empty, else "": empty IDs never merge.
    _text("lone_study_uid"),
    *_key_columns(PATIENT_KEYS),
    _text("patient_name_folded"),
    # Text values that are not ASCII, as they came (see keys.pack_raw); NULL when all are.
    Column("raw_header", LargeBinary),
    UniqueConstraint("patient_id", "issuer", "lone_study_uid", "owner_id"),
    Index("ix_patient_name", "patient_name_folded", "id"),
)

study = Table(
    "study",
    metadata,
    _identity(),
    _number("owner_id"),
    _parent("patient_ref", "patient"),
    _text("study_uid"),
    *_key_columns(STUDY_KEYS),
    # Kept by the writer so that lists never count; superseded versions are not in them.
    _number("n_series"),
    _number("n_instances"),
    _number("total_bytes"),
    _text("modalities"),
    _text("sop_classes"),
    # 1: this owner has the same Study Instance UID under another patient too.
    Column("conflict", SmallInteger, nullable=False),
    _number("first_received"),
    _number("last_received"),
    Column("raw_header", LargeBinary),
    UniqueConstraint("study_uid", "owner_id", "patient_ref"),
    Index("ix_study_patient", "patient_ref"),
    # Owner last: one walk in date order serves every viewer, whatever he may see.
    Index("ix_study_date", "study_date", "study_time", "id", "owner_id"),
)
_partial_index(
    "ix_study_accession",
    study.c.accession_number,
    where=study.c.accession_number != "",
)

series = Table(
    "series",
    metadata,
    _identity(),
    _parent("study_ref", "study"),
    _text("series_uid"),
    *_key_columns(SERIES_KEYS),
    _number("n_instances"),
    _number("total_bytes"),
    _number("first_received"),
    Column("raw_header", LargeBinary),
    UniqueConstraint("series_uid", "study_ref"),
    Index("ix_series_study", "study_ref"),
)

instance = Table(
    "instance",
    metadata,
    _identity(),
    _number("owner_id"),
    _parent("series_ref", "series"),
    _text("sop_uid"),
    _text("sop_class"),
    # 0 for the current version. An older version has its own id here, which keeps the unique
    # constraint true for any number of versions.
    _number("superseded"),
    _text("transfer_syntax"),
    # Relative to the data directory.
    _text("path"),
    _number("data_offset"),
    _number("size"),
    Column("digest", LargeBinary(16), nullable=False),
    _number("flags"),
    _number("received_at"),
    _text("sending_ae"),
    _text("receiving_ae"),
    _text("peer"),
    *_key_columns(INSTANCE_KEYS),
    UniqueConstraint("sop_uid", "owner_id", "superseded"),
    Index("ix_instance_series", "series_ref"),
)

tombstone = Table(
    "tombstone",
    metadata,
    _serial(),
    _number("owner_id"),
    _text("study_uid"),
    _text("series_uid"),
    _text("sop_uid"),
    _text("sop_class"),
    Column("digest", LargeBinary(16), nullable=False),
    _number("size"),
    _number("received_at"),
    _number("removed_at"),
    _text("reason"),
    # The file still to be deleted; "" once it is gone.
    _text("path"),
    Index("ix_tombstone_sop", "sop_uid", "owner_id"),
)
_partial_index(
    "ix_tombstone_path",
    tombstone.c.id,
    where=tombstone.c.path != "",
)

bucket = Table(
    "bucket",
    metadata,
    Column("name", _string(), primary_key=True),
    _number("opened_at"),
    # NULL while open: only open buckets are scanned after a crash.
    _optional_number("closed_at"),
)
_partial_index(
    "ix_bucket_open",
    bucket.c.name,
    where=bucket.c.closed_at.is_(None),
)

# ── work ──────────────────────────────────────────────────────────────────────────────────────

work = Table(
    "work",
    metadata,
    _serial(),
    _text("kind"),
    _text("state"),  # WorkState
    _text("payload"),  # JSON
    # What a kind's concurrency is limited by, such as a destination's name.
    _text_or_empty("key"),
    # Who wanted it, such as "fetch:12": what is shown and cancelled together.
    _text_or_empty("origin"),
    _number("priority"),  # smaller first, among those of one key
    _number("ready_at"),
    _number("attempts"),
    _number("max_attempts"),
    # On SQLite µs of the machine's monotonic clock in the boot `lease_boot`, which another boot
    # voids; on PostgreSQL µs since 1970 by the server's clock.
    _optional_number("lease_until"),
    _text_or_empty("lease_boot"),
    _text_or_empty("worker"),  # who holds the lease
    # Fencing: raised with every claim; a finish or heartbeat with an older token is refused.
    _number("token"),
    Column("instance_ref", _big(), ForeignKey("instance.id", ondelete="SET NULL")),
    _number("created_at"),
    _optional_number("began_at"),
    _optional_number("finished_at"),
    _text("cause"),
    sqlite_autoincrement=True,  # ids travel through executors; one must never mean two rows
)


def _in_state(*states: WorkState) -> ColumnElement[bool]:
    # Literals, so that both databases see that the partial index applies.
    texts: list[Any] = [literal_column(f"'{state}'") for state in states]
    return work.c.state == texts[0] if len(texts) == 1 else work.c.state.in_(texts)


_partial_index(
    "ix_work_ready",
    work.c.kind,
    work.c.key,
    work.c.priority,
    work.c.id,
    where=_in_state(WorkState.READY),
)
_partial_index("ix_work_waiting", work.c.ready_at, work.c.kind, where=_in_state(WorkState.WAITING))
_partial_index("ix_work_running", work.c.kind, work.c.key, where=_in_state(WorkState.RUNNING))
_partial_index(
    "ix_work_aside", work.c.state, work.c.kind, where=_in_state(WorkState.DEAD, WorkState.HELD)
)
_partial_index("ix_work_over", work.c.finished_at, work.c.kind,
               where=_in_state(WorkState.DONE, WorkState.CANCELLED))  # fmt: skip
_partial_index(
    "ix_work_origin",
    work.c.origin,
    work.c.state,
    where=work.c.origin != "",
)
_partial_index(
    "ix_work_instance",
    work.c.instance_ref,
    where=work.c.instance_ref.is_not(None),
)

schedule = Table(
    "schedule",
    metadata,
    _serial(),
    Column("name", _string(), nullable=False, unique=True),
    # What a run is: a work row of this kind and payload, with the origin "schedule:ID".
    _text("kind"),
    _text("payload"),  # JSON
    _text("cron"),
    _text("time_zone"),  # IANA name; "" for the machine's
    _text("time_window"),  # "HH:MM-HH:MM" in which runs begin; "" for always
    Column("catch_up", SmallInteger, nullable=False),
    Column("enabled", SmallInteger, nullable=False),
    _optional_number("next_at"),
    _optional_number("last_at"),
    _text("last_result"),
    _number("created_at"),
    sqlite_autoincrement=True,
)
_partial_index(
    "ix_schedule_next",
    schedule.c.next_at,
    where=schedule.c.next_at.is_not(None),
)

# ── fetches ───────────────────────────────────────────────────────────────────────────────────

fetch = Table(
    "fetch",
    metadata,
    _serial(),
    _text("peer"),
    _text("origin"),  # of its work rows
    _text("request"),  # JSON
    _text("state"),  # FetchState
    # Its first work row; a schedule's run is known by it.
    Column("work_ref", _big(), nullable=False, unique=True),
    _number("duplicates"),  # responses that named a study again
    _number("created_at"),
    _optional_number("finished_at"),
    sqlite_autoincrement=True,
)

fetch_study = Table(
    "fetch_study",
    metadata,
    _serial(),
    _parent("fetch_ref", "fetch"),
    _text("study_uid"),
    _text("state"),  # StudyState
    _text("reason"),
    _text("about"),  # JSON: what the peer says of it
    _optional_number("work_ref"),
    _number("n_wanted"),
    _number("n_here"),  # of them, when it began
    _number("n_arrived"),  # of the others
    _number("n_dropped"),
    # What is wanted and what was dropped, with reasons: JSON, zlib. NULL until series are known.
    Column("report", LargeBinary),
    _optional_number("finished_at"),
    UniqueConstraint("fetch_ref", "study_uid"),
    Index("ix_fetch_study_state", "fetch_ref", "state"),
    sqlite_autoincrement=True,
)

# ── storage commitment and deletion ───────────────────────────────────────────────────────────

commitment = Table(
    "commitment",
    metadata,
    # A request made of us.
    _serial(),
    _number("owner_id"),
    _text("called_ae"),
    _text("calling_ae"),
    _text("peer"),  # name of the peer that it came from; "" for none
    _text("transaction_uid"),
    Column("digest", LargeBinary(32), nullable=False),  # of what is asked for
    _number("n_references"),
    # Action and Event Information in Implicit VR Little Endian, zlib; the result once it is known.
    Column("action", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    _number("n_failed"),
    _text("state"),  # CommitmentState
    _number("asked_at"),
    _optional_number("judged_at"),
    _optional_number("answered_at"),
    _text("way"),  # by which it was delivered
    _text("cause"),
    UniqueConstraint("transaction_uid", "calling_ae", "owner_id", "digest"),
    sqlite_autoincrement=True,  # ids travel through work rows
)
_partial_index(
    "ix_commitment_open",
    commitment.c.calling_ae,
    commitment.c.owner_id,
    where=commitment.c.answered_at.is_(None),
)
Index("ix_commitment_asked", commitment.c.asked_at)

commitment_request = Table(
    "commitment_request",
    metadata,
    # A request of ours.
    _serial(),
    Column("transaction_uid", _string(), nullable=False, unique=True),
    _text("peer"),  # its name, or AETITLE@HOST:PORT
    _text("called_ae"),
    _text("calling_ae"),
    _optional_number("owner_id"),  # whose instances here it is about; NULL: files only
    _number("n_references"),
    Column("action", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    _number("n_failed"),
    _number("created_at"),
    _optional_number("asked_at"),  # when the peer had taken it
    _optional_number("answered_at"),
    _text("origin"),  # who wanted it, such as a forwarding; "" for a person
    _text("cause"),
    sqlite_autoincrement=True,
)
Index("ix_commitment_request_created", commitment_request.c.created_at)

planned_deletion = Table(
    "planned_deletion",
    metadata,
    # Of these instances no commitment is given, unless another archive has given it to us.
    Column(
        "instance_ref",
        _big(),
        ForeignKey("instance.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    _number("due_at"),
    _text("reason"),
    Index("ix_planned_deletion_due", "due_at"),
)

# ── directory ─────────────────────────────────────────────────────────────────────────────────

account = Table(
    "account",
    metadata,
    _serial(),
    Column("name", _string(), nullable=False, unique=True),
    Column("alias_title", _string(), unique=True),
    Column("disabled", SmallInteger, nullable=False),
    _text_or_empty("passcode"),  # argon2; "" for none, which nothing matches
    _text_or_empty("groups"),  # names with spaces between them
    _number("created_at"),
    # A removed account keeps its row, so that its name never comes to mean someone else.
    _optional_number("removed_at"),
    sqlite_autoincrement=True,
)

called_title = Table(
    "called_title",
    metadata,
    Column("title", _string(), primary_key=True),
    _text("kind"),  # TitleKind
    Column("account_id", _big(), ForeignKey("account.id")),
    _text("duplicates"),  # DuplicatePolicy
    _text("missing_uids"),  # MissingUidPolicy
    _text("transfer_syntaxes"),  # JSON list in order of preference; [] for the default order
    _text("sop_classes"),  # JSON list; [] for every storage class
    _text("fallback_charset"),
    Column("enabled", SmallInteger, nullable=False),
    _text_or_empty("commitment"),  # ways of delivery, see delivery.py; "" for the setting
    _text_or_empty("peers"),  # JSON list of names; "" or [] for everyone who is let in
    Column("max_associations", Integer, nullable=False, server_default="0"),  # 0: limits' own
)

listener = Table(
    "listener",
    metadata,
    Column("name", _string(), primary_key=True),
    _text("host"),
    Column("port", Integer, nullable=False),
    Column("any_title", SmallInteger, nullable=False),
    _text("default_title"),
    Column("enabled", SmallInteger, nullable=False),
    _text("tls"),  # JSON object
    _text("allowed"),  # JSON list of address ranges
)

peer = Table(
    "peer",
    metadata,
    Column("name", _string(), primary_key=True),
    _text("ae_title"),
    _text("host"),
    Column("port", Integer),
    _text("calling_ae"),
    _text("services"),  # JSON list
    _text("fallback_charset"),
    _text("tls"),  # JSON object
    _text_or_empty("commitment"),  # ways of delivery, see delivery.py; "" for the called title's
    _text_or_empty("belongs_to"),  # a user, @ and a group, or ""
    _text_or_empty("certificate"),  # its client certificate: SHA-256 in hexadecimal, or ""
    _text_or_empty("retrieve"),  # how we fetch from it: "get"; "" for C-MOVE to ourselves
)

setting = Table(
    "setting",
    metadata,
    Column("key", _string(), primary_key=True),
    _text("value"),  # JSON
)

event = Table(
    "event",
    metadata,
    _serial(),
    _number("at"),
    _text("action"),
    _text("actor"),
    _text("subject"),
    _text("detail"),  # JSON object
    Index("ix_event_at", "at"),
)

change = Table(
    "change",
    metadata,
    # One row, raised by every administrative write: a running gateway looks at it every second.
    Column("id", Integer, primary_key=True, autoincrement=False),
    _number("value"),
)
