"""What callers have used of their quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "usage",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("ends", sa.Double, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("amount", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("subject", "what", "ends", "source", name="usage_pkey"),
    )
    op.create_index("usage_ends_idx", "usage", ["ends"])
