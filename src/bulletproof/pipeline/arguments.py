"""Whether a pipeline can work with the values it was made with."""

import math
from typing import Any


def check_counts(**given: Any) -> None:
    """Raise a ValueError, which names the argument, unless each is a whole number of at least 1."""
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r:.80}")


def check_seconds(**given: Any) -> None:
    """Raise a ValueError unless each is a number of seconds that is not negative; infinity is one."""
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or math.isnan(value) or value < 0:
            raise ValueError(f"{name} must be a number of seconds of at least 0, not {value!r:.80}")
