"""What models of the tests take and give, and what a folder of them holds."""

from pathlib import Path
from typing import Any

from bulletproof.models import Feature, InputSchema, OutputSchema

TAKES = InputSchema(features=tuple(Feature(name=name, minimum=0, maximum=30) for name in "abcd"))
GIVES = OutputSchema(classes=("setosa", "versicolor", "virginica"))
WHAT: dict[str, Any] = {"type": "onnx", "input": TAKES, "output": GIVES}


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
