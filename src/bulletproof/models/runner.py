"""What runs a loaded model: in this process, in one that can be killed alone, or on another server."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bulletproof.models.predictor import Outputs


class Runner(Protocol):
    """A model that is ready to answer.

    Attributes:
        memory_bytes: What it holds in memory, as far as that is known; 0 when it is not.
    """

    memory_bytes: int

    async def run(self, rows: NDArray[np.float64], *, timeout: float) -> Outputs:
        """Predict rows.

        Args:
            rows: Shape (rows, features), checked against the input schema.
            timeout: Seconds it may take.

        Returns:
            What the model says of each row, in order; not yet checked.
        """
        ...

    async def aclose(self) -> None:
        """Let go of the model and of what runs it."""
        ...
