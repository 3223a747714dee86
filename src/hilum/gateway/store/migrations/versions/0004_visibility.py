"""Who may see what over DIMSE, and folded names without delimiters at their ends."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[str]:
    kind = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    return sa.Column(name, kind, nullable=False, server_default="")


def upgrade() -> None:
    """Add the columns, fold names anew."""
    for table, names in (
        ("account", ("passcode", "groups")),
        ("peer", ("belongs_to", "certificate")),
    ):
        for name in names:
            op.add_column(table, _text(name))
    patients = sa.table("patient", sa.column("id"), sa.column("patient_name_folded"))
    folded = patients.c.patient_name_folded
    connection = op.get_bind()
    # Only these can be written otherwise; new rows come so.
    found = connection.execute(
        sa.select(patients).where(sa.or_(folded.contains("^"), folded.contains("=")))
    ).all()
    for key, name in found:
        tidy = "=".join(map(_group, name.split("="))).rstrip("=")
        if tidy != name:
            connection.execute(
                sa.update(patients).where(patients.c.id == key).values(patient_name_folded=tidy)
            )


def _group(group: str) -> str:
    return "^".join(component.strip() for component in group.split("^")).rstrip("^")
