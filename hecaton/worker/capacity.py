"""How much of this machine its jobs may have, all together."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

MEMORY_FILE = Path("/proc/meminfo")

RESERVE_PART = 16
"""One part in so many of the machine's memory is kept from jobs, for the machine itself and its worker."""

LEAST_RESERVE = 512 << 20
"""Bytes: less than this would let a job that takes all it may have starve the engine."""

MOST_RESERVE = 8 << 30
"""Bytes: what a machine needs for itself does not grow with it for ever."""


class Capacity(msgspec.Struct, frozen=True):
    """`memory`: bytes; 0: unknown."""

    cpus: float
    memory: int


def capacity(file: Path = MEMORY_FILE) -> Capacity:
    return Capacity(float(os.cpu_count() or 0), for_jobs(_total(file)))


def for_jobs(total: int) -> int:
    """Bytes of RAM; of a tiny machine half of it."""
    reserve = min(MOST_RESERVE, max(LEAST_RESERVE, total // RESERVE_PART))
    return max(total - reserve, total // 2)


def _total(file: Path) -> int:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:"))
    except (OSError, StopIteration, ValueError):
        return 0


__all__ = ["LEAST_RESERVE", "MOST_RESERVE", "RESERVE_PART", "Capacity", "capacity", "for_jobs"]
