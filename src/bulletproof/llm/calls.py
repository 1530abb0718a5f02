"""One call to an LLM, for those who count them."""

from dataclasses import dataclass, field

from bulletproof.errors import classify
from bulletproof.llm.pricing import Spending


@dataclass(frozen=True, slots=True)
class LLMCall:
    """A call that has ended.

    Args:
        model: The model that was asked for.
        outcome: ``success``, ``cancelled``, or the code of the failure.
        seconds: How long it took.
        spending: What it took besides.
    """

    model: str
    outcome: str
    seconds: float
    spending: Spending = field(default_factory=Spending)


def outcome_of(error: BaseException | None) -> str:
    """Return the outcome of a call that ended with this error, or with none.

    Example:
        >>> outcome_of(None), outcome_of(TimeoutError())
        ('success', 'service_timeout')
    """
    if error is None:
        return "success"
    return classify(error).code if isinstance(error, Exception) else "cancelled"
