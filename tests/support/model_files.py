"""Files that are loaded as models, and what comes of it."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from bulletproof.errors import ModelLoadError
from bulletproof.models import load_ai_model


def failure(path: Any, model_type: str = "sklearn", **more: Any) -> ModelLoadError:
    with pytest.raises(ModelLoadError) as caught:
        load_ai_model(path, model_type, **more)
    return caught.value


def save(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path
