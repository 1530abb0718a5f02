"""``explain`` reads a traceback that is only text and comes to the same opinion as ``classify``."""

import contextlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulletproof.errors import (
    Diagnosis,
    InputValidationError,
    ModelLoadError,
    classify,
    explain,
)

HEAD = "Traceback (most recent call last):\n"


def text_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def raised(raise_it: Callable[[], Any]) -> BaseException:
    try:
        raise_it()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def chained(explicit: bool) -> None:
    try:
        json.loads("{bad")
    except ValueError as error:
        if explicit:
            raise RuntimeError("cannot read the answer") from error
        raise RuntimeError("cannot read the answer")  # noqa: B904 - without a cause on purpose


def grouped() -> None:
    raise ExceptionGroup("several", [ConnectionError("refused"), ExceptionGroup("inner", [MemoryError("full")])])


@pytest.mark.parametrize(
    "raise_it",
    [
        lambda: json.loads("{bad"),
        lambda: {}["text"],
        lambda: 1 / 0,
        lambda: b"\xff".decode(),
        lambda: Path("no/such/file").read_text(),
        lambda: __import__("no_such_library"),
        lambda: int("abc"),
        lambda: chained(explicit=True),
        lambda: chained(explicit=False),
        grouped,
        lambda: compile("a b", "<text>", "exec"),
        lambda: openai.OpenAI(api_key=None, base_url="http://localhost"),
    ],
)
def test_a_printed_traceback_means_what_the_exception_meant(
    raise_it: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    error = raised(raise_it)
    expected, found = classify(error), explain(text_of(error))
    assert (found.code, found.retryable, found.rule) == (expected.code, expected.retryable, expected.rule)
    assert found.exception_chain == expected.exception_chain


def test_every_class_on_record_is_explained_as_it_is_classified(catalogue: Any) -> None:
    different = []
    for name in catalogue.bases:
        module, _, last = name.rpartition(".")
        # A class that is loaded is used as it is; one that is not is known by its name and bases.
        cls = getattr(sys.modules.get(module), last, None) or catalogue.build(name)
        try:
            error = cls.__new__(cls)
        except TypeError:
            continue
        found = explain(f'{HEAD}  File "x.py", line 1, in f\n{name}')
        if "." in name and (found.code, found.retryable) != (classify(error).code, classify(error).retryable):
            different.append((name, found.rule))
    assert different == []


@pytest.mark.parametrize(
    ("line", "code", "rule"),
    [
        ("openai.RateLimitError: Error code: 429 - {'error': {'message': 'Rate limit reached'}}", "rate_limited",
         "openai.RateLimitError"),
        ("openai.RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota'}}", "quota_exhausted",
         "openai.RateLimitError"),
        ("openai.BadRequestError: Error code: 400 - {'error': {'code': 'context_length_exceeded'}}",
         "context_length_exceeded", "openai.BadRequestError"),
        ("openai.APIStatusError: Error code: 529 - overloaded", "service_unavailable", "openai.APIError"),
        ("httpx.HTTPStatusError: Client error '404 Not Found' for url 'http://x/'", "request_rejected",
         "httpx.HTTPStatusError"),
        ("requests.exceptions.HTTPError: 503 Server Error: Unavailable for url: http://x/", "service_unavailable",
         "requests.HTTPError"),
        ("botocore.errorfactory.ThrottlingException: An error occurred (ThrottlingException) when calling X: Wait",
         "rate_limited", "botocore.exceptions.ClientError"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "gpu_out_of_memory",
         "torch.OutOfMemoryError"),
        ("RuntimeError: CUDA error: out of memory", "gpu_out_of_memory", "RuntimeError"),
        ("sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database is locked\n[SQL: SELECT 1]",
         "database_unavailable", "sqlalchemy.exc.DBAPIError"),
        ("asyncpg.exceptions.UniqueViolationError: duplicate key\nDETAIL:  Key (a)=(b) already exists.",
         "internal_error", "asyncpg.PostgresError"),
        ("OSError: [Errno 28] No space left on device", "disk_full", "OSError"),
        ("KeyboardInterrupt", "cancelled", "KeyboardInterrupt"),
        ("bulletproof.errors.taxonomy.ModelLoadError: no such file (path /x)", "model_load_failed",
         "bulletproof.errors.taxonomy.ModelLoadError"),
        ("my.package.StrangeError: odd", "internal_error", "unknown exception"),
        ("StrangeProblem: odd", "internal_error", "unknown exception"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headed", [True, False])
def test_a_single_line_is_explained(line: str, code: str, rule: str, headed: bool) -> None:
    if not headed and line.startswith("StrangeProblem"):
        pytest.skip("nothing tells this line from an ordinary one")
    text = f'{HEAD}  File "x.py", line 1, in f\n    g()\n{line}\n' if headed else line
    found = explain(text)
    assert found.code == code
    assert found.rule in (rule, "Exception" if rule == "unknown exception" else rule)


def test_the_traceback_is_found_among_the_lines_of_a_log() -> None:
    text = f"12:00 INFO started\n12:01 ERROR failed: x\n{text_of(raised(lambda: json.loads('{')))}12:02 INFO next"
    assert explain(text).code == "invalid_json"


def test_a_connection_refused_inside_a_database_driver_is_the_databases() -> None:
    frames = '  File "/x/lib/python3.11/site-packages/asyncpg/connect_utils.py", line 1, in connect\n    await x\n'
    line = "ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 1)"
    assert explain(f"{HEAD}{frames}{line}").code == "database_unavailable"
    assert explain(f"{HEAD}{line}").code == "service_unavailable"


def test_our_own_errors_keep_their_class_when_only_text_is_left() -> None:
    found = explain(text_of(raised(lambda: (_ for _ in ()).throw(ModelLoadError("no", path="x.onnx")))))
    assert (found.code, found.details) == ("model_load_failed", "no (path x.onnx)")


@pytest.mark.parametrize(
    "text", ["", "\n", "hello world", "all is well\nnothing here", "Traceback (most recent call last):\n"]
)
def test_a_text_without_an_exception_is_refused_with_advice(text: str) -> None:
    with pytest.raises(InputValidationError, match="no exception found") as refused:
        explain(text)
    assert "Traceback" in refused.value.hint or "traceback" in refused.value.hint


_LINES = st.sampled_from([
    HEAD.strip(), '  File "x", line 1, in f', "    raise x", "ValueError: a", "pkg.Error",
    "  + Exception Group Traceback (most recent call last):", "  | ExceptionGroup: a (2 sub-exceptions)",
    "  +-+---------------- 1 ----------------",
    "    | TypeError: b", "    +------------------------------------",
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:", "",
    "json.decoder.JSONDecodeError: x", "a.b.c: d",
])  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.one_of(_LINES, st.text(max_size=20)), max_size=12).map("\n".join)))
def test_any_text_gives_a_diagnosis_or_the_one_refusal(text: str) -> None:
    with contextlib.suppress(InputValidationError):
        assert isinstance(explain(text), Diagnosis)


def test_a_text_without_end_takes_no_long_time() -> None:
    explain(HEAD + "  File x\n" * 50_000 + "ValueError: " + "a" * 500_000)
    explain("\n".join(f"pkg.Error{number}: x" for number in range(50_000)))


@pytest.fixture
def walker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walk_exceptions", Path(__file__).with_name("walk_exceptions.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_record_of_base_classes_fits_the_data_file(walker: ModuleType) -> None:
    assert walker.KIN.read_text(encoding="utf-8") == walker.kin(), (
        "run: python tests/errors/walk_exceptions.py --offline"
    )
