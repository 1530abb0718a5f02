"""Run the behaviour cases of the circuit breaker against every library that is installed; write the table.

    python -m benchmarks.conformance

Times are real and short. A case that needs something a library does not claim in its documentation is marked so and not
held against it; neither are names and texts. Each library is set up as it documents.
"""

import asyncio
import contextlib
import gc
import importlib.metadata
import logging
import sys
import tempfile
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.peers.breakers import MistakeError, RefusedError, Subject, Wanted, installed

PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"
MET, MISSED, UNCLAIMED = "yes", "**no**", "–"


class Bench:
    """A breaker under test, and the calls that cases are made of."""

    def __init__(self, adapter: type[Subject], wanted: Wanted) -> None:
        if "sub_second" not in adapter.claims:
            wanted = Wanted(wanted.failures, 1.0, wanted.successes, wanted.window, wanted.mode)
        self.open_for = wanted.open_for
        self.subject = adapter(wanted)
        self.runs = 0

    async def success(self, lasts: float = 0.0) -> None:
        """S."""

        async def work() -> str:
            self.runs += 1
            if lasts:
                await asyncio.sleep(lasts)
            return "done"

        assert await self.subject.call(work) == "done"

    async def failure(self, error: BaseException | None = None) -> None:
        """F: whatever comes out."""

        async def work() -> None:
            self.runs += 1
            raise error if error is not None else ConnectionError("boom")

        with contextlib.suppress(Exception):
            await self.subject.call(work)

    async def failures(self, count: int = 5) -> None:
        """F, so often."""
        for _ in range(count):
            await self.failure()

    async def ignored(self) -> None:
        """X."""
        await self.failure(MistakeError("the caller's"))

    async def refuses(self) -> bool:
        """Whether a call is refused without being run."""
        before = self.runs
        try:
            await self.success()
        except RefusedError:
            return self.runs == before
        return False

    async def opened(self) -> None:
        """Pass the open time."""
        await asyncio.sleep(self.open_for * 1.3)

    def start(self, event: asyncio.Event, error: Exception | None = None) -> asyncio.Task[None]:
        """Begin a call that ends when told."""

        async def work() -> None:
            self.runs += 1
            await event.wait()
            if error is not None:
                raise error

        async def call() -> None:
            with contextlib.suppress(Exception):
                await self.subject.call(work)

        return asyncio.create_task(call())


Case = Callable[[type[Subject]], Awaitable[None]]
CASES: list[tuple[str, str, frozenset[str], Case]] = []


def case(name: str, then: str, *needs: str) -> Callable[[Case], Case]:
    """Register a case: its id, what has to hold, and what a library has to claim for it to be asked."""

    def register(run: Case) -> Case:
        CASES.append((name, then, frozenset(needs), run))
        return run

    return register


