"""Which options of a chat completion a server understands: found out by asking, then remembered."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from bulletproof.errors import classify
from bulletproof.errors.http import status_of

Format = Literal["json_schema", "json_object", "none"]

_WEAKER: dict[Format, Format] = {"json_schema": "json_object", "json_object": "none"}
_UNDERSTANDING = (400, 422)  # statuses of "I do not know this option"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What may be asked of a server, beside model and messages.

    Example:
        >>> Dialect({"temperature": 0}, "json_object").arguments({"type": "object"}, "answer")
        {'temperature': 0, 'response_format': {'type': 'json_object'}}
    """

    options: Mapping[str, Any]  # one that the server refuses by name is left out from then on
    answer_format: Format = "json_schema"  # the strongest that the server has not refused

    def arguments(self, schema: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
        """Return the arguments for a call; ``schema`` is that of the answer, None for free text."""
        arguments = dict(self.options)
        if schema is None or self.answer_format == "none":
            return arguments
        response_format: dict[str, Any] = {"type": self.answer_format}
        if self.answer_format == "json_schema":
            response_format["json_schema"] = {"name": name, "strict": True, "schema": schema}
        return {**arguments, "response_format": response_format}

    def weaker(self, error: Exception, *, structured: bool) -> "Dialect | None":
        """Return what to try instead after a refusal, ``structured`` when JSON was asked for.

        None when the error has nothing to do with options, or none is left.
        """
        if status_of(error) not in _UNDERSTANDING or classify(error).code != "request_rejected":
            return None
        said = str(error)
        named = [option for option in self.options if option in said]
        if named:
            return replace(self, options={k: v for k, v in self.options.items() if k not in named})
        if structured and self.answer_format in _WEAKER:
            return replace(self, answer_format=_WEAKER[self.answer_format])
        return None
