"""What stands in model files, found without loading them; hostile files included."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import resource
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import sklearn
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from bulletproof.errors import ModelLoadError
from bulletproof.models import inspect_model, pickles
from bulletproof.models.pickles import read_pickle

ROWS, TARGET = load_iris(return_X_y=True)
TEXTS = (["good day", "bad night"] * 5, ["yes", "no"] * 5)
MODELS: dict[str, Callable[[], Any]] = {
    "linear": lambda: LogisticRegression(max_iter=1000).fit(ROWS, TARGET),
    "forest of texts": lambda: RandomForestClassifier(20).fit(ROWS, np.array(["a", "b", "c"], dtype=object)[TARGET]),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5).fit(ROWS, TARGET),
    "neighbours": lambda: KNeighborsClassifier().fit(np.asfortranarray(ROWS), TARGET),
    "texts": lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(*TEXTS),
}


class Evil:
    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


def imported_by(data: bytes) -> set[str]:
    """What Python's own unpickler asks for."""
    names = set()

    class Watching(pickle._Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            names.add(f"{module}.{name}")
            return super().find_class(module, name)

    Watching(io.BytesIO(data)).load()
    return names


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_names_exactly_what_unpickling_imports(model: Any, protocol: int) -> None:
    data = pickle.dumps(model, protocol=protocol)
    facts = read_pickle(io.BytesIO(data))
    assert not facts.note
    names = {name.replace("copy_reg", "copyreg").replace("__builtin__", "builtins") for name in facts.imports}
    assert names == {n.replace("copy_reg", "copyreg").replace("__builtin__", "builtins") for n in imported_by(data)}
    assert facts.sklearn == sklearn.__version__


@pytest.mark.parametrize("compress", [0, ("zlib", 1), ("gzip", 9), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_files_are_read_past_their_arrays_to_the_end(model: Any, tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(model, path, compress=compress)
    facts = inspect_model(path)
    assert (facts.model_type, facts.runs_code) == ("sklearn", True)
    assert facts.format == ("compressed" if compress else "pickle")
    assert facts.notes == []
    assert facts.unusual == []
    assert facts.saved_with == {"scikit-learn": sklearn.__version__}
    assert "joblib.numpy_pickle.NumpyArrayWrapper" in facts.imports
    assert any(name.startswith("sklearn.") for name in facts.imports)


@pytest.mark.parametrize(
    "value",
    [
        np.array([1, "a", None], dtype=object),
        np.zeros((3, 0)),
        np.zeros(()),
        np.array(["é"] * 9),
        np.zeros(3, dtype=[("a", "f8"), ("b", "i4")]),
        np.array(["2020-01-01"], "M8[D]"),
    ],
    ids=range(6),
)
def test_arrays_of_every_type_are_passed_over(tmp_path: Path, value: Any) -> None:
    joblib.dump([value, Evil(os.system, "true"), value], tmp_path / "a.joblib")
    facts = inspect_model(tmp_path / "a.joblib")
    assert facts.notes == []
    assert facts.unusual == ["posix.system"]


def test_a_call_in_a_pickle_is_named_and_not_made(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for number, data in enumerate(
        [
            pickle.dumps(Evil(os.mkdir, str(marker))),
            pickle.dumps(Evil(os.mkdir, str(marker)), protocol=0),
            pickletools.optimize(pickle.dumps([1, {"a": Evil(os.mkdir, str(marker))}])),
            gzip.compress(pickle.dumps(Evil(os.mkdir, str(marker)))),
            b"(S'" + str(marker).encode() + b"'\niposix\nmkdir\n.",
            b"cposix\nmkdir\n(S'" + str(marker).encode() + b"'\nt\x81.",
        ]
    ):
        facts = inspect_model(written(tmp_path / f"evil{number}", data))
        assert facts.runs_code
        assert facts.unusual == ["posix.mkdir"]
        assert facts.notes == []
    assert not marker.exists()


def test_names_put_together_while_loading_are_not_overlooked(tmp_path: Path) -> None:
    data = b"\x80\x04cbuiltins\nstr\n\x8c\x05posix\x85R\x8c\x06system\x93."
    facts = inspect_model(written(tmp_path / "evil", data))
    assert "a name worked out while it is loaded" in facts.unusual
    assert inspect_model(written(tmp_path / "ext", b"\x80\x02\x82\x07.")).unusual == ["copyreg extension 7"]


def test_memoized_names_are_followed(tmp_path: Path) -> None:
    data = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93."
    assert inspect_model(written(tmp_path / "evil", data)).unusual == ["posix.system"]


@pytest.mark.parametrize("name", ["getattr", "eval", "exec", "__import__", "open", "print"])
def test_dangerous_builtins_are_unusual_and_plain_ones_are_not(tmp_path: Path, name: str) -> None:
    data = f"cbuiltins\n{name}\n0cbuiltins\nset\n.".encode()
    assert inspect_model(written(tmp_path / "x", data)).unusual == [f"builtins.{name}"]


FRAMED = b"\x95\x05" + bytes(7) + b"}J" + bytes(4) + b"2\x00acposix\nsystem\n."
EVIL = b"0cposix\nsystem\n(S'true'\ntR."


@pytest.mark.parametrize(
    "start",
    [
        b"I0x10\n", b"L0x10L\n", b"I010\n", b"I5\x00 and more\n", b"Fa\n", b"S'" + b"a" * 200_000 + b"'\n",
        b"Sno quotes\n", b"V\\u12\n", b"h\x01", b"g5\n", b"Np0x1\n", b"(", b"N0" * 10 + b"N", b"U\x02\xff\xff",
        b"C\x10" + bytes(6) + b'{"a": "aaa',
    ],
    ids=lambda start: start[:8].hex(),
)  # fmt: skip
def test_what_unpicklers_read_differently_hides_nothing(tmp_path: Path, start: bytes) -> None:
    """An import behind an argument that one reader takes and another refuses is named all the same."""
    facts = inspect_model(written(tmp_path / "evil", start + EVIL))
    assert facts.runs_code
    assert facts.unusual == ["posix.system"]


@pytest.mark.parametrize(
    "data", [b"N0" * 1_100_000 + EVIL, b"S'" + b"a" * (1 << 20), b"ZF0x", b"]\x00\x10\x00\x00abc", FRAMED]
)
def test_what_is_not_read_to_its_end_is_told_and_taken_for_code(tmp_path: Path, data: bytes) -> None:
    facts = inspect_model(written(tmp_path / "evil", data))
    if not data.startswith(b"S"):  # that one fails before it does anything
        assert facts.runs_code
    assert facts.notes


class RanError(Exception):
    """Something was imported."""


class Careless(pickle._Unpickler):
    """As joblib unpickles; what it would import is the finding."""

    def find_class(self, module: str, name: str) -> Any:
        raise RanError


class CarelessInC(pickle.Unpickler):
    find_class = Careless.find_class


OPCODES = st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes])
ARGUMENTS = st.sampled_from(
    [b"\n", b"0x1\n", b"1\n", b"01\n", b"0\n", b"\x00", b"\x01", b"'a'\n", b"1L\n", b"\x01\x00\x00\x00a", b"1.5\n"]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPCODES | ARGUMENTS | st.binary(max_size=3), max_size=12))
def test_whatever_an_unpickler_would_import_is_said_to_run_code(parts: list[bytes]) -> None:
    start = b"".join(parts).translate(None, b"r\x96")  # with these two Python's own take all memory there is
    for data in (start + b"cposix\nsystem\n.", start + EVIL):
        for unpickler in (Careless, CarelessInC):
            try:
                unpickler(io.BytesIO(data)).load()
            except RanError:
                with tempfile.TemporaryDirectory() as folder:
                    assert inspect_model(written(Path(folder, "file"), data)).runs_code
            except Exception:  # what fails before it imports anything runs nothing
                continue


def test_a_text_is_no_pickle_and_runs_nothing(tmp_path: Path) -> None:
    for text in ("hello", '{"a": 1}', "# Title\n", "Some text\nand more\n"):
        facts = inspect_model(written(tmp_path / "text", text.encode()))
        assert (facts.format, facts.runs_code) == ("text", False)
    facts = inspect_model(written(tmp_path / "code.py", b"import numpy as np\nprint(1)\n"))
    assert (facts.format, facts.runs_code) == ("text", True)  # an unpickler would look for a module "mport numpy as np"


def test_skops_files_tell_their_types(tmp_path: Path) -> None:
    skops.io.dump(MODELS["linear"](), tmp_path / "linear.skops")
    facts = inspect_model(tmp_path / "linear.skops")
    assert (facts.format, facts.runs_code, facts.imports) == ("skops", False, [])
    assert facts.saved_with == {"scikit-learn": sklearn.__version__}
    skops.io.dump(MODELS["forest of texts"](), tmp_path / "forest.skops")
    facts = inspect_model(tmp_path / "forest.skops")
    assert facts.imports == ["sklearn.tree._tree.Tree"]
    assert "sha256" in facts.notes[0]


def test_onnx_files_have_no_code(tmp_path: Path) -> None:
    data = to_onnx(MODELS["linear"](), ROWS[:1].astype(np.float32)).SerializeToString()
    facts = inspect_model(written(tmp_path / "m.onnx", data))
    assert (facts.format, facts.model_type, facts.runs_code, facts.notes) == ("onnx", "onnx", False, [])
    assert facts.saved_with["producer"].startswith("skl2onnx")


def onnx_model(nodes: list[Any], weights: list[Any], **more: Any) -> Any:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1])], [value("y", 1, [1])], weights)
    return onnx.helper.make_model(graph, ir_version=9, **more)


