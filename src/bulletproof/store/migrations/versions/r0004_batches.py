"""Batches of URLs with their items, and what is known of pages from earlier runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"

_json = sa.JSON().with_variant(JSONB(), "postgresql")
_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "batches",
        sa.Column("id", _key, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("key_of_owner", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("chunk_size", sa.Integer, nullable=False),
        sa.Column("options", _json, nullable=False),
        sa.Column("given", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("created_at", _moment, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.Column("finished_at", _moment),
        sa.PrimaryKeyConstraint("id", name="batches_pkey"),
        sa.UniqueConstraint("batch_id", name="batches_batch_id_key"),
        sa.UniqueConstraint("key_of_owner", name="batches_key_of_owner_key"),
    )
    op.create_index("batches_status_updated_at_idx", "batches", ["status", "updated_at"])
    op.create_table(
        "batch_items",
        sa.Column("batch", _key, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("url_key", sa.LargeBinary, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Text),
        sa.Column("retry_count", sa.Integer, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("hint", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("seconds", sa.Text),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("not_before", sa.Double),
        sa.PrimaryKeyConstraint("batch", "position", name="batch_items_pkey"),
        sa.ForeignKeyConstraint(["batch"], ["batches.id"], name="batch_items_batch_fkey", ondelete="CASCADE"),
    )
    op.create_index("batch_items_batch_url_key_idx", "batch_items", ["batch", "url_key"], unique=True)
    op.create_index("batch_items_batch_status_position_idx", "batch_items", ["batch", "status", "position"])
    op.create_index("batch_items_batch_status_stage_code_idx", "batch_items", ["batch", "status", "stage", "code"])
    op.create_table(
        "pages",
        sa.Column("url_key", sa.LargeBinary, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("checked_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("url_key", name="pages_pkey"),
    )
    op.create_index("pages_checked_at_idx", "pages", ["checked_at"])
