"""A model behind another service like this one: added, verified and asked by both protocols."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bulletproof.errors import ExternalServiceError
from bulletproof.models import Feature, InputSchema, ModelRegistry, ModelServer

ANY = InputSchema(features=tuple(Feature(name=name) for name in ("sl", "sw", "pl", "pw")))
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


async def test_another_service_answers_by_both_protocols(serve: Callable[..., str], tmp_path: Path) -> None:
    far, near = ModelRegistry(tmp_path / "data" / "models"), ModelRegistry(tmp_path / "near")
    iris = far.manifest()
    far.add("flower", "v1.0", far.folder_of(iris) / iris.file, input=iris.input, output=iris.output)
    address = serve()
    tensors = f"{address}/v2/models/flower"
    for name, version, url in (
        ("flower", "v1.0", address), ("flower", "v9.0", address),
        ("tensors", "v1.0", f"{tensors}/versions/v1.0"), ("tensors", "v9.0", f"{tensors}/versions/v9.0"),
    ):  # fmt: skip
        near.add(name, version, url, type="remote", input=ANY, output=iris.output, verify=version == "v1.0")
    near.add("tensors", "v2.0", tensors, type="remote", input=ANY, output=iris.output, verify=True)
    for name in ("flower", "tensors"):
        found = {row.version: row.problem for row in near.verify(name)}
        assert found.pop("v9.0")
        assert not any(found.values())
    server = ModelServer(near)
    try:
        answers = [
            (await server.predict(ROWS, model=name, version=version)).predictions
            for name, version in (("iris", "v1.0"), ("flower", "v1.0"), ("tensors", "v1.0"), ("tensors", "v2.0"))
        ]
        assert [row.label for row in answers[0]] == ["setosa", "virginica"]
        for rows in answers[1:]:
            assert [row.label for row in rows] == ["setosa", "virginica"]
            assert [row.confidence for row in rows] == pytest.approx([row.confidence for row in answers[0]], abs=1e-6)
        for name in ("flower", "tensors"):
            with pytest.raises(ExternalServiceError, match=r"petal length must be from 0 to .* \(row 0, index 2\)"):
                await server.predict([[5.1, 3.5, 999, 0.2]], model=name, version="v1.0")
            with pytest.raises(ExternalServiceError, match=r"no version 'v9\.0' of flower: there is v1\.0"):
                await server.predict(ROWS, model=name, version="v9.0")
    finally:
        await server.aclose()
