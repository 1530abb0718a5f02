"""Why a model could not be loaded, in words that help."""

import importlib.util
import lzma
import pickle
import zipfile
import zlib

from bulletproof.errors import ModelLoadError, classify
from bulletproof.models.formats import FORMATS

_DAMAGE = (EOFError, pickle.UnpicklingError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
_MEMORY_WORDS = ("bad_alloc", "bad allocation", "failed to allocate memory", "out of memory", "not enough memory")
_DAMAGED = "Copy the file again and compare its size and checksum."
_OTHER = "Check that this is the model's own file, and copy it again if it may be damaged."
_VERSION = "Install the version of the library that wrote it, or save the model again with the one installed."
_VOUCH = "Pass the file's sha256 to vouch for types of scikit-learn, or save the model as ONNX."
_LAMBDA = "Replace the Lambda layer, which is code, or load the file with Keras yourself through register_loader."
_MOVE = "Move the class into a module that can be imported here, and save the model again."
_ENDS = "Loading it runs code that ends the process: load only files that you trust."
_UNKNOWN = (
    "Install the package that defines {0}, or put it on the import path. Ask the author of the model which package "
    "that is: one that merely has the same name may be anybody's."
)
_LONG = 400
_OURS = "'bulletproof-ai[models]'"
# What pip calls the libraries that models are made of. For no other module is a name guessed.
_INSTALLED_AS = {
    **{name: name for name in (
        "adlfs", "aiohttp", "catboost", "dask", "fastai", "gcsfs", "h5py", "lightgbm", "nltk", "numpy", "onnx",
        "paramiko", "polars", "s3fs", "safetensors", "scipy", "skorch", "spacy", "statsmodels", "tensorflow", "torch",
        "torchvision", "transformers", "xgboost",
    )},
    **dict.fromkeys(("joblib", "onnxruntime", "pandas", "sklearn", "skops"), _OURS),
    "fsspec": "'bulletproof-ai[remote]'", "keras": "keras tensorflow",
    "cv2": "opencv-python", "yaml": "pyyaml", "PIL": "pillow", "skimage": "scikit-image",
    "imblearn": "imbalanced-learn", "category_encoders": "category-encoders",
}  # fmt: skip


class RefusedError(ValueError):
    """What we say ourselves, in words that need no name of an exception before them."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(message)


class WrongFormatError(RefusedError):
    """A file of another kind than the type asked for."""

    def __init__(self, found: str, takes: str = "") -> None:
        label, model_type, hint = FORMATS[found]
        what = [label] * (found != "unknown" or not takes)
        what += [f"no {takes} file"] * (found in ("unknown", "text") and bool(takes))
        hint = hint or (f"Pass model_type={model_type!r}." if model_type else _OTHER)
        super().__init__(f"this is {', '.join(what)}", hint)


def load_failure(
    error: BaseException, model_type: str, path: object, *, other_version: str = "", damaged: bool = False
) -> ModelLoadError:
    """Turn whatever happened during loading into the error that the caller sees, to be raised from it."""
    text = " ".join(str(error).split())
    code, hint = "model_load_failed", _hint(error, text, other_version, damaged)
    if not isinstance(error, RefusedError):
        name = type(error).__name__
        name = f"{type(error).__module__}.{name}" if name == "error" else name  # as zlib's
        text = f"{name}{text and ': '}{text}"
    if hint == _DAMAGED and not isinstance(error, RefusedError):
        text = f"the file is cut off or damaged ({text})"
    if len(text) > _LONG:  # what matters stands at either end
        text = f"{text[: _LONG // 2]} ... {text[-_LONG // 2 :]}"
    missing, install = missing_library(error) if isinstance(error, ImportError) else ("", "")
    if missing:
        code, text = "missing_dependency", f"the module {missing} is not installed"
        hint = f"pip install {install}" if install else _UNKNOWN.format(missing)
    elif code_of_memory := _lack_of_memory(error, text):
        code, text = code_of_memory, f"the memory does not suffice ({text})"
        hint = "Give the process more memory, or use a smaller model."
    elif other_version and hint == _VERSION:
        text = f"{text}; {other_version}"
    return ModelLoadError(f"Failed to load {model_type} model: {text}", code=code, hint=hint, path=str(path))


def _hint(error: BaseException, text: str, other_version: str, damaged: bool) -> str | None:
    name = type(error).__name__
    hints = (
        (isinstance(error, RefusedError), getattr(error, "hint", None)),
        (isinstance(error, SystemExit), _ENDS),
        (name == "UntrustedTypesFoundException", _VOUCH),
        ("Lambda" in text and "safe_mode" in text, _LAMBDA),
        (isinstance(error, PermissionError), "Make the file readable for the user that this process runs as."),
        (damaged or isinstance(error, _DAMAGE) or name == "InvalidProtobuf", _DAMAGED),
        (isinstance(error, AttributeError) and "__main__" in text, _MOVE),
        (
            " IR version" in text or "opset" in text.lower(),
            "Upgrade onnxruntime, or export the model for an older opset.",
        ),
        (bool(other_version) or isinstance(error, ImportError | AttributeError), _VERSION),
    )
    return next((hint for applies, hint in hints if applies), None)


def _lack_of_memory(error: BaseException, text: str) -> str:
    code = classify(error).code
    if code in ("out_of_memory", "gpu_out_of_memory"):
        return code
    return "out_of_memory" if any(words in text.lower() for words in _MEMORY_WORDS) else ""


def missing_library(error: ImportError) -> tuple[str, str]:
    """Return the module that is missing and what to install for it; the latter is empty where that is not known.

    Both are empty when only a part of a library is missing, as after a change of versions.
    """
    for one in (error, error.__cause__):
        root = (one.name or "").partition(".")[0] if isinstance(one, ModuleNotFoundError) else ""
        if root.isidentifier() and not _is_there(root):
            return root, _INSTALLED_AS.get(root, "")
    return "", ""


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
