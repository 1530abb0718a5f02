"""Model files from elsewhere: object storage, web servers and whatever else fsspec reaches."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from bulletproof.errors import AIError, ErrorType, ModelLoadError, classify
from bulletproof.models.load_failures import missing_library
from bulletproof.resilience import BreakerRegistry, CircuitConfig, Policy, RetryPolicy

Progress = Callable[[int, int | None], object]

_CHUNK = 1 << 20
_REACH = "Check the address, its port and the credentials, and that its server runs and can be reached from here."
_RETRY = RetryPolicy(max_attempts=4, base_delay=0.5, max_delay=10)


def _tells_of_the_host(error: BaseException) -> bool | None:
    """What is missing, refused or wrong on this side says nothing about how the host is."""
    ours = isinstance(error, AIError | FileNotFoundError | ImportError | ValueError)
    return None if ours or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) else True


_BREAKERS = BreakerRegistry(
    CircuitConfig(failure_threshold=8, success_threshold=1, timeout=30, is_failure=_tells_of_the_host)
)


def fetch_model(
    url: str | os.PathLike[str],
    to: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = 10 << 30,
    progress: Progress | None = None,
    retry: RetryPolicy = _RETRY,
    breakers: BreakerRegistry = _BREAKERS,
    **options: Any,
) -> Path:
    """Bring a model file to this machine.

    Failures that may pass are tried again, with a breaker for each host; the file appears under its name only when all
    of it is there.

    Args:
        url: ``s3://bucket/key``, ``https://...``, ``gs://``, ``abfs://``, ``sftp://``, ``memory://`` ...; a local
            path or a ``file://`` URL is returned as it is.
        to: The file to write; its folder exists.
        sha256: Checksum that it must have, in hexadecimal digits.
        max_bytes: Most bytes.
        progress: Called with the bytes so far and those in all, None when the source does not say.
        retry: How to try again.
        breakers: Where the breakers of the hosts live.
        **options: For the file system of fsspec, such as ``key`` and ``secret`` of S3.

    Returns:
        Where the file is.

    Raises:
        ModelLoadError: It cannot be had: there is none, it is too large (``file_too_large``), its checksum is another
            (``model_tampered``), a library is missing (``missing_dependency``), or the source fails.
        CircuitOpenError: Its host failed too often.

    Example:
        >>> import fsspec
        >>> with fsspec.open("memory://bucket/model.onnx", "wb") as file:
        ...     _ = file.write(b"model")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fetch_model("memory://bucket/model.onnx", Path(folder, "model.onnx")).read_bytes()
        b'model'
    """
    text = os.fspath(url)
    parts = urlsplit(text)
    if isinstance(url, os.PathLike) or "://" not in text:
        return Path(url)
    if parts.scheme in ("file", "local"):
        return Path(text.partition("://")[2])
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without password and signature
    if not to.parent.is_dir():
        raise ModelLoadError(
            f"{shown} cannot be written to {to}: there is no such folder", hint="Make the folder first."
        )
    policy = Policy(retry=retry, breaker=breakers.get(f"models from {parts.hostname or parts.scheme}"))

    def download() -> None:
        handle, name = tempfile.mkstemp(prefix=f".{to.name}.", dir=to.parent)
        try:
            with os.fdopen(handle, "wb") as local, _opened(text, options) as (remote, total):
                digest = _copy(remote, local, total, shown, max_bytes, progress)
            if sha256 is not None and digest != sha256.strip().lower():
                raise ModelLoadError(
                    f"{shown} has the checksum {digest[:16]}..., not the one expected", code="model_tampered"
                )
            Path(name).replace(to)
        finally:
            Path(name).unlink(missing_ok=True)

    try:
        policy.call(download)
    except AIError:
        raise
    except Exception as error:
        raise _failure(error, shown) from error
    return to


@contextmanager
def _opened(url: str, options: dict[str, Any]) -> Iterator[tuple[Any, int | None]]:
    """Give what can be read, and how many bytes it has if the source says so."""
    core = import_module("fsspec.core")
    if not url.startswith(("http://", "https://")):
        system, path = core.url_to_fs(url, **options)
        system.invalidate_cache()
        with system.open(path, "rb") as remote:
            yield remote, system.info(path).get("size")
        return
    # One answer from beginning to end. Without a size fsspec would ask for it first, and take any failure for 404.
    timeout = import_module("aiohttp").ClientTimeout(total=None, sock_connect=15, sock_read=60)
    options = {"client_kwargs": {"timeout": timeout}, "headers": {"Accept-Encoding": "identity"}, **options}
    system, path = core.url_to_fs(url, **options)
    with system.open(path, "rb", block_size=0, size=1) as remote:
        yield remote, int(remote.r.headers.get("Content-Length", 0)) or None


def _copy(remote: Any, local: BinaryIO, total: int | None, shown: str, most: int, progress: Progress | None) -> str:
    digest, count = hashlib.sha256(), 0
    while count <= most and (total or 0) <= most:
        data = remote.read(_CHUNK)
        if not data:
            break
        count += len(data)
        digest.update(data)
        local.write(data)
        if progress is not None:
            progress(count, total)
    else:
        raise ModelLoadError(
            f"{shown} is larger than the {most:,} bytes allowed",
            code="file_too_large",
            hint="Allow more with max_bytes, if this is the model that you mean.",
        )
    if total is not None and count != total:
        raise ConnectionError(f"{count:,} of {total:,} bytes came")
    os.fsync(local.fileno())
    return digest.hexdigest()


def _failure(error: Exception, shown: str) -> ModelLoadError:
    if isinstance(error, FileNotFoundError):
        return ModelLoadError(f"Model file not found: {shown}", hint="Check the address.")
    if isinstance(error, ImportError):
        missing, install = missing_library(error)
        why = f"needs {missing}" if missing else f"cannot be fetched: {error}"
        return ModelLoadError(
            f"{shown} {why}",
            code="missing_dependency",
            hint=f"pip install {install}" if install else "Install what fsspec needs for this kind of address.",
        )
    if isinstance(error, ValueError) and "rotocol not known" in str(error):
        return ModelLoadError(f"{shown}: {error}", hint="Give a path, or a URL that fsspec knows, such as s3://.")
    diagnosis = classify(error)
    return ModelLoadError(
        f"{shown} cannot be fetched: {diagnosis.title} ({type(error).__name__})",
        code=diagnosis.code if diagnosis.code in ("disk_full", "out_of_memory") else None,
        hint=_REACH if diagnosis.error_type is ErrorType.EXTERNAL_SERVICE else diagnosis.hint,
        retryable=diagnosis.retryable,
    )
