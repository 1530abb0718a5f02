"""``bulletproof worker``: works on batches and uploads without HTTP."""

import asyncio
from typing import Annotated

import typer

from bulletproof.errors import ConfigurationError
from bulletproof.errors.installing import not_installed
from bulletproof.settings import load_settings


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="URLs at the same time. [default: $BULLETPROOF_BATCH_CONCURRENCY or 16]"),
    ] = None,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for what is under way when it is told to stop.")] = 20.0,
) -> None:
    """Work on batches of URLs and on uploads that wait, beside the service and other workers on the same database.

    Start as many as there are cores, on as many machines as you like (with PostgreSQL). SIGTERM or Ctrl-C hands back
    what is under way; one that is killed loses nothing: others take up what it had.
    """
    settings = load_settings(**({"batch_concurrency": concurrency} if concurrency is not None else {}))
    if not settings.batch_concurrency:
        raise ConfigurationError(
            "BULLETPROOF_BATCH_CONCURRENCY is 0: a worker would do nothing", hint="bulletproof worker --concurrency 16"
        )
    try:
        from bulletproof.service.faults import chaos_of, jobs_with, put_into, warn_of
        from bulletproof.service.logs import configure_logs
        from bulletproof.service.sharing import shared_memory
    except ImportError as error:
        raise not_installed("the service is not installed", "service") from error
    from bulletproof.jobs.worker import run_until_told
    from bulletproof.monitor import AIErrorMonitor
    from bulletproof.processor import AIDataProcessor, default_analyzer, door_workers

    configure_logs(settings)
    chaos = chaos_of(settings)
    warn_of(chaos)

    async def work() -> None:
        monitor = AIErrorMonitor()
        analyzer = default_analyzer(settings, monitor, workers=door_workers())
        async with AIDataProcessor(settings=settings, analyzer=analyzer, monitor=monitor) as processor:
            if chaos.active:
                put_into(processor, chaos)
            async with shared_memory(processor):
                await run_until_told(jobs_with(settings, processor, chaos), drain_seconds=drain)

    asyncio.run(work())
