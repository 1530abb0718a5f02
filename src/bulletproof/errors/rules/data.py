"""Rules for parsers, tables, arrays and images: what comes in."""

from bulletproof.errors.reading import text_of
from bulletproof.errors.registry import Verdict, rule
from bulletproof.errors.text import without_values


def _quoting(code: str, names: str) -> None:
    """Register classes whose texts quote the data that they are about."""

    @rule(*names.split())
    def _(error: BaseException) -> Verdict:
        return Verdict(code, details=without_values(text_of(error)))


_quoting("invalid_json", "ijson.JSONError ijson.UnexpectedSymbol")
_quoting("invalid_input", "jsonschema.ValidationError polars.ComputeError polars.SchemaError")


@rule("pyarrow.ArrowInvalid")
def arrow_invalid(error: BaseException) -> Verdict:
    """Its texts end in the row that they are about."""
    return Verdict("invalid_input", details=without_values(text_of(error).partition(", got ")[0]))
