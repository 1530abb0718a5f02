"""How much memory and disk are left; below a mark no more uploads are taken."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from bulletproof.errors import OverloadedError, ResourceError

logger = logging.getLogger("bulletproof.service")

_LOOK_SECONDS = 0.25
_RETRY_SECONDS = 5.0
_MIB = 2**20


class Watermarks:
    """Refuses uploads while memory or disk run short, so that those under way can end.

    Args:
        folder: Where results are kept.
        min_memory: Bytes of memory that have to be free.
        min_disk: Bytes of disk that have to be free.
        free_memory: Returns the free bytes of memory, None when that cannot be told.
        free_disk: Returns the free bytes of a folder's disk.
        clock: Monotonic seconds.

    Example:
        >>> marks = Watermarks(Path(), min_memory=100, min_disk=0, free_memory=lambda: 99)
        >>> marks.check()
        Traceback (most recent call last):
        ...
        bulletproof.errors.taxonomy.OverloadedError: memory is short: 0 MiB are free, uploads need 0 MiB
    """

    def __init__(
        self,
        folder: Path,
        *,
        min_memory: int,
        min_disk: int,
        free_memory: Callable[[], int | None] | None = None,
        free_disk: Callable[[Path], int | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._min_memory, self._min_disk = min_memory, min_disk
        self._free_memory = free_memory or memory_left
        self._free_disk = free_disk or disk_left
        self._clock = clock
        self._looked = float("-inf")
        self._memory: int | None = None
        self._disk: int | None = None

    def check(self) -> None:
        """Let an upload in, or not.

        Raises:
            OverloadedError: Memory is short.
            ResourceError: The disk is nearly full (``disk_full``).
        """
        if (problem := self.problem()) is not None:
            raise problem

    def problem(self) -> OverloadedError | ResourceError | None:
        """Return what an upload would be refused with now."""
        if self._clock() - self._looked >= _LOOK_SECONDS:
            self._looked = self._clock()
            self._memory, self._disk = self._free_memory(), self._free_disk(self._folder)
        if self._memory is not None and self._memory < self._min_memory:
            return OverloadedError(
                f"memory is short: {self._memory // _MIB} MiB are free, uploads need {self._min_memory // _MIB} MiB",
                retry_after=_RETRY_SECONDS,
            )
        if self._disk is not None and self._disk < self._min_disk:
            return ResourceError(
                f"the disk of the data folder is nearly full: {self._disk // _MIB} MiB are free, "
                f"uploads need {self._min_disk // _MIB} MiB",
                code="disk_full",
                retryable=True,  # somebody makes room sooner or later
                retry_after=_RETRY_SECONDS,
            )
        return None


def disk_left(folder: Path) -> int | None:
    """Return the free bytes of the disk that a folder is on, or will be; None when that cannot be told."""
    for place in (folder, *folder.absolute().parents):
        try:
            facts = os.statvfs(place)
        except (OSError, AttributeError):
            continue
        return facts.f_bavail * facts.f_frsize
    return None


def memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process may still have: the machine's or, if less, its control group's.

    From ``MemAvailable`` of /proc/meminfo and, in a container, ``memory.max`` and ``memory.current`` of cgroup v2 (or
    their forerunners), where file caches that can be given up do not count as used (kernel.org, cgroup-v2).

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    left = [amount for amount in (_machine(root), _group(root)) if amount is not None]
    return min(left) if left else None


def _machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _group(root: Path) -> int | None:
    group = root / "sys/fs/cgroup"
    for limit, current, stat in (
        (group / "memory.max", group / "memory.current", group / "memory.stat"),
        (
            group / "memory/memory.limit_in_bytes",
            group / "memory/memory.usage_in_bytes",
            group / "memory/memory.stat",
        ),
    ):
        try:
            most = int(limit.read_text())
            used = int(current.read_text())
            facts = dict(line.split() for line in stat.read_text().splitlines())
        except (OSError, ValueError):
            continue  # another version, or "max": no limit
        return most - used + int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
    return None
