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
from bulletproof.models.formats import FORMATS, open_zip, read_json, sniff
from bulletproof.models.onnx_file import read_onnx
from bulletproof.models.pickles import MOST_OPCODES, read_pickle

_MOST_TEXT = 64 << 20
_MOST_MEMBERS = 100
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
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ModelLoadError(f"{path} is a device or a pipe, not a file")
        found = sniff(path)
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        kind = FORMATS[found]
        facts = ModelFacts(
            path, found, kind.label, kind.model_type, sum(file.stat().st_size for file in files), sha256_of(path)
        )
        try:
            _LOOKS.get(found, _look_at_nothing)(facts)
        except (ValueError, KeyError, RecursionError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            facts.runs_code = True
            facts.why.append("it could not be read, so that nothing is known of it")
            facts.notes.append(f"it is damaged or hostile: {str(error)[:200]}")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelLoadError(f"Model file not found: {path}", hint="Check the path.") from error
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror or error}") from error
    facts.unusual = [
        name for name in facts.imports if name not in _USUAL_NAMES and name.partition(".")[0] not in _USUAL
    ]
    return facts


def versions_in(path: Path, found: str, *, most_opcodes: int = MOST_OPCODES) -> dict[str, str]:
    """Return the versions of the libraries that wrote a file, as far as it says.

    Args:
        path: The file.
        found: Its format, a key of ``FORMATS``.
        most_opcodes: Instructions of a pickle that are looked at.
    """
    with path.open("rb") as stream:
        if found in ("pickle", "compressed"):
            version = read_pickle(stream, most_opcodes=most_opcodes, most_bytes=_MOST_TEXT).sklearn
            return {"scikit-learn": version} if version else {}
        if found == "skops":
            match = _SKLEARN_IN_SKOPS.search(_member(stream, "schema.json"))
            return {"scikit-learn": match[1].decode()} if match else {}
        if found == "keras":
            written = _json(_member(stream, "metadata.json")).get("keras_version")
            return {"keras": str(written)[:40]} if written else {}
    return {}


def _look_at_nothing(facts: ModelFacts) -> None:
    """A file that is no pickle to look at, yet may be one without its usual beginning."""
    with facts.path.open("rb") if facts.path.is_file() else io.BytesIO() as stream:
        inside = read_pickle(stream)
    if inside.complete:
        facts.format, facts.label, facts.model_type = "pickle", FORMATS["pickle"].label, "sklearn"
        _look_at_pickle(facts)
    else:
        facts.why.append("no loader takes it as it is")
        facts.notes.extend([FORMATS[facts.format].hint] if FORMATS[facts.format].hint else [])


def _look_at_pickle(facts: ModelFacts) -> None:
    with facts.path.open("rb") as stream:
        _add_pickle(facts, stream, "it")
    facts.runs_code = True
    facts.why.append("loading a pickle runs whatever its author put into it")


def _add_pickle(facts: ModelFacts, stream: BinaryIO, what: str) -> None:
    inside = read_pickle(stream)
    facts.imports.extend(name for name in inside.imports if name not in facts.imports)
    if inside.sklearn:
        facts.saved_with["scikit-learn"] = inside.sklearn
    if not inside.complete:
        facts.notes.append(f"{what} was not read to its end, and may import more: {inside.note}")


def _look_at_skops(facts: ModelFacts) -> None:
    try:
        with facts.path.open("rb") as stream:
            _member(stream, "schema.json")
        facts.imports = list(importlib.import_module("skops.io").get_untrusted_types(file=facts.path))
        facts.saved_with = versions_in(facts.path, "skops")
    except ImportError:
        facts.notes.append("its types were not looked at: pip install 'bulletproof-ai[models]'")
    except Exception as error:  # noqa: BLE001 -- whatever a hostile schema brings about is a finding, not a failure
        facts.notes.append(f"its types cannot be read: {type(error).__name__}: {str(error)[:200]}")
    facts.why.append("skops makes nothing but objects of types that are trusted")
    if facts.imports:
        facts.notes.append(
            "the types listed are not trusted by themselves: it loads with its sha256 given, or not at all"
        )


