"""Uses whose types mypy checks; never run."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

from bulletproof.resilience import (
    AdaptiveLimit,
    Bulkhead,
    Fallback,
    Gate,
    Hedge,
    Policy,
    RateLimit,
    RetryPolicy,
    ai_api_retry,
    timeout,
)


@ai_api_retry(max_retries=3)
def plain(prompt: str, *, model: str = "m") -> int:
    return len(prompt + model)


@RetryPolicy(max_attempts=3)
async def coroutine(prompt: str) -> int:
    return len(prompt)


@Policy(deadline=30, retry=RetryPolicy())
def stream(prompt: str) -> Iterator[str]:
    yield prompt


@RetryPolicy()
async def async_stream(prompt: str) -> AsyncIterator[str]:
    yield prompt


class Client:
    @ai_api_retry()
    async def ask(self, prompt: str) -> bytes:
        return prompt.encode()


async def uses(client: Client) -> None:
    assert_type(plain("a", model="b"), int)
    assert_type(await coroutine("a"), int)
    assert_type(await client.ask("a"), bytes)
    assert_type(stream("a"), Iterator[str])
    assert_type(async_stream("a"), AsyncIterator[str])

    plain(5)  # type: ignore[arg-type]
    plain("a", mode="b")  # type: ignore[call-arg]
    await coroutine(5)  # type: ignore[arg-type]
    await client.ask()  # type: ignore[call-arg]

    async def fetch(url: str) -> bytes:
        return url.encode()

    def read(path: str) -> str:
        return path

    guards = (Bulkhead("x", max_concurrent=1), RateLimit(1), AdaptiveLimit("x"), Gate("x"))
    for guard in guards:
        assert_type(await guard.call(fetch, "u"), bytes)
    for policy in (RetryPolicy(), Policy(), Hedge(), Fallback(fetch), timeout(5)):
        kept: Callable[[str], Coroutine[Any, Any, bytes]] = policy(fetch)
        assert_type(await kept("u"), bytes)
        assert_type(await policy.call(fetch, "u"), bytes)
        assert_type(policy.call(read, "u"), str)
        policy.call(read, 5)  # type: ignore[arg-type]
