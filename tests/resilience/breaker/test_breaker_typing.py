"""What type checkers see: decorators and calls keep signatures and results."""

import subprocess
import sys
from pathlib import Path

CHECKS = """
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, assert_type

from bulletproof.resilience import AIServiceCircuitBreaker, BreakerRegistry, CircuitConfig, CircuitState

breaker = AIServiceCircuitBreaker("llm", CircuitConfig(failure_threshold=3, timeout=30))

@breaker
async def ask(prompt: str, *, model: str = "m") -> int:
    return 1

@breaker
def tell(count: int) -> str:
    return "x"

@breaker
def items(count: int) -> Generator[int, str, bool]:
    yield 1
    return True

@breaker
async def async_items(count: int) -> AsyncGenerator[int, None]:
    yield 1

class Client:
    @breaker
    async def ask(self, prompt: str) -> bytes:
        return b""

async def plain_coroutine(prompt: str, *, model: str = "m") -> int:
    return 1

def plain(count: int) -> str:
    return "x"

async def main() -> None:
    same: Callable[[str], Coroutine[Any, Any, int]] = ask
    assert_type(await ask("x", model="y"), int)
    assert_type(tell(1), str)
    assert_type(items(1), Generator[int, str, bool])
    assert_type(async_items(1), AsyncGenerator[int, None])
    assert_type(await Client().ask("x"), bytes)
    assert_type(await breaker.call(plain_coroutine, "x", model="y"), int)
    assert_type(await breaker.call(plain, 1), str)
    assert_type(breaker.call_sync(plain, 1), str)
    assert_type(breaker.state, CircuitState)
    assert_type(breaker.get_metrics(), dict[str, Any])
    assert_type(BreakerRegistry().get("x"), AIServiceCircuitBreaker)
    with breaker as one:
        assert_type(one, AIServiceCircuitBreaker)
    async with breaker as two:
        assert_type(two, AIServiceCircuitBreaker)

    await ask(1)  # type: ignore[arg-type]
    tell("x")  # type: ignore[arg-type]
    tell(1, 2)  # type: ignore[call-arg]
    breaker.call_sync(plain, "x")  # type: ignore[arg-type]
    await breaker.call(plain_coroutine, "x", model=1)  # type: ignore[arg-type]
    CircuitConfig(mode="sometimes")  # type: ignore[arg-type]
"""


def test_mypy_agrees(tmp_path: Path) -> None:
    file = tmp_path / "checks.py"
    file.write_text(CHECKS)
    # With the project's own settings, and so with the cache that linting has filled.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", str(file)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout + done.stderr == ""
