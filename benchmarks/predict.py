"""How fast predictions are served, and how well under too much load: this service and those it stands beside.

All serve the same small ONNX model. Requests per second and latencies in interleaved rounds; the cost of an isolated
model; ten times more requests than a slow model can answer; and what each server answers to bad requests.

    python -m benchmarks.predict           # LitServe and BentoML too after `make .venv/.serving`
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import joblib
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, machine
from benchmarks.peers.serving_model import PLACES, Slow
from benchmarks.serving import BODY, MODEL, SERVING, Server, bare, bentoml, litserve, ours, running
from bulletproof.models import Feature, InputSchema, Limits, ModelRegistry, OutputSchema

CONNECTIONS = 16
SLOW_MS = 40
OURS, KEYED, PLAIN, QUIET = "bulletproof", "bulletproof, with a key", "FastAPI", "FastAPI, no access log"
FOUR = InputSchema(features=tuple(Feature(name=name) for name in ("a", "b", "c", "d")))
CLASSES = OutputSchema(classes=("setosa", "versicolor", "virginica"))
BAD = {
    "empty body": b"",
    "not JSON": b'{"input_data": [5.1,',
    "no input_data": b'{"model_version": "v1.0"}',
    "not a list": b'{"input_data": "5.1, 3.5, 1.4, 0.2"}',
    "three numbers": b'{"input_data": [5.1, 3.5, 1.4]}',
    "five numbers": b'{"input_data": [5.1, 3.5, 1.4, 0.2, 1]}',
    "a text": b'{"input_data": [5.1, "many", 1.4, 0.2]}',
    "digits in quotes": b'{"input_data": [5.1, "3.5", 1.4, 0.2]}',
    "a truth value": b'{"input_data": [true, 3.5, 1.4, 0.2]}',
    "null": b'{"input_data": [null, 3.5, 1.4, 0.2]}',
    "NaN": b'{"input_data": [NaN, 3.5, 1.4, 0.2]}',
    "1e999": b'{"input_data": [1e999, 3.5, 1.4, 0.2]}',
    "out of range": b'{"input_data": [-5.1, 3.5, 1.4, 0.2]}',
    "unknown version": b'{"input_data": [5.1, 3.5, 1.4, 0.2], "model_version": "v9.9"}',
}
console = Console(width=120)


def shelves(folder: Path) -> None:
    """Put an isolated copy of the model, and the slow stand-in, into our registry."""
    registry = ModelRegistry(folder / "models")
    registry.add("apart", "v1.0", MODEL, type="onnx", input=FOUR, output=CLASSES, isolated=True)
    joblib.dump(Slow(), folder / "slow.joblib")
    limits = Limits(max_concurrent=PLACES)
    registry.add("slow", "v1.0", folder / "slow.joblib", type="sklearn", input=FOUR, output=CLASSES, limits=limits)


def keep_busy(server: Server, connections: int, seconds: float) -> dict[str, Any]:
    """Return requests per second, latencies in ms, and milliseconds of CPU for a request."""
    before = server.cpu_seconds()
    if shutil.which("wrk"):
        found = by_wrk(server, connections, seconds)
    else:
        told = server.load(connections=connections, seconds=seconds)
        if set(told["statuses"]) != {"200"}:
            raise RuntimeError(f"{server.name} answered {told['statuses']}")
        found = {**told["200"], "count": told["statuses"]["200"]}
    return found | {"cpu_ms": round(1000 * (server.cpu_seconds() - before) / found["count"], 4)}


def by_wrk(server: Server, connections: int, seconds: float) -> dict[str, Any]:
    """Measure with wrk."""
    headers = {"Content-Type": "application/json", **server.headers}
    script = [f"wrk.method = 'POST'\nwrk.body = [[{server.body}]]"]
    script += [f"wrk.headers['{name}'] = '{value}'" for name, value in headers.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write("\n".join(script))
        file.flush()
        url = f"http://127.0.0.1:{server.port}/predict"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", file.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise RuntimeError(f"{server.name} refused requests:\n{said}")
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    times = {
        share: float(value) * units[unit] for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", said)
    }
    rate, count = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"(\d+) requests in", said)
    assert rate
    assert count
    return {"rate": float(rate[1]), "count": int(count[1]), "p50_ms": times["50"], "p99_ms": times["99"]}


def throughput(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure all servers in turns."""
    with ExitStack() as stack:
        start = lambda *args, **more: stack.enter_context(running(*args, **more))  # noqa: E731
        data = {"BULLETPROOF_DATA_DIR": str(folder)}
        servers = [
            start(OURS, ours(), **data),
            start(KEYED, ours(), **data, BULLETPROOF_API_KEYS="a-key-of-the-benchmark"),
            start(PLAIN, bare()),
            start(QUIET, bare("--no-access-log")),
            start("bulletproof, only failures logged", ours(), **data, BULLETPROOF_LOG_LEVEL="warning"),
            start("bulletproof, isolated model", ours(), BODY[:-1] + ', "model": "apart"}', **data),
        ]
        if SERVING.exists():
            servers += [start("LitServe", litserve()), start("BentoML", bentoml())]
        raw: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
        for number in range(rounds + 1):
            for server in servers:
                found = keep_busy(server, CONNECTIONS, seconds)
                if number:  # the first warms up
                    raw[server.name].append(found)
        alone = {server.name: keep_busy(server, 1, seconds)["p50_ms"] for server in servers}
        answers = {server.name: {kind: verdict(server, body) for kind, body in BAD.items()} for server in servers
                   if server.name in (OURS, QUIET, "LitServe", "BentoML")}  # fmt: skip
    middle = {
        name: {key: statistics.median(one[key] for one in found) for key in ("rate", "p50_ms", "p99_ms", "cpu_ms")}
        for name, found in raw.items()
    }
    ratios = {
        name: statistics.median(one["rate"] / plain["rate"] for one, plain in zip(found, raw[PLAIN], strict=True))
        for name, found in raw.items()
    }
    table = Table(title=f"POST /predict, one row, {CONNECTIONS} connections; medians of {rounds} interleaved rounds")
    for column in ("server", "requests/s", "of FastAPI", "p50 ms", "p99 ms", "CPU ms", "one client ms"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, row in middle.items():
        table.add_row(name, f"{row['rate']:,.0f}", f"{ratios[name]:.2f}", f"{row['p50_ms']:.2f}",
                      f"{row['p99_ms']:.2f}", f"{row['cpu_ms']:.3f}", f"{alone[name]:.2f}")  # fmt: skip
    console.print(table)
    return {"median": middle, "of_fastapi": ratios, "one_client_p50_ms": alone, "rounds": raw, "bad_requests": answers}


def verdict(server: Server, body: bytes) -> str:
    """Return the status that a bad request gets, and whether the answer says what is wrong in our form."""
    try:
        response = server.post(body, timeout=10)
    except httpx.HTTPError as error:
        return type(error).__name__
    try:
        found = response.json()
    except ValueError:
        return f"{response.status_code} no JSON"
    if response.status_code == 200:
        return "200 answered"
    typed = isinstance(found, dict) and {"error_type", "code", "details", "hint"} <= set(found)
    return f"{response.status_code} {found['code']}" if typed else f"{response.status_code} untyped"


def overload(folder: Path, seconds: float) -> dict[str, Any]:
    """Send ten times what a slow model can answer, on schedule, whether answers come or not."""
    capacity = PLACES * 1000 / SLOW_MS
    slow = {"SLOW_MS": str(SLOW_MS)}
    data = {"BULLETPROOF_DATA_DIR": str(folder)}
    plans = [
        (OURS, ours(), BODY[:-1] + ', "model": "slow"}', data | slow),
        (QUIET, bare("--no-access-log"), BODY, slow),
    ]
    if SERVING.exists():
        plans += [("LitServe", litserve(), BODY, slow), ("BentoML", bentoml(), BODY, slow)]
    table = Table(title=f"{10 * capacity:g} requests/s to a model that can answer {capacity:g}, for {seconds:g} s")
    for column in ("server", "answered/s", "p99 ms", "refused/s", "their p99 ms", "given up", "other", "memory MB"):
        table.add_column(column, justify="left" if column == "server" else "right")
    figures: dict[str, Any] = {"capacity": capacity, "offered": 10 * capacity}
    for name, command, body, environment in plans:
        with running(name, command, body, **environment) as server:
            before = server.memory_mb()
            found = server.load(rate=10 * capacity, seconds=seconds)
            found["memory_mb"] = [before, server.memory_mb()]
        figures[name] = found
        good, refused = found.get("200", {}), found.get("503", found.get("429", {}))
        given_up = found["statuses"].get("given up", 0)
        other = sum(
            count for status, count in found["statuses"].items() if status not in ("200", "503", "429", "given up")
        )
        table.add_row(name, f"{good.get('rate', 0):,.0f}", f"{good.get('p99_ms', 0):,.0f}",
                      f"{refused.get('rate', 0):,.0f}", f"{refused.get('p99_ms', 0):,.0f}", str(given_up), str(other),
                      f"{before:.0f} to {found['memory_mb'][1]:.0f}")  # fmt: skip
    console.print(table)
    return figures


def main() -> None:
    """Measure, print and write ``benchmarks/results/predict.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    chosen = parser.parse_args()
    if not SERVING.exists():
        console.print("LitServe and BentoML are not measured: they come with `make .venv/.serving`")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shelves(folder)
        figures = throughput(folder, chosen.rounds, chosen.seconds)
        table = Table(title="what bad requests are answered")
        for column in ("request", *figures["bad_requests"]):
            table.add_column(column)
        for kind in BAD:
            table.add_row(kind, *(answers[kind] for answers in figures["bad_requests"].values()))
        console.print(table)
        figures["overload"] = overload(folder, 5)
    RESULTS.mkdir(exist_ok=True)
    generator = "wrk" if shutil.which("wrk") else "benchmarks/load.py"
    figures = {"benchmark": "predict", **machine(), "load": generator, "connections": CONNECTIONS, **figures}
    (RESULTS / "predict.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
