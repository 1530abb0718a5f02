"""What every loaded model looks like to the one who asks it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model answered, not yet checked.

    Args:
        values: One number a row: the class index of a classification, the value of a regression; shape (rows,).
        probabilities: Of each class; shape (rows, classes). None for a regression and for classifiers that have none.
        confidences: One number a row, in [0, 1]: of models that state the probability of the answer alone.
    """

    values: NDArray[np.float64]
    probabilities: NDArray[np.float64] | None = None
    confidences: NDArray[np.float64] | None = None


class Predictor(Protocol):
    """A loaded model."""

    def predict(self, rows: NDArray[np.float64], /) -> Outputs:
        """Predict rows.

        Args:
            rows: Shape (rows, features), checked against the input schema.

        Returns:
            What the model says of each row, in order.
        """
        ...
