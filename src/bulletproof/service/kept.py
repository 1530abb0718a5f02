"""``/kept``: calls that failed on the way out, in whichever process, and are kept to be run again."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from bulletproof.errors import ConfigurationError
from bulletproof.service.access import services_of
from bulletproof.service.operate import ASKED_BY, refuse_other_sites
from bulletproof.service.responses import Answer
from bulletproof.service.schemas import Kept, KeptChange
from bulletproof.store import KeptStore

router = APIRouter(tags=["operation"])
KeptId = Annotated[str, Path(max_length=64, description="As GET /kept names it.")]


@router.get("/kept", response_model=Kept, summary="Calls to be run again")
async def get_kept(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=1000, description="Largest number of calls.")] = 100,
    function: Annotated[str | None, Query(max_length=200, description="Only calls of this function.")] = None,
) -> Response:
    """Return the calls that are kept, the oldest first, without their arguments, and how many there were so far.

    They are calls of functions of your own, decorated with ``KeptCalls.keep`` in any process that uses the database
    of this service; the service itself keeps none.
    """
    store = _store(request)
    calls = [asdict(call) for call in await store.calls(function=function, limit=limit)]
    for call in calls:
        del call["arguments"]
    return Answer({"status": "success", "calls": calls, "functions": await store.counts()})


@router.post("/kept/{kept_id}/retry", response_model=KeptChange, summary="Run a kept call next")
async def retry_kept(request: Request, kept_id: KeptId, x_requested_with: ASKED_BY = None) -> Response:
    """Have a call run next, one that failed too, by whichever process knows its function.

    As for breakers, the request needs a JSON content type or the header X-Requested-With.
    """
    refuse_other_sites(request, x_requested_with)
    await _store(request).retry(kept_id)
    return Answer({"status": "success", "kept_id": kept_id, "changed": "retry"})


@router.delete("/kept/{kept_id}", response_model=KeptChange, summary="Drop a kept call")
async def drop_kept(request: Request, kept_id: KeptId, x_requested_with: ASKED_BY = None) -> Response:
    """Forget a call: it is never run again. The request needs a JSON content type or the header X-Requested-With."""
    refuse_other_sites(request, x_requested_with)
    await _store(request).drop(kept_id)
    return Answer({"status": "success", "kept_id": kept_id, "changed": "dropped"})


def _store(request: Request) -> KeptStore:
    access = getattr(services_of(request).processor.store, "access", None)
    if access is None:
        raise ConfigurationError("calls are kept in our own database, and this service has a store of its own")
    return KeptStore(access)
