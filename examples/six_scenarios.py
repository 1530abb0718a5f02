"""Six ways in which an AI system fails, each provoked for real, and what bulletproof makes of them.

    python examples/six_scenarios.py

A broken image, a GPU without memory, a rate limit, a model that returns rubbish, a database that is down, a text in a
language nobody expected: six libraries, six shapes of exception, one answer from ``classify``.
"""

import asyncio
import io
import json
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NamedTuple

import numpy as np
import openai
from PIL import Image
from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bulletproof import Diagnosis, InputValidationError, classify
from bulletproof.analysis.classifier import classified
from bulletproof.analysis.language import LanguageDetector


class Outcome(NamedTuple):
    """What one scenario led to."""

    scenario: str
    error: Exception
    diagnosis: Diagnosis


async def corrupted_image() -> None:
    """A user uploads an image that was cut off on the way."""
    whole = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(whole, "PNG")
    with Image.open(io.BytesIO(whole.getvalue()[:2000])) as image:
        image.load()


async def gpu_out_of_memory() -> None:
    """The GPU runs out of memory during training; torch's class and words, with or without torch."""
    try:
        from torch import OutOfMemoryError
    except ImportError:
        OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})  # noqa: N806
    raise OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 1.02 GiB is "
        "free. Including non-PyTorch memory, this process has 14.74 GiB memory in use."
    )


class _RateLimited(BaseHTTPRequestHandler):
    """Answers every request as OpenAI does when there are too many."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the request and refuse it."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        said = "Rate limit reached for gpt-4o-mini on requests per min (RPM): Limit 3, Used 3, Requested 1."
        body = json.dumps({"error": {"message": said, "type": "requests", "code": "rate_limit_exceeded"}}).encode()
        self.send_response(429)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "20")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Say nothing: the table below tells all."""


async def rate_limit() -> None:
    """The OpenAI SDK meets a server that answers 429."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _RateLimited)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    client = openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="not-needed-here", max_retries=0
    )
    try:
        await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
    finally:
        await client.close()
        server.shutdown()
        server.server_close()
        thread.join()


class OverflowingModel:
    """A small softmax classifier whose weights have blown up: it predicts, but not probabilities."""

    name = "overflowing-model"
    classes: ClassVar[Sequence[str]] = ("complaint", "praise")
    weights = np.array([[4e307, -4e307], [9e307, 3e307]])

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one probability for each class and text, or so it says."""
        features = np.array([[len(one), one.count("!")] for one in texts], dtype=float)
        with np.errstate(all="ignore"):
            scores = np.exp(features @ self.weights)
            return (scores / scores.sum(axis=1, keepdims=True)).tolist()  # type: ignore[no-any-return]


async def rubbish_from_a_model() -> None:
    """A model returns something that its schema does not allow."""
    await classified(OverflowingModel(), ["It broke after a day!"], ["complaint", "praise"])


async def database_down() -> None:
    """The training data lies in a database whose port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = create_async_engine(f"postgresql+asyncpg://trainer:secret@127.0.0.1:{port}/training")
    try:
        async with engine.connect() as connection:
            await connection.execute(text("select text, label from samples"))
    finally:
        await engine.dispose()


SUPPORTED = ("en", "de", "fr", "es")


async def unsupported_language() -> None:
    """A user sends text in a language that the model was not trained on."""
    sent = "このレストランはとても美味しかったです。また行きたいと思います。"
    language = LanguageDetector().detect_batch([sent])[0]
    if language not in SUPPORTED:
        raise InputValidationError(
            f"the text is in {language!r}, supported are {', '.join(SUPPORTED)}",
            code="unsupported_language",
            field="text",
        )


SCENARIOS: dict[str, Callable[[], Awaitable[None]]] = {
    "User uploads a corrupted image file": corrupted_image,
    "GPU runs out of memory during training": gpu_out_of_memory,
    "OpenAI API returns a 429 rate limit error": rate_limit,
    "Model predicts an invalid output format": rubbish_from_a_model,
    "Database connection fails during data loading": database_down,
    "User inputs text in an unsupported language": unsupported_language,
}


async def provoke() -> list[Outcome]:
    """Run into all six errors and classify each."""
    outcomes = []
    for scenario, fail in SCENARIOS.items():
        try:
            await fail()
        except Exception as error:  # noqa: BLE001 - whatever comes is what this is about
            outcomes.append(Outcome(scenario, error, classify(error)))
        else:
            raise SystemExit(f"{scenario}: nothing went wrong, which is wrong here")
    return outcomes


def table(outcomes: list[Outcome]) -> Table:
    """Return the outcomes as a table for people."""
    shown = Table(title="Six scenarios, one opinion", show_lines=True)
    for heading in ("Scenario", "Raised", "Type", "Code", "Severity", "Retry", "What to do"):
        shown.add_column(heading, overflow="fold")
    for scenario, error, found in outcomes:
        wait = "" if found.retry_after is None else f", after {found.retry_after:g} s"
        shown.add_row(
            scenario,
            type(error).__qualname__,
            found.error_type,
            found.code,
            found.severity,
            f"yes{wait}" if found.retryable else "no",
            found.hint,
        )
    return shown


def main() -> int:
    """Print the table, then what exactly was wrong each time."""
    outcomes = asyncio.run(provoke())
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(outcomes))
    for _, _, found in outcomes:
        console.print(f"{found.code}: {found.details}", style="dim", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
