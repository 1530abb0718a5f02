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
_DAMAGED = "The file is cut off or damaged: copy it again and compare its size and checksum."
_OURS = "'bulletproof-ai[models]'"
_INSTALLED_AS = {
    **dict.fromkeys(("joblib", "onnxruntime", "pandas", "sklearn", "skops"), _OURS),
    "fsspec": "'bulletproof-ai[remote]'", "keras": "keras tensorflow",
    "cv2": "opencv-python", "yaml": "pyyaml", "PIL": "pillow", "skimage": "scikit-image",
}  # fmt: skip


class WrongFormatError(ValueError):
    """A file of another kind than the type asked for."""

    def __init__(self, found: str) -> None:
        self.kind = FORMATS[found]
        super().__init__(f"this is {self.kind.label}")


def load_failure(
    error: BaseException, model_type: str, path: object, *, other_version: str = "", damaged: bool = False
) -> ModelLoadError:
    """Turn whatever happened during loading into the error that the caller sees.

    Args:
        error: What happened.
        model_type: As the caller gave it.
        path: Of the file.
        other_version: In words, when another version of its library wrote the file.
        damaged: Whether the file is known to end too early or to make no sense.

    Returns:
        To be raised from ``error``.
    """
    code, why, hint = _reason(error, other_version, damaged)
    return ModelLoadError(f"Failed to load {model_type} model: {why}", code=code, hint=hint, path=str(path))


def _reason(error: BaseException, other_version: str, damaged: bool) -> tuple[str, str, str | None]:
    text = " ".join(str(error).split())[:400] or type(error).__name__
    if isinstance(error, WrongFormatError):
        kind = error.kind
        return (
            "model_load_failed",
            text,
            kind.hint or (kind.model_type and f"Pass model_type={kind.model_type!r}.") or None,
        )
    if isinstance(error, ImportError):
        missing, install = missing_library(error)
        if missing:
            return "missing_dependency", f"{missing} is not installed", f"pip install {install}"
    code = classify(error).code
    lowered = text.lower()
    if isinstance(error, MemoryError) or any(words in lowered for words in _MEMORY_WORDS):
        code = "gpu_out_of_memory" if code == "gpu_out_of_memory" else "out_of_memory"
    if code in ("out_of_memory", "gpu_out_of_memory"):
        return code, f"the memory does not suffice ({text})", "Give the process more memory, or use a smaller model."
    if type(error).__name__ == "UntrustedTypesFoundException":
        advice = "Pass the file's sha256 to vouch for types of scikit-learn, or save the model as ONNX."
        return "model_load_failed", text, advice
    if "Lambda" in text and "safe_mode" in text:
        advice = (
            "Replace the Lambda layer, which is code, or load the file with Keras yourself through register_loader."
        )
        return "model_load_failed", text, advice
    if isinstance(error, PermissionError):
        return "model_load_failed", text, "Make the file readable for the user that this process runs as."
    if isinstance(error, _DAMAGE) or damaged:
        return "model_load_failed", text, _DAMAGED
    if other_version:
        return "model_load_failed", f"{text}; {other_version}", "Install the version that wrote it, or save it again."
    if isinstance(error, AttributeError) and "__main__" in text:
        advice = "Move the class into a module that can be imported here, and save the model again."
        return "model_load_failed", text, advice
    return "model_load_failed", text, None


def missing_library(error: ImportError) -> tuple[str, str]:
    """Return the module that is missing and what to install for it.

    Both are empty when only a part of a library is missing, as after a change of versions.
    """
    for one in (error, error.__cause__):
        root = (one.name or "").partition(".")[0] if isinstance(one, ModuleNotFoundError) else ""
        if root.isidentifier() and not _is_there(root):
            return root, _INSTALLED_AS.get(root, root)
    return "", ""


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
