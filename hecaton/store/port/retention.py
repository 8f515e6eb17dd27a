"""The part of the port that keeps the store from growing for ever: what is removed, by the age of ended jobs.

Step by step: each step is a transaction of its own, so short that nobody notices.
"""

from __future__ import annotations

from typing import Protocol


class Retention(Protocol):
    """Each verb looks at jobs that ended before `before`, removes at most `limit` rows and some mebibytes, oldest jobs
    first, and returns how many rows; 0: nothing is left to do."""

    def forget_results(self, before: float, limit: int) -> int:
        """Jobs stay, with kind and size of their result; `result` is then None."""

    def forget_logs(self, before: float, limit: int) -> int: ...
    def forget_jobs(self, before: float, limit: int) -> int:
        """Jobs with all that belongs to them, and batches of which no job is left."""
