"""Whether a pipeline can work with the values it was made with."""

import math
from typing import Any


def check_counts(**given: Any) -> None:
    """Let whole numbers of at least 1 pass.

    Raises:
        ValueError: One is none; it says which argument.

    Example:
        >>> check_counts(max_concurrent=5, host_concurrency=0)
        Traceback (most recent call last):
        ValueError: host_concurrency must be a whole number of at least 1, not 0
    """
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r:.80}")


def check_seconds(**given: Any) -> None:
    """Let numbers of seconds that are not negative pass, infinity too.

    Raises:
        ValueError: One is none; it says which argument.
    """
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or math.isnan(value) or value < 0:
            raise ValueError(f"{name} must be a number of seconds of at least 0, not {value!r:.80}")
