"""The work table as its executor needs it, and schedules.

Nothing has written work rows before this revision: the table is made anew.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
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
    op.drop_table("work")
    op.create_table(
        "work",
        sa.Column("id", _big(), autoincrement=True, nullable=False),
        _text("kind"),
        _text("state"),
        _text("payload"),
        _text("key", default=""),
        _text("origin", default=""),
        _number("priority"),
        _number("ready_at"),
        _number("attempts"),
        _number("max_attempts"),
        _number("lease_until", nullable=True),
        _text("lease_boot", default=""),
        _text("worker", default=""),
        _number("token"),
        _number("instance_ref", nullable=True),
        _number("created_at"),
        _number("began_at", nullable=True),
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
    for name, columns, where in (
        ("ix_work_ready", ["kind", "key", "priority", "id"], "state = 'ready'"),
        ("ix_work_waiting", ["ready_at", "kind"], "state = 'waiting'"),
        ("ix_work_running", ["kind", "key"], "state = 'running'"),
        ("ix_work_aside", ["state", "kind"], "state IN ('dead', 'held')"),
        ("ix_work_over", ["finished_at", "kind"], "state IN ('done', 'cancelled')"),
        ("ix_work_origin", ["origin", "state"], "origin != ''"),
        ("ix_work_instance", ["instance_ref"], "instance_ref IS NOT NULL"),
    ):
        op.create_index(name, "work", columns, **_where(where))
    op.create_table(
        "schedule",
        sa.Column("id", _big(), autoincrement=True, nullable=False),
        _text("name"),
        _text("kind"),
        _text("payload"),
        _text("cron"),
        _text("time_zone"),
        _text("time_window"),
        sa.Column("catch_up", sa.SmallInteger(), nullable=False),
        sa.Column("enabled", sa.SmallInteger(), nullable=False),
        _number("next_at", nullable=True),
        _number("last_at", nullable=True),
        _text("last_result"),
        _number("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("name", name=op.f("uq_schedule_name")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_schedule_next", "schedule", ["next_at"], **_where("next_at IS NOT NULL"))
