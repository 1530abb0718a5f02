"""Fuzz one target in this process: ``python -m fuzz.one TARGET FOLDER [arguments of libFuzzer]``.

Findings are written to the folder and the fuzzing goes on; only what ends the process (a crash of the interpreter, a
hang, too much memory) ends it.
"""

import hashlib
import json
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import atheris

SEEDS = Path(__file__).parent / "corpus"
_TELL_SECONDS = 1.0


def main(name: str, folder: Path, arguments: list[str]) -> None:
    """Run until libFuzzer has had enough."""
    watched = ["bulletproof", "json", "python_multipart", "pypdf", "trafilatura", "idna", "gzip", "csv"]
    with atheris.instrument_imports(include=watched):
        from fuzz.targets import TARGETS, outcome

        for seed in sorted((SEEDS / name).glob("*")):
            with suppress(Exception):  # it comes again below
                outcome(name, seed.read_bytes())  # imports what is imported late

    target = TARGETS[name]
    found: dict[str, dict[str, str]] = {}
    executions, refused, told = 0, 0, 0.0

    def note(kind: str, place: str, data: bytes) -> None:
        if place in found:
            return
        file = folder / f"finding-{hashlib.sha256(data).hexdigest()[:16]}"
        file.write_bytes(data)
        found[place] = {"kind": kind, "place": place, "input": file.name}
        (folder / "findings.jsonl").open("a").write(json.dumps(found[place]) + "\n")

    def tell() -> None:
        nonlocal told
        told = time.monotonic()
        facts = {"executions": executions, "refused": refused, "cpu_seconds": round(time.process_time(), 1)}
        fresh = folder / "standing.new"
        fresh.write_text(json.dumps(facts))
        fresh.replace(folder / "standing.json")

    def run(data: bytes) -> None:
        nonlocal executions, refused
        executions += 1
        begun = time.process_time()
        try:
            refused += outcome(name, data) is not None
        except Exception as error:
            *_, last = traceback.extract_tb(error.__traceback__)
            note(f"{type(error).__name__}: {error}"[:300], f"{Path(last.filename).name}:{last.name}:{last.line}", data)
        if time.process_time() - begun > target.seconds:
            note(f"took {time.process_time() - begun:.1f} s", "slow", data)
        if time.monotonic() - told > _TELL_SECONDS:
            tell()

    tell()
    atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *arguments], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
