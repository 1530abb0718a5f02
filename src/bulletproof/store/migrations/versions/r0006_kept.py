"""Calls that failed on the way out, kept to be run again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "kept_functions",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("next_at", sa.Double, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("kept", "done", "expired", "dropped")),
        sa.PrimaryKeyConstraint("name", name="kept_functions_pkey"),
    )
    op.create_table(
        "kept_calls",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("kept_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("key", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("arguments", "state", "code", "error")),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("kept_at", sa.Double, nullable=False),
        sa.Column("due", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("claim", sa.Text),
        sa.Column("claimed_until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="kept_calls_pkey"),
        sa.UniqueConstraint("kept_id", name="kept_calls_kept_id_key"),
    )
    op.create_index("kept_calls_name_key_idx", "kept_calls", ["name", "key"], unique=True)
    op.create_index("kept_calls_name_state_id_idx", "kept_calls", ["name", "state", "id"])
    op.create_index("kept_calls_expires_idx", "kept_calls", ["expires"])
