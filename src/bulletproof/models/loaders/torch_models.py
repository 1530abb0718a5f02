"""PyTorch: TorchScript, exported programs, and weights alone (safetensors, or what torch.save wrote)."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bulletproof.errors import ModelLoadError
from bulletproof.models.loaders.answers import from_scores
from bulletproof.models.loaders.loader import Loader, ModelFile, NoModelError
from bulletproof.models.manifest import Manifest
from bulletproof.models.predictor import Outputs


def _load(file: ModelFile) -> Any:
    torch = import_module("torch")
    if file.format == "safetensors":
        return import_module("safetensors.torch").load_file(file.path)
    if file.format == "torch_export":
        return import_module("torch.export").load(file.stream).module()
    if file.format == "torchscript":
        return torch.jit.load(file.stream, map_location="cpu").eval()
    return torch.load(file.stream, map_location="cpu", weights_only=True)


def _check(model: Any) -> None:
    if not callable(model) and not isinstance(model, dict):  # weights are for a network that the caller has
        raise NoModelError(model)


class TorchPredictor:
    """A module that takes one tensor of numbers; that of a classification ends in softmax or sigmoid.

    Args:
        module: The module.
        manifest: What it should be.
    """

    def __init__(self, module: Any, manifest: Manifest, _path: Path | None = None) -> None:
        if not callable(module):
            raise ModelLoadError(
                f"{manifest.title}: the file has weights alone, which predict nothing",
                hint="Save the whole model: torch.export.save(torch.export.export(model, (example,)), path).",
            )
        self._torch, self._module, self._output = import_module("torch"), module, manifest.output
        weights = next(iter(module.parameters()), None) if hasattr(module, "parameters") else None
        self._dtype = np.float64 if weights is not None and weights.dtype == self._torch.float64 else np.float32

    def predict(self, rows: NDArray[np.float64], /) -> Outputs:
        """Predict rows; see ``Predictor``."""
        with np.errstate(over="ignore"), self._torch.inference_mode():
            answer = self._module(self._torch.from_numpy(np.array(rows, dtype=self._dtype)))
        if isinstance(answer, tuple | list):
            answer = answer[0]
        return from_scores(answer.numpy(), self._output)


LOADER = Loader(
    load=_load,
    adapt=TorchPredictor,
    formats=frozenset({"torchscript", "torch_export", "torch_save", "safetensors"}),
    check=_check,
)
