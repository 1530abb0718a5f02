"""The command line."""

from bulletproof.cli.main import app, main

__all__ = ["app", "main"]
