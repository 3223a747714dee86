"""Called titles of certain peers only, with a limit of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    names = sa.String().with_variant(sa.String(collation="C"), "postgresql")
    op.add_column("called_title", sa.Column("peers", names, nullable=False, server_default=""))
    op.add_column(
        "called_title",
        sa.Column("max_associations", sa.Integer, nullable=False, server_default="0"),
    )
