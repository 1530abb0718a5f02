"""Write the lock files: exact versions and hashes, never an address.

``app.lock`` is what the service and the demo need, ``dev.lock`` what the tests and linters need besides,
``bench.lock`` the peers that the benchmarks measure; all three can live in one environment. Environments of their own:
``serving.lock``, since the model servers measured beside ours ask for other versions, ``fuzz.lock``, ``audit.lock``,
and ``heavy.lock``, which goes on top of ``app.lock`` and ``dev.lock`` and takes gigabytes.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "pyproject.toml"


def compile_lock(name: str, *arguments: str) -> None:
    """Resolve for every platform and for Python 3.11 and newer."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-strip-extras", "--no-emit-index-url", "--no-header", "--quiet", *arguments,
        "--output-file", f"requirements/{name}",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)  # noqa: S603 -- our own command, no outside input


if __name__ == "__main__":
    compile_lock("app.lock", PROJECT, "--extra", "all", "--group", "build")
    compile_lock(
        "dev.lock", PROJECT, "--extra", "all", "--group", "build", "--group", "test", "--group", "lint",
        "--constraint", "requirements/app.lock",
    )  # fmt: skip
    compile_lock("bench.lock", PROJECT, "--group", "bench", "--constraint", "requirements/dev.lock")
    compile_lock("heavy.lock", "--group", "heavy", "--constraint", "requirements/dev.lock")
    compile_lock("serving.lock", "--group", f"{PROJECT}:serving")
    compile_lock("audit.lock", "--group", f"{PROJECT}:audit")
    compile_lock("fuzz.lock", "--group", f"{PROJECT}:fuzz")
    sys.stdout.write("requirements/*.lock are up to date\n")