def test_onnx_operators_of_other_libraries_and_weights_elsewhere_are_told(tmp_path: Path) -> None:
    inner = onnx.helper.make_graph([onnx.helper.make_node("Hidden", ["x"], ["y"], domain="deep.inside")], "in", [], [])
    nodes = [
        onnx.helper.make_node("Magic", ["x"], ["z"], domain="com.example.ops"),
        onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
    ]
    weights = onnx.numpy_helper.from_array(np.ones(2000, np.float32), "w")
    onnx.external_data_helper.set_external_data(weights, "../weights.bin")
    weights.ClearField("raw_data")
    data = onnx_model(nodes, [weights]).SerializeToString()
    facts = inspect_model(written(tmp_path / "m.onnx", data))
    assert "deep.inside" in facts.notes[0]
    assert "com.example.ops" in facts.notes[0]
    assert "../weights.bin" in facts.notes[1]


def keras_file(path: Path, layers: list[dict[str, Any]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": layers}}))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.1"}))
        archive.writestr("model.weights.h5", b"")
    return path


def test_keras_files_tell_lambdas_and_classes_of_others(tmp_path: Path) -> None:
    plain = inspect_model(keras_file(tmp_path / "a.keras", [{"module": "keras.layers", "class_name": "Dense"}]))
    assert (plain.format, plain.model_type, plain.runs_code, plain.imports) == ("keras", "keras", False, [])
    assert plain.saved_with == {"keras": "3.9.1"}
    code = inspect_model(keras_file(tmp_path / "b.keras", [{"module": "keras.layers", "class_name": "Lambda"}]))
    assert code.runs_code
    other = inspect_model(keras_file(tmp_path / "c.keras", [{"module": "shop.layers", "class_name": "Magic"}]))
    assert other.unusual == ["shop.layers.Magic"]
    assert inspect_model(written(tmp_path / "d.h5", b"\x89HDF\r\n\x1a\n" + b'{"class_name": "Lambda"}')).runs_code


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    weights = struct.pack("<Q", 2) + b"{}"
    for data, found in (
        (weights, "safetensors"), (b"GGUF" + bytes(9), "gguf"), (b"\0\0\0\0TFL3", "tflite"), (b"hello", "text"),
        (b"\x80", "stub"),
        (b"version https://git-lfs.github.com/spec/v1", "lfs_pointer"), (b"<!doctype html>", "html"), (b"", "unknown"),
        (b"PK\x03\x04 and nothing more", "broken_zip"),
    ):  # fmt: skip
        facts = inspect_model(written(tmp_path / "file", data))
        assert facts.format == found
        assert facts.label
        assert facts.why


