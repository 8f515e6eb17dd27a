"""The part of the port about batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from hecaton.core.batches import Batch, FailureGroup
from hecaton.core.model import Body, Failure, JobId, JobSpec, JobState, Reason
from hecaton.store.port.jobs import CancelResult, NewJob


class NewBatch(msgspec.Struct, frozen=True):
    """A batch to store, its items not included. `may_pause`: by itself, when its first jobs all fail alike."""

    id: str
    owner_id: int
    image_id: int
    name: str
    spec: JobSpec
    created_at: float
    key: str
    key_digest: bytes
    may_pause: bool = True
    retry_of: str | None = None


class Appended(msgspec.Struct, frozen=True):
    """`size`: items of the batch now. `waiting`: how many of the new ones wait for a slot (none where it is paused)."""

    size: int
    waiting: int


class EndedItem(msgspec.Struct, frozen=True):
    """An ended job of a batch. `item`: its position; `ended_as`: it was the so many-th to end, from 1. The `blob` of a
    `result` that was removed for its age is empty."""

    item: int
    ended_as: int
    job: JobId
    state: JobState
    reason: Reason | None
    failure: Failure | None
    result: Body | None


class FailedItem(msgspec.Struct, frozen=True):
    item: int
    job: JobId
    payload: Body


class Swept(msgspec.Struct, frozen=True):
    """One step of carrying out a pause, a resumption or a cancellation (`cancelled`: jobs that ended by it, or whose
    workers must be told). So many jobs wait no longer for a slot (`withheld`), or do again (`released`)."""

    batch: Batch
    withheld: int = 0
    released: int = 0
    cancelled: tuple[CancelResult, ...] = ()


class Batches(Protocol):
    def create_batch(self, batch: NewBatch) -> tuple[Batch, bool]:
        """The batch, and whether (owner, key) was known before; with another digest Conflict. NotFound as `submit`."""

    def append(self, batch_id: str, offset: int, jobs: Sequence[NewJob]) -> Appended:
        """Items from position `offset` on, all or none; those that are there already are left as they are.

        Conflict if items before `offset` are missing, if the batch is closed or cancelled, or if an item that is there
        came with another key digest. Each job's key has to name batch and position. NotFound."""

    def close_batch(self, batch_id: str) -> None:
        """No more items will come. Repeatable."""

    def batch(self, id_or_index: str) -> Batch | None: ...
    def batches(self, *, owner_id: int | None, before: int | None, limit: int) -> list[Batch]:
        """Newest first."""

    def batch_failures(self, index: int) -> list[FailureGroup]:
        """The most frequent first."""

    def batch_running(self, index: int) -> int:
        """Its jobs that workers hold."""

    def batch_pace(self, index: int, now: float) -> float | None:
        """Jobs per second that ended lately; None while too few have."""

    def ended_items(
        self, index: int, after: int, limit: int, *, max_bytes: int, in_input_order: bool
    ) -> list[EndedItem]:
        """In the order in which they ended, from the one after the `after`-th; or in input order, from position `after`
        up to the first that has not ended. Stops early once the results are more than `max_bytes`."""

    def failed_items(self, index: int, start: int, limit: int) -> list[FailedItem]:
        """Those that FAILED among the positions from `start` on, in input order."""

    def last_retried(self, index: int) -> int | None:
        """Of a batch that repeats another one: the position in that other one of what its last item repeats."""

    def set_paused(self, index: int, why: str | None) -> None:
        """Pause, or resume with None. `sweep` carries it out."""

    def cancel_batch(self, index: int) -> None:
        """`sweep` carries it out. No more items are taken. Repeatable."""

    def sweep(self, now: float, limit: int = 1000) -> Swept | None:
        """Carry out one step of what is still to be carried out; None when nothing is. Survives a crash in between."""
