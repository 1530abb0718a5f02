"""``/batches``: URLs in, downloaded, extracted, analysed and stored, whatever dies meanwhile."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

from bulletproof.errors import InputValidationError
from bulletproof.errors.installing import not_installed
from bulletproof.ingest.notes import Notes
from bulletproof.ingest.url_lists import listed_urls
from bulletproof.service.access import form_problem, services_of
from bulletproof.service.json_body import json_object, kind_of
from bulletproof.service.quota import Meter
from bulletproof.service.responses import Answer, encode
from bulletproof.service.schemas import BatchItems, BatchList, BatchReport
from bulletproof.store import Batch, export_csv, export_jsonl

if TYPE_CHECKING:
    from bulletproof.jobs import BatchJobs

router = APIRouter(tags=["batches"])

_OPTIONS = ("priority", "max_retries")
_NUMBER = "(100|[1-9]?[0-9])"
_STAGE = f"(download|extract|analyze|store)={_NUMBER}"
_RETRIES: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 100}
_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,199}")
_HEARTBEAT_SECONDS = 15.0
_EVENT_STREAM = "text/event-stream"
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["urls"],
                "additionalProperties": False,
                "properties": {
                    "urls": {"type": "array", "minItems": 1, "items": {"type": "string"}},
                    "priority": {"type": "integer", "minimum": 1, "maximum": 10, "description": "1 goes first."},
                    "max_retries": {
                        "description": "Of each item, for all stages together, or by stage; 3 where nothing is said.",
                        "anyOf": [
                            _RETRIES,
                            {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": dict.fromkeys(("download", "extract", "analyze", "store"), _RETRIES),
                            },
                        ],
                    },
                },
            },
            "example": {"urls": ["https://example.com/article1", "https://example.com/article2"]},
        },
        "text/plain": {
            "schema": {"type": "string", "description": "One URL a line; empty lines and # comments are left out."}
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "string", "format": "binary", "description": "One URL a line."},
                    "priority": {"type": "string", "pattern": "^([1-9]|10)$"},
                    "max_retries": {"type": "string", "pattern": f"^({_NUMBER}|{_STAGE}(,{_STAGE})*)$"},
                },
            }
        },
    },
}
_KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again with the same URLs, it leads to the batch that was made first.",
    "schema": {"type": "string", "pattern": "^[!-~][ -~]{0,199}$"},
}
BatchId = Annotated[str, Path(max_length=64, description="As the answer of POST /batches gave it.")]


@router.post(
    "/batches",
    status_code=202,
    response_model=BatchReport,
    summary="Process URLs",
    openapi_extra={"requestBody": _BODY, "parameters": [_KEY_HEADER]},
)
async def post_batch(
    request: Request,
    priority: Annotated[int | None, Query(ge=1, le=10, description="1 goes first; for lists of plain text.")] = None,
    max_retries: Annotated[
        str | None,
        Query(
            description="Likewise: 5, or download=5,analyze=2.",
            json_schema_extra={"pattern": f"^({_NUMBER}|{_STAGE}(,{_STAGE})*)$"},  # said here, judged in words below
        ),
    ] = None,
) -> Response:
    """Take URLs to be downloaded, extracted, analysed and stored; answer at once with the place to look.

    From then on the batch is safe: it is worked on until every item has its outcome, whatever process dies. What the
    body says of an option counts more than what the address says.
    """
    jobs, owner = jobs_of(request), request.state.caller.name
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InputValidationError(
            "the Idempotency-Key is not allowed",
            code="invalid_request",
            hint="Use at most 200 printable ASCII characters.",
        )
    given = _read({"priority": priority, "max_retries": max_retries}) | await _given(request)
    urls, warnings = given.pop("urls"), given.pop("warnings", [])
    batch = await jobs.submit(urls, owner=owner, key=key, options=given)
    meter: Meter = services_of(request).meter
    meter.add(request.state.subject, "records", batch.total)
    report = await jobs.status(batch.id, owner=owner) | {"warnings": warnings}
    return _told(request, report, status=202, headers={"Location": f"/batches/{batch.id}"})


@router.get("/batches", response_model=BatchList, summary="Your batches")
async def get_batches(
    request: Request,
    status: Annotated[
        Literal["queued", "running", "paused", "cancelled", "complete"] | None, Query(description="Only those.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> Response:
    """Return the batches of your key, the latest first."""
    owner = request.state.caller.name
    found = await jobs_of(request).store.batches(owner=owner, status=status, limit=limit, offset=offset)
    return Answer({"status": "success", "batches": [_line(batch) for batch in found]})


@router.get("/batches/{batch_id}", response_model=BatchReport, summary="How a batch stands")
async def get_batch(request: Request, batch_id: BatchId) -> Response:
    """Return counts by status, stage, type and code, what the stages took, breakers, the pace, and the time left."""
    return _told(request, await jobs_of(request).status(batch_id, owner=request.state.caller.name))


@router.get("/batches/{batch_id}/items", response_model=BatchItems, summary="The items of a batch")
async def get_items(
    request: Request,
    batch_id: BatchId,
    status: Annotated[
        Literal["pending", "in_progress", "retrying", "success", "failed"] | None, Query(description="Only those.")
    ] = None,
    code: Annotated[str | None, Query(max_length=64, description="Only those that failed with this code.")] = None,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="Only items behind this position.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Return items page by page; ``next`` leads to the next page, null at the end."""
    jobs = jobs_of(request)
    await jobs.store.batch(batch_id, owner=request.state.caller.name)
    rows = await jobs.store.items(batch_id, status=status, code=code, after=after, limit=limit)
    asked = {"status": status, "code": code, "limit": limit, "after": rows[-1].position if rows else None}
    query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
    return Answer(
        {
            "status": "success",
            "batch_id": batch_id,
            "items": rows,
            "next": f"/batches/{batch_id}/items?{query}" if len(rows) == limit else None,
        }
    )


