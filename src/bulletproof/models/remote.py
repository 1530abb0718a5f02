"""A model behind another server: one that speaks this API, or the Open Inference Protocol v2."""

import json
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import (
    BadResponseError,
    DeadlineExceededError,
    ErrorType,
    ExternalServiceError,
    RateLimitedError,
    ServiceAuthError,
    ServiceTimeoutError,
    ServiceUnavailableError,
    classify,
)
from bulletproof.errors.installing import not_installed
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs
from bulletproof.models.runner import OnRunaway
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, Policy, RetryPolicy, deadline

Rows = NDArray[np.float64]

_BYTES, _BYTES_PER_NUMBER = 2**16, 128  # of an answer: more is no answer to what was asked
_CONNECT_SECONDS = 5.0
_EXPLANATION = 500  # characters
_CLASSES: dict[str, type[ExternalServiceError]] = {
    "rate_limited": RateLimitedError,
    "service_unavailable": ServiceUnavailableError,
    "service_timeout": ServiceTimeoutError,
    "auth_failed": ServiceAuthError,
    "bad_response": BadResponseError,
}


class RemoteRunner:
    """Asks another server, again when that is worth it, and not while its circuit is open.

    An address with ``/v2/models/NAME`` or ``/v2/models/NAME/versions/VERSION`` in it is asked by the Open Inference
    Protocol (https://github.com/kserve/open-inference-protocol); any other is the base of a server like this one, whose
    ``/predict`` is asked for the model and the version of the manifest.

    Args:
        manifest: What is known of the model; its ``url`` is asked.
        api_key: Sent as a bearer token.
        sleep: Waits so many seconds between two tries.
        rng: Gives the jitter of these waits.
        clock: Gives monotonic seconds.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        api_key: str | None = None,
        sleep: Callable[[float], Any] | None = None,
        rng: Any = random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise not_installed("a remote model needs httpx", "remote") from error
        self.memory_bytes = 0
        self._manifest = manifest
        self._name = f"the server of {manifest.title}"
        self._infers = "/v2/models/" in manifest.url
        base, end = manifest.url.rstrip("/"), "/infer" if self._infers else "/predict"
        self._url = base if base.endswith(end) else base + end
        most = manifest.limits.max_concurrent
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            follow_redirects=False,
        )
        self.breaker = AIServiceCircuitBreaker(
            f"model:{manifest.name}:{manifest.version}", CircuitConfig(timeout=15), clock=clock
        )
        retry = RetryPolicy(max_attempts=3, base_delay=0.1, max_delay=2, sleep=sleep, rng=rng, clock=clock)
        seconds = manifest.limits.timeout_seconds
        self._policy = Policy(retry=retry, breaker=self.breaker, timeout=seconds, name=self._name, clock=clock)

    async def run(self, rows: Rows, *, timeout: float, on_runaway: OnRunaway | None = None) -> Outputs:  # noqa: ARG002 -- nothing runs away from here
        """Predict rows; see ``Runner.run``."""
        try:
            with deadline(timeout):  # each try is interrupted at its end, which the breaker takes for a failure
                return await self._policy.call(self._ask, rows)
        except DeadlineExceededError as error:
            raise ServiceTimeoutError(f"{self._name} did not answer within {timeout:.3g} s") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, rows: Rows) -> Outputs:
        import httpx

        explained = ""
        body = _inference(rows) if self._infers else self._question(rows)
        try:
            async with self._client.stream("POST", self._url, json=body) as response:
                if response.is_client_error:
                    with suppress(BadResponseError):  # more than an explanation
                        explained = _explanation(response.status_code, await self._read(response, rows))
                response.raise_for_status()
                data = await self._read(response, rows)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failure(error, explained) from error
        read = _inferred if self._infers else _predicted
        try:
            return read(json.loads(data), self._manifest.output.kind == "classification")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise BadResponseError(f"{self._name} answered something else than predictions") from error

    def _question(self, rows: Rows) -> dict[str, Any]:
        manifest = self._manifest
        return {"input_data": rows.tolist(), "model": manifest.name, "model_version": manifest.version}

    async def _read(self, response: Any, rows: Rows) -> bytes:
        most = _BYTES + _BYTES_PER_NUMBER * len(rows) * (len(self._manifest.output.classes) + 1)
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > most:
                raise BadResponseError(f"{self._name} answered more than {most:,} bytes")
        return bytes(data)

    def _failure(self, error: Exception, explained: str) -> ExternalServiceError:
        """What the other server refuses as invalid passed our own checks: that is between it and us."""
        found = classify(error)
        code = found.code if found.error_type is ErrorType.EXTERNAL_SERVICE else "request_rejected"
        return _CLASSES.get(code, ExternalServiceError)(
            f"{self._name}: {explained or found.details}", code=code, retry_after=found.retry_after
        )


def _explanation(status: int, body: bytes) -> str:
    """What the other server says is wrong: bounded, and without what a terminal or a log may stumble over."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    told = (found.get(key) for key in ("details", "error", "message", "detail"))
    text = next((one for one in told if isinstance(one, str) and one.strip()), "")
    text = " ".join("".join(one if one.isprintable() else " " for one in text[:_EXPLANATION]).split())
    return text and f"HTTP {status}: {text}"


def _inference(rows: Rows) -> dict[str, Any]:
    tensor = {"name": "input", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return {"inputs": [tensor]}


def _predicted(body: Mapping[str, Any], classifies: bool) -> Outputs:  # noqa: ARG001 -- both kinds look the same
    answers = body["predictions"]
    return Outputs(
        np.array([_number(answer["prediction"]) for answer in answers]),
        confidences=np.array([_number(answer["confidence"]) for answer in answers]),
    )


def _inferred(body: Mapping[str, Any], classifies: bool) -> Outputs:
    """Find values and probabilities by their shapes: every server names its outputs as it likes."""
    tensors = {str(one["name"]): _tensor(one) for one in body["outputs"] if one.get("datatype") != "BYTES"}
    tables = [tensor for tensor in tensors.values() if tensor.ndim == 2 and tensor.shape[1] > 1]
    columns = [tensor.reshape(-1) for tensor in tensors.values() if tensor.ndim < 2 or tensor[0].size == 1]
    probabilities = tables[0] if classifies and tables else None
    if {"prediction", "confidence"} <= tensors.keys():  # a server like this one
        return Outputs(tensors["prediction"].reshape(-1), confidences=tensors["confidence"].reshape(-1))
    if columns:
        return Outputs(columns[0], probabilities)
    if probabilities is None:
        raise ValueError("there is no output with one number a row")
    return Outputs(probabilities.argmax(axis=1).astype(np.float64), probabilities)


def _tensor(output: Mapping[str, Any]) -> Rows:
    numbers = np.array(output["data"], dtype=np.float64)
    return numbers.reshape([int(size) for size in output["shape"]])


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)
