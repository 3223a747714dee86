"""Storage commitment, both roles, and planned deletions."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _string() -> sa.types.TypeEngine[str]:
    return sa.String().with_variant(sa.String(collation="C"), "postgresql")


def _big() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str, *, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, _string(), nullable=False, server_default=default)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _big(), nullable=nullable)


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "commitment",
        sa.Column("id", _big(), autoincrement=True, nullable=False),
        _number("owner_id"),
        _text("called_ae"),
        _text("calling_ae"),
        _text("peer"),
        _text("transaction_uid"),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        _number("n_references"),
        sa.Column("action", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        _number("n_failed"),
        _text("state"),
        _number("asked_at"),
        _number("judged_at", nullable=True),
        _number("answered_at", nullable=True),
        _text("way"),
        _text("cause"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint(
            "transaction_uid",
            "calling_ae",
            "owner_id",
            "digest",
            name=op.f("uq_commitment_transaction_uid_calling_ae_owner_id_digest"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_commitment_open",
        "commitment",
        ["calling_ae", "owner_id"],
        **_where("answered_at IS NULL"),
    )
    op.create_index("ix_commitment_asked", "commitment", ["asked_at"])
    op.create_table(
        "commitment_request",
        sa.Column("id", _big(), autoincrement=True, nullable=False),
        _text("transaction_uid"),
        _text("peer"),
        _text("called_ae"),
        _text("calling_ae"),
        _number("owner_id", nullable=True),
        _number("n_references"),
        sa.Column("action", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        _number("n_failed"),
        _number("created_at"),
        _number("asked_at", nullable=True),
        _number("answered_at", nullable=True),
        _text("origin"),
        _text("cause"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_request")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_request_transaction_uid")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commitment_request_created", "commitment_request", ["created_at"])
    op.create_table(
        "planned_deletion",
        sa.Column("instance_ref", _big(), autoincrement=False, nullable=False),
        _number("due_at"),
        _text("reason"),
        sa.ForeignKeyConstraint(
            ["instance_ref"],
            ["instance.id"],
            name=op.f("fk_planned_deletion_instance_ref"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("instance_ref", name=op.f("pk_planned_deletion")),
    )
    op.create_index("ix_planned_deletion_due", "planned_deletion", ["due_at"])
    for table in ("called_title", "peer"):
        op.add_column(table, _text("commitment", default=""))
