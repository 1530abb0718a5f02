"""Reading what an LLM answered: the text, or a typed error that says what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bulletproof.errors import BadResponseError, InputValidationError
from bulletproof.errors.http import parse_body, wording
from bulletproof.errors.text import one_line
from bulletproof.llm.failures import service_error
from bulletproof.llm.pricing import Price, Spending, cost_of


@dataclass(frozen=True, slots=True)
class Completion:
    """What an LLM answered.

    Args:
        text: The text, never empty.
        model: The model that the server says has answered.
        spending: Tokens and money it took.
    """

    text: str
    model: str
    spending: Spending


def read_completion(answer: Any, service: str, model: str, prices: Mapping[str, Price]) -> Completion:
    """Read a chat completion, trusting nothing: SDKs build their objects without checking them.

    Raises:
        BadResponseError: The answer cannot be used.
        InputValidationError: With the code ``content_filtered``, when the model or a filter refused.
        ExternalServiceError: The server reported an error under the status 200.
    """
    if isinstance(answer, str):
        what = "a web page" if answer.lstrip()[:1] == "<" else "plain text"
        raise BadResponseError(
            f"{service} answered {what} where JSON was due",
            hint="Check BULLETPROOF_LLM_BASE_URL; it often has to end in /v1.",
        )
    error = getattr(answer, "error", None)
    if error:
        raise reported(error, service)
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise BadResponseError(f"{service} answered without any choices")
    message = getattr(choices[0], "message", None)
    content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
    check_ending(getattr(choices[0], "finish_reason", None), refusal, service)
    if not isinstance(content, str) or not content.strip():
        raise BadResponseError(f"{service} answered with no text")
    answered_by = getattr(answer, "model", None)
    name = answered_by if isinstance(answered_by, str) and answered_by else model
    return Completion(content, name, _spending(getattr(answer, "usage", None), (name, model), prices))


def check_ending(finish_reason: Any, refusal: Any, service: str) -> None:
    """Raise when an answer ended in another way than by being complete."""
    if (isinstance(refusal, str) and refusal) or finish_reason == "content_filter":
        by = "its content filter" if finish_reason == "content_filter" else "the model"
        raise InputValidationError(f"{service}: {by} refused to answer", code="content_filtered")
    if finish_reason == "length":
        raise BadResponseError(
            f"{service}: the answer was cut off at the limit of tokens",
            retryable=False,
            hint="Send fewer or shorter texts in one call (BULLETPROOF_LLM_BATCH_SIZE), or raise the limit of tokens.",
        )


def reported(error: Any, service: str) -> Exception:
    """Return the error that a server put into the body of an answer."""
    body = parse_body(error) or parse_body({"message": error})
    said = " ".join([body.kind, body.code, body.message]).strip() if body is not None else ""
    code = wording(said) or ("service_unavailable" if "server" in said.lower() else "bad_response")
    message = f"{service} reported an error: {one_line(body.message if body is not None and body.message else said)}"
    if code in ("content_filtered", "context_length_exceeded"):
        return InputValidationError(message, code=code)
    return service_error(code, message)


def _spending(usage: Any, models: tuple[str, str], prices: Mapping[str, Price]) -> Spending:
    sent, received = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    if not (isinstance(sent, int) and isinstance(received, int) and sent >= 0 and received >= 0):
        return Spending(cost=None)
    costs = (cost_of(model, sent, received, prices) for model in models)
    return Spending(sent, received, next((cost for cost in costs if cost is not None), None))
