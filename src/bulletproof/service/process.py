"""``POST /process``: a file in, analysed results out."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from bulletproof.errors import InputValidationError
from bulletproof.processor import ProcessOptions, split_labels
from bulletproof.service.access import form_problem, services_of
from bulletproof.service.attending import HUNG_UP, while_connected
from bulletproof.service.quota import Meter
from bulletproof.service.responses import Answer, error_response
from bulletproof.service.schemas import Accepted, ProcessAnswer

if TYPE_CHECKING:
    from bulletproof.jobs import Uploads

router = APIRouter(tags=["process"])

_FIELDS = {"file", "text_field", "labels", "fallback"}


@router.post(
    "/process",
    response_model=ProcessAnswer,
    summary="Process a file",
    responses={202: {"model": Accepted, "description": "Taken, to be processed later (Prefer: respond-async)"}},
)
async def process_data(
    request: Request,
    file: Annotated[UploadFile, File(description="JSON, JSON lines, CSV, TSV or text; may be gzipped.")],
    text_field: Annotated[
        str | None, Form(description="Field or column that holds the text; found by itself when not given.")
    ] = None,
    labels: Annotated[str | None, Form(description="Labels to sort each record into, separated by commas.")] = None,
    fallback: Annotated[
        bool | None, Form(description="False forbids that the local model answers when the LLM fails.")
    ] = None,
) -> Response:
    """Validate, clean, analyse and store a file of texts; answer with a result for every record.

    A bad record is rejected with its row and reason, and the rest goes on; a bad file is an error that says where.
    When the client hangs up, processing ends and nothing of it is kept.
    With the header `Prefer: respond-async` the file is kept and processed later, and the answer says where its results
    will be.
    """
    services = services_of(request)
    problem = form_problem(request)
    if problem is not None:
        raise problem
    _check_fields(await request.form())
    if services.jobs is not None and services.jobs.uploads is not None and _prefers_later(request):
        chosen = {"text_field": text_field or None, "labels": split_labels(labels), "allow_fallback": fallback}
        return await _accept(request, services.jobs.uploads, file, chosen)
    options = ProcessOptions(
        text_field=text_field or None,
        labels=split_labels(labels),
        allow_fallback=fallback,
        owner=request.state.caller.name,
        timeout=services.settings.upload_timeout,
    )
    try:
        answer = await while_connected(services.processor.process_file(file, options), request.receive)
    except ClientDisconnect:
        request.state.code = "cancelled"
        return Response(status_code=HUNG_UP)
    services.measures.observe_answer(answer)
    if answer["status"] == "error":
        # The processor has logged it, with its stage.
        request.state.failure_logged = True
        request.state.code = answer["code"]
        return error_response(answer, request_id=request.state.request_id, accept=request.headers.get("accept", ""))
    _count(request, services.meter, answer)
    answer["request_id"] = request.state.request_id
    return await asyncio.to_thread(Answer, answer)


def _prefers_later(request: Request) -> bool:
    """Tell whether the client need not wait (RFC 7240, section 4.1)."""
    given = ",".join(request.headers.getlist("prefer"))
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in given.split(","))


async def _accept(request: Request, uploads: "Uploads", file: UploadFile, options: dict[str, Any]) -> Response:
    processing_id = uuid4().hex
    owner, subject = request.state.caller.name, request.state.subject
    await uploads.accept(processing_id, file, owner=owner, options=options, subject=subject)
    location = f"/results/{processing_id}"
    body = {
        "status": "accepted",
        "processing_id": processing_id,
        "location": location,
        "request_id": request.state.request_id,
    }
    return Answer(body, status_code=202, headers={"Location": location, "Preference-Applied": "respond-async"})


def _count(request: Request, meter: Meter, answer: dict[str, Any]) -> None:
    subject, spent = request.state.subject, answer["summary"].get("usage") or {}
    meter.add(subject, "records", answer["records"]["received"])
    meter.add(subject, "tokens", spent.get("prompt_tokens", 0) + spent.get("completion_tokens", 0))
    meter.add(subject, "cost", spent.get("cost") or 0)


def _check_fields(form: FormData) -> None:
    """Refuse what would be ignored: a misspelt option, or all but the last of several."""
    names = [name for name, _ in form.multi_items()]
    unknown = sorted(set(names) - _FIELDS)
    if unknown:
        raise InputValidationError(
            f"unknown form field {unknown[0]!r}", hint=f"The fields are {', '.join(sorted(_FIELDS))}."
        )
    for name in _FIELDS:
        if names.count(name) > 1:
            what = "files were sent" if name == "file" else f"values of {name!r} were sent"
            raise InputValidationError(f"{names.count(name)} {what}", hint="Send one a request.", field=name)
