"""Load a model: whatever goes wrong is one kind of error that says what and why."""

import errno
import hashlib
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from bulletproof.errors import CircuitOpenError, ModelLoadError
from bulletproof.models.checksums import sha256_of
from bulletproof.models.formats import FORMATS, sniff, sniff_stream
from bulletproof.models.inspection import UNREADABLE, versions_in
from bulletproof.models.load_failures import RefusedError, WrongFormatError, load_failure
from bulletproof.models.loaders import (
    keras_models,
    onnx_models,
    sklearn_models,
    torch_models,
    transformers_models,
)
from bulletproof.models.loaders.loader import Loader, ModelFile
from bulletproof.models.manifest import Manifest
from bulletproof.models.pickles import read_pickle
from bulletproof.models.predictor import Predictor
from bulletproof.models.sources import fetch_model
from bulletproof.resilience import RetryPolicy

logger = logging.getLogger("bulletproof.models")

_LOADERS: dict[str, Loader] = {
    "keras": keras_models.LOADER,
    "onnx": onnx_models.LOADER,
    "sklearn": sklearn_models.LOADER,
    "tensorflow": keras_models.LOADER,
    "torch": torch_models.LOADER,
    "transformers": transformers_models.LOADER,
}
_SHA256 = re.compile("[0-9a-fA-F]{64}")
# What network drives answer for a moment, while their server starts anew or their connection is made again.
_PASSING = frozenset((errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT))


def _passes(error: BaseException) -> bool:
    return any(isinstance(one, OSError) and one.errno in _PASSING for one in (error, error.__cause__))


_RETRY = RetryPolicy(max_attempts=3, base_delay=0.2, retry_on=_passes)


def load_ai_model(model_path: str | os.PathLike[str], model_type: str = "sklearn", *, sha256: str | None = None) -> Any:
    """Load a model from a file.

    Where the file lies on a network drive that fails for a moment, it is tried again.

    Args:
        model_path: The file; for ``transformers`` the folder. A URL such as ``s3://bucket/key`` or ``https://...`` is
            fetched first, as ``fetch_model`` does it.
        model_type: ``sklearn`` (joblib, pickle, skops), ``onnx``, ``keras`` or ``tensorflow``, ``torch`` (TorchScript,
            exported programs, safetensors weights), ``transformers``, or one given to ``register_loader``.
        sha256: Checksum that the file must have, in hexadecimal digits. Loading a pickle, joblib, TorchScript or Keras
            file can run code that stands in it: give the checksum when the file comes from elsewhere.

    Returns:
        The library's own object: an estimator, an ``onnxruntime.InferenceSession``, a module, ...

    Raises:
        CircuitOpenError: The host of the URL failed too often.
        ModelLoadError: It cannot be loaded; ``code`` is ``model_load_failed``, ``model_tampered``,
            ``missing_dependency``, ``out_of_memory`` or ``gpu_out_of_memory``, ``hint`` says what to do, and
            ``__cause__`` is the library's own error.

    Example:
        >>> load_ai_model("no/such/model.joblib")
        Traceback (most recent call last):
        bulletproof.errors.taxonomy.ModelLoadError: Model file not found: no/such/model.joblib
    """
    return _load(model_path, model_type, sha256)[1]


def open_predictor(folder: Path, manifest: Manifest) -> Predictor:
    """Load the version that a manifest describes, after its checksum was verified.

    Args:
        folder: Where its file lies.
        manifest: Of the version; not a remote one.

    Returns:
        What predicts.

    Raises:
        ModelLoadError: As ``load_ai_model``; or the model is not what the manifest says.
    """
    path = folder / manifest.file
    loader, model = _load(path, manifest.type, manifest.sha256)
    try:
        return loader.adapt(model, manifest, path)
    except ModelLoadError:
        raise
    except Exception as error:
        raise load_failure(error, manifest.type, path) from error


def register_loader(
    model_type: str,
    load: Callable[[Path], Any],
    *,
    predictor: Callable[[Any, Manifest], Predictor] | None = None,
) -> None:
    """Add a type of model, or replace one.

    A worker process starts anew and knows only the loaders that modules register when they are imported.

    Args:
        model_type: Its name.
        load: Gets the path; returns the model.
        predictor: Makes a ``Predictor`` of the model; by default it is taken for an estimator with ``predict``.

    Example:
        >>> register_loader("constant", lambda path: float(path.read_text()))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "constant.txt")
        ...     _ = file.write_text("0.5")
        ...     load_ai_model(file, "constant")
        0.5
    """
    adapt = (
        sklearn_models.SklearnPredictor if predictor is None else lambda model, manifest, _: predictor(model, manifest)
    )
    _LOADERS[model_type] = Loader(
        load=lambda file: load(file.path), adapt=adapt, formats=frozenset(FORMATS), folders=True
    )


