"""Rules for parsers, tables, arrays and images: what comes in."""

from bulletproof.errors.reading import text_of
from bulletproof.errors.registry import Verdict, family, register, rule
from bulletproof.errors.text import without_values


def _quoting(code: str, names: str) -> None:
    """Register classes whose texts quote the data that they are about."""

    @rule(*names.split())
    def _(error: BaseException) -> Verdict:
        return Verdict(code, details=without_values(text_of(error)))


register("invalid_json", "orjson.JSONDecodeError simplejson.JSONDecodeError")
_quoting("invalid_json", "ijson.JSONError ijson.UnexpectedSymbol")
_quoting("invalid_input", "jsonschema.ValidationError polars.ComputeError polars.SchemaError")
register("missing_dependency", "ijson.YAJLImportError")
register("internal_error", "orjson.JSONEncodeError")
family(
    "msgspec",
    {"invalid_json": "DecodeError", "invalid_input": "ValidationError", "internal_error": "MsgspecError EncodeError"},
)
family("yaml", {"invalid_input": "YAMLError"})
family("jsonschema", {"misconfigured": "SchemaError"})
family("charset_normalizer", {"invalid_encoding": "CharsetNormalizerException"})

# pandas: https://pandas.pydata.org/docs/reference/testing.html#exceptions-and-warnings
family(
    "pandas",
    {
        "invalid_csv": "ParserError CSSWarning",
        "empty_file": "EmptyDataError",
        "invalid_input": """OutOfBoundsDatetime OutOfBoundsTimedelta DuplicateLabelError DataError NoBufferPresent
            InvalidColumnName PossiblePrecisionLoss ValueLabelTypeMismatch
            CategoricalConversionWarning DateParseError""",
        "not_numeric": "IntCastingNaNError",
        Verdict("internal_error", details="a query failed", defer="cause"): "DatabaseError",
        "internal_error": """MergeError InvalidIndexError UndefinedVariableError UnsupportedFunctionCall
            SpecificationError AbstractMethodError NumbaUtilError NumExprClobberingError NullFrequencyError
            UnsortedIndexError IndexingError OptionError InvalidVersion InvalidComparison ClosedFileError
            AttributeConflictWarning LossySetitemError NoDefault PossibleDataLossError BaseExceptionGroup""",
    },
)

# Arrow: https://arrow.apache.org/docs/cpp/api/support.html
family(
    "pyarrow",
    {
        "invalid_input": "ArrowSerializationError ArrowCapacityError FeatherError",
        "out_of_memory": "ArrowMemoryError",
        Verdict("cancelled", counts=False): "ArrowCancelled FlightCancelledError",
        "internal_error": "ArrowException ArrowKeyError ArrowTypeError ArrowIndexError ArrowNotImplementedError",
        "auth_failed": "FlightUnauthenticatedError FlightUnauthorizedError",
        "service_timeout": "FlightTimedOutError",
        "service_unavailable": "FlightError",
    },
)


@rule("pyarrow.ArrowInvalid")
def arrow_invalid(error: BaseException) -> Verdict:
    """Its texts end in the row that they are about."""
    return Verdict("invalid_input", details=without_values(text_of(error).partition(", got ")[0]))


# Polars: https://docs.pola.rs/api/python/stable/reference/exceptions.html
family(
    "polars",
    {
        "empty_file": "NoDataError",
        "missing_field": "ColumnNotFoundError StructFieldNotFoundError",
        "shape_mismatch": "ShapeError",
        "invalid_input": "SchemaFieldNotFoundError DuplicateError StringCacheMismatchError",
        "internal_error": "PolarsError PanicException UnsuitableSQLError",
        "missing_dependency": "ModuleUpgradeRequiredError",
    },
)

# NumPy: https://numpy.org/doc/stable/reference/routines.exceptions.html
family(
    "numpy",
    {
        "shape_mismatch": "AxisError",
        "prediction_failed": "LinAlgError",
        "internal_error": "DTypePromotionError TooHardError UFuncTypeError _UFuncNoLoopError",
    },
)

# Pillow: https://pillow.readthedocs.io/en/stable/reference/Image.html
family(
    "PIL",
    {
        "corrupted_image": "UnidentifiedImageError BLPFormatError PdfFormatError PyCMSError",
        "file_too_large": "DecompressionBombError DecompressionBombWarning",
    },
)
