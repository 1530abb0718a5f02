"""The rules that come with bulletproof, one module for each family of libraries; importing them registers them."""

from bulletproof.errors.rules import databases, services, stdlib

__all__ = ["databases", "services", "stdlib"]
