"""Say what a model file is and what loading it would do, without loading it."""

import importlib
import io
import json
import mmap
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from bulletproof.errors import ModelLoadError
from bulletproof.models.checksums import sha256_of
from bulletproof.models.formats import FORMATS, member_of, open_zip, read_json, sniff
from bulletproof.models.onnx_file import read_onnx
from bulletproof.models.pickles import MOST_OPCODES, read_pickle

# What archives and texts bring about that are damaged or hostile.
UNREADABLE = (ValueError, KeyError, RecursionError, zipfile.BadZipFile, zlib.error, NotImplementedError)
_MOST_MEMBERS = 100
# Whether loading a file can run code that stands in it, and why.
_CODE: dict[str, tuple[bool, str]] = {
    "pickle": (True, "loading a pickle runs whatever its author put into it"),
    "compressed": (True, "loading a pickle runs whatever its author put into it"),
    "skops": (False, "skops makes nothing but objects of types that are trusted"),
    "onnx": (False, "an ONNX file has operators and numbers, no code"),
    "keras": (False, "it has no Lambda layer"),
    "hdf5": (False, "it has no Lambda layer"),
    "torchscript": (True, "TorchScript is a program: it runs in PyTorch's own interpreter"),
    "torch_export": (True, "PyTorch unpickles parts of an exported program"),
    "torch_save": (False, "it is a pickle, loaded with weights_only=True, which takes tensors and no other objects"),
    "safetensors": (False, "safetensors has numbers alone"),
    "transformers": (False, "only its safetensors weights are read, and none of its code"),
}
_LAMBDA = "it has a Lambda layer, which is code; it is refused unless Keras is told to run it"
# Folders, and archives, whose beginning no unpickler follows; what else says that it runs no code is read as a pickle.
_SURE = frozenset((
    "skops", "keras", "torch_save", "zip", "broken_zip", "transformers", "saved_model", "hdf5", "onnx",
))  # fmt: skip
# What models of these libraries are made of; whatever else a file imports deserves a look.
_USUAL = frozenset((
    "_codecs", "catboost", "collections", "copy_reg", "copyreg", "lightgbm", "numpy", "pandas", "scipy",
    "sklearn", "torch", "__torch__", "xgboost",
))  # fmt: skip
_USUAL_NAMES = {"joblib.numpy_pickle.NumpyArrayWrapper"}.union(
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set",
                 "slice", "str", "tuple", "type")
)  # fmt: skip
_SKLEARN_IN_SKOPS = re.compile(rb'"_sklearn_version":\s*\{[^{}]{0,300}?"content":\s*"\\"([^"\\]{1,40})')


@dataclass(slots=True)
class ModelFacts:
    """What is known of a model file that was not loaded.

    Args:
        path: The file or folder.
        format: A key of ``bulletproof.models.formats.FORMATS``, such as ``pickle``, ``skops``, ``onnx``, ``keras``.
        label: The same for people, such as ``an ONNX file``.
        model_type: The ``model_type`` that loads it; empty when none does.
        size: In bytes; of a folder the sum of its files.
        sha256: Checksum in hexadecimal digits.
        runs_code: Whether loading it can run code that stands in it.
        why: Reasons for that, or for why it cannot.
        imports: What it would import, or the types that it is made of, as far as they are not the format's own.
        unusual: Those of them that a model has no need of.
        saved_with: Versions of the libraries that wrote it.
        notes: What else to know: files it needs beside it, parts that could not be read, ...
    """

    path: Path
    format: str
    label: str
    model_type: str
    size: int
    sha256: str
    runs_code: bool = False
    why: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    saved_with: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def inspect_model(path: str | os.PathLike[str]) -> ModelFacts:
    """Say what a model file is, whether loading it can run code, and what it would import.

    Nothing of it is loaded or imported, and time and memory are bounded whatever stands in it, but for the checksum,
    which takes as long as reading the file.

    Args:
        path: The file, or a folder of the transformers library.

    Returns:
        What was found.

    Raises:
        ModelLoadError: It is missing or may not be read.

    Example:
        >>> import pickle, tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(pickle.dumps(print))
        ...     file.flush()
        ...     facts = inspect_model(file.name)
        >>> facts.format, facts.runs_code, facts.unusual
        ('pickle', True, ['builtins.print'])
    """
    if not os.fspath(path):
        raise ModelLoadError("the path is empty", hint="Name the model file.")
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ModelLoadError(
                f"{path} is a device or a pipe, not a file", hint="Copy what it gives into a file, and name that."
            )
        found = sniff(path)
        if found == "folder":
            raise ModelLoadError(f"{path} is a folder, not a file", hint="Name the model file inside it.")
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        facts = ModelFacts(path, found, "", "", sum(file.stat().st_size for file in files), sha256_of(path))
        with path.open("rb") if path.is_file() else io.BytesIO() as stream:
            _look(facts, stream)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelLoadError(f"Model file not found: {path}", hint="Check the path.") from error
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error
    facts.unusual = [
        name for name in facts.imports if name not in _USUAL_NAMES and name.partition(".")[0] not in _USUAL
    ]
    return facts


def versions_in(path: Path, found: str, *, most_opcodes: int = MOST_OPCODES) -> dict[str, str]:
    """Return the versions of the libraries that wrote a file, as far as it says."""
    version, library = "", "scikit-learn"
    with path.open("rb") as stream:
        if found in ("pickle", "compressed"):
            version = read_pickle(stream, most_opcodes=most_opcodes).sklearn
        elif found == "skops":
            match = _SKLEARN_IN_SKOPS.search(member_of(stream, "schema.json"))
            version = match[1].decode() if match else ""
        elif found == "keras":
            metadata = _mapping(json.loads(member_of(stream, "metadata.json")))
            version, library = str(metadata.get("keras_version", "")), "keras"
    return {library: version[:40]} if version else {}


