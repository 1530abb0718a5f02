"""Models that fail in every way there is, as the first number of a row tells them to; workers can import them."""

import asyncio
import ctypes
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

FINE, HANGS, GROWS, SEGFAULTS, NAN, SHAPE, CLASS, RAISES, EXITS, SLEEPS, UNPICKLABLE, NATIVE, HOARDS, LEAKS = range(14)
INTERRUPTS, CANCELS, GENERATES = range(14, 17)

ENDS = {INTERRUPTS: KeyboardInterrupt, CANCELS: asyncio.CancelledError, GENERATES: GeneratorExit}
HOARD: list[Any] = []


class TwoFacedError(Exception):
    """Cannot be unpickled: its class wants an argument that its pickle does not have."""

    def __init__(self, message: str, detail: Any) -> None:
        super().__init__(message)
        self.detail = detail


class Hostile:
    """Classifies rows by whether their second number is positive, unless their first tells it to do something else."""

    classes_ = np.array([0, 1])

    def predict(self, rows: Any) -> Any:
        answers = (rows[:, 1] > 0).astype(int)
        for deed in rows[:, 0].astype(int):
            answers = self.do(int(deed), answers)
        return answers

    def predict_proba(self, rows: Any) -> Any:
        positive = rows[:, 1] > 0
        table = np.where(positive[:, None], [0.2, 0.8], [0.7, 0.3])
        return table * np.nan if (rows[:, 0] == NAN).any() else table

    def do(self, deed: int, answers: Any) -> Any:
        if deed == HANGS:
            while True:
                time.sleep(0.01)
        elif deed in (GROWS, HOARDS):
            held = HOARD if deed == HOARDS else []
            while True:
                held.append(bytearray(2**22))
        elif deed == LEAKS:
            HOARD.append(bytearray(b"x") * 2**26)
        elif deed == SEGFAULTS:
            ctypes.string_at(0)
        elif deed == RAISES:
            raise RuntimeError("the flux capacitor is empty")
        elif deed == EXITS:
            raise SystemExit(3)
        elif deed == SLEEPS:
            time.sleep(0.3)
        elif deed == UNPICKLABLE:
            raise TwoFacedError("no", lambda: None)
        elif deed in ENDS:
            raise ENDS[deed]
        elif deed == NATIVE:
            ctypes.PyDLL(None).sleep(60)  # holds the interpreter: no handler in Python can run
        return {SHAPE: answers[:, None].repeat(2, axis=1), CLASS: answers + 7}.get(deed, answers)


class WhoAmI(Hostile):
    """Answers the number of the process that it runs in; leaves it in a file, for the time that it will not answer."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def predict(self, rows: Any) -> Any:
        self.file.write_text(str(os.getpid()))
        super().predict(rows)
        return np.full(len(rows), float(os.getpid()))


class DiesOnLoad:
    """Kills whoever loads it."""

    def __reduce__(self) -> Any:
        return ctypes.string_at, (0,)


class HangsOnLoad:
    """Keeps whoever loads it waiting."""

    def __reduce__(self) -> Any:
        return time.sleep, (120,)
