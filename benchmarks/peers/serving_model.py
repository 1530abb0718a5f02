"""The model that the peers of ``benchmarks/predict.py`` serve: the same file, and the same slow stand-in for it."""

import ctypes
import os
import threading
import time
from typing import Any

PLACES = 4


class Model:
    """Predicts one row: by the ONNX file in ``MODEL``, or, when ``SLOW_MS`` is set, by sleeping in one of four."""

    def __init__(self) -> None:
        self.slow = float(os.environ.get("SLOW_MS", "0")) / 1000
        self.places = threading.BoundedSemaphore(PLACES)
        if not self.slow:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(
                os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
            )
            self.input = self.session.get_inputs()[0].name

    def __call__(self, row: list[float]) -> tuple[int, float]:
        """Return class and confidence."""
        if self.slow:
            with self.places:
                time.sleep(self.slow)
            return 0, 1.0
        import numpy as np

        classes, probabilities = self.session.run(None, {self.input: np.array([row], dtype=np.float32)})[:2]
        chosen: Any = classes[0]
        return int(chosen), float(probabilities[0][int(chosen)])


class Slow:
    """The slow stand-in as an estimator, for our own registry."""

    classes_ = (0, 1, 2)

    def predict(self, rows: Any) -> Any:
        """Sleep, and predict the first class."""
        time.sleep(float(os.environ["SLOW_MS"]) / 1000)
        return [0] * len(rows)


class Moody(Slow):
    """Does what the first number of a row says: 1 hangs, 2 crashes, 3 takes all memory, 4 raises, others are fine."""

    def predict(self, rows: Any) -> Any:
        """Predict the first class, or do worse."""
        deed = rows[0][0]
        if deed == 1:
            time.sleep(3600)
        elif deed == 2:
            ctypes.string_at(0)
        elif deed == 3:
            held = []
            while True:
                held.append(bytearray(2**22))
        elif deed == 4:
            raise RuntimeError("out of sorts")
        return [0] * len(rows)
