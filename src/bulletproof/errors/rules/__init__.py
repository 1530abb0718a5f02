"""The rules that come with bulletproof, one module for each family of libraries; importing them registers them."""

from bulletproof.errors.rules import clients, data, databases, llm, models, stdlib, web, wording, workers

__all__ = ["clients", "data", "databases", "llm", "models", "stdlib", "web", "wording", "workers"]
