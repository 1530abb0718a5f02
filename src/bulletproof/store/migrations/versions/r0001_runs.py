"""Runs with their results and rejections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_json = sa.JSON().with_variant(JSONB(), "postgresql")
_key = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "runs",
        sa.Column("id", _key, nullable=False),
        sa.Column("processing_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sa.Column("started_at", _moment, nullable=False),
        sa.Column("heartbeat_at", _moment, nullable=False),
        sa.Column("completed_at", _moment),
        sa.Column("owner", sa.Text),
        sa.Column("filename", sa.Text),
        sa.Column("format", sa.Text),
        sa.Column("text_field", sa.Text),
        sa.Column("records", _json),
        sa.Column("summary", _json),
        sa.Column("analyzer", sa.Text),
        sa.Column("degraded", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("reason", sa.Text),
        sa.Column("warnings", _json),
        sa.Column("usage", _json),
        sa.Column("duration_ms", sa.Double),
        sa.PrimaryKeyConstraint("id", name="runs_pkey"),
        sa.UniqueConstraint("processing_id", name="runs_processing_id_key"),
    )
    op.create_index("runs_status_completed_at_idx", "runs", ["status", "completed_at"])
    op.create_table(
        "results",
        sa.Column("run_id", _key, nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("sentiment", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("analyzer", sa.Text, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("label_confidence", sa.Double),
        sa.PrimaryKeyConstraint("run_id", "row", name="results_pkey"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="results_run_id_fkey", ondelete="CASCADE"),
    )
    op.create_table(
        "rejections",
        sa.Column("run_id", _key, nullable=False),
        sa.Column("row", sa.BigInteger, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "row", name="rejections_pkey"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="rejections_run_id_fkey", ondelete="CASCADE"),
    )
