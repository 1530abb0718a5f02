"""``make bench``: run the benchmarks named, or all of them, one after the other."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_ALONE = {"__main__", "__init__", "harness", "conformance", "load", "serving", "reliability"}
ON_REQUEST = {"predict_soak", "batch_soak", "crash", "chaos", "rolling"}  # ten minutes and more


def main(arguments: list[str]) -> int:
    """Run each benchmark as a program of its own, so that none disturbs another."""
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_ALONE)
    chosen = arguments or [name for name in known if name not in ON_REQUEST]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = [
        name for name in chosen if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
