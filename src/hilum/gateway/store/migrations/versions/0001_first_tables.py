"""The first tables.

Frozen: what `schema.py` becomes later is the next revision's business.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _string() -> sa.types.TypeEngine[str]:
    return sa.String().with_variant(sa.String(collation="C"), "postgresql")


def _big() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, _string(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _big(), nullable=nullable)


def _key(name: str, *, autoincrement: bool) -> sa.Column[int]:
    return sa.Column(name, _big(), autoincrement=autoincrement, nullable=False)


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make the tables and their first rows."""
    op.create_table(
        "account",
        _key("id", autoincrement=True),
        _text("name"),
        _text("alias_title", nullable=True),
        sa.Column("disabled", sa.SmallInteger(), nullable=False),
        _number("created_at"),
        _number("removed_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("alias_title", name=op.f("uq_account_alias_title")),
        sa.UniqueConstraint("name", name=op.f("uq_account_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "bucket",
        _text("name"),
        _number("opened_at"),
        _number("closed_at", nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_bucket")),
    )
    op.create_index("ix_bucket_open", "bucket", ["name"], **_where("closed_at IS NULL"))
    op.create_table(
        "change",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        _number("value"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_change")),
    )
    op.create_table(
        "event",
        _key("id", autoincrement=True),
        _number("at"),
        _text("action"),
        _text("actor"),
        _text("subject"),
        _text("detail"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
    )
    op.create_index("ix_event_at", "event", ["at"])
    op.create_table(
        "id_block",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        _number("next_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_id_block")),
    )
    op.create_table(
        "listener",
        _text("name"),
        _text("host"),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("any_title", sa.SmallInteger(), nullable=False),
        _text("default_title"),
        sa.Column("enabled", sa.SmallInteger(), nullable=False),
        _text("tls"),
        _text("allowed"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_listener")),
    )
    op.create_table(
        "patient",
        _key("id", autoincrement=False),
        _number("owner_id"),
        _text("lone_study_uid"),
        _text("patient_id"),
        _text("issuer"),
        _text("patient_name"),
        _text("birth_date"),
        _text("birth_time"),
        _text("sex"),
        _text("other_ids"),
        _text("other_names"),
        _text("ethnic_group"),
        _text("comments"),
        _text("patient_name_folded"),
        sa.Column("raw_header", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_patient")),
        sa.UniqueConstraint(
            "patient_id",
            "issuer",
            "lone_study_uid",
            "owner_id",
            name=op.f("uq_patient_patient_id_issuer_lone_study_uid_owner_id"),
        ),
    )
    op.create_index("ix_patient_name", "patient", ["patient_name_folded", "id"])
    op.create_table(
        "peer",
        _text("name"),
        _text("ae_title"),
        _text("host"),
        sa.Column("port", sa.Integer(), nullable=True),
        _text("calling_ae"),
        _text("services"),
        _text("fallback_charset"),
        _text("tls"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_peer")),
    )
    op.create_table(
        "setting",
        _text("key"),
        _text("value"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_setting")),
    )
    op.create_table(
        "tombstone",
        _key("id", autoincrement=True),
        _number("owner_id"),
        _text("study_uid"),
        _text("series_uid"),
        _text("sop_uid"),
        _text("sop_class"),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        _number("size"),
        _number("received_at"),
        _number("removed_at"),
        _text("reason"),
        _text("path"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tombstone")),
    )
    op.create_index("ix_tombstone_path", "tombstone", ["id"], **_where("path != ''"))
    op.create_index("ix_tombstone_sop", "tombstone", ["sop_uid", "owner_id"])
    op.create_table(
        "called_title",
        _text("title"),
        _text("kind"),
        _number("account_id", nullable=True),
        _text("duplicates"),
        _text("missing_uids"),
        _text("transfer_syntaxes"),
        _text("sop_classes"),
        _text("fallback_charset"),
        sa.Column("enabled", sa.SmallInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_called_title_account_id")
        ),
        sa.PrimaryKeyConstraint("title", name=op.f("pk_called_title")),
    )
    op.create_table(
        "study",
        _key("id", autoincrement=False),
        _number("owner_id"),
        _number("patient_ref"),
        _text("study_uid"),
        _text("study_date"),
        _text("study_time"),
        _text("accession_number"),
        _text("study_id"),
        _text("referring_physician"),
        _text("description"),
        _text("institution"),
        _text("reading_physicians"),
        _text("admitting_diagnoses"),
        _text("patient_age"),
        _text("patient_size"),
        _text("patient_weight"),
        _text("occupation"),
        _text("additional_history"),
        _text("timezone_offset"),
        _number("n_series"),
        _number("n_instances"),
        _number("total_bytes"),
        _text("modalities"),
        _text("sop_classes"),
        sa.Column("conflict", sa.SmallInteger(), nullable=False),
        _number("first_received"),
        _number("last_received"),
        sa.Column("raw_header", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["patient_ref"], ["patient.id"], name=op.f("fk_study_patient_ref")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study")),
        sa.UniqueConstraint(
            "study_uid",
            "owner_id",
            "patient_ref",
            name=op.f("uq_study_study_uid_owner_id_patient_ref"),
        ),
    )
    op.create_index(
        "ix_study_accession", "study", ["accession_number"], **_where("accession_number != ''")
    )
    op.create_index("ix_study_date", "study", ["study_date", "study_time", "id", "owner_id"])
    op.create_index("ix_study_patient", "study", ["patient_ref"])
    op.create_table(
        "series",
        _key("id", autoincrement=False),
        _number("study_ref"),
        _text("series_uid"),
        _text("modality"),
        _number("series_number", nullable=True),
        _text("description"),
        _text("series_date"),
        _text("series_time"),
        _text("step_start_date"),
        _text("step_start_time"),
        _text("body_part"),
        _text("laterality"),
        _text("protocol_name"),
        _text("performing_physician"),
        _text("operators_name"),
        _text("manufacturer"),
        _text("model_name"),
        _text("station_name"),
        _number("n_instances"),
        _number("total_bytes"),
        _number("first_received"),
        sa.Column("raw_header", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["study_ref"], ["study.id"], name=op.f("fk_series_study_ref")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("series_uid", "study_ref", name=op.f("uq_series_series_uid_study_ref")),
    )
    op.create_index("ix_series_study", "series", ["study_ref"])
    op.create_table(
        "instance",
        _key("id", autoincrement=False),
        _number("owner_id"),
        _number("series_ref"),
        _text("sop_uid"),
        _text("sop_class"),
        _number("superseded"),
        _text("transfer_syntax"),
        _text("path"),
        _number("data_offset"),
        _number("size"),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        _number("flags"),
        _number("received_at"),
        _text("sending_ae"),
        _text("receiving_ae"),
        _text("peer"),
        _number("instance_number", nullable=True),
        _text("content_date"),
        _text("content_time"),
        _text("acquisition_date"),
        _text("acquisition_time"),
        _text("image_type"),
        _number("number_of_frames", nullable=True),
        sa.ForeignKeyConstraint(["series_ref"], ["series.id"], name=op.f("fk_instance_series_ref")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint(
            "sop_uid",
            "owner_id",
            "superseded",
            name=op.f("uq_instance_sop_uid_owner_id_superseded"),
        ),
    )
    op.create_index("ix_instance_series", "instance", ["series_ref"])
    op.create_table(
        "work",
        _key("id", autoincrement=True),
        _text("kind"),
        _text("state"),
        _text("payload"),
        _number("priority"),
        _number("ready_at"),
        _number("attempts"),
        _number("max_attempts"),
        _number("lease_until", nullable=True),
        _number("token"),
        _number("instance_ref", nullable=True),
        _number("created_at"),
        _number("finished_at", nullable=True),
        _text("cause"),
        sa.ForeignKeyConstraint(
            ["instance_ref"],
            ["instance.id"],
            name=op.f("fk_work_instance_ref"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_work")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_work_instance", "work", ["instance_ref"], **_where("instance_ref IS NOT NULL")
    )
    op.create_index(
        "ix_work_ready", "work", ["kind", "priority", "ready_at", "id"], **_where("state = 'ready'")
    )
    op.create_index("ix_work_running", "work", ["lease_until"], **_where("state = 'running'"))
    op.execute("INSERT INTO id_block (id, next_id) VALUES (1, 1)")
    op.execute("INSERT INTO change (id, value) VALUES (1, 0)")
