"""``bulletproof serve``: the HTTP service."""

import errno
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from bulletproof.errors import ConfigurationError
from bulletproof.settings import Settings, load_settings

_GRACE_SECONDS = 30


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on. [default: $PORT or 8000]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Run the HTTP service.

    Without API keys it answers this machine only. To let others in:

      BULLETPROOF_API_KEYS=$(openssl rand -hex 24) bulletproof serve --host 0.0.0.0

    Then send a file:

      curl -F file=@reviews.csv http://127.0.0.1:8000/process
    """
    overrides = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(**overrides)
    check_binding(settings)
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigurationError(
            "the service is not installed", code="missing_dependency", hint="pip install 'bulletproof-ai[service]'"
        ) from error
    # Each worker process reads its settings from the environment.
    os.environ |= {"BULLETPROOF_HOST": settings.host, "BULLETPROOF_PORT": str(settings.port)}
    typer.echo(_greeting(settings), err=True)
    with _counting_together(workers):
        uvicorn.run(
            "bulletproof.service:app",
            host=settings.host,
            port=settings.port,
            workers=workers,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )


def check_binding(settings: Settings) -> None:
    """Refuse an address that would let strangers in without a key, or one that is taken.

    Args:
        settings: ``host``, ``port`` and ``api_keys`` are used.

    Raises:
        ConfigurationError: The service must not or cannot listen there; says how it can.
    """
    if not settings.api_keys and not _is_local(settings.host):
        raise ConfigurationError(
            f"listening on {settings.host} lets other machines in, and no API keys are set",
            hint="Set BULLETPROOF_API_KEYS to a secret of yours, or listen on 127.0.0.1.",
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                message, hint = f"port {settings.port} is taken", "Choose another: bulletproof serve --port 8001"
            elif error.errno in (errno.EACCES, errno.EPERM):
                message, hint = f"port {settings.port} needs more rights", "Choose a port from 1024 up."
            else:
                message, hint = f"cannot listen on {settings.host}: {error.strerror or error}", "Check --host."
            raise ConfigurationError(message, hint=hint) from error


@contextmanager
def _counting_together(workers: int) -> Iterator[None]:
    """Have several workers keep their figures in one folder: a scrape reaches one of them and tells of all."""
    if workers == 1 or "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="bulletproof-figures-", ignore_cleanup_errors=True) as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _greeting(settings: Settings) -> str:
    address = f"http://{settings.host}:{settings.port}"
    return (
        f"Bulletproof AI Processor on {address}\n"
        f"  send a file   curl -F file=@samples/reviews.csv {address}/process\n"
        f"  the API       {address}/docs\n"
        f"  how it is     {address}/health\n"
        "Stop with Ctrl-C."
    )
