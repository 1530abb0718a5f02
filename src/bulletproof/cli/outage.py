"""What ``bulletproof demo outage`` shows: a provider that limits, dies and comes back, and workers that call it."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulletproof.errors import AIError, classify
from bulletproof.resilience import (
    AIServiceCircuitBreaker,
    Backoff,
    CircuitConfig,
    Gate,
    Policy,
    RetryPolicy,
    SharedState,
)
from bulletproof.store import KeptStore, ResultStore, SqlStateStore

FUNCTION = "demo.ask"
GRACE = 1.0
"""Seconds after the first 429 in which requests may still arrive that were under way."""

_CALLERS = 2
_PAUSE = 0.4
_TOLD = 0.2
_DRAIN_SECONDS = 60.0
_REASONS = {200: "OK", 429: "Too Many Requests", 503: "Service Unavailable"}


class Provider:
    """An OpenAI-compatible service on a real socket, which counts what reaches it."""

    def __init__(self) -> None:
        self.port = 0
        self.failing = False
        self.limited_until = 0.0
        self.statuses: Counter[int] = Counter()
        self.answered: Counter[str] = Counter()
        self.after_limit: list[float] = []  # when requests came after the first 429 of the limit, in seconds
        self._first_429: float | None = None
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Take connections, always on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no connections."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def late(self) -> int:
        """How many requests came during the limit although everybody had to know of it."""
        return sum(seconds > GRACE for seconds in self.after_limit)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
            prompt = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
            status, headers, body = self._answer(prompt)
            content = json.dumps(body).encode()
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{headers}content-type: application/json\r\n"
            writer.write(f"{head}content-length: {len(content)}\r\nconnection: close\r\n\r\n".encode() + content)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # a client that went away
        finally:
            writer.close()

    def _answer(self, prompt: str) -> tuple[int, str, dict[str, Any]]:
        now = time.monotonic()
        left = self.limited_until - now
        status = 503 if self.failing else 429 if left > 0 else 200
        self.statuses[status] += 1
        if status == 429:
            self._first_429 = now if self._first_429 is None else self._first_429
            self.after_limit.append(now - self._first_429)
            return status, f"retry-after: {left:.2f}\r\n", {"error": {"message": "slow down", "type": "rate_limit"}}
        if status == 503:
            return status, "", {"error": {"message": "out of order", "type": "server_error"}}
        self.answered[prompt] += 1
        message = {"role": "assistant", "content": f"answer to {prompt}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return (
            status,
            "",
            {"id": prompt, "object": "chat.completion", "created": 0, "model": "demo", "choices": [choice]},
        )


async def work(number: int, port: int, folder: Path, seconds: float) -> None:
    """Be one of the workers: call the provider for so many seconds, run kept calls until told to stop."""
    import openai

    from bulletproof.jobs import KeptCalls
    from bulletproof.llm import wrap

    store = ResultStore(data_dir=folder)
    shared = SharedState(SqlStateStore(store.access), interval=0.1)
    breaker = shared.add(
        AIServiceCircuitBreaker("provider", CircuitConfig(failure_threshold=5, success_threshold=1, timeout=1))
    )
    gate = shared.add_gate(Gate("provider", on_hold=shared.hold))
    policy = Policy(retry=RetryPolicy(base_delay=0.2), gate=gate, breaker=breaker, timeout=5)
    # Proxies of the environment are for the internet; this provider is on the same machine.
    plain = openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1",
        api_key="none",
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    )
    client = wrap(plain, policy)
    kept = KeptCalls(store, poll=0.1, lease=10, backoff=Backoff(base=0.5, cap=2))
    told: Counter[str] = Counter()

    @kept.keep(name=FUNCTION, breaker=breaker, key=str, rate=50)
    async def ask(prompt: str) -> str | None:
        answer = await client.chat.completions.create(model="demo", messages=[{"role": "user", "content": prompt}])
        return answer.choices[0].message.content

    async def call() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            told["made"] += 1
            try:
                await ask(f"{number}-{told['made']}")
                told["answered"] += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it is counted
                told["kept" if getattr(error, "kept_id", None) else "lost"] += 1
                told[classify(error).code] += 1
            await asyncio.sleep(_PAUSE)

    def tell(**more: Any) -> None:
        circuit, hold = str(breaker.state.value), round(gate.remaining, 1)
        sys.stdout.write(json.dumps({**told, "circuit": circuit, "hold": hold, **more}) + "\n")
        sys.stdout.flush()

    await store.open()
    await shared.exchange()
    shared.start()
    tell(ready=True)
    await asyncio.to_thread(sys.stdin.readline)
    async with kept:
        calls = asyncio.gather(*(call() for _ in range(_CALLERS)))
        stop = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        while not stop.done():
            tell(finished=calls.done())
            await asyncio.wait([stop], timeout=_TOLD)
        await calls
    await shared.aclose()
    await plain.close()
    await store.aclose()
    tell(finished=True)


@dataclass
class Story:
    """What happens, and what was counted: at the provider, in the database, by the workers.

    Args:
        folder: Where the database of the workers is.
        seconds: How long the workers make calls.
        workers: How many there are.
    """

    folder: Path
    seconds: float
    workers: int
    provider: Provider = field(default_factory=Provider)
    phase: str = "starting"
    told: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("kept", "done", "left"), 0))

    async def run(self) -> None:
        """Let it happen."""
        store = ResultStore(data_dir=self.folder)
        kept = KeptStore(store.access)
        await store.open()
        await self.provider.listen()
        async with asyncio.timeout(self.seconds + _DRAIN_SECONDS), self._workers() as processes:
            happening = asyncio.create_task(self._happen(processes))
            while not (happening.done() and all(one.get("finished") for one in self.told)) or await self._count(kept):
                await asyncio.wait([happening], timeout=_TOLD)
                await self._count(kept)
                if happening.done():
                    self.phase = "all calls are made; what is kept is run again"
                    await asyncio.sleep(_TOLD)
        await self._count(kept)
        await self.provider.refuse()
        await store.aclose()

    async def _count(self, kept: KeptStore) -> int:
        self.counts |= (await kept.counts()).get(FUNCTION, {})
        return self.counts["left"]

    async def _happen(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        provider, part = self.provider, self.seconds / 20
        _say(processes, b"go\n")
        self.phase = "all is well"
        await asyncio.sleep(3 * part)
        limit = max(GRACE + 1, 3 * part)
        self.phase = f"rate limit: 429, Retry-After {limit:.1f} s"
        provider.limited_until = time.monotonic() + limit
        await asyncio.sleep(limit)
        self.phase = "all is well again"
        await asyncio.sleep(2 * part)
        self.phase = "outage: connections are refused"
        await provider.refuse()
        await asyncio.sleep(2.5 * part)
        self.phase = "outage: every request is answered 503"
        provider.failing = True
        await provider.listen()
        await asyncio.sleep(2.5 * part)
        self.phase = "the provider is back"
        provider.failing = False
        await asyncio.sleep(5 * part)

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[Sequence[asyncio.subprocess.Process]]:
        processes, reading = [], []
        try:
            for number in range(1, self.workers + 1):
                command = ["-m", __name__, str(number), str(self.provider.port), str(self.folder), str(self.seconds)]
                pipe = asyncio.subprocess.PIPE
                processes.append(
                    await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe)
                )
                self.told.append({})
                reading.append(asyncio.create_task(self._listen(number - 1, processes[-1].stdout)))
            while not all(self.told):
                await asyncio.sleep(_TOLD)
                if any(process.returncode is not None for process in processes):
                    raise AIError("a worker of the demo ended before it began; its error stands above")
            yield processes
            _say(processes, b"stop\n")
            await asyncio.gather(*(process.wait() for process in processes), *reading)
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*(process.wait() for process in processes), *reading, return_exceptions=True)

    async def _listen(self, index: int, lines: Any) -> None:
        async for line in lines:
            self.told[index] = json.loads(line)

    def made(self) -> set[str]:
        """Return every call that the workers made."""
        return {f"{worker}-{n}" for worker, one in enumerate(self.told, 1) for n in range(1, one.get("made", 0) + 1)}

    def verdict(self) -> Iterator[tuple[bool, str]]:
        """Yield what was to be shown: whether it is so, and the figures."""
        provider, counts, made = self.provider, self.counts, self.made()
        never = made - provider.answered.keys()
        again = sum(number > 1 for number in provider.answered.values())
        hit = provider.statuses[429]
        last = max((seconds for seconds in provider.after_limit if seconds <= GRACE), default=0.0)
        yield (
            hit > 0 and not provider.late,
            (
                f"Rate limit: {hit} answers of 429 to {self.workers} workers, the last {last:.2f} s after the first; "
                f"{provider.late} requests came later than {GRACE:g} s, as long as the limit held"
            ),
        )
        refused = sum(one.get("circuit_open", 0) for one in self.told)
        yield (
            counts["kept"] > 0 and refused > 0,
            (
                f"Outage: {provider.statuses[503]} answers of 503, {refused} calls refused by open circuits, "
                f"{counts['kept']} calls kept in the database"
            ),
        )
        yield (
            counts["kept"] == counts["done"] and not counts["left"],
            (f"Recovery: {counts['done']} of {counts['kept']} kept calls run again, {counts['left']} left"),
        )
        lost = sum(one.get("lost", 0) for one in self.told)
        yield (
            bool(made) and not never and not lost,
            (
                f"Nothing lost: {len(made)} calls made, {len(made) - len(never)} answered by the provider "
                f"({again} more than once), {lost} failed without being kept"
            ),
        )


def _say(processes: Sequence[asyncio.subprocess.Process], line: bytes) -> None:
    for process in processes:
        if process.stdin is not None:
            process.stdin.write(line)


if __name__ == "__main__":
    asyncio.run(work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])))
