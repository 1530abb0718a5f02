"""Labels by a text classifier of the caller's own."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Protocol

from bulletproof.errors import InvalidModelOutputError


class TextClassifier(Protocol):
    """Sorts texts into classes that are fixed beforehand."""

    @property
    def name(self) -> str:
        """Name and version, such as ``topics/3``."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """The classes."""
        ...

    def predict(self, texts: Sequence[str], /) -> "Sequence[Sequence[float]] | Awaitable[Sequence[Sequence[float]]]":
        """Return for each text the probability of each class, in the order of ``classes``.

        A plain function is called in a thread.
        """
        ...


def covering(classifiers: Iterable[TextClassifier], labels: Sequence[str]) -> TextClassifier | None:
    """Return the first classifier that knows all the labels, or None."""
    return next((one for one in classifiers if set(labels) <= set(one.classes)), None)


async def classified(
    classifier: TextClassifier, texts: Sequence[str], labels: Sequence[str]
) -> list[tuple[str, float]]:
    """Return for each text one of the labels and the probability that it is right; other classes are left aside."""
    if inspect.iscoroutinefunction(classifier.predict):
        rows: Any = await classifier.predict(texts)
    else:
        rows = await asyncio.to_thread(classifier.predict, texts)
        if inspect.isawaitable(rows):
            rows = await rows
    classes = list(classifier.classes)
    columns = {label: classes.index(label) for label in labels}
    if len(rows) != len(texts) or any(len(row) != len(classes) for row in rows):
        raise InvalidModelOutputError(
            f"{classifier.name} has to return {len(classes)} probabilities for each of {len(texts)} texts"
        )
    return [_best({label: float(row[at]) for label, at in columns.items()}, classifier.name) for row in rows]


def _best(chances: dict[str, float], name: str) -> tuple[str, float]:
    if not all(math.isfinite(chance) and chance >= 0 for chance in chances.values()):
        raise InvalidModelOutputError(f"{name} returned something that is no probability")
    total = math.fsum(chances.values())
    label = max(chances, key=chances.__getitem__)
    return label, chances[label] / total if total else 1 / len(chances)
