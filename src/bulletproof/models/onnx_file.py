"""What stands in an ONNX file, read from its protocol buffers without loading it.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MOST_FIELDS = 1_000_000
_MOST_NAMES, _MOST_LABELS, _LONGEST = 1000, 100_000, 4096
_STANDARD = frozenset(
    ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc",
     "ai.onnx.training", "com.microsoft.experimental", "org.pytorch.aten")
)  # fmt: skip
# Operators whose work depends on the shapes of their inputs alone. Those that repeat, or whose result is as large as a
# number says (Loop, Scan, Range, Expand, Tile, ...), are not among them.
_STEADY = frozenset(
    """Abs Add And ArgMax ArgMin ArrayFeatureExtractor BatchNormalization Binarizer Cast CastLike Clip Concat Constant
    Div Dropout Equal Erf Exp FeatureVectorizer Flatten Floor Gather Gemm Greater GreaterOrEqual Identity Imputer
    LabelEncoder LayerNormalization LeakyRelu Less LessOrEqual LinearClassifier LinearRegressor Log MatMul Max Min Mul
    Neg Normalizer Not OneHotEncoder Or Pow Reciprocal ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape
    SVMClassifier SVMRegressor Scaler Shape Sigmoid Sign Slice Softmax Split Sqrt Squeeze Sub Sum Tanh TopK Transpose
    TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor Unsqueeze Where ZipMap""".split()  # noqa: SIM905 -- read by people
)
# For each kind of message: the fields with messages in them that are looked into, and of what kind those are.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "opset": {},
    "entry": {},
}


@dataclass(slots=True)
class OnnxFacts:
    """What was found.

    Args:
        domains: Sets of operators beyond the standard ones: each needs a library of its own.
        external: Files with weights beside it.
        operators: The names of its operators.
        label_lists: The classes of its classifiers, numbers or texts, in order; of two lists at most.
        producer: The program that wrote it.
        note: Why it was not read to its end; empty when it was.
    """

    domains: dict[str, None] = field(default_factory=dict)
    external: dict[str, None] = field(default_factory=dict)
    operators: dict[str, None] = field(default_factory=dict)
    label_lists: dict[tuple[int | str, ...], None] = field(default_factory=dict)
    producer: str = ""
    note: str = ""

    @property
    def steady(self) -> bool:
        """Whether no input of a given shape can make it take longer than another."""
        return not (self.domains or self.external or self.note) and self.operators.keys() <= _STEADY


def read_onnx(path: Path) -> OnnxFacts:
    """Read what stands in an ONNX file that is not empty, up to where it can be read; weights are passed over."""
    facts = OnnxFacts()
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _walk(data, facts)
        except ValueError as error:
            facts.note = f"it is cut off, damaged or no ONNX file: {error}"
    return facts


def _walk(data: mmap.mmap, facts: OnnxFacts) -> None:
    waiting = [("model", 0, len(data))]
    left = _MOST_FIELDS
    while waiting:
        kind, start, end = waiting.pop()
        texts: dict[int, str] = {}
        labels: list[int | str] = []
        for number, at, length in _fields(data, start, end):
            left -= 1
            if left < 0 or len(facts.domains) + len(facts.external) + len(facts.operators) > _MOST_NAMES:
                raise ValueError("there is more in it than is looked at")
            if number in _INSIDE[kind]:
                waiting.append((_INSIDE[kind][number], at, at + length))
            elif kind == "attribute" and number in (7, 8, 9):  # floats, ints, strings: by far the most of a forest
                if not texts.get(1, "").startswith("classlabels_") or len(labels) > _MOST_LABELS:
                    break
                labels.extend(_labels(data, number, at, length))
            elif length <= _LONGEST:
                texts[number] = _text(data, at, length)
        _note(kind, texts, labels, facts)


def _note(kind: str, texts: dict[int, str], labels: list[int | str], facts: OnnxFacts) -> None:
    if kind == "model":
        facts.producer = f"{texts.get(2, '')} {texts.get(3, '')}".strip()
    elif kind in ("opset", "node"):
        domain = texts.get(1 if kind == "opset" else 7, "")
        if domain not in _STANDARD:
            facts.domains[domain] = None
        if kind == "node":
            facts.operators[texts.get(4, "")] = None
    elif kind == "entry" and texts.get(1) == "location":
        facts.external[texts.get(2, "")] = None
    elif labels and len(facts.label_lists) < 2:
        facts.label_lists[tuple(labels)] = None


def _labels(data: mmap.mmap, number: int, at: int, length: int) -> Iterator[int | str]:
    """Yield the numbers of ``ints`` (field 8), packed or one by one, or a text of ``strings`` (field 9)."""
    end = at + length
    if number == 9:
        yield _text(data, at, min(length, _LONGEST))
    while number == 8 and at < end:
        value, at = _varint(data, at, end)
        yield value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field, and where it lies and how long it is."""
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == 0:
            start = at
            _, at = _varint(data, at, end)
            yield tag >> 3, start, at - start
            continue
        if wire == 2:
            length, at = _varint(data, at, end)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"byte {at} begins no field")
        if at + length > end:
            raise ValueError(f"the field at byte {at} reaches beyond its end")
        yield tag >> 3, at, length
        at += length


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"a number is cut off at byte {at}")


def _text(data: mmap.mmap, at: int, length: int) -> str:
    return data[at : at + length].decode("utf-8", "replace")
