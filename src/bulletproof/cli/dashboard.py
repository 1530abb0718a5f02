"""``bulletproof dashboard``: the dashboard as a process of its own."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from bulletproof.cli.ports import check_free, is_free
from bulletproof.errors import ConfigurationError
from bulletproof.errors.installing import not_installed
from bulletproof.settings import Settings, load_settings

_GRACE_SECONDS = 5
_STOP_SECONDS = 10


def dashboard(
    api: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8000",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8001,
) -> None:
    """Show a running service to people in their browsers.

    A service with one worker has its dashboard at /dashboard already. Where the service wants API keys, the dashboard
    asks for one; where it does not, it answers this machine only.

    bulletproof dashboard --api http://127.0.0.1:8000
    """
    if not api.startswith(("http://", "https://")):
        raise ConfigurationError(f"--api {api!r} is no address", hint="Write it as http://127.0.0.1:8000.")
    check_free(host, port, "bulletproof dashboard --port 8002")
    typer.echo(f"Dashboard of {api} on http://{host}:{port}\nStop with Ctrl-C.", err=True)
    run_dashboard(api, host, port)


def run_dashboard(api: str, host: str, port: int) -> None:
    """Run the dashboard until it is told to stop, or until the process that started it has ended.

    Args:
        api: Address of the service.
        host: Address to listen on.
        port: Port to listen on.

    Raises:
        ConfigurationError: The dashboard is not installed.
    """
    from bulletproof.dashboard import create_dashboard_app, missing

    if lacking := missing():
        raise not_installed(f"the dashboard is not installed: {' and '.join(lacking)} missing", "dashboard")
    import uvicorn

    from bulletproof.service.logs import configure_logs
    from bulletproof.workers import end_with_parent

    configure_logs(load_settings())
    server = uvicorn.Server(
        uvicorn.Config(
            create_dashboard_app(api.rstrip("/")),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )
    end_with_parent()
    with suppress(KeyboardInterrupt):
        server.run()


@contextmanager
def dashboard_beside(settings: Settings, workers: int) -> Iterator[int | None]:
    """Run the dashboard beside a service of several workers, none of which could keep its pages.

    Args:
        settings: ``host``, ``port`` and ``dashboard_port`` are used.
        workers: Number of worker processes.

    Yields:
        The port of the dashboard; None when it is not a process of its own, or is not installed.
    """
    from bulletproof.dashboard import missing

    if workers == 1 or missing():
        yield None
        return
    if settings.dashboard_port is not None:
        port = settings.dashboard_port
        check_free(settings.host, port, "BULLETPROOF_DASHBOARD_PORT=8002")
    else:
        candidates = range(settings.port + 1, min(settings.port + 50, 65536))
        port = next((candidate for candidate in candidates if is_free(settings.host, candidate)), 0)
        if not port:
            yield None
            return
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    api = f"http://{f'[{near}]' if ':' in near else near}:{settings.port}"
    process = multiprocessing.get_context("spawn").Process(
        target=run_dashboard, args=(api, settings.host, port), daemon=True, name="bulletproof-dashboard"
    )
    process.start()
    try:
        yield port
    finally:
        process.terminate()
        process.join(_STOP_SECONDS)
