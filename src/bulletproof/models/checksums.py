"""The checksum of a model file or folder."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of the list of its files with the SHA-256 of each.

    Args:
        path: A file, or a folder whose files all count, those in folders within as well.

    Returns:
        Hexadecimal digits, lower case.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "model.onnx")
        ...     _ = file.write_bytes(b"")
        ...     sha256_of(file)[:8]
        'e3b0c442'
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n" for file in files]
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
