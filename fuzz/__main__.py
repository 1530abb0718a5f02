"""``make fuzz``: fuzz every target, or those named, and write down what was done to ``fuzz/results.json``."""

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results.json"
WORK = ROOT / "build" / "fuzz"
_HANG_SECONDS = 120
_MEMORY_MIB = 2048
_lock = Lock()


def main(arguments: list[str]) -> int:
    """Fuzz, and return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", default=sorted(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=3600 // len(TARGETS), help="for each target")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="processes at a time")
    asked = parser.parse_args(arguments)
    unknown = sorted(set(asked.targets) - set(TARGETS))
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
    print(
        f"{len(asked.targets)} targets, {asked.seconds} s each, {asked.jobs} at a time; results in {RESULTS}",
        flush=True,
    )
    with ThreadPoolExecutor(asked.jobs) as pool:
        runs = list(pool.map(lambda name: fuzz(name, asked.seconds), asked.targets))
    found = sum(len(run["findings"]) for run in runs)
    print(f"{sum(run['executions'] for run in runs):,} executions, {found} findings")
    return found > 0


def fuzz(name: str, seconds: int) -> dict[str, Any]:
    """Fuzz one target for so long, starting again after whatever ended the process, and write it down."""
    folder = WORK / name / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    inputs = WORK / name / "inputs"
    inputs.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True)
    run: dict[str, Any] = {
        "target": name,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "seeds": [],
        "seconds": 0.0,
        "cpu_seconds": 0.0,
        "executions": 0,
        "refused": 0,
        "findings": [],
    }
    begun = time.monotonic()
    while (left := seconds - (time.monotonic() - begun)) > 1:
        seed = secrets.randbits(31) or 1
        run["seeds"].append(seed)
        ended = _once(name, folder, inputs, seed, int(left))
        standing = json.loads((folder / "standing.json").read_text()) if (folder / "standing.json").exists() else {}
        for figure in ("cpu_seconds", "executions", "refused"):
            run[figure] = round(run[figure] + standing.get(figure, 0), 1)
        if ended.returncode:
            if not standing:
                raise RuntimeError(f"{name} cannot be fuzzed: {ended.stderr}")
            run["findings"].append({"kind": f"ended with {ended.returncode}", "place": ended.stderr[-600:]})
        (folder / "standing.json").unlink(missing_ok=True)
    run["seconds"] = round(time.monotonic() - begun, 1)
    run["inputs"] = len(list(inputs.iterdir()))
    noted = folder / "findings.jsonl"
    if noted.exists():
        run["findings"] += [json.loads(line) for line in noted.read_text().splitlines()]
    with _lock:
        _record(run)
    print(
        f"{name}: {run['executions']:,} executions in {run['seconds']:.0f} s, {len(run['findings'])} findings",
        flush=True,
    )
    for finding in run["findings"]:
        place = folder / finding.get("input", "")
        print(f"  {finding['kind']} at {finding['place']}\n  input: {place}", flush=True)
    return run


def _once(name: str, folder: Path, inputs: Path, seed: int, seconds: int) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "fuzz.one", name, str(folder), f"-seed={seed}", f"-max_total_time={seconds}",
        f"-timeout={_HANG_SECONDS}", f"-rss_limit_mb={_MEMORY_MIB}", f"-artifact_prefix={folder}/", "-verbosity=0",
        str(inputs), str(HERE / "corpus" / name),
    ]  # fmt: skip
    path = os.pathsep.join(map(str, (ROOT / ".venv" / "fuzz", ROOT, ROOT / "src")))
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=False, capture_output=True, text=True,
        errors="replace",
    )  # fmt: skip


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def _record(run: dict[str, Any]) -> None:
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    runs.append(run)
    total = {
        figure: round(sum(one[figure] for one in runs), 1)
        for figure in ("seconds", "cpu_seconds", "executions", "refused")
    }
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    RESULTS.write_text(json.dumps({"total": total, "machine": machine, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
