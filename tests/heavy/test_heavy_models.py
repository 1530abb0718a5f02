"""Models of PyTorch, Keras and transformers: real files by the real libraries (``make test-heavy``)."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bulletproof.errors import InvalidModelOutputError, ModelLoadError
from bulletproof.models import (
    Feature,
    InputSchema,
    Manifest,
    OutputSchema,
    inspect_model,
    load_ai_model,
    open_predictor,
    sha256_of,
)

os.environ.setdefault("KERAS_BACKEND", "torch")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3]])
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


class Net(torch.nn.Linear):
    """A class of the caller's own."""


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1)).eval()


@pytest.fixture(scope="module")
def network() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])


def save_net(net: Any, path: Path, kind: str) -> Path:
    if kind == "script":
        torch.jit.script(net).save(path)
    elif kind == "export":
        rows = {0: torch.export.Dim("rows")}
        torch.export.save(torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=(rows,)), path)
    elif kind == "safetensors":
        safetensors_torch.save_file(net.state_dict(), path)
    elif kind == "weights":
        torch.save(net.state_dict(), path)
    else:
        torch.save(net, path)
    return path


def manifest(path: Path, type_: str, *, classes: tuple[str, ...] = ("a", "b", "c"), features: int = 4) -> Manifest:
    return Manifest(
        name="net", version="v1.0", type=type_, file=path.name, sha256=sha256_of(path),
        input=InputSchema(features=tuple(Feature(name=str(n)) for n in range(features))),
        output=OutputSchema(classes=classes) if classes else OutputSchema(kind="regression"),
    )  # fmt: skip


def failure(path: Path, model_type: str, **more: Any) -> ModelLoadError:
    with pytest.raises(ModelLoadError) as caught:
        load_ai_model(path, model_type, **more)
    return caught.value


@pytest.mark.parametrize("kind", ["script", "export"])
def test_a_whole_torch_model_loads_and_predicts(net: Any, tmp_path: Path, kind: str) -> None:
    path = save_net(net, tmp_path / "net.pt2", kind)
    expected = net(torch.tensor(ROWS, dtype=torch.float32)).detach().numpy()
    module = load_ai_model(path, "torch", sha256=sha256_of(path))
    assert np.allclose(module(torch.tensor(ROWS, dtype=torch.float32)).detach().numpy(), expected, atol=1e-6)
    outputs = open_predictor(tmp_path, manifest(path, "torch")).predict(ROWS)
    assert np.allclose(outputs.probabilities, expected, atol=1e-6)
    assert np.array_equal(outputs.values, expected.argmax(axis=1))


@pytest.mark.parametrize("kind", ["safetensors", "weights"])
def test_weights_load_and_do_not_predict(net: Any, tmp_path: Path, kind: str) -> None:
    path = save_net(net, tmp_path / "net", kind)
    weights = load_ai_model(path, "torch")
    torch.nn.Sequential(torch.nn.Linear(4, 3)).load_state_dict(weights)
    with pytest.raises(ModelLoadError, match="weights alone") as caught:
        open_predictor(tmp_path, manifest(path, "torch"))
    assert "torch.export.save" in caught.value.hint


def test_a_pickled_module_is_refused_and_nothing_of_it_runs(net: Any, tmp_path: Path) -> None:
    error = failure(save_net(net, tmp_path / "net.pt", "module"), "torch")
    assert error.code == "model_load_failed"
    assert "weights" in str(error).lower()