def test_size_and_checksum_are_told(tmp_path: Path) -> None:
    facts = inspect_model(written(tmp_path / "empty", b""))
    assert (facts.size, facts.sha256[:8]) == (0, "e3b0c442")


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="Model file not found"):
        inspect_model(tmp_path / "none")
    with pytest.raises(ModelLoadError, match="a device or a pipe"):
        inspect_model("/dev/zero")
    with pytest.raises(ModelLoadError, match="is a folder"):
        inspect_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelLoadError, match="a device or a pipe"):
        inspect_model(tmp_path / "pipe")


# Hostile files: all within a few seconds and a bounded memory.


@pytest.fixture
def bounded() -> Iterator[None]:
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000  # KiB


ZEROS = 80 << 20


def squeezed(compressor: Any, head: bytes) -> bytes:
    out = [compressor.compress(head)]
    out.extend(compressor.compress(bytes(1 << 20)) for _ in range(ZEROS >> 20))
    return b"".join([*out, compressor.flush()])


@pytest.mark.parametrize(
    "make",
    [lambda: zlib.compressobj(1, wbits=31), lambda: bz2.BZ2Compressor(1), lambda: lzma.LZMACompressor(preset=0)],
    ids=["gzip", "bz2", "xz"],
)
def test_bombs_are_not_unpacked(
    tmp_path: Path, bounded: None, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "MOST_INFLATED", 64 << 20)
    data = squeezed(make(), b"\x80\x04\x8d" + struct.pack("<Q", ZEROS))
    facts = inspect_model(written(tmp_path / "bomb", data))
    assert facts.runs_code
    assert "not read to its end" in facts.notes[0]


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + b"N0" * 1_200_000 + b".",
        b"\x80\x04" + b"\x8c\x03abc\x94" * 1_100_000 + b".",
        b"\x80\x04" + b"(" * 3_000_000,
        b"\x80\x04)" + b"2\x86" * 500_000 + b"}\x94h\x00N\x00.",
        b"\x80\x04}(" + b")" + b"2\x86" * 300 + b"Nu.",
        b"\x80\x04\x8f(" + b")" + b"2\x86" * 300 + b"\x90.",
        b"\x80\x04\x96" + struct.pack("<Q", 1 << 62),
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40),
        b"\x80\x04\x8b" + struct.pack("<i", (1 << 31) - 1),
        b"\x80\x04I" + b"9" * 5_000_000 + b"\n.",
        b"\x80\x04\x95" + struct.pack("<Q", 1 << 60),
        b"\x80\x04r" + b"\xff" * 4 + b".",
        b"\x80\x04" + b"".join(b"cm%d\nx\n0" % n for n in range(5000)) + b".",
    ],
    ids=lambda data: data[2:12].hex(),
)
def test_hostile_pickles_are_bounded(tmp_path: Path, bounded: None, data: bytes) -> None:
    facts = inspect_model(written(tmp_path / "evil", data))
    assert facts.runs_code
    assert len(facts.imports) <= 1001


