"""What runs a loaded model: in this process, in one that can be killed alone, or on another server."""

from asyncio import Future
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bulletproof.models.predictor import Outputs

OnRunaway = Callable[[Future[Outputs]], object]


class Runner(Protocol):
    """A model that is ready to answer.

    Attributes:
        memory_bytes: What it holds in memory, as far as that is known; 0 when it is not.
    """

    memory_bytes: int

    async def run(self, rows: NDArray[np.float64], *, timeout: float, on_runaway: OnRunaway | None = None) -> Outputs:
        """Predict rows.

        Args:
            rows: Shape (rows, features), checked against the input schema.
            timeout: Seconds it may take.
            on_runaway: Called when the run goes on although its caller has been answered or has gone, because it cannot
                be stopped; the future it is given is done when the run ends.

        Returns:
            What the model says of each row, in order; not yet checked.

        Raises:
            PredictionTimeoutError: It did not answer in time.
            AIError: It failed; the code says how.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the model and of what runs it."""
        ...