def _load(model_path: str | os.PathLike[str], model_type: str, sha256: str | None) -> tuple[Loader, Any]:
    loader: Loader | None = None
    try:
        loader = _loader_of(model_type)
        _check_arguments(model_path, sha256)
        if isinstance(model_path, str) and "://" in model_path:
            with tempfile.TemporaryDirectory(prefix="bulletproof-") as folder:
                path = fetch_model(model_path, Path(folder, "model"), sha256=sha256)
                return loader, _load_with(loader, model_type, path, sha256)
        return loader, _RETRY.call(_load_with, loader, model_type, Path(model_path), sha256)
    except (CircuitOpenError, ModelLoadError):
        raise
    except (Exception, SystemExit) as error:  # a pickle may well end the process; it does not end ours
        raise load_failure(error, model_type, model_path) from error


def _loader_of(model_type: str) -> Loader:
    try:
        return _LOADERS[model_type]
    except (KeyError, TypeError):
        known = ", ".join(sorted(_LOADERS))
        raise RefusedError(
            f"Unsupported model type: {model_type}; known are {known}",
            "Pass one of them as model_type, or add the type with register_loader.",
        ) from None


def _kind(value: object) -> str:
    return "None" if value is None else f"of the type {type(value).__name__}"


def _check_arguments(model_path: object, sha256: object) -> None:
    if not isinstance(model_path, str | os.PathLike):
        raise RefusedError(
            f"the path must be a text or a Path, not {_kind(model_path)}", "Pass the path of the model file."
        )
    if not os.fspath(model_path):
        raise RefusedError("the path is empty", "Pass the path of the model file; look where the value came from.")
    if sha256 is not None and not isinstance(sha256, str):
        raise RefusedError(
            f"sha256 must be a text, not {_kind(sha256)}", "Pass the checksum as 64 hexadecimal digits, or None."
        )


def _load_with(loader: Loader, model_type: str, path: Path, sha256: str | None) -> Any:
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelLoadError(
            f"Model file not found: {path}", hint=f"Check the path; relative ones begin at {Path.cwd()}."
        ) from error
    if stat.S_ISDIR(facts.st_mode):
        return _load_folder(loader, path, sha256)
    if not stat.S_ISREG(facts.st_mode):
        raise RefusedError("this is a device or a pipe, not a file", "Copy what it gives into a file, and name that.")
    with path.open("rb") as stream:
        before = os.fstat(stream.fileno())
        if before.st_size == 0:
            raise RefusedError(
                "the file is empty", "Copy it again: the transfer may have failed, or the disk was full."
            )
        if sha256 is not None:
            _compare(path, hashlib.file_digest(stream, "sha256").hexdigest(), sha256)
        found = sniff_stream(stream)
        _accept(loader, found)
        other = _other_version(path, found)
        if other:
            logger.warning("a model was saved with another version: %s", other, extra={"path": str(path)})
        try:
            model = _checked(loader, ModelFile(path, stream, found, sha256 is not None))
        except ModelLoadError:
            raise
        except (Exception, SystemExit) as error:
            damaged = found in ("pickle", "compressed") and read_pickle(stream).damaged
            raise load_failure(error, model_type, path, other_version=other, damaged=damaged) from error
        after = path.stat()
    if sha256 is not None and (before.st_ino, before.st_size, before.st_mtime_ns) != (
        after.st_ino, after.st_size, after.st_mtime_ns,
    ):  # fmt: skip
        raise RefusedError("the file changed while it was loaded", "Load it again once it is written.")
    return model


def _other_version(path: Path, found: str) -> str:
    """Say which version of its library wrote the file, when it is another than the one installed."""
    try:
        for library, written in versions_in(path, found, most_opcodes=20_000).items():
            installed = metadata.version(library)
            if installed != written:
                return f"it was saved with {library} {written}, and {installed} is installed"
    except (*UNREADABLE, metadata.PackageNotFoundError):
        return ""  # for the library to judge
    return ""


def _load_folder(loader: Loader, path: Path, sha256: str | None) -> Any:
    found = sniff(path)
    if not loader.folders:
        raise WrongFormatError(found)
    _accept(loader, found)
    if sha256 is not None:
        _compare(path, sha256_of(path), sha256)
    return _checked(loader, ModelFile(path, None, found, sha256 is not None))


def _accept(loader: Loader, found: str) -> None:
    if found not in loader.formats and (found != "unknown" or loader.takes):
        raise WrongFormatError(found, loader.takes)


def _compare(path: Path, actual: str, expected: str) -> None:
    if actual != expected.strip().lower():
        raise ModelLoadError(
            f"the model file has the checksum {actual[:16]}... and should have {expected.strip().lower()[:16]}...",
            code="model_tampered",
            path=str(path),
            hint=None
            if _SHA256.fullmatch(expected.strip())
            else "A SHA-256 is 64 hexadecimal digits; this one is not.",
        )


def _checked(loader: Loader, file: ModelFile) -> Any:
    model = loader.load(file)
    if model is None:
        raise RefusedError(
            "Model loaded but is None", "It was saved from a variable that held no model: save the fitted model again."
        )
    loader.check(model)
    return model
