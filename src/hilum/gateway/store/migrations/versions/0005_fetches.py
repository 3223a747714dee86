"""Fetches from peers, and how each peer is fetched from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _string() -> sa.types.TypeEngine[str]:
    return sa.String().with_variant(sa.String(collation="C"), "postgresql")


def _big() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, _string(), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, _big(), nullable=nullable)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "fetch",
        sa.Column("id", _big(), autoincrement=True, nullable=False),
        _text("peer"),
        _text("origin"),
        _text("request"),
        _text("state"),
        _number("work_ref"),
        _number("duplicates"),
        _number("created_at"),
        _number("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fetch")),
        sa.UniqueConstraint("work_ref", name=op.f("uq_fetch_work_ref")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "fetch_study",
        sa.Column("id", _big(), autoincrement=True, nullable=False),
        _number("fetch_ref"),
        _text("study_uid"),
        _text("state"),
        _text("reason"),
        _text("about"),
        _number("work_ref", nullable=True),
        _number("n_wanted"),
        _number("n_here"),
        _number("n_arrived"),
        _number("n_dropped"),
        sa.Column("report", sa.LargeBinary(), nullable=True),
        _number("finished_at", nullable=True),
        sa.ForeignKeyConstraint(["fetch_ref"], ["fetch.id"], name=op.f("fk_fetch_study_fetch_ref")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fetch_study")),
        sa.UniqueConstraint(
            "fetch_ref", "study_uid", name=op.f("uq_fetch_study_fetch_ref_study_uid")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fetch_study_state", "fetch_study", ["fetch_ref", "state"])
    op.add_column("peer", sa.Column("retrieve", _string(), nullable=False, server_default=""))
