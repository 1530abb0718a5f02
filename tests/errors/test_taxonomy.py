"""The tree of exceptions, its codes and what the package exports."""

import inspect
import pickle
import re
from pathlib import Path

import pytest

import bulletproof.errors as errors
from bulletproof.errors import CODES, AIError, CircuitOpenError, ErrorType, Severity, classify, taxonomy

TREE = {name: cls for name, cls in vars(taxonomy).items() if inspect.isclass(cls) and issubclass(cls, AIError)}


def _drawn() -> dict[str, str | None]:
    """Read the tree in the docstring: each class with the one above it."""
    found: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (taxonomy.__doc__ or "").splitlines():
        match = re.match(r"^(?P<indent>[\s│├└─]*)(?P<name>[A-Z]\w+Error)\b", line)
        if match:
            depth = len(match["indent"])
            while above and above[-1][0] >= depth:
                above.pop()
            found[match["name"]] = above[-1][1] if above else None
            above.append((depth, match["name"]))
    return found


def test_the_tree_drawn_in_the_docstring_is_the_tree_there_is() -> None:
    actual = {name: None if cls is AIError else cls.__bases__[0].__name__ for name, cls in TREE.items()}
    assert _drawn() == actual


def test_the_docstring_names_the_built_in_class_that_an_error_is_as_well() -> None:
    lines = (taxonomy.__doc__ or "").splitlines()
    for name, cls in TREE.items():
        line = next(line for line in lines if re.search(rf"\b{name}\b", line))
        for builtin in (TimeoutError, ConnectionError):
            assert (f"(a {builtin.__name__} too)" in line) == issubclass(cls, builtin)


def test_everything_exported_exists_is_sorted_and_holds_the_whole_tree() -> None:
    assert errors.__all__ == sorted(errors.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert len(set(errors.__all__)) == len(errors.__all__)
    assert all(hasattr(errors, name) for name in errors.__all__)
    assert set(TREE) <= set(errors.__all__)
    assert {"CODES", "Diagnosis", "ErrorType", "Severity", "Verdict", "classify", "explain", "load_rules", "redact",
            "retry_after_of", "rule", "should_retry_of"} <= set(errors.__all__)  # fmt: skip


@pytest.mark.parametrize("name", sorted(TREE))
def test_each_error_has_a_code_of_its_type_and_survives_a_process_border(name: str) -> None:
    cls = TREE[name]
    error = CircuitOpenError("openai", "open", 3.0) if cls is CircuitOpenError else cls("it broke", path="x.json")
    assert error.code in CODES
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code, vars(copy)) == (cls, str(error), error.code, vars(error))
    assert classify(copy) == classify(error)
    family = next((base for base in cls.__mro__ if base.__mro__[1:2] == (AIError,)), None)
    types = {
        "InputValidationError": ErrorType.VALIDATION, "ResourceError": ErrorType.RESOURCE,
        "ModelError": ErrorType.MODEL, "ExternalServiceError": ErrorType.EXTERNAL_SERVICE, None: ErrorType.RESOURCE,
    }  # fmt: skip
    assert error.error_type is types[family.__name__ if family else None]


def test_an_unknown_code_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="unknown error code 'typo'"):
        AIError("x", code="typo")


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_code_has_words_and_a_status_of_its_type(code: str) -> None:
    spec = CODES[code]
    assert re.fullmatch(r"[a-z][a-z_]*[a-z]", code)
    assert spec.title
    assert not spec.title.endswith(".")
    assert spec.hint.endswith(".")
    assert isinstance(spec.severity, Severity)
    allowed = {
        ErrorType.VALIDATION: {400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429},
        ErrorType.RESOURCE: {500, 503, 504},
        ErrorType.MODEL: {500, 503, 504},
        ErrorType.EXTERNAL_SERVICE: {502, 503, 504},
    }
    assert spec.http_status in allowed[spec.error_type]


# What the service's table of statuses says.
_STATUSES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found unknown_model unknown_model_version file_not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "file_too_large",
    415: "unsupported_format",
    422: """invalid_input invalid_json invalid_csv invalid_encoding invalid_archive empty_file missing_field empty_text
        text_too_long not_numeric shape_mismatch too_many_bad_rows corrupted_image unsupported_language
        permission_denied labels_unavailable blocked_url content_filtered context_length_exceeded""",
    429: "too_many_requests",
    500: "prediction_failed invalid_model_output internal_error",
    502: "bad_response request_rejected",
    503: """overloaded database_unavailable out_of_memory gpu_out_of_memory disk_full io_error missing_dependency
        misconfigured model_load_failed model_tampered model_crashed rate_limited quota_exhausted
        service_unavailable auth_failed circuit_open cancelled""",
    504: "deadline_exceeded prediction_timeout service_timeout",
}


@pytest.mark.parametrize(("status", "code"), [(s, c) for s, codes in _STATUSES.items() for c in codes.split()])
def test_each_code_is_answered_with_its_status(status: int, code: str) -> None:
    assert CODES[code].http_status == status


def test_what_is_worth_another_try_is_what_passes_by_itself() -> None:
    assert {code for code, spec in CODES.items() if spec.retryable} == {
        "bad_response", "circuit_open", "database_unavailable", "overloaded", "prediction_timeout", "rate_limited",
        "request_timeout",
        "service_timeout", "service_unavailable", "too_many_requests",
    }  # fmt: skip


def test_the_page_about_errors_lists_every_code_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    listed = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}
    for code, spec in CODES.items():
        again = "yes" if spec.retryable else "no"
        expected = f"| `{code}` | `{spec.error_type}` | {spec.http_status} | {spec.severity} | {again} | {spec.hint} |"
        assert listed.get(code) == expected
