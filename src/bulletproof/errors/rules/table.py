"""What is known of exception classes by their names alone: ``known.txt``, which says how it is written."""

from pathlib import Path

from bulletproof.errors.registry import Verdict, register
from bulletproof.errors.rules.wording import worded

_TABLE = Path(__file__).with_name("known.txt")


def _register_all(table: str) -> None:
    packages = [""]
    for line in table.replace("\n    ", " ").splitlines():
        head, _, names = line.partition(": ")
        if line.startswith("["):
            packages = [f"{package}." for package in line.strip("[]").split()] or [""]
        elif names and not line.startswith("#"):
            code, *marks = head.split(", ")
            register(
                Verdict(
                    code,
                    retryable=False if "final" in marks else None,
                    counts=False if "neutral" in marks else None,
                    defer="cause" if "cause" in marks else "context" if "context" in marks else "no",
                ),
                " ".join(package + name for package in packages for name in names.split()),
                remote="status" in marks,
                network="network" in marks,
                wording=worded if "worded" in marks else None,
            )


_register_all(_TABLE.read_text(encoding="utf-8"))
