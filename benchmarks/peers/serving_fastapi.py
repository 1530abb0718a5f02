"""What one writes with FastAPI alone: a request model, an answer model, a function."""

import os

from fastapi import FastAPI
from pydantic import BaseModel
from serving_model import Model

app = FastAPI()
model = Model()


class Request(BaseModel):
    """As the exercise has it."""

    input_data: list[float]
    model_version: str = "v1.0"


class Answer(BaseModel):
    """As the exercise has it."""

    prediction: float
    confidence: float
    model_version: str
    status: str


if os.environ.get("SLOW_MS"):

    @app.post("/predict")
    def predict_slowly(request: Request) -> Answer:
        """Predict in a thread, as one does with what takes long."""
        prediction, confidence = model(request.input_data)
        return Answer(
            prediction=prediction, confidence=confidence, model_version=request.model_version, status="success"
        )

else:

    @app.post("/predict")
    async def predict(request: Request) -> Answer:
        """Predict in the event loop, which is fastest."""
        prediction, confidence = model(request.input_data)
        return Answer(
            prediction=prediction, confidence=confidence, model_version=request.model_version, status="success"
        )
