"""The part of the port that keeps the store from growing for ever: what is removed, by the age of ended jobs.

Step by step: each step is a transaction of its own, so short that nobody notices.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

JOB_BYTES = 1024
"""What a job or a batch counts beside its contents, its share of the indexes included: about so many bytes."""


class StoredBytes(msgspec.Struct, frozen=True):
    """What a user has in the store, in bytes. `payloads`: with what the jobs themselves take. `files`: uploads, and
    results that came as such."""

    owner_id: int
    payloads: int
    results: int
    logs: int
    files: int

    @property
    def total(self) -> int:
        return self.payloads + self.results + self.logs + self.files


class ForgottenJobs(msgspec.Struct, frozen=True):
    """`next`: pass as `after` to go on; None: there is nothing more."""

    count: int
    next: int | None


class Retention(Protocol):
    """Each verb looks at jobs that ended before `before`, removes at most `limit` rows and some mebibytes, oldest jobs
    first, and returns how many rows; 0: nothing is left to do."""

    def forget_results(self, before: float, limit: int) -> int:
        """Jobs stay, with kind and size of their result; `result` is then None."""

    def forget_logs(self, before: float, limit: int) -> int: ...
    def forget_files(self, before: float, limit: int) -> int:
        """The files that their attempts have made, and their checkpoints: those of finished jobs at once."""

    def forget_jobs(self, before: float, limit: int) -> int:
        """Jobs with all that belongs to them, and batches of which no job is left."""

    def forget_ended(self, owner_id: int, before: float, after: int, limit: int) -> ForgottenJobs:
        """As `forget_jobs`, of one owner, from the job after index `after` on. Items of a batch go when all of it has
        ended."""

    def stored(self) -> list[StoredBytes]:
        """Of every user, deleted ones as well. Cheap: nothing is counted."""

    def give_back(self, pages: int) -> int:
        """Give at most so many pages that nothing needs any more back to the disk. Returns how many there still are;
        that number does not sink where the database was made without the ability."""
