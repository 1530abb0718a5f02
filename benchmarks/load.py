"""A load generator: one process that keeps an HTTP server busy and notes every answer.

Closed: so many connections, each sends its next request as soon as it has its answer. Open: so many requests a second,
whether the answers come or not, each on a free connection or a new one. What is answered later than ``deadline``
seconds after it was sent counts as late, not as answered meanwhile.

    python -m benchmarks.load '{"port": 8000, "path": "/predict", "body": "{}", "connections": 16, "seconds": 5}'
"""

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import uvloop

PATIENCE = 10.0  # seconds after which a client of the open kind gives up


class Connection(asyncio.Protocol):
    """One connection; sends one request at a time."""

    def __init__(self, request: bytes, note: Any) -> None:
        self.request = request
        self.note = note
        self.buffer = b""
        self.started = 0.0
        self.closed = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self) -> None:
        self.started = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        headers = self.buffer[: head + 2].lower()
        at = headers.find(b"\r\ncontent-length:")
        if at >= 0:
            length = int(headers[at + 17 : headers.find(b"\r", at + 2)])
            if len(self.buffer) < head + 4 + length:
                return
        elif not self.buffer.endswith(b"0\r\n\r\n"):
            return
        status, self.buffer = self.buffer[9:12].decode(), b""
        self.note(self, status, time.perf_counter() - self.started)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed = True
        if self.started:
            self.note(self, "broken", time.perf_counter() - self.started)


async def closed(port: int, request: bytes, connections: int, seconds: float) -> dict[str, Any]:
    """Keep connections busy for some seconds."""
    loop = asyncio.get_running_loop()
    latencies: dict[str, list[float]] = {}
    end = time.perf_counter() + seconds
    left = connections
    done = loop.create_future()

    def note(connection: Connection, status: str, latency: float) -> None:
        nonlocal left
        latencies.setdefault(status, []).append(latency)
        if connection.closed or time.perf_counter() >= end:
            connection.started = 0.0
            connection.transport.close()
            left -= 1
            if not left:
                done.set_result(None)
        else:
            connection.send()

    made = [await loop.create_connection(lambda: Connection(request, note), "127.0.0.1", port)
            for _ in range(connections)]  # fmt: skip
    began = time.perf_counter()
    for _, connection in made:
        connection.send()
    await asyncio.wait_for(done, seconds + 60)
    return summary(latencies, time.perf_counter() - began)


async def opened(port: int, request: bytes, rate: float, seconds: float, deadline: float) -> dict[str, Any]:
    """Send so many requests a second; whoever has no answer in ten seconds gives up."""
    loop = asyncio.get_running_loop()
    latencies: dict[str, list[float]] = {}
    free: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()
    waiting: dict[Connection, asyncio.Future[None]] = {}
    in_time: Counter[str] = Counter()  # what queued up is answered later, and is no part of the rate
    end = time.perf_counter() + seconds

    def note(connection: Connection, status: str, latency: float) -> None:
        future = waiting.pop(connection, None)
        if future is not None and not future.done():
            latencies.setdefault(status, []).append(latency)
            in_time[status] += latency <= deadline and time.perf_counter() <= end
            connection.started = 0.0
            future.set_result(None)

    async def one() -> None:
        try:
            while free and free[-1].closed:
                free.pop()
            connection = free.pop() if free else (
                await loop.create_connection(lambda: Connection(request, note), "127.0.0.1", port)
            )[1]  # fmt: skip
        except OSError:
            latencies.setdefault("refused", []).append(0.0)
            return
        waiting[connection] = loop.create_future()
        connection.send()
        done, _ = await asyncio.wait([waiting[connection]], timeout=PATIENCE)
        if done and not connection.closed:
            free.append(connection)
        elif not done:
            waiting.pop(connection, None)
            connection.started = 0.0
            connection.transport.close()
            latencies.setdefault("given up", []).append(PATIENCE)

    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    sent = time.perf_counter() - began
    while tasks:
        await asyncio.wait(tasks)
    rates = {status: round(count / seconds, 1) for status, count in in_time.items()}
    return summary(latencies, sent) | {"offered": rate, "rate_meanwhile": rates}


def summary(latencies: dict[str, list[float]], seconds: float) -> dict[str, Any]:
    """Return counts, rates and quantiles by status."""
    found: dict[str, Any] = {"seconds": round(seconds, 3), "statuses": dict(Counter({
        status: len(values) for status, values in latencies.items()}))}  # fmt: skip
    for status, values in latencies.items():
        values.sort()
        found[status] = {
            "rate": round(len(values) / seconds, 1),
            **{f"p{q}_ms": round(1000 * values[min(len(values) - 1, len(values) * q // 100)], 3) for q in (50, 95, 99)},
        }
    return found


async def main(plan: dict[str, Any]) -> None:
    """Do as the plan says and print what came of it as JSON."""
    body = plan["body"].encode()
    headers = {"Host": f"127.0.0.1:{plan['port']}", "Content-Type": "application/json", **plan.get("headers", {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {plan['path']} HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if "rate" in plan:
        found = await opened(plan["port"], request, plan["rate"], plan["seconds"], plan.get("deadline", PATIENCE))
    else:
        found = await closed(plan["port"], request, plan["connections"], plan["seconds"])
    print(json.dumps(found))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
