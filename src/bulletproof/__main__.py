"""``python -m bulletproof`` is the command ``bulletproof``."""

from bulletproof.cli import main

if __name__ == "__main__":
    main()
