"""Batches: many jobs of one image that are submitted, watched, stopped and repeated as one."""

from __future__ import annotations

import msgspec

from hecaton.core.doors import WAYS
from hecaton.core.model import Failure, JobId, JobSpec, Reason
from hecaton.core.options import FOLDER, asks_of
from hecaton.core.placement.matching import Lane

PAUSE_AFTER = 20
"""When so many jobs of a batch have ended first and all failed for one cause, the others would fail too: it pauses."""

MAX_CAUSES = 100
"""Causes of failure that are counted apart; where every message is another one, the rest is counted together."""

_LONGEST = 200

LAST_LINES = "Its last lines:"
"""Between why a container has ended and what it had printed."""


class Batch(msgspec.Struct, frozen=True):
    """`size`: items so far. `closed`: no more will come. `paused`: why its waiting jobs are not handed out, or None."""

    index: int
    id: str
    owner: str
    owner_id: int
    image: str
    image_id: int
    name: str
    spec: JobSpec
    created_at: float
    size: int
    closed: bool
    finished: int
    failed: int
    cancelled: int
    paused: str | None
    cancel_requested: bool
    retry_of: str | None

    @property
    def ended(self) -> int:
        return self.finished + self.failed + self.cancelled

    @property
    def complete(self) -> bool:
        return self.closed and self.ended == self.size

    @property
    def lane(self) -> Lane:
        return lane_of(self.owner_id, self.image_id, self.spec)


class Cause(msgspec.Struct, frozen=True):
    """What failures have in common. `message`: the first line, and of a log that is quoted the last; empty for the rest
    beyond `MAX_CAUSES`."""

    reason: Reason
    message: str


class FailureGroup(msgspec.Struct, frozen=True):
    """`example`: the first job that failed so; its short number, while that job is kept."""

    reason: Reason
    message: str
    count: int
    example: JobId
    example_index: int | None = None


def lane_of(owner_id: int, image_id: int, spec: JobSpec) -> Lane:
    warm = WAYS[spec.mode].warm
    asks = asks_of(spec, warm)
    if spec.workdir is not None:
        asks = (*asks, (FOLDER, spec.workdir if warm else ""))
    return Lane(owner_id, image_id, spec.mode, spec.file if warm else None, asks)


def cause_of(reason: Reason, failure: Failure | None) -> Cause:
    if failure is None:
        return Cause(reason, "")
    first, *lines = failure.message.strip().splitlines() or [""]
    first = first.strip()
    if lines and first.endswith(LAST_LINES):  # what it printed last says why
        first = f"{first.removesuffix(LAST_LINES).rstrip('. ')}: {lines[-1].strip()}"
    return Cause(reason, (f"{failure.type}: {first}" if failure.type else first)[:_LONGEST])


def why_paused(cause: Cause) -> str:
    return f"the first {PAUSE_AFTER} jobs all failed alike ({cause.reason}): {cause.message or 'no message'}"