def _look_at_onnx(facts: ModelFacts) -> None:
    inside = read_onnx(facts.path)
    facts.why.append("an ONNX file has operators and numbers, no code")
    facts.notes.extend([inside.note] if inside.note else [])
    if inside.producer:
        facts.saved_with["producer"] = inside.producer
    if inside.domains:
        facts.notes.append(f"it needs a library of operators of its own: {', '.join(inside.domains)}")
    if inside.external:
        facts.notes.append(
            f"its weights lie in other files, which its checksum leaves out: {', '.join(inside.external)}"
        )


def _look_at_keras(facts: ModelFacts) -> None:
    with facts.path.open("rb") as stream:
        config = _json(_member(stream, "config.json"))
    facts.saved_with = versions_in(facts.path, "keras")
    for layer in _objects_in(config):
        module, name = layer.get("module"), layer.get("class_name")
        if name == "Lambda":
            facts.runs_code = True
        elif isinstance(module, str) and module.partition(".")[0] not in ("keras", "builtins", ""):
            facts.imports.append(f"{module}.{name}"[:300])
    _say_of_lambdas(facts)


def _look_at_hdf5(facts: ModelFacts) -> None:
    with facts.path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        facts.runs_code = data.find(b'"Lambda"') >= 0
    _say_of_lambdas(facts)


def _say_of_lambdas(facts: ModelFacts) -> None:
    if facts.runs_code:
        facts.why.append("it has a Lambda layer, which is code; it is refused unless Keras is told to run it")
    else:
        facts.why.append("it has no Lambda layer")


def _look_at_torch(facts: ModelFacts) -> None:
    with facts.path.open("rb") as stream, open_zip(stream) as archive:
        pickles = [name for name in archive.namelist() if name.endswith((".pkl", "sample_inputs/model.pt"))]
        for name in pickles[:_MOST_MEMBERS]:
            with archive.open(name) as member:
                _add_pickle(facts, _nested(member.read(_MOST_TEXT)), name)
    if facts.format == "torchscript":
        facts.runs_code = True
        facts.why.append("TorchScript is a program: it runs in PyTorch's own interpreter")
    elif facts.format == "torch_export":
        facts.runs_code = True
        facts.why.append("PyTorch unpickles parts of an exported program")
    else:
        facts.why.append("it is a pickle, loaded with weights_only=True, which takes tensors and no other objects")


def _nested(data: bytes) -> BinaryIO:
    """The pickle in what ``torch.save`` wrote, which is an archive of its own."""
    stream = io.BytesIO(data)
    if data.startswith(b"PK"):
        with open_zip(stream) as archive:
            name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            with archive.open(name or archive.namelist()[0]) as member:
                return io.BytesIO(member.read(_MOST_TEXT))
    return stream


def _look_at_safetensors(facts: ModelFacts) -> None:
    facts.why.append("safetensors has numbers alone")
    facts.notes.append("these are weights: they predict nothing without the network that they are for")


def _look_at_folder(facts: ModelFacts) -> None:
    config = read_json(facts.path / "config.json")
    facts.saved_with["transformers"] = str(_mapping(config).get("transformers_version", ""))[:40]
    facts.why.append("only its safetensors weights are read, and none of its code")
    if _mapping(config).get("auto_map"):
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


def _member(stream: BinaryIO, name: str) -> bytes:
    with open_zip(stream) as archive, archive.open(name) as member:
        data = member.read(_MOST_TEXT + 1)
    if len(data) > _MOST_TEXT:
        raise ValueError(f"{name} in it is larger than {_MOST_TEXT:,} bytes")
    return data


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(data: bytes) -> dict[str, Any]:
    return _mapping(json.loads(data))


_LOOKS: dict[str, Callable[[ModelFacts], None]] = {
    "pickle": _look_at_pickle,
    "compressed": _look_at_pickle,
    "skops": _look_at_skops,
    "onnx": _look_at_onnx,
    "keras": _look_at_keras,
    "hdf5": _look_at_hdf5,
    "torchscript": _look_at_torch,
    "torch_export": _look_at_torch,
    "torch_save": _look_at_torch,
    "safetensors": _look_at_safetensors,
    "transformers": _look_at_folder,
}
