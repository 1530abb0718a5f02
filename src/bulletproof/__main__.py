"""``python -m bulletproof`` is the command ``bulletproof``."""

import sys


def main() -> None:
    """Run the command; Ctrl-C ends it quietly even while its parts are still being imported."""
    try:
        from bulletproof.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
