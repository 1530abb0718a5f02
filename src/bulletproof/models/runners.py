"""The runner that fits a model."""

from pathlib import Path

from bulletproof.errors import ModelLoadError
from bulletproof.models.local import LocalRunner, start_thread
from bulletproof.models.manifest import Manifest
from bulletproof.models.runner import Runner
from bulletproof.settings import load_settings


async def open_runner(folder: Path, manifest: Manifest) -> Runner:
    """Load a model and return what runs it.

    Args:
        folder: Where the model's file is.
        manifest: What is known of it: ``isolated`` ones run in processes of their own, ``remote`` ones on another
            server, all others in this process.

    Returns:
        The runner; whoever opened it closes it.

    Raises:
        ModelLoadError: The model cannot be loaded.
        ConfigurationError: A library is missing.
    """
    if manifest.type == "remote":
        from bulletproof.models.remote import RemoteRunner

        key = load_settings().remote_model_key
        return RemoteRunner(manifest, api_key=None if key is None else key.get_secret_value())
    if manifest.isolated:
        from bulletproof.models.isolated import IsolatedRunner

        isolated = IsolatedRunner(folder, manifest)
        await isolated.open()
        return isolated
    return await start_thread(lambda: _load(folder, manifest))


def _load(folder: Path, manifest: Manifest) -> LocalRunner:
    from bulletproof.models.loaders.onnx_models import OnnxPredictor
    from bulletproof.models.loading import open_predictor
    from bulletproof.models.onnx_file import read_onnx

    name, file = manifest.title, folder / manifest.file
    try:
        predictor = open_predictor(folder, manifest)
    except Exception:
        raise
    except BaseException as error:  # what the model raised; outside of this thread it would be taken for ours
        raise ModelLoadError(f"{name} cannot be loaded: it raised {type(error).__name__}") from error
    held = sum(part.stat().st_size for part in (file, *file.rglob("*")))
    steady = isinstance(predictor, OnnxPredictor) and read_onnx(file).steady
    return LocalRunner(predictor, name=name, memory_bytes=held, steady=steady)
