"""The rules that come with bulletproof: a table, and a module for each kind of library; importing registers them."""

from bulletproof.errors.rules import clients, data, databases, llm, stdlib, table, web, wording, workers

__all__ = ["clients", "data", "databases", "llm", "stdlib", "table", "web", "wording", "workers"]
