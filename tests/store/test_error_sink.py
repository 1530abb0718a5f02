"""Error counts in the database, as the monitor shares them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from bulletproof.monitor import AIErrorMonitor
from bulletproof.monitor.sharing import ErrorBatch, ErrorSink, MonitorSharing
from bulletproof.store import ResultStore, SqlErrorSink


async def test_batches_are_replaced_found_and_forgotten(store: ResultStore, wall: Any) -> None:
    sink: ErrorSink = SqlErrorSink(store.access)
    start = wall()
    first, second = ErrorBatch("a", 1, start, "{}"), ErrorBatch("a", 2, start + timedelta(minutes=1), "{}")
    other = ErrorBatch("b", 7, start + timedelta(minutes=2, microseconds=5), '{"é": 1}')
    for batch in (second, first, other, first):
        await sink.save_errors(batch)
    grown = ErrorBatch("a", 2, start + timedelta(minutes=3), '{"more": 2}')
    await sink.save_errors(grown)
    assert await sink.load_errors({}, start) == [first, grown, other]
    assert await sink.load_errors({}, start + timedelta(seconds=1)) == [grown, other]
    assert await sink.load_errors({"a": 2}, start) == [grown, other]
    assert await sink.load_errors({"a": 3, "b": 8, "c": 1}, start) == []
    assert await sink.load_errors({f"s{n}": n for n in range(3000)}, start) == [first, grown, other]
    await sink.forget_errors(start + timedelta(minutes=1))
    assert await sink.load_errors({}, start) == [grown, other]


async def test_what_one_process_saw_all_report_even_after_a_restart(
    store: ResultStore, place: Any, new_store: Callable[..., ResultStore]
) -> None:
    first = AIErrorMonitor()
    second = AIErrorMonitor()
    first_sharing = MonitorSharing(first, SqlErrorSink(store.access))
    second_sharing = MonitorSharing(second, SqlErrorSink(new_store(**place.arguments()).access))
    first.record_error("model_error", "ml", "high", "boom")
    second.record_error("model_error", "ml", "high", "boom")
    second.record_error("validation_error", "api", "low", "bad row")
    for sharing in (first_sharing, second_sharing, first_sharing, second_sharing):
        await sharing.exchange()
    restarted = AIErrorMonitor()
    await MonitorSharing(restarted, SqlErrorSink(store.access)).exchange()
    for monitor in (first, second, restarted):
        summary = monitor.get_error_summary()
        assert summary["total_errors"] == 3
        assert summary["by_type"] == {"model_error": 2, "validation_error": 1}
