"""``bulletproof serve``: the HTTP service."""

import fcntl
import ipaddress
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from bulletproof.cli.dashboard import dashboard_beside
from bulletproof.cli.ports import check_free
from bulletproof.errors import ConfigurationError
from bulletproof.errors.installing import not_installed
from bulletproof.settings import Settings, load_settings

_FIGURES = "bulletproof-figures-"
_FRESH_SECONDS = 5.0


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on. [default: $PORT or 8000]")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
) -> None:
    """Run the HTTP service.

    Without API keys it answers this machine only. To let others in:

      bulletproof keys create me && bulletproof serve --host 0.0.0.0

    Then send a file:

      curl -F file=@reviews.csv http://127.0.0.1:8000/process

    With several workers SIGHUP replaces them one by one, without a request lost.
    """
    overrides = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(**overrides)
    try:
        import uvicorn

        check_binding(settings)
    except ImportError as error:
        raise not_installed("the service is not installed", "service") from error
    # Each worker process reads its settings from the environment.
    os.environ |= {"BULLETPROOF_HOST": settings.host, "BULLETPROOF_PORT": str(settings.port)}
    _check_app(settings, workers)
    with _counting_together(workers), dashboard_beside(settings, workers) as dashboard_port:
        if dashboard_port is not None:
            os.environ["BULLETPROOF_DASHBOARD_PORT"] = str(dashboard_port)
        typer.echo(_greeting(settings), err=True)
        options: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            # Without httptools it is uvicorn's slower parser, which has no such limits.
            "http": "bulletproof.service.connections:Connections" if find_spec("httptools") else "auto",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": settings.drain_seconds,
        }
        if workers == 1:
            uvicorn.run("bulletproof.service:app", **options)
            return
        from bulletproof.cli.workers import START_SECONDS, run_workers

        run_workers(
            uvicorn.Config(
                "bulletproof.service:app", workers=workers, timeout_worker_healthcheck=START_SECONDS, **options
            )
        )


def check_binding(settings: Settings) -> None:
    """Refuse an address that would let strangers in without a key, or one that is taken.

    Args:
        settings: ``host``, ``port`` and those of the keys are used.

    Raises:
        ConfigurationError: The service must not or cannot listen there; says how it can.
    """
    from bulletproof.service.keys import key_ring

    if not _is_local(settings.host) and not key_ring(settings).wanted:
        raise ConfigurationError(
            f"listening on {settings.host} lets other machines in, and there are no API keys",
            hint="Make one with 'bulletproof keys create NAME', set BULLETPROOF_API_KEYS, or listen on 127.0.0.1.",
        )
    check_free(settings.host, settings.port, "bulletproof serve --port 8001")


def _check_app(settings: Settings, workers: int) -> None:
    """Make the app before anything is said that looks like a start: it tells of every setting that is wrong."""
    from bulletproof import service

    if workers == 1:
        _ = service.app  # made once, and kept for the server
    else:
        service.create_app(settings.model_copy(update={"otel": False}))  # each worker has its own, and its exporters


@contextmanager
def _counting_together(workers: int) -> Iterator[None]:
    """Have several workers keep their figures in one folder: a scrape reaches one of them and tells of all."""
    if workers == 1 or "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        yield
        return
    _sweep_figures(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_FIGURES, ignore_cleanup_errors=True) as folder:
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)  # until this process ends, however it ends
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        try:
            yield
        finally:
            os.close(held)


def _sweep_figures(place: Path) -> None:
    """Remove the figures of services that were killed: folders of this user that no process holds."""
    for folder in place.glob(f"{_FIGURES}*"):
        with suppress(OSError):  # gone meanwhile, a link, or somebody else's
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                facts = os.fstat(held)
                # A folder that was only just made may not be held yet.
                if facts.st_uid == os.getuid() and time.time() - facts.st_mtime > _FRESH_SECONDS:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(held)


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
        f"  dashboard     {address}/dashboard\n"
        "Stop with Ctrl-C."
    )
