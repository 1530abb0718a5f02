"""Errors that libraries raise as a bare ``RuntimeError`` or ``ValueError``: only the words tell them apart."""

import re
from functools import lru_cache

from bulletproof.errors.registry import Verdict

_SCANNED = 4000
_WORDS = {
    """
    (?:cuda|hip|mps|xpu|npu)\\b.{0,40}out of memory
    out of memory.{0,80}\\b(?:gpu|cuda|device)
    cuda_error_out_of_memory|cublas_status_alloc_failed|cudnn_status_alloc_failed
    oom when allocating|failed to allocate memory for requested|resource_exhausted: .{0,40}(?:memory|oom|allocat)
    """: Verdict("gpu_out_of_memory"),
    """
    defaultcpuallocator: .{0,40}(?:can't|not enough) (?:allocate )?memory
    cannot allocate memory|std::bad_alloc|unable to allocate .{0,40}for an array|paging file is too small
    """: Verdict("out_of_memory"),
    "no space left on device": Verdict("disk_full"),
    "database (?:table )?is locked": Verdict("database_unavailable"),
    """
    could not convert string to float|invalid literal for (?:int|float)
    """: Verdict("not_numeric", details="a value is not a number"),
}
_PATTERNS = tuple(
    (re.compile("|".join(line.strip() for line in words.strip().splitlines()), re.IGNORECASE), verdict)
    for words, verdict in _WORDS.items()
)


@lru_cache(maxsize=2048)
def _worded(text: str) -> Verdict | None:
    return next((verdict for pattern, verdict in _PATTERNS if pattern.search(text)), None)


def worded(text: str) -> Verdict | None:
    """Return what the words alone say, or None.

    Example:
        >>> worded("CUDA out of memory. Tried to allocate 2.00 GiB").code
        'gpu_out_of_memory'
    """
    return _worded(text[:_SCANNED])
