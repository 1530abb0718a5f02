"""Tensors of the Open Inference Protocol, as JSON and as bytes, and the rows that our models take.

The form of both is that of the protocol's REST interface (version 2) and of its extension for binary data:
https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bulletproof.errors import InputValidationError
from bulletproof.service.json_body import kind_of

INPUT = "input"
_LARGEST = 2**31 - 1
_TYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{sign.upper()}INT{8 * size}": f"<{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)
}


def rows_of(inputs: Any, tail: bytes) -> list[Any]:
    """Return the rows that the inputs of a request hold.

    Args:
        inputs: As the JSON of the request has them: one tensor of the shape (features,) or (rows, features).
        tail: The bytes behind that JSON.

    Returns:
        One list a row; whether its values are good is for the model's own schema to say.

    Raises:
        InputValidationError: It is no such tensor, or what it holds does not fit its shape or its type.

    Example:
        >>> rows_of([{"name": "input", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}], b"")
        [[1, 2], [3, 4]]
    """
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InputValidationError(
            "inputs must be a list of one tensor", hint=f"Send one tensor named {INPUT!r} with all features."
        )
    tensor: dict[str, Any] = inputs[0]
    if tensor.get("name") != INPUT:
        raise _wrong(f"the input is named {tensor.get('name')!r:.80}, not {INPUT!r}", "name")
    datatype = tensor.get("datatype")
    if not isinstance(datatype, str) or datatype not in _TYPES:
        raise _wrong(f"datatype {datatype!r:.80} is not one of {', '.join(_TYPES)}", "datatype")
    shape = _shape(tensor.get("shape"))
    kind, count = np.dtype(_TYPES[datatype]), math.prod(shape)
    size = parameters_of(tensor).get("binary_data_size")
    if size is None:
        flat = _values(tensor.get("data"), count, kind)
    elif size != len(tail) or size != count * kind.itemsize or "data" in tensor:
        raise _wrong(
            f"binary_data_size is {size!r:.40}, {len(tail):,} bytes follow the JSON, and a tensor of {datatype} and "
            f"shape {list(shape)} has {count * kind.itemsize:,}",
            "binary_data_size",
        )
    else:
        flat = np.frombuffer(tail, kind).tolist()
    width = shape[-1]
    return [flat[start : start + width] for start in range(0, count, width)] if count else []


def parameters_of(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a request or of a tensor; none is an empty dict."""
    found = holder.get("parameters", {})
    if not isinstance(found, dict):
        raise _wrong(f"parameters must be an object, not {kind_of(found)}", "parameters")
    return found


def tensor(name: str, datatype: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return a tensor of one value a row."""
    return {"name": name, "datatype": datatype, "shape": [len(values)], "data": list(values)}


def as_bytes(tensor: dict[str, Any]) -> bytes:
    """Move the data of a tensor out of its JSON form, and return them as bytes."""
    values = tensor.pop("data")
    if tensor["datatype"] == "BYTES":
        texts = [value.encode() for value in values]
        data = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        data = np.array(values, _TYPES[tensor["datatype"]]).tobytes()
    tensor["parameters"] = {"binary_data_size": len(data)}
    return data


def _shape(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list):
        raise _wrong(f"shape must be [features] or [rows, features], not {kind_of(given)}", "shape")
    if not 1 <= len(given) <= 2:
        raise _wrong(f"shape has {len(given):,} dimensions, it must be [features] or [rows, features]", "shape")
    for place, size in enumerate(given):
        if type(size) is not int or size < 0:
            raise _wrong(f"shape[{place}] must be a whole number that is not negative", "shape")
        if size > _LARGEST:
            raise _wrong(f"shape[{place}] is larger than {_LARGEST:,}, more than a request can hold", "shape")
    return tuple(given)


def _values(data: Any, count: int, kind: "np.dtype[Any]") -> list[Any]:
    if not isinstance(data, list):
        raise _wrong(f"data must be a list, not {kind_of(data)}", "data")
    flat = [value for part in data for value in (part if isinstance(part, list) else [part])]
    if len(flat) != count:
        raise InputValidationError(
            f"data holds {len(flat):,} values, its shape says {count:,}",
            code="shape_mismatch", hint="Send as many values as the sizes in shape multiply to.", field="data",
        )  # fmt: skip
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        for place, value in enumerate(flat):
            if type(value) is not int or not bounds.min <= value <= bounds.max:
                raise InputValidationError(
                    f"data[{place}] is not a whole number that fits {kind}",
                    code="not_numeric", hint="Send whole numbers, or the datatype FP64.", field="data",
                )  # fmt: skip
    return flat


def _wrong(what: str, field: str) -> InputValidationError:
    return InputValidationError(
        what, hint="GET /v2/models/{name} describes the input and the outputs of a model.", field=field
    )