@case("A1", "the fifth failure opens it, and that call raises its own error")
async def own_error(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures(4)
    error = ConnectionError("the fifth")

    async def work() -> None:
        raise error

    try:
        await bench.subject.call(work)
    except Exception as raised:
        caught = raised
    assert caught is error, f"{type(caught).__name__} came out"
    assert await bench.refuses()


@case("A2", "failures leave the window", "time_window")
async def window(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(window=0.1))
    await bench.failures(4)
    await asyncio.sleep(0.15)
    await bench.failure()
    assert not await bench.refuses()


@case("A4", "one success does not wipe a windowed count", "time_window")
async def not_wiped(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures(4)
    await bench.success()
    await bench.failure()
    assert await bench.refuses()


@case("A4", "one success ends a streak where failures in a row are counted", "consecutive")
async def streak(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(mode="consecutive"))
    await bench.failures(4)
    await bench.success()
    await bench.failures(4)
    assert not await bench.refuses()


@case("A5", "an excluded error is neither a failure nor a success that resets the count", "exclude", "consecutive")
async def neutral(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(mode="consecutive"))
    await bench.failures(3)
    await bench.ignored()
    await bench.failures(2)
    assert await bench.refuses(), "the excluded error reset the count"


@case("A6", "cancellation from outside counts for nothing", "async")
async def cancelled(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    for _ in range(5):
        task = bench.start(asyncio.Event())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled(), "the cancellation did not come out"
    assert not await bench.refuses(), "cancellations opened it"


@case("A7", "a timeout inside the breaker counts", "async")
async def timeout(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())

    async def work() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(1)

    for _ in range(5):
        with contextlib.suppress(Exception):
            await bench.subject.call(work)
    assert await bench.refuses()


@case("A8", "at 50 %, minimum 5: a success can open it by reaching the minimum", "rate")
async def rate(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(mode="rate"))
    await bench.failures(3)
    await bench.success()
    await bench.success()
    assert await bench.refuses(), "a success never opens it"


@case("A10", "slow calls alone open it", "slow")
async def slow(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(mode="slow"))
    for lasts in (0.03, 0.03, 0, 0, 0.03):
        await bench.success(lasts)
    assert await bench.refuses()


@case("B1", "open, it refuses without running the function")
async def refusal(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures()
    assert await bench.refuses()


@case("B3", "after the open time the next call is let through", "half_open")
async def probe(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures()
    await bench.opened()
    await bench.success()


@case("B5", "a success that comes late, while it is open, does not close it", "async")
async def late_success(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    release = asyncio.Event()
    task = bench.start(release)
    await asyncio.sleep(0.001)
    await bench.failures()
    release.set()
    await task
    assert await bench.refuses(), "the late success closed it"


@case("B7", "refusals are fresh errors; neither tracebacks nor memory grow")
async def constant(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(open_for=60.0))
    bench.subject = adapter(Wanted(open_for=60.0))
    await bench.failures()

    async def refuse() -> BaseException:
        try:
            await bench.success()
        except RefusedError as error:
            return error.__cause__ or error
        raise AssertionError("not refused")

    def depth(error: BaseException) -> int:
        trace, count = error.__traceback__, 0
        while trace is not None:
            trace, count = trace.tb_next, count + 1
        return count

    first, second = await refuse(), await refuse()
    assert first is not second, "the same error object each time"
    before = depth(second)
    del first, second
    sizes = []
    tracemalloc.start()
    for _ in range(3):
        for _ in range(500):
            last = await refuse()
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert depth(last) == before, "the traceback grows"
    assert sizes[2] - sizes[1] < 50_000, "memory grows"


@case("C1", "of 100 calls that arrive together one is the probe", "async", "half_open")
async def storm(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures()
    await bench.opened()
    before = bench.runs
    release = asyncio.Event()
    tasks = [bench.start(release) for _ in range(100)]
    await asyncio.sleep(0.01)
    ran = bench.runs - before
    release.set()
    await asyncio.gather(*tasks)
    assert ran == 1, f"{ran} ran"


@case("C3", "three successful probes, one after the other, close it", "half_open", "successes")
async def closing(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(successes=3))
    await bench.failures()
    await bench.opened()
    for _ in range(3):
        await bench.success()
    await bench.failure()
    assert not await bench.refuses(), "not closed"


@case("C4", "a failed probe opens it again for a fresh time", "half_open")
async def reopening(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures()
    await bench.opened()
    await bench.failure()
    assert await bench.refuses()
    await bench.opened()
    await bench.success()


@case("C5", "a cancelled probe gives its place back: not closed, not wedged", "async", "half_open")
async def cancelled_probe(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    await bench.failures()
    await bench.opened()
    task = bench.start(asyncio.Event())
    await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    with contextlib.suppress(RefusedError):
        await bench.failure()  # whatever it did with the cancellation, a failed probe opens it, a closed one does not
    if not await bench.refuses():
        raise AssertionError("the cancelled probe closed it")
    await bench.opened()
    await bench.success()


@case("C6", "an excluded error as a probe neither closes nor opens it", "half_open", "exclude", "successes")
async def neutral_probe(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(successes=3))
    await bench.failures()
    await bench.opened()
    for _ in range(4):
        before = bench.runs
        await bench.ignored()
        assert bench.runs == before + 1, "refused"
    await bench.failure()
    assert await bench.refuses(), "closed by excluded errors"


@case(
    "C7",
    "a failure that comes late, from before it opened, does not fail the probes",
    "async",
    "half_open",
    "successes",
)
async def late_failure(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted(successes=3))
    release = asyncio.Event()
    task = bench.start(release, ConnectionError("late"))
    await asyncio.sleep(0.001)
    await bench.failures()
    await bench.opened()
    await bench.success()
    release.set()
    await task
    await bench.success()
    await bench.success()


@case("D1", "forced open, it stays so", "force_open")
async def forced(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    bench.subject.force_open()
    await bench.opened()
    assert await bench.refuses()


@case("D3", "in shadow mode all calls run", "shadow")
async def shadow(adapter: type[Subject]) -> None:
    bench = Bench(adapter, Wanted())
    bench.subject.shadow()
    await bench.failures(8)
    assert bench.runs == 8
    await bench.success()


async def ask(adapter: type[Subject], needs: frozenset[str], run: Case) -> tuple[str, str]:
    """Return the verdict on one case, and what was seen if it was missed."""
    if not needs <= adapter.claims:
        return UNCLAIMED, ""
    try:
        async with asyncio.timeout(20):
            await run(adapter)
    except AssertionError as error:
        return MISSED, str(error).split("\n", 1)[0]
    except Exception as error:
        return MISSED, "a call was refused" if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}"[
            :100
        ]
    return MET, ""


async def table() -> str:
    """Run everything and return the page."""
    adapters, missing = installed()
    lines, notes = [], []
    for name, then, needs, run in CASES:
        cells = []
        for adapter in adapters:
            verdict, seen = await ask(adapter, needs, run)
            cells.append(verdict)
            if verdict == MISSED:
                notes.append(f"- {adapter.library}, {name}: {seen or 'it did otherwise'}")
        lines.append(f"| {name} | {then} | {' | '.join(cells)} |")
        print(f"{name:<4} {' '.join(f'{cell:<7}' for cell in cells)} {then}")
    heads = [f"{adapter.library} {importlib.metadata.version(adapter.library)}" for adapter in adapters]
    return PREFACE.format(
        head=" | ".join(heads),
        rule="|".join(["---"] * (len(heads) + 2)),
        rows="\n".join(lines),
        notes="\n".join(notes) or "- nothing",
        missing=f"\nNot installed when this was made: {', '.join(missing)}.\n" if missing else "",
    )


PREFACE = """# Who does what: circuit breakers of Python compared

Behaviour that people rely on at three in the morning, and that libraries treat differently. The table is made by
`python -m benchmarks.conformance`, which runs each case against each library through a small adapter
(`benchmarks/peers/breakers.py`), with real, short times. Corrections of an adapter are welcome.

- **yes**: the library does it. **no**: it does otherwise; what was seen stands below.
- **–**: the library's documentation does not claim what the case is about (a time window, a share of failing calls, a
  number of closing successes, coroutines), so it is not asked. Pybreaker is used with plain functions, since its
  coroutine support needs Tornado; cases that need several calls at once are not asked of it.

A *no* is not always a mistake: some libraries chose another meaning, such as an error of the breaker's own for the
call that trips it, or excluded errors that count as successes. The cases are ours, and so is one of the columns.

| case | then | {head} |
|{rule}|
{rows}

## What was seen

{notes}
{missing}"""


def main() -> int:
    """Write the page; 1 if our own column has a no."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # some keep files where they run
        page = asyncio.run(table())
    PAGE.write_text(page)
    print(f"\nwritten: {PAGE.name}")
    return 1 if "- bulletproof-ai," in page else 0


if __name__ == "__main__":
    sys.exit(main())
