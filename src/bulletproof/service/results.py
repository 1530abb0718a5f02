"""``/results/{processing_id}``: what was stored, to read and to delete."""

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from bulletproof.errors import NotFoundError
from bulletproof.processor import row_as_dict
from bulletproof.service.access import services_of
from bulletproof.service.responses import Answer, error_response
from bulletproof.service.schemas import Accepted, Deleted, ResultsPage

if TYPE_CHECKING:
    from bulletproof.jobs import Uploads

router = APIRouter(tags=["results"])

_PAGE = 1000
_MAX_PAGE = 10_000


@router.get(
    "/results/{processing_id}",
    response_model=ResultsPage,
    summary="Results of a file",
    responses={202: {"model": Accepted, "description": "Not yet: the file is processed later"}},
)
async def get_results(
    request: Request,
    processing_id: Annotated[str, Path(max_length=64, description="As the answer of POST /process gave it.")],
    after: Annotated[int, Query(ge=0, le=2**53, description="Only results of rows after this one.")] = 0,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE, description="Largest number of results.")] = _PAGE,
) -> Response:
    """Return the stored results page by page; ``next`` leads to the next page, null at the end.

    Of a file that is processed later they say how far it is, and if it failed, why.
    """
    store = services_of(request).processor.store
    run = await store.get_run(processing_id)
    if run is None:
        waiting = await _waiting(request, processing_id)
        if waiting is not None:
            return waiting
        run = await store.get_run(processing_id)  # it may have been completed in between
    if run is None or run.owner not in (None, request.state.caller.name):
        raise _nothing(processing_id)
    rows = await store.get_results(processing_id, after=after, limit=limit)
    rejections = await store.get_rejections(processing_id, after=after, limit=limit)
    # A page goes as far as both are known: up to the last row of whichever is full.
    end = min((found[-1].row for found in (rows, rejections) if len(found) == limit), default=None)
    if end is not None:
        rows = [row for row in rows if row.row <= end]
        rejections = [rejection for rejection in rejections if rejection.row <= end]
    return Answer(
        {
            "status": "success",
            "processing_id": processing_id,
            "filename": run.filename,
            "format": run.format,
            "text_field": run.text_field,
            "records": run.records,
            "summary": run.summary,
            "analyzer": run.analyzer,
            "degraded": run.degraded,
            "warnings": run.warnings,
            "results": [row_as_dict(row) for row in rows],
            "rejections": [rejection._asdict() for rejection in rejections],
            "next": None if end is None else f"/results/{processing_id}?after={end}&limit={limit}",
            "request_id": request.state.request_id,
        }
    )


@router.delete("/results/{processing_id}", response_model=Deleted, summary="Delete the results of a file")
async def delete_results(
    request: Request,
    processing_id: Annotated[str, Path(max_length=64, description="As the answer of POST /process gave it.")],
) -> Response:
    """Delete what was stored of a file, with its texts, for good; one that is to be processed later is withdrawn."""
    store, owner = services_of(request).processor.store, request.state.caller.name
    uploads = _uploads(request)
    withdrawn = uploads is not None and await uploads.withdraw(processing_id, owner=owner)
    gone = await store.delete_run(processing_id, owner=owner) or withdrawn
    if not gone:
        raise _nothing(processing_id)
    return Answer({"status": "success", "processing_id": processing_id, "request_id": request.state.request_id})


async def _waiting(request: Request, processing_id: str) -> Response | None:
    """Say how far a file is that is processed later, or why it failed; None for any other."""
    uploads = _uploads(request)
    found = await uploads.state(processing_id, owner=request.state.caller.name) if uploads is not None else None
    if found is None or found["status"] == "complete":
        return None
    request_id = request.state.request_id
    if found["status"] == "failed":
        request.state.code = found["answer"]["code"]
        return error_response(found["answer"], request_id=request_id, accept=request.headers.get("accept", ""))
    location = f"/results/{processing_id}"
    body = {"status": found["status"], "processing_id": processing_id, "location": location, "request_id": request_id}
    return Answer(body, status_code=202, headers={"Location": location})


def _uploads(request: Request) -> "Uploads | None":
    jobs = services_of(request).jobs
    return jobs.uploads if jobs is not None else None


def _nothing(processing_id: str) -> NotFoundError:
    return NotFoundError(
        f"there are no results under {processing_id!r}",
        hint="Use the processing_id of an answer with stored: true, and the API key that made it.",
    )