@router.get(
    "/batches/{batch_id}/events",
    summary="Progress, as it happens",
    response_class=StreamingResponse,
    responses={200: {"content": {_EVENT_STREAM: {"schema": {"type": "string"}}}, "description": "Server-sent events"}},
)
async def get_events(request: Request, batch_id: BatchId) -> Response:
    """Stream the report whenever it changes, until the batch is finished (server-sent events, HTML Living Standard)."""
    jobs, owner = jobs_of(request), request.state.caller.name
    await jobs.store.batch(batch_id, owner=owner)
    # A line now and then keeps proxies from taking the stream for dead.
    return StreamingResponse(
        _events(jobs.events(batch_id, owner=owner)), media_type=_EVENT_STREAM, headers={"X-Accel-Buffering": "no"}
    )


@router.get(
    "/batches/{batch_id}/results",
    summary="All items, to download",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                "application/x-ndjson": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
            },
            "description": "JSON lines or CSV",
        }
    },
)
async def get_batch_results(
    request: Request,
    batch_id: BatchId,
    form: Annotated[
        Literal["jsonl", "csv"], Query(alias="format", description="CSV is safe for spreadsheets.")
    ] = "jsonl",
    status: Annotated[Literal["success", "failed"] | None, Query(description="Only those.")] = None,
) -> Response:
    """Stream the items with their results as JSON lines or CSV."""
    store = jobs_of(request).store
    await store.batch(batch_id, owner=request.state.caller.name)
    rows = store.stream_results(batch_id, status=status)
    body, media_type = (
        (export_csv(rows), "text/csv; charset=utf-8") if form == "csv" else (export_jsonl(rows), "application/x-ndjson")
    )
    headers = {"Content-Disposition": f'attachment; filename="{batch_id}.{form}"'}
    return StreamingResponse(body, media_type=media_type, headers=headers)


@router.post("/batches/{batch_id}/pause", response_model=BatchReport, summary="Pause a batch")
async def pause_batch(request: Request, batch_id: BatchId) -> Response:
    """Stop working on a batch until it is resumed."""
    return await _act(request, jobs_of(request).pause, batch_id)


@router.post("/batches/{batch_id}/resume", response_model=BatchReport, summary="Go on with a batch")
async def resume_batch(request: Request, batch_id: BatchId) -> Response:
    """Go on with a batch that was paused."""
    return await _act(request, jobs_of(request).resume, batch_id)


@router.post("/batches/{batch_id}/cancel", response_model=BatchReport, summary="Cancel a batch")
async def cancel_batch(request: Request, batch_id: BatchId) -> Response:
    """Stop working on a batch for good; what is done stays."""
    return await _act(request, jobs_of(request).cancel, batch_id)


@router.post("/batches/{batch_id}/retry", response_model=BatchReport, summary="Do failed items again")
async def retry_batch(
    request: Request,
    batch_id: BatchId,
    code: Annotated[
        list[str] | None, Query(max_length=50, description="Only items that failed with one of these codes.")
    ] = None,
) -> Response:
    """Do the failed items of a batch again."""
    return await _act(request, partial(jobs_of(request).retry, codes=code), batch_id)


