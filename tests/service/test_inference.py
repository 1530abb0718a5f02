"""The Open Inference Protocol v2, spoken by a public client to a real server."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from bulletproof.errors import InputValidationError
from bulletproof.service.tensors import as_bytes, rows_of, tensor

ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], dtype=np.float32)


def tensor_of(rows: Any, datatype: str = "FP32", *, binary: bool = False) -> Any:
    one = triton.InferInput("input", list(rows.shape), datatype)
    one.set_data_from_numpy(rows, binary_data=binary)
    return one


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, serve_in: Callable[[Path], Any]) -> Iterator[str]:
    server = serve_in(tmp_path_factory.mktemp("v2"))
    yield server().removeprefix("http://")
    server.stop()


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def test_a_public_client_finds_its_way(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.is_model_ready("iris", "v1.1")
    assert not client.is_model_ready("rose")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    metadata = client.get_model_metadata("iris")
    assert metadata["versions"] == ["v1.0", "v1.1"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 4]}]
    assert [output["name"] for output in metadata["outputs"]] == ["prediction", "confidence", "label"]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("outputs", [None, ["label", "prediction"]])
def test_a_public_client_infers(client: triton.InferenceServerClient, binary: bool, outputs: list[str] | None) -> None:
    wanted = None if outputs is None else [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs]
    result = client.infer("iris", [tensor_of(ROWS, binary=binary)], outputs=wanted, request_id="mine")
    assert result.as_numpy("prediction").tolist() == [0, 2]
    assert [_text(label) for label in result.as_numpy("label")] == ["setosa", "virginica"]
    assert (result.get_response()["id"], result.get_response()["model_version"]) == ("mine", "v1.0")
    assert (result.as_numpy("confidence") is None) == (outputs is not None)


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)


@pytest.mark.parametrize(("datatype", "kind"), [("FP64", np.float64), ("INT32", np.int32), ("UINT8", np.uint8)])
async def test_the_asynchronous_client_infers_by_version_with_any_number_type(
    address: str, datatype: str, kind: Any
) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        rows = tensor_of(ROWS.astype(kind)[:1], datatype)
        result = await client.infer("iris", [rows], model_version="v1.1", timeout=2_000_000)
        assert result.as_numpy("prediction").shape == (1,)
        assert result.get_response()["model_version"] == "v1.1"


@pytest.mark.parametrize(
    ("send", "status", "said"),
    [
        (lambda c: c.infer("rose", [tensor_of(ROWS)]), "404", "iris"),
        (lambda c: c.infer("iris", [tensor_of(ROWS)], model_version="v9.9"), "404", "v1.0, v1.1"),
        (lambda c: c.infer("iris", [tensor_of(ROWS[:, :3])]), "422", "expected 4"),
        (lambda c: c.infer("iris", [tensor_of(np.full((1, 4), math.nan, np.float32), binary=True)]), "422", "NaN"),
        (lambda c: c.infer("iris", [tensor_of(ROWS)], outputs=[triton.InferRequestedOutput("logits")]), "422",
         "prediction"),
        (lambda c: c.infer("iris", [tensor_of(ROWS)], outputs=[triton.InferRequestedOutput("label", class_count=2)]),
         "422", "classification"),
        (lambda c: c.infer("iris", [tensor_of(ROWS), tensor_of(ROWS)]), "422", "one tensor"),
        (lambda c: c.infer("iris", [tensor_of(ROWS)], request_compression_algorithm="gzip"), "415", "compressed"),
        (lambda c: c.get_model_metadata("rose"), "404", "iris"),
    ],
)  # fmt: skip
def test_a_public_client_is_told_what_is_wrong(
    client: triton.InferenceServerClient, send: Callable[[Any], Any], status: str, said: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        send(client)
    assert caught.value.status() == status
    assert said in caught.value.message()


def test_an_error_has_our_own_keys_as_well(address: str) -> None:
    found = httpx.post(f"http://{address}/v2/models/iris/infer", content=b"{").json()
    assert found["code"] == "invalid_request"
    assert found["error"].startswith("Invalid request: the body is not valid JSON")


GOOD: dict[str, Any] = {"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "x"}, "named 'x'"), ({"datatype": "BYTES"}, "BYTES"), ({"datatype": None}, "None"),
        ({"shape": [2]}, ""), ({"shape": []}, "shape"), ({"shape": [1, 1, 2]}, "shape"), ({"shape": [-1, 2]}, "shape"),
        ({"shape": [10**12, 4]}, "shape[0] is larger than 2,147,483,647"), ({"shape": [1, 1, 2]}, "3 dimensions"),
        ({"shape": [True, 2]}, "shape[0]"), ({"shape": [1, 3]}, "2 values"), ({"shape": "12"}, "shape"),
        ({"data": None}, "null"), ({"data": [1, 2, 3]}, "3 values"), ({"data": [[1], [2]]}, ""),
        ({"datatype": "INT8", "data": [1, 300]}, "data[1]"), ({"datatype": "UINT8", "data": [-1, 3]}, "data[0]"),
        ({"datatype": "INT64", "data": [1.5, 3]}, "data[0]"), ({"datatype": "INT64", "data": [True, 3]}, "data[0]"),
        ({"parameters": []}, "parameters"), ({"parameters": {"binary_data_size": 8}}, "binary_data_size"),
    ],
)  # fmt: skip
def test_a_tensor_fits_its_shape_and_type_or_is_refused(changed: dict[str, Any], said: str) -> None:
    one = GOOD | changed
    if not said:
        assert rows_of([one], b"") in ([[1, 2]], [[1], [2]])
        return
    with pytest.raises(InputValidationError) as caught:
        rows_of([one], b"")
    assert said in str(caught.value)
    assert "label" not in (caught.value.hint or caught.value.spec.hint)


@pytest.mark.parametrize("inputs", [None, [], {}, "x", [1], [GOOD, GOOD]])
def test_there_is_one_input(inputs: Any) -> None:
    with pytest.raises(InputValidationError, match="one tensor"):
        rows_of(inputs, b"")


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_rows_survive_as_json_and_as_bytes(rows: int, width: int, data: st.DataObject) -> None:
    line = st.lists(st.floats(width=32), min_size=width, max_size=width)
    table = data.draw(st.lists(line, min_size=rows, max_size=rows))
    flat = [value for row in table for value in row]
    about = {"name": "input", "shape": [rows, width], "datatype": "FP32"}
    size = {"binary_data_size": 4 * rows * width}
    assert repr(rows_of([about | {"data": table}], b"")) == repr(table)
    assert repr(rows_of([about | {"data": flat}], b"")) == repr(table)
    tail = np.array(table, "<f4").tobytes()
    np.testing.assert_equal(rows_of([about | {"parameters": size}], tail), table)


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists)
    | st.dictionaries(st.text(), st.integers())
)
def test_whatever_is_sent_as_a_tensor_it_is_taken_or_refused(value: Any) -> None:
    for name in GOOD:
        try:
            rows_of([GOOD | {name: value}], b"")
        except InputValidationError as error:
            json.dumps(str(error))


def test_texts_become_bytes_with_their_lengths() -> None:
    label = tensor("label", "BYTES", ["é", ""])
    assert as_bytes(label) == b"\x02\0\0\0\xc3\xa9\0\0\0\0"
    assert label == {"name": "label", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}}
