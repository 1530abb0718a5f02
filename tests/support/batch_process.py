"""A process that works on batches with stages that cost nothing, for tests that kill it.

``python batch_process.py DATA_DIR LOG [--url URL] [--seconds S] [--changed] [--concurrency N] [--down FILE]``: every
download is a line in LOG, and the analysis is down while FILE is there. It prints ``ready`` when it takes jobs. With
``--changed`` the code of the workflow is another.
"""

import argparse
import asyncio
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any


def change_code() -> None:
    """Load the workflow's module with a line more in the workflow."""
    name = "bulletproof.jobs.executor"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    before = "        executor, job_id = _current, DBOS.workflow_id\n"
    assert before in source
    changed = Path(sys.argv[2]).with_suffix(".changed.py")
    changed.write_text(source.replace(before, before + "        assert kind  # a new line\n"))
    spec = importlib.util.spec_from_file_location(name, changed)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir")
    parser.add_argument("log")
    parser.add_argument("--url")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--down", type=Path)
    parser.add_argument("--drain", type=float, default=5.0)
    parser.add_argument("--changed", action="store_true")
    given = parser.parse_args()
    if given.changed:
        change_code()

    from bulletproof.errors import ServiceUnavailableError
    from bulletproof.jobs import BatchJobs
    from bulletproof.jobs.worker import run_until_told
    from bulletproof.pipeline import AIProcessingPipeline
    from bulletproof.settings import Settings
    from bulletproof.store import BatchStore, ResultStore

    log = os.open(given.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Canned(AIProcessingPipeline):
        async def download_content(self, url: str) -> str:
            os.write(log, f"{os.getpid()} {url}\n".encode())
            await asyncio.sleep(given.seconds)
            return f"About {url}"

        async def extract_text(self, content: str) -> str:
            return content

        async def analyze_sentiment(self, text: str) -> float:
            if given.down is not None and given.down.exists():
                raise ServiceUnavailableError("the analyzer is down")
            return 0.5

    async def work() -> None:
        settings = Settings(data_dir=Path(given.data_dir), batch_concurrency=given.concurrency)
        results = ResultStore(given.url, data_dir=settings.data_dir)
        store = BatchStore(results.access)

        def make() -> Any:
            return Canned(given.concurrency, store=store, settings=settings)

        jobs = BatchJobs(settings, store=store, make_pipeline=make, tick=0.5)
        running = asyncio.create_task(run_until_told(jobs, drain_seconds=given.drain))
        await asyncio.sleep(0)
        await jobs.executor.ready()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await running
        await results.aclose()

    asyncio.run(work())


if __name__ == "__main__":
    main()
