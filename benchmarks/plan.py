"""How much is measured (ITERATIONS), and what a measurement gives: values for rows that stand beside targets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FULL_ROUNDS = 3
SHORT_SHARE = 0.01


class Plan(NamedTuple):
    """ITERATIONS=1 is the short form: one round of everything, small, with one rival. From 2 on: full size."""

    rounds: int

    @property
    def full(self) -> bool:
        return self.rounds > 1

    def size(self, full_size: int, least: int) -> int:
        """So many jobs, calls or workers."""
        return full_size if self.full else max(least, int(full_size * SHORT_SHARE))

    def seconds(self, full_size: float) -> float:
        return full_size if self.full else 1.0

    def say(self, line: str) -> None:
        """Progress, beside the report."""
        print(line, file=sys.stderr, flush=True)


class Row(NamedTuple):
    """A line of the report. `limit`: the target as a number in `unit`; `higher`: more is better.

    A row without a limit is there to be read beside the others."""

    what: str
    unit: str
    target: str = ""
    limit: float | None = None
    higher: bool = False

    def reached(self, value: float) -> bool | None:
        if self.limit is None:
            return None
        return value >= self.limit if self.higher else value <= self.limit


class Measurement(NamedTuple):
    """`run` measures once, in a fresh folder, and gives a value for each row (or leaves out what does not apply)."""

    name: str
    rows: dict[str, Row]
    run: Callable[[Plan, Path], dict[str, float]]
