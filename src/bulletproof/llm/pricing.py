"""What calls to an LLM consume and cost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{4,8})$")


class Price(NamedTuple):
    """US dollars for a million tokens.

    Args:
        prompt: Sent.
        completion: Received.
    """

    prompt: float
    completion: float


# https://openai.com/api/pricing, standard tier.
PRICES: Mapping[str, Price] = {
    "gpt-3.5-turbo": Price(0.50, 1.50),
    "gpt-4-turbo": Price(10.00, 30.00),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
    "o3": Price(2.00, 8.00),
    "o4-mini": Price(1.10, 4.40),
}


@dataclass(frozen=True, slots=True)
class Spending:
    """Tokens and money that one or more calls consumed.

    Args:
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens received.
        cost: In US dollars; None when the price of a model is not known.

    Example:
        >>> Spending(10, 5, 0.25) + Spending(1, 1, 0.5)
        Spending(prompt_tokens=11, completion_tokens=6, cost=0.75)
        >>> (Spending(10, 5, 0.25) + Spending(1, 1, None)).cost is None
        True
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        known = self.cost is not None and other.cost is not None
        return Spending(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            (self.cost or 0.0) + (other.cost or 0.0) if known else None,
        )


def cost_of(
    model: str, prompt_tokens: int, completion_tokens: int, prices: Mapping[str, Price] = PRICES
) -> float | None:
    """Return what a call cost, in US dollars; None when the model has no price in the table.

    A provider before ``/`` and the date of a snapshot at the end of the model's name are left aside.

    Example:
        >>> cost_of("gpt-4o-mini-2024-07-18", 1_000_000, 1_000_000)
        0.75
        >>> cost_of("llama3.2", 1000, 1000) is None
        True
    """
    name = model.rsplit("/", 1)[-1]
    price = next((prices[key] for key in (model, name, _SNAPSHOT.sub("", name)) if key in prices), None)
    if price is None:
        return None
    return (prompt_tokens * price.prompt + completion_tokens * price.completion) / 1_000_000
