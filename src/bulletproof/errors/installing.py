"""What is told when a library of an extra is missing."""

from bulletproof.errors.taxonomy import ConfigurationError


def not_installed(what: str, extra: str) -> ConfigurationError:
    """Return the error that says so, and how to install the extra it belongs to.

    Example:
        >>> error = not_installed("pandas, which makes tables, is not installed", "models")
        >>> error.code, error.hint
        ('missing_dependency', "pip install 'bulletproof-ai[models]'")
    """
    return ConfigurationError(what, code="missing_dependency", hint=f"pip install 'bulletproof-ai[{extra}]'")
