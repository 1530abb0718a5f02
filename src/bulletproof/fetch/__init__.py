"""Get pages from the web: guarded against forged requests, bounded, polite."""

from bulletproof.fetch.address import host_of, normalize_url
from bulletproof.fetch.fetcher import Fetcher
from bulletproof.fetch.limits import FetchLimits
from bulletproof.fetch.page import Page, Validators
from bulletproof.fetch.robots import TooSoonError

__all__ = ["FetchLimits", "Fetcher", "Page", "TooSoonError", "Validators", "host_of", "normalize_url"]
