"""The tests of the LLM client need a server that fails as told."""

from support.wire import say, wire

__all__ = ["say", "wire"]
