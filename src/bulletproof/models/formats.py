"""What kind of model file something is, by its content and never by its name."""

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bulletproof.models.pickles import read_pickle


class Format(NamedTuple):
    """A kind of file.

    Args:
        label: For people, with its article.
        model_type: The ``model_type`` that loads it; empty when none does.
        hint: What to do with it when none does.
    """

    label: str
    model_type: str = ""
    hint: str = ""


FORMATS: dict[str, Format] = {
    "pickle": Format("a pickle", "sklearn"),
    "compressed": Format("a compressed file", "sklearn"),
    "skops": Format("a skops file", "sklearn"),
    "onnx": Format("an ONNX file", "onnx"),
    "keras": Format("a Keras file", "keras"),
    "hdf5": Format("an HDF5 file, as older Keras writes it", "keras"),
    "torchscript": Format("a TorchScript file", "torch"),
    "torch_export": Format("an exported PyTorch program", "torch"),
    "torch_save": Format("a file written by torch.save", "torch"),
    "safetensors": Format("a safetensors file", "torch"),
    "transformers": Format("a folder of the transformers library", "transformers"),
    "saved_model": Format(
        "a TensorFlow SavedModel folder", hint="Load it where it was made and save it as one .keras file."
    ),
    "gguf": Format("a GGUF file", hint="Serve it with a server for language models and ask that by its URL."),
    "tflite": Format("a TensorFlow Lite file", hint="Convert the model it came from to ONNX."),
    "zip": Format("a zip archive that is no model known", hint="Unpack it and name the model file itself."),
    "broken_zip": Format("a zip archive that is cut off or damaged", hint="Copy the file again and compare its size."),
    "lfs_pointer": Format("a Git LFS pointer, not the file it stands for", hint="Run: git lfs pull"),
    "html": Format("a web page, not a model", hint="Download the file again; what came was a page, perhaps a login."),
    "folder": Format("a folder", hint="Name the model file inside it."),
    "text": Format("a text file", hint="Name the model file itself, or download it again."),
    "stub": Format("the beginning of a file that is cut off", hint="Copy the file again and compare its size."),
    "unknown": Format("a file of no known kind"),
}

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x80\x02", "pickle"), (0, b"\x80\x03", "pickle"), (0, b"\x80\x04", "pickle"), (0, b"\x80\x05", "pickle"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"\x1f\x8b", "compressed"), (0, b"BZh", "compressed"), (0, b"ZF", "compressed"), (0, b"\xfd7zXZ", "compressed"),
    (0, b"]\x00", "compressed"), (0, b"\x04\x22\x4d\x18", "compressed"),
    (0, b"x\x01", "compressed"), (0, b"x\x5e", "compressed"), (0, b"x\x9c", "compressed"), (0, b"x\xda", "compressed"),
    (0, b"GGUF", "gguf"), (4, b"TFL3", "tflite"),
    (0, b"version https://git-lfs", "lfs_pointer"),
)  # fmt: skip
_ONNX_FIELDS = frozenset((0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42))  # tags that may follow the version of the format
_NAME = re.compile(r"[A-Za-z_][\w.]*\.[\w.<>]+|copyreg extension \d+|a name worked out.*")
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MOST_OPCODES = 20_000
_MOST_DIRECTORY, _MOST_TEXT = 16 << 20, 64 << 20
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"


def sniff(path: Path) -> str:
    """Say what kind of file or folder this is: a key of ``FORMATS``.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"version https://git-lfs.github.com/spec/v1")
        ...     file.flush()
        ...     FORMATS[sniff(Path(file.name))].hint
        'Run: git lfs pull'
    """
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            return "saved_model"
        return "transformers" if (path / "config.json").is_file() else "folder"
    with path.open("rb") as stream:
        return sniff_stream(stream)


def sniff_stream(stream: BinaryIO) -> str:
    """Say what kind of file this is; the stream is left at its beginning."""
    stream.seek(0)
    head = stream.read(512)
    found = _sniff(stream, head)
    stream.seek(0)
    return found


def _sniff(stream: BinaryIO, head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        return _zip_format(stream)
    for at, magic, name in _MAGIC:
        if head.startswith(magic, at):
            return name
    if len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 100_000_000:
        return "safetensors"
    if len(head) > 3 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in _ONNX_FIELDS:
        return "onnx"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "html"
    return _sniff_pickle(stream, head)


def _sniff_pickle(stream: BinaryIO, head: bytes) -> str:
    """The protocols 0 and 1 have no magic: a pickle is whatever makes sense as one until it imports something."""
    found = read_pickle(stream, most_opcodes=_MOST_OPCODES)
    if head and not found.damaged:
        return "pickle"
    if found.runs and all(map(_NAME.fullmatch, found.imports)):
        return "pickle"
    if head and any(len(head) < len(magic) and magic.startswith(head) for at, magic, _ in _MAGIC if at == 0):
        return "stub"
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return "unknown" if error.start < len(head) - 4 or _CONTROLS.search(head) else "text"
    return "text" if head and not _CONTROLS.search(head) else "unknown"


def _zip_format(stream: BinaryIO) -> str:
    try:
        with open_zip(stream) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return "broken_zip"
    inner = {name.split("/", 1)[-1] for name in names}
    if "schema.json" in names:
        return "skops"
    if {"config.json", "model.weights.h5"} <= names:
        return "keras"
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return "torchscript"
    if {"archive_format", "serialized_exported_program.json"} & inner:
        return "torch_export"
    return "torch_save" if "data.pkl" in inner else "zip"


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """Open an archive whose table of contents is of a sane size: ``zipfile`` reads all of it into memory.

    Raises:
        zipfile.BadZipFile: It is damaged, or its table of contents is larger than 16 MiB.
    """
    stream.seek(max(0, stream.seek(0, 2) - (1 << 16) - 22))
    tail = stream.read()
    at, at64 = tail.rfind(_END), tail.rfind(_END64)
    sizes = [struct.unpack_from("<I", tail, at + 12)[0]] if 0 <= at <= len(tail) - 22 else []
    if 0 <= at64 <= len(tail) - 56:
        sizes = [size for size in sizes if size != 0xFFFFFFFF] + [struct.unpack_from("<Q", tail, at64 + 40)[0]]
    if not sizes or max(sizes) > _MOST_DIRECTORY:
        raise zipfile.BadZipFile("its table of contents is missing or too large")
    return zipfile.ZipFile(stream)


def member_of(stream: BinaryIO, name: str) -> bytes:
    """Read a small file in an archive.

    Raises:
        ValueError: It is larger than 64 MiB.
    """
    with open_zip(stream) as archive, archive.open(name) as member:
        data = member.read(_MOST_TEXT + 1)
    if len(data) > _MOST_TEXT:
        raise ValueError(f"{name} in it is larger than {_MOST_TEXT:,} bytes")
    return data


def read_json(path: Path) -> object:
    """Read a small JSON file; raise ValueError when it is none."""
    with path.open("rb") as file:
        return json.loads(file.read(_MOST_TEXT))
