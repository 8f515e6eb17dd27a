"""What the scheduler knows of a lane, and which lanes wait for which work. Memory only, no rules."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import msgspec

from hecaton.core.doors import WAYS
from hecaton.core.model import Image, WorkerId
from hecaton.core.options import EVERYWHERE, NOTHING_ASKED, Options, given, joined, options_of
from hecaton.core.placement.holds import Holds
from hecaton.core.placement.matching import Lane, Want, warm_key
from hecaton.server.fleet.places.kinds import Work
from hecaton.store.port import Claim, Claimed, LaneInfo
from hecaton.wire.channel import Assignment, FileRef, ImageRef

DEPTH_SECONDS = 0.05
MAX_DEPTH = 512

SHUN = 60.0
"""Seconds for which a lane's jobs go to other machines first, after one of them was failed by this machine."""

LANE_KEPT = 600.0
"""Seconds without any use after which a lane is forgotten: people make new lanes with each handler file they send."""


class LaneState(msgspec.Struct):
    key: int
    lane: Lane
    count: int = 0
    priority: int = 0
    since: float = 0.0
    waiting: dict[int, int] = {}  # how many of each priority; may name too many, as `count`
    claims: int = 0  # planned, and neither settled nor undone: it must not be forgotten now
    fresh: int = 0  # added since `recount`
    raised: int | None = None  # highest priority added since the last plan took from the lane
    shunned: dict[WorkerId, float] = {}  # machines that failed one of its jobs, and until when others go first
    pace: float | None = None  # seconds that a job of this lane runs, exponentially averaged: how many to prefetch
    used_at: float = 0.0
    asks: frozenset[str] = frozenset()  # names of the options that tell the lane apart
    refused: int = 0  # claims in a row that could not be stored
    waits: Work | None = None  # while it waits: what its worker is asked for

    def shunned_at(self, now: float) -> frozenset[WorkerId]:
        self.shunned = {worker: until for worker, until in self.shunned.items() if until > now}
        return frozenset(self.shunned)

    def add(self, priority: int, since: float, count: int) -> None:
        """So many of this priority wait, too; `count` is the scheduler's."""
        if self.count <= 0:
            self.waiting, self.since = {}, since
        self.waiting[priority] = self.waiting.get(priority, 0) + count
        self.priority = max(self.waiting)
        self.since = min(self.since, since)
        self.fresh += count
        self.raised = priority if self.raised is None else max(self.raised, priority)

    def read(self, info: LaneInfo) -> None:
        """So many of one priority wait, as the store says, beside what was added since it was asked."""
        if not self.fresh:
            self.waiting, self.since = {}, info.since
        self.waiting.setdefault(info.priority, info.count)
        self.priority, self.since = max(self.waiting), min(self.since, info.since)

    def advance(self, taken: int, submitted_at: float) -> None:
        """The first of it, of this priority, is gone: what is left has no higher one and, within one, is not older.
        Without this a single urgent job would pull all others of its lane along."""
        self.waiting[taken] = self.waiting.get(taken, 0) - 1
        possible = taken if self.raised is None else max(taken, self.raised)
        self.waiting = {priority: n for priority, n in self.waiting.items() if n > 0 and priority <= possible}
        self.priority = max(self.waiting, default=taken)
        if self.priority == taken:
            self.since = max(self.since, submitted_at)


class OfOwners:
    """How many jobs of each owner wait, and in how many lanes."""

    def __init__(self) -> None:
        self.queued: dict[int, int] = {}
        self.lanes: dict[int, int] = {}

    def count(self, owner: int, before: int, now: int) -> None:
        """In one lane."""
        self.queued[owner] = self.queued.get(owner, 0) + now - before
        if (now > 0) is not (before > 0):
            self.lanes[owner] = self.lanes.get(owner, 0) + (1 if now > 0 else -1)


class WaitingLanes:
    """Lanes with waiting jobs, by what their worker is asked for."""

    def __init__(self) -> None:
        self._lanes: dict[Work, dict[int, LaneState]] = {}

    @property
    def works(self) -> Mapping[Work, object]:
        return self._lanes

    def of(self, works: Iterable[Work], without: Container[int]) -> list[LaneState]:
        """But not those of these owners."""
        return [state for work in works for state in self._lanes[work].values() if state.lane.owner_id not in without]

    def add(self, state: LaneState, work: Work) -> None:
        state.waits = work
        self._lanes.setdefault(work, {})[state.key] = state

    def remove(self, state: LaneState) -> None:
        """Also one that is not among them."""
        if state.waits is not None:
            alike = self._lanes[state.waits]
            del alike[state.key]
            if not alike:
                del self._lanes[state.waits]
            state.waits = None


def depth(state: LaneState) -> int:
    """How many jobs a slot holds: enough to cover two round trips to a busy server, at most `MAX_DEPTH`.

    Jobs of a second or more wait in the queue instead, where any free slot can take them."""
    if not WAYS[state.lane.mode].warm or state.pace is None or state.pace >= 1.0:
        return 1
    return max(2, min(MAX_DEPTH, int(DEPTH_SECONDS / max(state.pace, 1e-6)) + 1))


def defaults_of(image: Image | None) -> Options:
    """What it has for jobs that ask for nothing else."""
    return NOTHING_ASKED if image is None else image.defaults


def needs(asks: frozenset[str], image: Image | None) -> frozenset[str]:
    """What a worker has to carry out, beyond what all do: jobs ask for it, or their image has it."""
    defaults = defaults_of(image)
    if defaults is NOTHING_ASKED:
        return asks
    return asks.union(option.name for option, _ in given(defaults) if option.by_worker) - EVERYWHERE


def want_of(
    state: LaneState, image: Image, now: float, running: int, served: float, barred: frozenset[WorkerId]
) -> Want:
    """`running`: places that work for its owner, who was `served` last then. `barred`: who cannot get its image."""
    return Want(
        state.key,
        image.name,
        state.lane.mode,
        warm_key(state.lane, image.digest, image.env_revision),
        state.count,
        state.priority,
        state.since,
        state.lane.owner_id,
        running,
        max(state.since, served),
        state.shunned_at(now) | barred if state.shunned or barred else barred,
        needs(state.asks, image),
        barred,
    )


def assigned(job: Claimed, claim: Claim, lane: Lane, image: Image, holds: Holds | None = None) -> Assignment:
    """A job of the lane, for its worker. `holds`: of its place, where that is not the worker's own."""
    spec = job.spec
    file = FileRef(spec.file, spec.file_name or "file") if spec.file else None
    return Assignment(
        ref=job.ref,
        slot=claim.slot,
        image=ImageRef(image.name, image.digest, image.env, image.env_revision),
        owner=job.owner,
        warm_key=warm_key(lane, image.digest, image.env_revision),
        mode=spec.mode,
        payload=job.payload,
        key=job.key,
        file=file,
        args=spec.args,
        options=joined(options_of(spec), claim.defaults),
        uid=job.uid,
        workdir=FileRef(spec.workdir, "workdir") if spec.workdir else None,
        holds=holds,
        checkpoint=job.checkpoint,
    )