async def _act(request: Request, action: Callable[..., Awaitable[Batch]], batch_id: str) -> Response:
    owner = request.state.caller.name
    await action(batch_id, owner=owner)
    return _told(request, await jobs_of(request).status(batch_id, owner=owner))


@router.delete("/batches/{batch_id}", response_model=BatchReport, summary="Delete a batch")
async def delete_batch(request: Request, batch_id: BatchId) -> Response:
    """Delete a batch with its items and results, for good; one that is under way is stopped first."""
    jobs, owner = jobs_of(request), request.state.caller.name
    report = await jobs.status(batch_id, owner=owner)
    if report["status"] not in ("complete", "cancelled"):
        await jobs.cancel(batch_id, owner=owner)
    await jobs.store.delete(batch_id)
    return _told(request, report | {"status": "deleted"})


def jobs_of(request: Request) -> "BatchJobs":
    """Return what runs batches.

    Raises:
        ConfigurationError: The extra for it is not installed.
    """
    jobs = services_of(request).jobs
    if jobs is None:
        raise not_installed("batches are not installed here", "pipeline")
    return jobs


async def _given(request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form() as form:
            problem = form_problem(request)
            if problem is not None:
                raise problem
            files = form.getlist("file")
            if len(files) != 1 or isinstance(files[0], str):
                raise InputValidationError(
                    "the form needs one field 'file' with a file in it",
                    code="missing_field",
                    hint="curl -F file=@urls.txt .../batches",
                )
            unknown = sorted(form.keys() - {"file", *_OPTIONS})
            if unknown:
                raise InputValidationError(
                    f"unknown form field {unknown[0]!r:.60}", hint=f"The fields are file, {', '.join(_OPTIONS)}."
                )
            return _read({name: form.get(name) for name in _OPTIONS}) | await _listed(files[0].file)
    if kind == "text/plain":
        return await _listed(BytesIO(await request.body()))
    if kind != "application/json":
        raise InputValidationError(
            f"a body of type {kind or 'unknown'!r:.60}",
            code="unsupported_format",
            hint='Send JSON ({"urls": [...]}), text/plain with one URL a line, or such a file in a form.',
        )
    return _checked(await json_object(request, ("urls", *_OPTIONS)))


def _read(texts: dict[str, Any]) -> dict[str, Any]:
    """Read options from texts; those that are not there are left out."""
    from bulletproof.jobs.options import checked, retries_from

    found: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
    if "max_retries" in found:
        found["max_retries"] = retries_from(str(found["max_retries"]))
    if isinstance(given := found.get("priority"), str):
        found["priority"] = int(given) if given.isdecimal() and len(given) < 4 else given
    return checked(found)


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    if "urls" not in found:
        raise InputValidationError("the field 'urls' is missing", code="missing_field")
    urls = found["urls"]
    if not isinstance(urls, list):
        raise InputValidationError(f"urls is {kind_of(urls)}, not a list", field="urls")
    for place, url in enumerate(urls):
        if not isinstance(url, str):
            raise InputValidationError(f"urls[{place}] is {kind_of(url)}, not a text", field="urls")
    _some(urls)
    return found


async def _listed(file: BinaryIO) -> dict[str, Any]:
    notes = Notes()
    urls = await asyncio.to_thread(lambda: list(chain.from_iterable(listed_urls(file, notes))))
    _some(urls)
    return {"urls": urls, "warnings": notes.texts}


def _some(urls: Sequence[str]) -> None:
    if not urls:
        raise InputValidationError("there is no URL", code="empty_file", hint="Send at least one URL.")


def _line(batch: Batch) -> dict[str, Any]:
    return {
        "batch_id": batch.id,
        "status": batch.status,
        "total": batch.total,
        "created_at": batch.created_at,
        "finished_at": batch.finished_at,
    }


def _told(
    request: Request, report: dict[str, Any], *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Answer(report | {"request_id": request.state.request_id}, status_code=status, headers=headers)


async def _events(reports: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    coming = asyncio.ensure_future(anext(reports, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=_HEARTBEAT_SECONDS)
            if not done:
                yield b": still here\n\n"
                continue
            report = coming.result()
            if report is None:
                return
            yield b"event: progress\ndata: " + encode(report) + b"\n\n"
            coming = asyncio.ensure_future(anext(reports, None))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