def _look(facts: ModelFacts, stream: BinaryIO) -> None:
    facts.label, facts.model_type, hint = FORMATS[facts.format]
    facts.runs_code, why = _CODE.get(facts.format, (False, "no loader takes it as it is"))
    facts.notes.extend([hint] if hint else [])
    try:
        if facts.format in _LOOKS:
            _LOOKS[facts.format](facts, stream)
    except UNREADABLE as error:
        facts.runs_code, why = True, "it could not be read, so that nothing is known of it"
        facts.notes.append(f"it is damaged or hostile: {str(error)[:200]}")
    if not facts.runs_code and facts.size and facts.format not in _SURE and read_pickle(stream).runs:
        facts.runs_code, why = True, "what unpickles it runs code: its bytes make sense as a pickle as well"
        _look_at_pickle(facts, stream)
    facts.why.append(_LAMBDA if facts.runs_code and facts.format in ("keras", "hdf5") else why)


def _look_at_pickle(facts: ModelFacts, stream: BinaryIO, what: str = "it") -> None:
    inside = read_pickle(stream)
    facts.imports.extend(name for name in inside.imports if name not in facts.imports)
    if inside.sklearn:
        facts.saved_with["scikit-learn"] = inside.sklearn
    if inside.note:
        facts.notes.append(f"{what} was not read to its end, and may import more: {inside.note}")


def _look_at_skops(facts: ModelFacts, _stream: BinaryIO) -> None:
    facts.saved_with = versions_in(facts.path, "skops")
    try:
        facts.imports = list(importlib.import_module("skops.io").get_untrusted_types(file=facts.path))
    except ImportError:
        facts.notes.append("its types were not looked at: pip install 'bulletproof-ai[models]'")
    except Exception as error:  # noqa: BLE001 -- whatever a hostile schema brings about is a finding, not a failure
        facts.notes.append(f"its types cannot be read: {type(error).__name__}: {str(error)[:200]}")
    if facts.imports:
        facts.notes.append("the types listed are not trusted by themselves: it loads with its sha256 given")


def _look_at_onnx(facts: ModelFacts, _stream: BinaryIO) -> None:
    inside = read_onnx(facts.path)
    facts.notes.extend([inside.note] if inside.note else [])
    facts.saved_with.update({"producer": inside.producer} if inside.producer else {})
    if inside.domains:
        facts.notes.append(f"it needs a library of operators of its own: {', '.join(inside.domains)}")
    if inside.external:
        facts.notes.append(
            f"its weights lie in other files, which its checksum leaves out: {', '.join(inside.external)}"
        )


def _look_at_keras(facts: ModelFacts, stream: BinaryIO) -> None:
    for layer in _objects_in(json.loads(member_of(stream, "config.json"))):
        module, name = layer.get("module"), layer.get("class_name")
        if name == "Lambda":
            facts.runs_code = True
        elif isinstance(module, str) and module.partition(".")[0] not in ("keras", "builtins", ""):
            facts.imports.append(f"{module}.{name}"[:300])
    facts.saved_with = versions_in(facts.path, "keras")


def _look_at_hdf5(facts: ModelFacts, stream: BinaryIO) -> None:
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        facts.runs_code = data.find(b'"Lambda"') >= 0


def _look_at_torch(facts: ModelFacts, stream: BinaryIO) -> None:
    with open_zip(stream) as archive:
        names = [name for name in archive.namelist() if name.endswith((".pkl", "sample_inputs/model.pt"))]
    for name in names[:_MOST_MEMBERS]:
        inner = io.BytesIO(member_of(stream, name))
        if inner.getvalue().startswith(b"PK"):  # what torch.save wrote is an archive of its own
            with open_zip(inner) as nested:
                found = [one for one in nested.namelist() if one.endswith("/data.pkl")]
            inner = io.BytesIO(member_of(inner, found[0]) if found else b"")
        _look_at_pickle(facts, inner, name)


def _look_at_safetensors(facts: ModelFacts, _stream: BinaryIO) -> None:
    facts.notes.append("these are weights: they predict nothing without the network that they are for")


def _look_at_folder(facts: ModelFacts, _stream: BinaryIO) -> None:
    config = _mapping(read_json(facts.path / "config.json"))
    facts.saved_with["transformers"] = str(config.get("transformers_version", ""))[:40]
    if config.get("auto_map"):
        facts.notes.append("it brings code of its own, which is not run")
    if not any(facts.path.glob("*.safetensors")):
        facts.notes.append("it has no safetensors weights, so that it cannot be loaded")


def _objects_in(config: Any) -> Iterator[dict[str, Any]]:
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


_LOOKS: dict[str, Callable[[ModelFacts, BinaryIO], None]] = {
    "pickle": _look_at_pickle,
    "compressed": _look_at_pickle,
    "skops": _look_at_skops,
    "onnx": _look_at_onnx,
    "keras": _look_at_keras,
    "hdf5": _look_at_hdf5,
    **dict.fromkeys(("torchscript", "torch_export", "torch_save"), _look_at_torch),
    "safetensors": _look_at_safetensors,
    "transformers": _look_at_folder,
}
