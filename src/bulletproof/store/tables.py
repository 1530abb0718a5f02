"""The tables, as the newest migration leaves them."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

RUNNING, COMPLETE, ABANDONED = "running", "complete", "abandoned"

Json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
Key = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows by itself for INTEGER alone


class Moment(sa.types.TypeDecorator[datetime]):
    """A moment in time: aware, in UTC, on SQLite too, which knows no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("processing_id", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("writer", sa.Text, nullable=False),
    sa.Column("started_at", Moment, nullable=False),
    sa.Column("heartbeat_at", Moment, nullable=False),
    sa.Column("completed_at", Moment),
    sa.Column("owner", sa.Text),
    sa.Column("filename", sa.Text),
    sa.Column("format", sa.Text),
    sa.Column("text_field", sa.Text),
    sa.Column("records", Json),
    sa.Column("summary", Json),
    sa.Column("analyzer", sa.Text),
    sa.Column("degraded", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reason", sa.Text),
    sa.Column("warnings", Json),
    sa.Column("usage", Json),
    sa.Column("duration_ms", sa.Double),
    sa.Index(None, "status", "completed_at"),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("run_id", Key, sa.ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("sentiment", sa.Text, nullable=False),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("analyzer", sa.Text, nullable=False),
    sa.Column("label", sa.Text),
    sa.Column("label_confidence", sa.Double),
)

rejections = sa.Table(
    "rejections",
    metadata,
    sa.Column("run_id", Key, sa.ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
)

error_batches = sa.Table(
    "error_batches",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("until", Moment, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Index(None, "until", "source", "sequence"),
)

breaker_state = sa.Table(
    "breaker_state",
    metadata,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("by_operator", sa.Boolean, nullable=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("until", Moment),
    sa.Column("expires", Moment),
    sa.Column("source", sa.Text, nullable=False),
)

CREATING = "creating"

batches = sa.Table(
    "batches",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("batch_id", sa.Text, nullable=False, unique=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("key_of_owner", sa.Text, unique=True),
    sa.Column("fingerprint", sa.Text),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("chunk_size", sa.Integer, nullable=False),
    sa.Column("options", Json, nullable=False),
    sa.Column("given", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("updated_at", Moment, nullable=False),
    sa.Column("finished_at", Moment),
    sa.Index(None, "status", "updated_at"),
)

# JSON as text and moments as seconds since 1970: these rows are written by the million, and never searched for either.
batch_items = sa.Table(
    "batch_items",
    metadata,
    sa.Column("batch", Key, sa.ForeignKey(batches.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
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
    sa.Column("retries", sa.Text),
    sa.Index(None, "batch", "url_key", unique=True),
    sa.Index(None, "batch", "status", "position"),
    sa.Index(None, "batch", "status", "stage", "code"),
)

# What the stages before made of items that are not done: few, and large.
batch_made = sa.Table(
    "batch_made",
    metadata,
    sa.Column("batch", Key, sa.ForeignKey(batches.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stage", sa.Text, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

# What each process measured of its part of a batch.
batch_figures = sa.Table(
    "batch_figures",
    metadata,
    sa.Column("batch", Key, sa.ForeignKey(batches.c.id, ondelete="CASCADE"), primary_key=True, autoincrement=False),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

pages = sa.Table(
    "pages",
    metadata,
    sa.Column("url_key", sa.LargeBinary, primary_key=True),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("checked_at", sa.Double, nullable=False),
    sa.Index(None, "checked_at"),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("ends", sa.Double, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("amount", sa.Double, nullable=False),
    sa.Index(None, "ends"),
)

kept_functions = sa.Table(
    "kept_functions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("kept", sa.BigInteger, nullable=False),
    sa.Column("done", sa.BigInteger, nullable=False),
    sa.Column("expired", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.BigInteger, nullable=False),
)

kept_calls = sa.Table(
    "kept_calls",
    metadata,
    sa.Column("id", Key, primary_key=True),
    sa.Column("kept_id", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("key", sa.Text),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("kept_at", sa.Double, nullable=False),
    sa.Column("due", sa.Double, nullable=False),
    sa.Column("expires", sa.Double),
    sa.Column("claim", sa.Text),
    sa.Column("claimed_until", sa.Double, nullable=False),
    sa.Index(None, "name", "key", unique=True),
    sa.Index(None, "name", "state", "id"),
    sa.Index(None, "expires"),
)
