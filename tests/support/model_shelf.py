"""A shelf of models that tell what becomes of them, for what keeps them loaded."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bulletproof.models import Feature, InputSchema, LoadedModels, Manifest, OutputSchema
from bulletproof.models.predictor import Outputs

FOLDER = Path("models")


def manifest_of(name: str, version: str = "v1.0", description: str = "") -> Manifest:
    return Manifest(
        name=name, version=version, type="onnx", file="model.onnx", sha256="0" * 64,
        input=InputSchema(features=(Feature(name="x"),)), output=OutputSchema(kind="regression"),
        description=description,
    )  # fmt: skip


class Shelf:
    """Opens runners that tell what becomes of them."""

    def __init__(self, memory_bytes: int = 10) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.failures: dict[str, BaseException] = {}
        self.memory_bytes = memory_bytes
        self.gate = asyncio.Event()
        self.gate.set()
        self.started = asyncio.Event()

    async def open(self, _: Path, manifest: Manifest) -> "ShelfRunner":
        label = f"{manifest.name}:{manifest.version}:{manifest.description}".rstrip(":")
        self.opened.append(label)
        self.started.set()
        await self.gate.wait()
        if label in self.failures:
            raise self.failures[label]
        return ShelfRunner(self, label)


class ShelfRunner:
    def __init__(self, shelf: Shelf, label: str) -> None:
        self.memory_bytes = shelf.memory_bytes
        self._shelf = shelf
        self.label = label
        self.closed = False

    async def run(self, rows: Any, *, timeout: float, on_runaway: Any = None) -> Outputs:
        assert not self.closed
        return Outputs(np.zeros(len(rows)))

    async def aclose(self) -> None:
        assert not self.closed
        self.closed = True
        self._shelf.closed.append(self.label)


def cache(shelf: Shelf, memory_bytes: int = 1000, **more: Any) -> LoadedModels:
    return LoadedModels(shelf.open, lambda _: FOLDER, memory_bytes=memory_bytes, **more)


async def use(models: LoadedModels, manifest: Manifest) -> str:
    async with models.lease(manifest) as runner:
        await runner.run(np.zeros((1, 1)), timeout=1)
        return runner.label  # type: ignore[attr-defined, no-any-return]


async def settle(until: Callable[[], bool] = lambda: False) -> None:
    for _ in range(10):
        await asyncio.sleep(0)
        if until():
            return
