"""A real SDK against a real server that refuses, stalls and recovers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from bulletproof.errors import CircuitOpenError, ServiceTimeoutError
from bulletproof.resilience import AIServiceCircuitBreaker, CircuitConfig, Gate, Policy, RetryPolicy, no_waits

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
}


class Server:
    """Answers with what it was given, in order: status, headers, seconds to stall; then well for ever."""

    def __init__(self) -> None:
        self.script: list[tuple[int, dict[str, str], float]] = []
        self.requests = 0
        self.free = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                outer.requests += 1
                status, headers, stall = outer.script.pop(0) if outer.script else (200, {}, 0.0)
                if stall:
                    outer.free.wait(stall)
                    return
                body = json.dumps(ANSWER if status == 200 else {"error": {"message": "no"}}).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def settings(self) -> dict[str, object]:
        return {"base_url": f"http://127.0.0.1:{self.http.server_port}/v1", "api_key": "k", "max_retries": 0}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.free.set()
    server.http.shutdown()
    server.http.server_close()


ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


async def test_an_async_client_is_retried_as_the_service_asks(server):
    server.script = [(429, {"retry-after": "7"}, 0), (503, {"retry-after-ms": "1500"}, 0), (500, {}, 0)]
    async with openai.AsyncOpenAI(**server.settings) as client:
        create = RetryPolicy(max_attempts=4, jitter="none")(client.chat.completions.create)
        with no_waits() as waits:
            answer = await create(**ASK)
    assert answer.choices[0].message.content == "hello"
    assert waits == [7, 1.5, 2]


def test_a_plain_client_is_retried_as_the_service_asks(server):
    server.script = [(429, {"retry-after": "7"}, 0), (409, {"x-should-retry": "true"}, 0)]
    with openai.OpenAI(**server.settings) as client, no_waits() as waits:
        answer = RetryPolicy(jitter="none").call(client.chat.completions.create, **ASK)
    assert answer.choices[0].message.content == "hello"
    assert waits == [7, 1]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, {}, 0), openai.AuthenticationError),
        ((400, {}, 0), openai.BadRequestError),
        ((503, {"x-should-retry": "false"}, 0), openai.InternalServerError),
        ((429, {"retry-after": "3600"}, 0), openai.RateLimitError),
    ],
)
def test_what_is_hopeless_is_asked_once_and_raised_as_the_sdk_raised_it(server, answer, error):
    server.script = [answer] * 3
    with openai.OpenAI(**server.settings) as client, no_waits() as waits, pytest.raises(error):
        RetryPolicy().call(client.chat.completions.create, **ASK)
    assert (server.requests, waits) == (1, [])


async def test_a_server_that_stalls_is_timed_out_retried_and_finally_left_alone(server):
    server.script = [(200, {}, 30)] * 9
    breaker = AIServiceCircuitBreaker("openai", CircuitConfig(failure_threshold=3))
    async with openai.AsyncOpenAI(**server.settings) as client:
        create = Policy(
            retry=RetryPolicy(max_attempts=2), breaker=breaker, timeout=0.2, deadline=30, gate=Gate("openai")
        )(client.chat.completions.create)
        with no_waits():
            with pytest.raises(ServiceTimeoutError):
                await create(**ASK)
            with pytest.raises(CircuitOpenError):
                await create(**ASK)
        with pytest.raises(CircuitOpenError):
            await create(**ASK)
    assert server.requests == 3
    assert breaker.get_metrics()["failures"] == 3
