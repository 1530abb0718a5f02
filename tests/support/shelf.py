"""Puts models on the shelf of a service: the folder ``models`` in its data folder."""

from pathlib import Path
from typing import Any

import joblib

from bulletproof.models import Feature, InputSchema, Limits, Manifest, ModelRegistry, OutputSchema

TWO = InputSchema(features=(Feature(name="deed"), Feature(name="sign", minimum=-1000, maximum=1000)))
CLASSES = OutputSchema(classes=("negative", "positive"))


def shelve(data_dir: Path, model: Any, name: str = "hostile", version: str = "v1.0", **more: Any) -> Manifest:
    """Save a model with joblib and add it to the registry of a service; limits by their names."""
    data_dir.mkdir(parents=True, exist_ok=True)
    limits = Limits(**{key: more.pop(key) for key in list(more) if key in Limits.model_fields})
    file = data_dir / f"{name}-{version}.joblib"
    joblib.dump(model, file)
    more = {"type": "sklearn", "input": TWO, "output": CLASSES, "limits": limits, **more}
    return ModelRegistry(data_dir / "models").add(name, version, file, **more)