def test_arrays_that_claim_to_be_huge_or_nested_without_end(tmp_path: Path, bounded: None) -> None:
    joblib.dump(np.ones(3), tmp_path / "a")
    data = (tmp_path / "a").read_bytes()
    huge = data.replace(b"K\x03\x85", b"\x8a\x05\xff\xff\xff\xff\x7f\x85")
    assert huge != data
    assert "not read to its end" in inspect_model(written(tmp_path / "b", huge)).notes[0]
    joblib.dump(np.array([None], dtype=object), tmp_path / "c")
    start = (tmp_path / "c").read_bytes()
    nested = start[: start.index(b"\x80\x05")] * 5000
    assert inspect_model(written(tmp_path / "d", nested)).notes


def zip_file(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "members",
    [
        {"schema.json": b"[" * 1_000_000},
        {"schema.json": bytes(70 << 20)},
        {"schema.json": b'{"__class__": 1}'},
        {"config.json": b"[" * 1_000_000, "model.weights.h5": b""},
        {"config.json": bytes(70 << 20), "model.weights.h5": b""},
        {"config.json": b"[1]", "model.weights.h5": b""},
        {"a/data.pkl": bytes(100)},
        {"a/data.pkl": b"PK"},
        {"a/constants.pkl": b"cposix\nsystem\n.", "a/code/x.py": b""},
        {f"a/{n}.pkl": b"N." for n in range(3000)} | {"a/data.pkl": b""},
    ],
)
def test_hostile_archives_are_bounded(tmp_path: Path, bounded: None, members: dict[str, bytes]) -> None:
    facts = inspect_model(zip_file(tmp_path / "evil", members))
    assert facts.why


def test_an_archive_whose_table_of_contents_is_huge_is_not_opened(tmp_path: Path) -> None:
    data = bytearray(zip_file(tmp_path / "a", {"schema.json": b"{}"}).read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x05\x06") + 12, 1 << 30)
    assert inspect_model(written(tmp_path / "b", bytes(data))).format == "broken_zip"


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x09\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x08\x09\x3a" + b"\xff" * 100,
        b"\x08\x09" + b"\x42\x00" * 2_000_000,
        b"\x08\x09\x3a\x80\x80\x80\x08" + b"\x0a\x00" * 100,
    ],
    ids=range(4),
)
def test_hostile_onnx_files_are_bounded(tmp_path: Path, bounded: None, data: bytes) -> None:
    assert inspect_model(written(tmp_path / "m.onnx", data)).notes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_damage_to_a_file_makes_it_fail_otherwise(data: st.DataObject) -> None:
    """Whatever is cut off, changed or put in, the facts come, and what can run code says so."""
    original = data.draw(st.sampled_from(SAMPLES))
    at = data.draw(st.integers(0, len(original)))
    kind = data.draw(st.sampled_from(["cut", "change", "insert"]))
    other = data.draw(st.binary(min_size=1, max_size=8))
    damaged = original[:at] + (b"" if kind == "cut" else other + original[at + (kind == "change") * len(other) :])
    with tempfile.TemporaryDirectory() as folder:
        facts = inspect_model(written(Path(folder, "file"), damaged))
    assert facts.why
    if facts.format in ("pickle", "compressed"):
        assert facts.runs_code


def _samples() -> list[bytes]:
    model = MODELS["linear"]()
    out = [pickle.dumps(model, protocol=p) for p in (0, 2, 5)]
    for compress in (0, 3):
        buffer = io.BytesIO()
        joblib.dump(model, buffer, compress=compress)
        out.append(buffer.getvalue())
    out.append(to_onnx(model, ROWS[:1].astype(np.float32)).SerializeToString())
    out.append(skops.io.dumps(model))
    return out


SAMPLES = _samples()
