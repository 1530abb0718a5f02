"""Faults in the running service, to rehearse outages; off unless two settings ask for them."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from bulletproof.chaos import Chaos, Plan
from bulletproof.errors import ConfigurationError
from bulletproof.processor import AIDataProcessor
from bulletproof.service.parts import llm_of
from bulletproof.settings import Settings
from bulletproof.store import BatchStore

if TYPE_CHECKING:
    from bulletproof.jobs import BatchJobs
    from bulletproof.pipeline import AIProcessingPipeline

logger = logging.getLogger("bulletproof.service")

STAGES = ("analyze", "llm", "store", "download")
"""The local model at work; a call to the LLM; an operation of the database; the download of a page. Each try counts."""


def chaos_of(settings: Settings) -> Chaos:
    """Return what the settings want to go wrong: by default nothing.

    Raises:
        ConfigurationError: The plan is wrong, names a stage that there is none of, or is not allowed.
    """
    if settings.chaos is None:
        return Chaos(Plan())
    if not settings.chaos_allow:
        raise ConfigurationError(
            "BULLETPROOF_CHAOS is set, which makes the service fail on purpose",
            hint="Unset it; or, where nobody is harmed, set BULLETPROOF_CHAOS_ALLOW=true as well.",
        )
    plan = Plan.from_json(settings.chaos)
    for number, rule in enumerate(plan.rules, 1):
        if not any(rule.concerns(stage) for stage in STAGES):
            raise ConfigurationError(
                f"rule {number} of the chaos plan is about {rule.stage!r:.40}, which is no stage",
                hint=f"The stages are {', '.join(STAGES)}.",
            )
    return Chaos(plan)


def put_into(processor: AIDataProcessor, chaos: Chaos) -> None:
    """Have the parts of a processor struck, inside whatever protects them."""
    local: Any = getattr(processor.analyzer, "fallback", processor.analyzer)
    local.analyze = chaos.wrap(local.analyze, stage="analyze")
    llm: Any = llm_of(processor)
    if llm is not None:
        llm.client._exchange = chaos.wrap(llm.client._exchange, stage="llm")  # noqa: SLF001 - each try, not each call

    async def around(work: Callable[[], Awaitable[Any]]) -> Any:
        async with chaos.point("store"):
            return await work()

    processor.store.access.around = around


def warn_of(chaos: Chaos) -> None:
    """Say in the log that faults are put in, if they are."""
    if chaos.active:
        logger.warning(
            "BULLETPROOF_CHAOS is set: this service FAILS ON PURPOSE, by %d rules about %s",
            len(chaos.plan.rules),
            ", ".join(sorted({rule.stage for rule in chaos.plan.rules})),
        )


def jobs_with(settings: Settings, processor: AIDataProcessor, chaos: Chaos) -> "BatchJobs":
    """Make what runs batches and uploads that wait, struck as the plan says."""
    from bulletproof.jobs import BatchJobs, Uploads
    from bulletproof.jobs.engine import default_pipeline

    store = BatchStore(processor.store.access)
    make = partial(default_pipeline, settings, store, processor.monitor)
    return BatchJobs(
        settings,
        store=store,
        make_pipeline=partial(struck, make, chaos),
        monitor=processor.monitor,
        uploads=Uploads(processor),
    )


def struck(make: "Callable[[], AIProcessingPipeline]", chaos: Chaos) -> "AIProcessingPipeline":
    """Make a pipeline whose downloads are struck."""
    pipeline: Any = make()
    pipeline.download_content = chaos.wrap(pipeline.download_content, stage="download")
    return pipeline  # type: ignore[no-any-return]
