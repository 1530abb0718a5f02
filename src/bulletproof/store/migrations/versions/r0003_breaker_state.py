"""What processes tell each other about circuits and gates."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "breaker_state",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("by_operator", sa.Boolean, nullable=False),
        sa.Column("at", _moment, nullable=False),
        sa.Column("until", _moment),
        sa.Column("expires", _moment),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("topic", "name", name="breaker_state_pkey"),
    )
