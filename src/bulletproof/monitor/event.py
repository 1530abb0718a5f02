"""One error as it is remembered."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass
class ErrorEvent:
    """One error that was recorded, with everything secret taken out.

    Args:
        timestamp: When it was recorded (aware, UTC).
        error_type: Which way of failing, such as ``model_error``.
        service: The part of the system that failed.
        severity: ``low``, ``medium``, ``high`` or ``critical``.
        message: What was wrong.
        context: What else was known; bounded and redacted.
        fingerprint: The same for errors that differ only in numbers, ids, addresses, dates, paths or quoted values.
    """

    timestamp: datetime
    error_type: str
    service: str
    severity: str
    message: str
    context: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self) | {"timestamp": self.timestamp.isoformat()}
