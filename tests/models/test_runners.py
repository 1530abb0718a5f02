"""Which models may run in the event loop, and what loading one may raise."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bulletproof.errors import InvalidModelOutputError, ModelLoadError
from bulletproof.models import loading
from bulletproof.models.loaders.sklearn_models import SklearnPredictor
from bulletproof.models.local import LocalRunner
from bulletproof.models.manifest import Manifest, OutputSchema
from bulletproof.models.onnx_file import read_onnx
from bulletproof.models.registry import ModelRegistry
from bulletproof.models.runners import open_runner
from support import hostile

ROW = [5.1, 3.5, 1.4, 0.2]


async def opened(registry: ModelRegistry, manifest: Manifest) -> LocalRunner:
    runner = await open_runner(registry.folder_of(manifest), manifest)
    assert isinstance(runner, LocalRunner)
    return runner


@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
async def test_the_bundled_models_may_run_in_the_event_loop(registry: ModelRegistry, version: str) -> None:
    runner = await opened(registry, registry.manifest("iris", version))
    assert runner._steady
    for _ in range(2):
        await runner.run(np.array([ROW]), timeout=5)


async def test_a_model_of_python_code_never_does(registry: ModelRegistry, add: Callable[..., Manifest]) -> None:
    assert not (await opened(registry, add(hostile.Hostile())))._steady


def field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(("operator", "steady"), [("Add", True), ("Loop", False), ("Range", False), ("Novel", False)])
def test_an_onnx_graph_is_steady_when_the_work_of_all_its_operators_depends_on_shapes(
    tmp_path: Path, operator: str, steady: bool
) -> None:
    nodes = field(1, field(4, b"Add")) + field(1, field(4, operator.encode()))
    path = tmp_path / "it.onnx"
    path.write_bytes(field(7, nodes))
    assert read_onnx(path).steady is steady


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException()])
async def test_what_ends_a_process_or_a_task_is_a_load_failure_when_a_model_raises_it_while_it_is_loaded(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(loading, "open_predictor", fails)
    with pytest.raises(ModelLoadError, match=rf"iris v1.0 cannot be loaded: it raised {type(error).__name__}"):
        await opened(registry, registry.manifest("iris", "v1.0"))


def test_a_class_in_place_of_a_model_is_refused(registry: ModelRegistry, add: Callable[..., Manifest]) -> None:
    manifest = add(hostile.Hostile)
    with pytest.raises(ModelLoadError, match="cannot predict") as caught:
        loading.open_predictor(registry.folder_of(manifest), manifest)
    assert "class" in f"{caught.value} {caught.value.hint}"


def test_a_classifier_that_is_said_to_be_a_regression_is_refused_with_what_to_do(
    registry: ModelRegistry, add: Callable[..., Manifest]
) -> None:
    model = LogisticRegression().fit([[0.0, 0], [1, 1]], [0, 1])
    manifest = add(model, "wrong", output=OutputSchema(kind="regression"))
    with pytest.raises(ModelLoadError, match="says regression, the model is a classifier") as caught:
        loading.open_predictor(registry.folder_of(manifest), manifest)
    assert "--classes" in caught.value.hint


class Silent(hostile.Hostile):
    def predict_proba(self, rows: Any) -> Any:
        return None


async def test_probabilities_that_are_none_are_an_invalid_output(manifest: Manifest) -> None:
    runner = LocalRunner(SklearnPredictor(Silent(), manifest), name="it", memory_bytes=0)
    with pytest.raises(InvalidModelOutputError, match="predict_proba of the model answered None"):
        await runner.run(np.array([[0.0, 1]]), timeout=5)


@pytest.fixture
def manifest(add: Callable[..., Manifest]) -> Manifest:
    return add(hostile.Hostile())
