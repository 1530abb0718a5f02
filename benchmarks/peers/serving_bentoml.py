"""The same by BentoML."""

import os
from typing import Any

import bentoml
from serving_model import PLACES, Model


@bentoml.service(workers=1, threads=PLACES if os.environ.get("SLOW_MS") else 1)
class Iris:
    """As its documentation has it."""

    def __init__(self) -> None:
        self.model = Model()

    if os.environ.get("SLOW_MS"):

        @bentoml.api(route="/predict")
        def predict_slowly(self, input_data: list[float], model_version: str = "v1.0") -> dict[str, Any]:
            """Predict in a thread."""
            prediction, confidence = self.model(input_data)
            return {
                "prediction": prediction,
                "confidence": confidence,
                "model_version": model_version,
                "status": "success",
            }

    else:

        @bentoml.api(route="/predict")
        async def predict(self, input_data: list[float], model_version: str = "v1.0") -> dict[str, Any]:
            """Predict in the event loop, which is fastest."""
            prediction, confidence = self.model(input_data)
            return {
                "prediction": prediction,
                "confidence": confidence,
                "model_version": model_version,
                "status": "success",
            }
