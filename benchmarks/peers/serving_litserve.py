"""The same by LitServe."""

import os
import sys
from typing import Any

import litserve
from serving_model import PLACES, Model


class Api(litserve.LitAPI):
    """As its documentation has it."""

    def setup(self, device: str) -> None:  # noqa: ARG002 -- as LitServe has it
        """Load the model, once in each worker."""
        self.model = Model()

    def decode_request(self, request: dict[str, Any]) -> Any:
        """Take the row out."""
        return request["input_data"]

    def predict(self, row: Any) -> tuple[int, float]:
        """Predict."""
        return self.model(row)

    def encode_response(self, output: tuple[int, float]) -> dict[str, Any]:
        """Make the answer."""
        return {"prediction": output[0], "confidence": output[1], "model_version": "v1.0", "status": "success"}


if __name__ == "__main__":
    workers = PLACES if os.environ.get("SLOW_MS") else 1
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=workers)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
