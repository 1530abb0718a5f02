"""The default model: small, of the checksum it says, as accurate as it says, and made anew byte for byte."""

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bulletproof.models import ModelRegistry, open_runner
from bulletproof.models.schema import RowReader

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "src/bulletproof/models/bundled"


@pytest.fixture(scope="module")
def training() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_iris", ROOT / "training" / "train_iris.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


def test_there_are_two_versions_and_the_first_answers(registry: ModelRegistry) -> None:
    [iris] = registry.models()
    assert (iris.name, iris.active, [item.version for item in iris.versions]) == ("iris", "v1.0", ["v1.0", "v1.1"])
    assert registry.manifest().version == "v1.0"


def test_both_stand_every_test(registry: ModelRegistry) -> None:
    assert [(row.version, row.problem) for row in registry.verify()] == [("v1.0", ""), ("v1.1", "")]


def test_together_they_are_smaller_than_300_kb() -> None:
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
async def test_the_first_example_anybody_tries_is_answered(registry: ModelRegistry, version: str) -> None:
    manifest = registry.manifest("iris", version)
    rows, single = RowReader(manifest.input)([1.2, 3.4, 5.6, 7.8])
    assert single
    runner = await open_runner(registry.folder_of(manifest), manifest)
    outputs = await runner.run(rows, timeout=10)
    await runner.aclose()
    assert outputs.values[0] in (0, 1, 2)
    assert outputs.probabilities is not None
    assert outputs.probabilities.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("version", ["v1.0", "v1.1"])
def test_each_is_made_anew_byte_for_byte_and_is_as_accurate_as_it_says(
    registry: ModelRegistry, training: ModuleType, version: str
) -> None:
    from sklearn.datasets import load_iris

    manifest = registry.manifest("iris", version)
    x, y = load_iris(return_X_y=True)
    _, recipe = training.RECIPES[version]
    told = re.search(r"accuracy on held-out flowers (0\.\d{3})", manifest.description)
    assert told is not None
    assert f"{training.held_out(recipe, x, y):.3f}" == told[1]
    model = training.convert(training.fit(recipe, x, y), x)
    assert model == (registry.folder_of(manifest) / manifest.file).read_bytes()


async def test_it_names_flowers_by_their_species(registry: ModelRegistry) -> None:
    flowers = np.array([[5.1, 3.5, 1.4, 0.2], [5.7, 2.8, 4.1, 1.3], [6.7, 3.0, 5.2, 2.3]])
    for version in ("v1.0", "v1.1"):
        manifest = registry.manifest("iris", version)
        runner = await open_runner(registry.folder_of(manifest), manifest)
        named = [manifest.output.classes[int(value)] for value in (await runner.run(flowers, timeout=10)).values]
        await runner.aclose()
        assert named == ["setosa", "versicolor", "virginica"]


def test_the_wheel_has_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        f"bulletproof/models/bundled/{path.relative_to(BUNDLED)}" for path in BUNDLED.rglob("*.*") if path.is_file()
    }
    assert len(shipped) == 5
    assert shipped <= packed