def test_a_module_in_double_precision_and_for_a_regression(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Linear(4, 1).double().eval()).save(path)
    outputs = open_predictor(tmp_path, manifest(path, "torch", classes=())).predict(ROWS)
    assert outputs.values.shape == (2,)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_model_loads_and_predicts(network: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    network.save(path)
    expected = keras.ops.convert_to_numpy(network(ROWS.astype(np.float32)))
    for model_type in ("keras", "tensorflow"):
        model = load_ai_model(path, model_type, sha256=sha256_of(path))
        assert np.allclose(model.predict(ROWS, verbose=0), expected, atol=1e-6)
    outputs = open_predictor(tmp_path, manifest(path, "keras")).predict(ROWS)
    assert np.allclose(outputs.probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_name_of_a_keras_file_does_not_matter(network: Any, tmp_path: Path, suffix: str) -> None:
    network.save(tmp_path / f"model{suffix}")
    path = (tmp_path / f"model{suffix}").rename(tmp_path / "model.bin")
    assert load_ai_model(path, "keras").predict(ROWS, verbose=0).shape == (2, 3)


def test_one_sigmoid_stands_for_two_classes(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")]).save(path)
    outputs = open_predictor(tmp_path, manifest(path, "keras", classes=("no", "yes"))).predict(ROWS)
    assert outputs.probabilities is not None
    assert np.allclose(outputs.probabilities.sum(axis=1), 1)


def test_another_number_of_features_is_refused(network: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    network.save(path)
    with pytest.raises(ModelLoadError, match="the model has 4 features, its manifest lists 5"):
        open_predictor(tmp_path, manifest(path, "keras", features=5))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_layer_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda rows: rows * 2)]).save(path)
    error = failure(path, "keras")
    assert "Lambda" in str(error)
    assert "register_loader" in error.hint
    facts = inspect_model(path)
    assert facts.runs_code
    assert "Lambda" in facts.why[0]


def test_a_transformers_folder_loads_from_its_safetensors_alone(tmp_path: Path) -> None:
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.BertConfig(**sizes, intermediate_size=8, num_labels=3)
    folder = tmp_path / "bert"
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    model = load_ai_model(folder, "transformers", sha256=sha256_of(folder))
    assert type(model) is transformers.BertForSequenceClassification
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3)
    assert inspect_model(folder).runs_code is False
    with pytest.raises(ModelLoadError, match="takes text or tokens, not numbers"):
        open_predictor(tmp_path, manifest(folder, "transformers"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no safetensors weights" in str(failure(folder, "transformers"))


@pytest.mark.parametrize(
    ("kind", "model_type"),
    [("script", "torch"), ("export", "torch"), ("safetensors", "torch"), ("weights", "torch"), (".keras", "keras")],
)
@pytest.mark.parametrize("part", [0.4, 0.95])
def test_a_truncated_file(net: Any, network: Any, tmp_path: Path, kind: str, model_type: str, part: float) -> None:
    path = tmp_path / "model.keras"
    network.save(path) if kind == ".keras" else save_net(net, path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    error = failure(path, model_type)
    assert error.code == "model_load_failed"
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    ("kind", "model_type", "says"),
    [
        ("script", "keras", "this is a TorchScript file"),
        ("export", "sklearn", "this is an exported PyTorch program"),
        ("safetensors", "onnx", "this is a safetensors file"),
        ("weights", "keras", "this is a file written by torch.save"),
        (".keras", "torch", "this is a Keras file"),
        (".h5", "sklearn", "this is an HDF5 file"),
    ],
)
def test_a_file_of_another_format(
    net: Any, network: Any, tmp_path: Path, kind: str, model_type: str, says: str
) -> None:
    path = tmp_path / f"model{kind if kind.startswith('.') else '.pt'}"
    network.save(path) if kind.startswith(".") else save_net(net, path, kind)
    error = failure(path, model_type)
    assert says in str(error)
    assert error.hint in ("Pass model_type='torch'.", "Pass model_type='keras'.")


def test_an_answer_that_is_no_row_of_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Unflatten(1, (2, 2))).save(path)
    with pytest.raises(InvalidModelOutputError, match="shape"):
        open_predictor(tmp_path, manifest(path, "torch")).predict(ROWS)


def test_inspection_names_what_torch_files_import(net: Any, tmp_path: Path) -> None:
    script = inspect_model(save_net(net, tmp_path / "script", "script"))
    assert (script.format, script.model_type, script.runs_code) == ("torchscript", "torch", True)
    module = inspect_model(save_net(Net(4, 3), tmp_path / "module", "module"))
    assert module.format == "torch_save"
    assert any(name.endswith("Net") for name in module.unusual)
    weights = inspect_model(save_net(net, tmp_path / "weights", "weights"))
    assert weights.unusual == []
    assert "torch._utils._rebuild_tensor_v2" in weights.imports


def test_a_call_hidden_in_a_torch_file_is_seen_and_not_made(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pt"
    torch.save({"weights": torch.zeros(1), "extra": Evil()}, path, pickle_module=pickle)
    assert [name for name in inspect_model(path).unusual if name.endswith("mkdir")]
    assert failure(path, "torch").code == "model_load_failed"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("model_type", ["torch", "keras", "tensorflow"])
@pytest.mark.parametrize("content", [b"hello", bytes(1000), b"\x10\0\0\0\0\0\0\0{}" + bytes(20)])
def test_rubbish(tmp_path: Path, model_type: str, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    error = failure(path, model_type)
    assert error.code == "model_load_failed"
    assert error.message.startswith(f"Failed to load {model_type} model: ")


def test_keras_without_its_backend_names_the_backend(network: Any, tmp_path: Path) -> None:
    """Keras goes to TensorFlow unless told otherwise."""
    path = tmp_path / "model.keras"
    network.save(path)
    script = (
        "import sys; from bulletproof import ModelLoadError, load_ai_model\n"
        "try: load_ai_model(sys.argv[1], 'keras')\n"
        "except ModelLoadError as error: print(error.code, error.hint)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script, path], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "missing_dependency pip install tensorflow"
