"""What the maker of a batch may want."""

from collections.abc import Mapping
from typing import Any

from bulletproof.errors import InputValidationError
from bulletproof.pipeline import STAGES

DEFAULT_RETRIES, DEFAULT_PRIORITY = 3, 5
_ALLOWED = {"priority": range(1, 11), "max_retries": range(101)}
_HOW = f"Give one number for all stages, or numbers by stage ({', '.join(STAGES)}); the others have {DEFAULT_RETRIES}."


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a batch.

    Raises:
        InputValidationError: One makes no sense.

    Example:
        >>> checked({"priority": 1, "max_retries": {"download": 5, "analyze": 2}})
        {'priority': 1, 'max_retries': {'download': 5, 'analyze': 2}}
    """
    for name, value in options.items():
        if name not in _ALLOWED:
            raise InputValidationError(
                f"unknown option {name!r:.40}", hint=f"The options are {', '.join(_ALLOWED)}.", field=name
            )
        if name != "max_retries" or not isinstance(value, Mapping):
            _check(name, value, _ALLOWED[name])
            continue
        for stage, number in value.items():
            if stage not in STAGES:
                raise InputValidationError(f"max_retries: there is no stage {stage!r:.40}", hint=_HOW, field=name)
            _check(f"max_retries of {stage}", number, _ALLOWED[name])
    return dict(options)


def retries_from(text: str) -> int | dict[str, int]:
    """Read ``max_retries`` as it is written in a line.

    Raises:
        InputValidationError: It makes no sense.

    Example:
        >>> retries_from("5"), retries_from("download=5,analyze=2")
        (5, {'download': 5, 'analyze': 2})
    """
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        found = {stage.strip(): int(number) for stage, is_, number in pairs} if "=" in text else int(text)
    except ValueError as error:
        raise InputValidationError(f"max_retries is {text!r:.80}", hint=_HOW, field="max_retries") from error
    checked({"max_retries": found})
    return found


def retries_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``max_retries`` and ``stage_retries`` of the items of a batch with these options."""
    given = options.get("max_retries", DEFAULT_RETRIES)
    by_stage = isinstance(given, Mapping)
    return {"max_retries": DEFAULT_RETRIES if by_stage else given, "stage_retries": dict(given) if by_stage else None}


def _check(name: str, value: Any, allowed: range) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        hint = _HOW if name == "max_retries" else None
        raise InputValidationError(
            f"{name} must be a whole number from {allowed[0]} to {allowed[-1]}", hint=hint, field=name.split()[0]
        )
