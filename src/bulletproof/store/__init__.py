"""Keep results: runs in SQLite or PostgreSQL, visible whole or not at all."""

from bulletproof.store.batch_records import Batch, Counts, ItemRow
from bulletproof.store.batches import BatchStore
from bulletproof.store.error_sink import SqlErrorSink
from bulletproof.store.exports import defuse, export_csv, export_jsonl
from bulletproof.store.kept import KeptCall, KeptStore
from bulletproof.store.records import RejectionRow, ResultRow, RunRecord
from bulletproof.store.state_store import SqlStateStore
from bulletproof.store.store import ResultStore
from bulletproof.store.usage import SqlUsage, Used

__all__ = [
    "Batch",
    "BatchStore",
    "Counts",
    "ItemRow",
    "KeptCall",
    "KeptStore",
    "RejectionRow",
    "ResultRow",
    "ResultStore",
    "RunRecord",
    "SqlErrorSink",
    "SqlStateStore",
    "SqlUsage",
    "Used",
    "defuse",
    "export_csv",
    "export_jsonl",
]
