"""Registries with models in them that behave, and models that do not."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import joblib
import pytest

from bulletproof.models.manifest import Feature, InputSchema, Limits, Manifest, OutputSchema
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.server import ModelServer
from bulletproof.monitor import AIErrorMonitor
from support.model_parts import Loaded
from support.model_shelf import Shelf
from support.registries import WHAT
from support.wire import say, wire

__all__ = ["say", "wire"]

Add = Callable[..., Manifest]
TWO = InputSchema(features=(Feature(name="deed"), Feature(name="sign", minimum=-1000, maximum=1000)), max_rows=5000)
CLASSES = OutputSchema(classes=("negative", "positive"))
NUMBER = OutputSchema(kind="regression")


def add_model(
    registry: ModelRegistry, model: Any, name: str = "hostile", version: str = "v1.0", **more: Any
) -> Manifest:
    """Save a model with joblib and add it to a registry; further arguments are its limits or go to ``add``."""
    limits = Limits(**{key: more.pop(key) for key in list(more) if key in Limits.model_fields})
    file = registry.folder.parent / f"{name}-{version}.joblib"
    joblib.dump(model, file)
    more = {"type": "sklearn", "input": TWO, "output": CLASSES, "limits": limits, **more}
    return registry.add(name, version, file, **more)


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def add(registry: ModelRegistry) -> Add:
    """Add a model to the registry of the test; see ``add_model``."""
    return lambda model, *args, **more: add_model(registry, model, *args, **more)


@pytest.fixture(scope="session")
def add_to() -> Add:
    """Add a model to any registry; see ``add_model``."""
    return add_model


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A real model: the bundled one."""
    bundled = ModelRegistry(tmp_path / "none")
    path = tmp_path / "some model.onnx"
    shutil.copy(bundled.folder_of(bundled.manifest("iris", "v1.0")) / "model.onnx", path)
    return path


@pytest.fixture
def own(tmp_path: Path) -> ModelRegistry:
    """A registry without the models of the package."""
    return ModelRegistry(tmp_path / "models", bundled=False)


@pytest.fixture
def churn(own: ModelRegistry, model_file: Path) -> ModelRegistry:
    """One with two versions of a model."""
    own.add("churn", "v1.0", model_file, **WHAT)
    own.add("churn", "v1.1", model_file, **WHAT)
    return own


@pytest.fixture
async def serve(registry: ModelRegistry) -> AsyncIterator[Callable[..., ModelServer]]:
    servers: list[ModelServer] = []

    def make(run: Callable[..., Any] | None = None, **more: Any) -> ModelServer:
        loaded: Any = Loaded(run) if run is not None else None
        servers.append(ModelServer(registry, loaded=loaded, monitor=AIErrorMonitor(), **more))
        return servers[-1]

    yield make
    for server in servers:
        await server.aclose()


@pytest.fixture
def server(serve: Callable[..., ModelServer]) -> ModelServer:
    return serve()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()
