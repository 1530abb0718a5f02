"""Folders as the transformers library saves them: safetensors weights alone, no code of theirs, nothing fetched."""

from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from bulletproof.errors import ModelLoadError
from bulletproof.models.formats import read_json
from bulletproof.models.load_failures import RefusedError
from bulletproof.models.loaders.loader import Loader, ModelFile
from bulletproof.models.manifest import Manifest


def _load(file: ModelFile) -> Any:
    transformers = import_module("transformers")
    import_module("torch")
    if not any(file.path.glob("*.safetensors")):
        raise RefusedError("the folder has no safetensors weights", "Save it with model.save_pretrained(folder).")
    config = read_json(file.path / "config.json")
    names = config.get("architectures") if isinstance(config, dict) else None
    found = getattr(transformers, str(names[0]), None) if isinstance(names, list) and names else None
    known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    model_class: Any = found if known else transformers.AutoModel
    model = model_class.from_pretrained(
        str(file.path), local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.eval()


def _adapt(_model: Any, manifest: Manifest, _path: Path) -> NoReturn:
    raise ModelLoadError(
        f"{manifest.title}: a model of the transformers library takes text or tokens, not numbers",
        hint="Use load_ai_model and call it with its tokenizer, or export a network over numbers as ONNX.",
    )


LOADER = Loader(load=_load, adapt=_adapt, formats=frozenset({"transformers"}), folders=True)
