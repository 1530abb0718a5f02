"""The shapes of the answers."""

from typing import Any

from bulletproof.errors import Diagnosis
from bulletproof.processor.run import AnalysisRun

_OF_THE_FILE = ("filename", "format", "encoding", "compression", "text_field")


def success_answer(processing_id: str, run: AnalysisRun, *, inline: int | None) -> dict[str, Any]:
    """Return the answer for a file that was processed, ready for JSON.

    It carries so many results, or all of them when they could not be stored; none, because they are written elsewhere,
    when ``inline`` is None.
    """
    results = [] if inline is None else run.spool.rows(inline if run.stored else None)
    answer: dict[str, Any] = {
        "status": "success",
        "processing_id": processing_id,
        **{name: getattr(run.parsed, name, None) for name in _OF_THE_FILE},
        "records": run.records,
        "results": results,
        "summary": run.tally.summary(),
        "rejections": [item._asdict() for item in run.rejections],
        "warnings": run.warnings,
        "analyzer": run.analyzer_name,
        "degraded": run.degraded,
        "stored": run.stored,
        **run.extra,
    }
    if run.reason is not None:
        answer["degraded_reason"] = run.reason
    if run.store_problem is not None:
        problem = run.store_problem
        answer["store_error"] = {"code": problem.code, "details": problem.details, "hint": problem.hint}
        answer["warnings"].append(f"The results were not stored: {problem.title.lower()}. Keep this answer.")
    if inline is not None and len(results) < run.spool.count:
        after = results[-1]["row"] if results else 0
        answer["next"] = f"/results/{processing_id}?after={after}"
    return answer


def error_answer(diagnosis: Diagnosis, *, processing_id: str | None = None) -> dict[str, Any]:
    """Return the answer for a failure.

    Args:
        diagnosis: What the classifier says.
        processing_id: Id of the run, if there is one.

    Returns:
        JSON-ready values.
    """
    answer: dict[str, Any] = {
        "error": diagnosis.title,
        "error_type": str(diagnosis.error_type),
        "details": diagnosis.details,
        "status": "error",
        "code": diagnosis.code,
        "severity": str(diagnosis.severity),
        "hint": diagnosis.hint,
        "retryable": diagnosis.retryable,
    }
    if diagnosis.retry_after is not None:
        answer["retry_after"] = diagnosis.retry_after
    if processing_id is not None:
        answer["processing_id"] = processing_id
    return answer
