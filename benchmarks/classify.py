"""What ``classify`` costs: an exception of a class seen before, one that carries an HTTP status, chains and groups.

The bar: at most 1 µs for a class seen before. One row raises and catches an exception in a function of its own, to set
the figures beside what an exception costs anyway. All in interleaved rounds of thread CPU time.

    python -m benchmarks classify
"""

import statistics
import sys

import httpx2
import openai

from benchmarks.harness import Row, measure, report
from bulletproof.errors import CircuitOpenError, ModelLoadError, RateLimitedError, classify, explain

BAR_NS = 1000.0
SEEN, LOOKED_INTO = "class seen before", "looked into"


class UnknownError(Exception):
    """A class that no rule names."""


def _raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def _openai_429() -> openai.RateLimitError:
    said = {"message": "Rate limit reached for gpt-4o", "type": "requests", "code": "rate_limit_exceeded"}
    request = httpx2.Request("POST", "http://localhost/v1/chat/completions")
    response = httpx2.Response(429, headers={"Retry-After": "20"}, json={"error": said}, request=request)
    return openai.RateLimitError(f"Error code: 429 - {said}", response=response, body=said)


def _chain() -> RuntimeError:
    error = RuntimeError("cannot embed the text")
    error.__cause__ = _openai_429()
    return error


def _row(name: str, group: str, error: BaseException) -> Row:
    return Row(f"bulletproof: {name}", lambda _: classify(error), group)


def rows() -> list[Row]:
    """Return what is measured."""
    text = "Traceback (most recent call last):\n  File 'x.py', line 1, in f\nopenai.RateLimitError: Error code: 429\n"
    found: list[Row] = []
    for group in (SEEN, LOOKED_INTO):
        found.append(Row("a bare call", lambda _: None, group))
        found.append(Row("raise and catch", lambda _: _raised(ValueError("x")), group))
    found += [
        _row("ConnectionError", SEEN, _raised(ConnectionError("connection refused"))),
        _row("TimeoutError", SEEN, _raised(TimeoutError("timed out"))),
        _row("ValueError", SEEN, _raised(ValueError("not enough values to unpack"))),
        _row("an unknown class", SEEN, _raised(UnknownError("x"))),
        _row("httpx2.ConnectTimeout", SEEN, _raised(httpx2.ConnectTimeout("timed out"))),
        _row("our RateLimitedError", SEEN, _raised(RateLimitedError("too many requests", retry_after=3.0))),
        _row("our ModelLoadError with a place", SEEN, _raised(ModelLoadError("no such file", path="model.onnx"))),
        _row("our CircuitOpenError", SEEN, _raised(CircuitOpenError("openai", "open", 3.0))),
        _row("OSError by errno", LOOKED_INTO, _raised(OSError(28, "No space left on device"))),
        _row("openai 429 with Retry-After", LOOKED_INTO, _raised(_openai_429())),
        _row("RuntimeError caused by an openai 429", LOOKED_INTO, _raised(_chain())),
        _row("a group of three", LOOKED_INTO, ExceptionGroup("g", [ValueError("a"), KeyError("b"), TimeoutError("c")])),
        Row("bulletproof: explain a traceback's text", lambda _: explain(text), LOOKED_INTO),
    ]
    return found


def main() -> int:
    """Measure, report, and fail when a class seen before costs more than the bar."""
    measured = rows()
    raw = measure(measured)
    bare = dict.fromkeys((SEEN, LOOKED_INTO), "a bare call")
    unit = dict.fromkeys((SEEN, LOOKED_INTO), "raise and catch")
    report("classify", measured, raw, bare=bare, unit=unit)
    slow = {
        row.name: round(statistics.median(raw[f"{SEEN}/{row.name}"]))
        for row in measured
        if row.group == SEEN and statistics.median(raw[f"{SEEN}/{row.name}"]) > BAR_NS
    }
    print(f"\nclass seen before, at most {BAR_NS:.0f} ns: {'missed by ' + str(slow) if slow else 'met'}")
    return bool(slow)


if __name__ == "__main__":
    sys.exit(main())
