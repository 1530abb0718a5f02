"""What is known of exception classes by their names alone: ``known.txt``, which says how it is written."""

from pathlib import Path

from bulletproof.errors.registry import read_verdict, register
from bulletproof.errors.rules.wording import worded

_TABLE = Path(__file__).with_name("known.txt")


def _register_all(table: str) -> None:
    packages = [""]
    for line in table.replace("\n    ", " ").splitlines():
        head, _, names = line.partition(": ")
        if line.startswith("["):
            packages = [f"{package}." for package in line.strip("[]").split()] or [""]
        elif names and not line.startswith("#"):
            register(
                read_verdict(head),
                " ".join(package + name for package in packages for name in names.split()),
                remote=", status" in head,
                network=", network" in head,
                wording=worded if ", worded" in head else None,
            )


_register_all(_TABLE.read_text(encoding="utf-8"))
