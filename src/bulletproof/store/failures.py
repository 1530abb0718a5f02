"""What the database's errors mean to those who use the store."""

import os

from bulletproof.errors import AIError, CircuitOpenError, Diagnosis, InputValidationError, StoreError, classify
from bulletproof.store.address import Address
from bulletproof.store.damage import damaged, is_damage

_AS_THEY_ARE = {
    "database_unavailable", "deadline_exceeded", "disk_full", "internal_error", "io_error", "misconfigured",
    "missing_dependency", "out_of_memory", "overloaded",
}  # fmt: skip
_OF_THE_CALLER = {"invalid_encoding", "invalid_input"}

_FOLDER_HINT = "Make {folder} a folder that the user who runs this may write to, or set {setting} to another."
_SCHEMA_HINT = "Give the user of the database the right to create tables, or have its owner run bulletproof once."


def explain(error: Exception, address: Address, doing: str) -> AIError:
    """Return the error to raise ``from`` one of ``doing`` something, such as ``store results in``, the database.

    It is the given one when that is of ours already, an ``InputValidationError`` when the caller's data was at fault,
    otherwise a ``StoreError``.
    """
    if isinstance(error, CircuitOpenError):
        return _refused(error, address, doing)
    if isinstance(error, StoreError | InputValidationError):
        return error
    diagnosis = classify(error)
    text = f"cannot {doing} {address}: {_in_words(error, diagnosis)}"
    if diagnosis.code in _OF_THE_CALLER:
        return InputValidationError(text, code=diagnosis.code)
    if address.path is not None and is_damage(error):
        return damaged(address, diagnosis.details)
    if lost_tables(error):
        # Another try by itself finds none either: they have to be made again first.
        return StoreError(text, retryable=False)
    code, retryable = _code_of(error, diagnosis)
    return StoreError(
        text, code=code, retryable=retryable, hint=_hint(code, address, diagnosis), retry_after=diagnosis.retry_after
    )


def lost_tables(error: BaseException) -> bool:
    """Tell whether the database says that a table of ours is not there."""
    driver = getattr(error, "orig", None)
    return getattr(driver, "sqlstate", None) == "42P01" or "no such table" in str(driver)


def _refused(error: CircuitOpenError, address: Address, doing: str) -> StoreError:
    wait = error.retry_after
    when = "until an operator allows it" if wait is None else f"for {wait:.1f} s"
    text = f"cannot {doing} {address}: it failed too often and is not asked {when}"
    last = error.__cause__
    if not isinstance(last, Exception):
        return StoreError(text, retry_after=wait)
    known = classify(last)
    code, retryable = _code_of(last, known)
    return StoreError(
        f"{text}; the last time: {_in_words(last, known).rpartition(f'{address}: ')[2]}",
        code=code,
        hint=known.hint,
        retryable=retryable,
        retry_after=wait,
    )


def _in_words(error: Exception, diagnosis: Diagnosis) -> str:
    if isinstance(error, ConnectionError) and error.errno is not None:
        return os.strerror(error.errno)
    return diagnosis.details


def _code_of(error: Exception, diagnosis: Diagnosis) -> tuple[str, bool | None]:
    if any(name.endswith(".ClientConfigurationError") for name in diagnosis.exception_chain):
        return "misconfigured", False  # said by the driver of something in the URL
    if diagnosis.code in ("service_timeout", "service_unavailable"):
        return "database_unavailable", True
    if isinstance(error, OSError) and diagnosis.code in ("permission_denied", "file_not_found"):
        return "misconfigured", False
    return (diagnosis.code if diagnosis.code in _AS_THEY_ARE else "internal_error"), diagnosis.retryable


def _hint(code: str, address: Address, diagnosis: Diagnosis) -> str | None:
    if address.path is not None and (code == "misconfigured" or "unable to open" in diagnosis.details):
        setting = "BULLETPROOF_DATABASE_URL" if address.named else "BULLETPROOF_DATA_DIR"
        return _FOLDER_HINT.format(folder=address.path.parent, setting=setting)
    if "permission denied for schema" in diagnosis.details:
        return _SCHEMA_HINT
    return None
