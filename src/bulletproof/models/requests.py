"""What goes into a prediction and what comes out of it, as the seed of the API names it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class PredictionRequest(BaseModel):
    """A request for a prediction.

    Args:
        input_data: One row of numbers, or a list of rows. Checked against the schema of the model that is asked.
        model_version: Which version is to answer. When it is not given, the active one does.
        model: Which model; None for the default one.

    Example:
        >>> PredictionRequest(input_data=[5.1, 3.5, 1.4, 0.2]).version is None
        True
        >>> PredictionRequest(input_data=[5.1, 3.5, 1.4, 0.2], model_version="v1.0").version
        'v1.0'
    """

    # Names that begin with model_ are part of the API.
    model_config = ConfigDict(protected_namespaces=())

    input_data: list[Any]
    model_version: str = "v1.0"
    model: str | None = None

    @property
    def version(self) -> str | None:
        """The version that the caller named; None when the caller named none."""
        return self.model_version if "model_version" in self.model_fields_set else None


class PredictionResponse(BaseModel):
    """The answer to one row.

    Args:
        prediction: Class index of a classification, value of a regression.
        confidence: Probability of the predicted class; 0 when the model states none.
        model_version: The version that answered.
        status: Always ``success``.
        label: Name of the class.
        model: The model that answered.

    Example:
        >>> PredictionResponse(prediction=0.85, confidence=0.92, model_version="v1.0").status
        'success'
    """

    model_config = ConfigDict(protected_namespaces=())

    prediction: int | float
    confidence: float
    model_version: str
    status: Literal["success"] = "success"
    label: str | None = None
    model: str | None = None
