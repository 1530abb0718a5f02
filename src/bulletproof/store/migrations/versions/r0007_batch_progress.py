"""What stages made of items that are not done, what was measured of batches, and retries by stage."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "batch_made",
        sa.Column("batch", _key, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("batch", "position", name="batch_made_pkey"),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="batch_made_batch_fkey", ondelete="CASCADE"),
    )
    op.create_table(
        "batch_figures",
        sa.Column("batch", _key, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("batch", "source", name="batch_figures_pkey"),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="batch_figures_batch_fkey", ondelete="CASCADE"),
    )
    op.add_column("batch_items", sa.Column("retries", sa.Text))
