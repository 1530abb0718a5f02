"""The tests of the LLM analyzer need a server that judges texts and fails as told."""

from support.wire import fine, judge, say, wire

__all__ = ["fine", "judge", "say", "wire"]
