"""Which waiting work goes to which slot, and for the rest: why not. A pure function of a snapshot.

Called by the scheduler. Work is looked at by *lane*: all waiting jobs that any slot would treat alike (same owner,
image, mode and handler file). So a decision costs lanes times slots, never jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from hecaton.core.model import Mode, WorkerId, WorkerStatus

PATIENCE = 5.0
"""Seconds that older work of another lane lets a warm lane go first. Below it, alternating images would swap
containers on every job (a start costs 230 ms and a model load); above it, a busy lane would starve the others."""


class Lane(msgspec.Struct, frozen=True):
    """What makes jobs alike. `key()` is stable: it is stored with each job."""

    owner_id: int
    image_id: int
    mode: Mode = Mode.NATIVE
    file: str | None = None

    def key(self) -> int:
        text = f"{self.owner_id}/{self.image_id}/{self.mode}/{self.file or ''}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def warm_key(lane: Lane, digest: str | None, env_revision: int) -> str | None:
    """Names the container that a lane's jobs may share; None: each job needs a fresh one."""
    if lane.mode is Mode.SCRIPT:
        return None
    return f"{lane.owner_id}-{lane.image_id}-{(digest or 'tag')[-12:]}-{env_revision}-{(lane.file or '')[:16]}"


class Want(msgspec.Struct, frozen=True):
    """A lane with waiting jobs."""

    lane: int
    image: str
    mode: Mode
    warm: str | None
    count: int
    priority: int  # of its first job
    since: float  # when its first job was submitted


class Slot(msgspec.Struct, frozen=True):
    index: int
    held: int = 0  # jobs assigned to it and not ended
    depth: int = 1  # how many it may hold: one runs, the others wait beside it (prefetch)
    warm: str | None = None  # of the container that lives on it, or will for the jobs it holds
    used_at: float = 0.0


class Host(msgspec.Struct, frozen=True):
    """A worker as the scheduler sees it. `serves`: the images it can run (process runtime); None: all."""

    id: WorkerId
    name: str
    status: WorkerStatus
    slots: tuple[Slot, ...]
    serves: frozenset[str] | None = None


class Placement(msgspec.Struct, frozen=True):
    lane: int
    worker: WorkerId
    slot: int
    count: int


def refusal(want: Want, host: Host) -> str | None:
    """Why this worker will never take work of this lane as things stand; None: it would, given a free slot."""
    if host.status is WorkerStatus.OFFLINE:
        return "is offline"
    if host.status is WorkerStatus.SUSPECT:
        return "has not been heard from for a few heartbeats"
    if host.status is WorkerStatus.DRAINING:
        return "is draining: it finishes what it has and takes nothing new"
    if host.serves is not None:
        if want.mode is not Mode.NATIVE:
            return f"uses the process runtime, which runs no {want.mode} jobs"
        if want.image not in host.serves:
            known = ", ".join(sorted(host.serves)) or "nothing"
            return f"uses the process runtime and has no handler for {want.image!r} (it has: {known})"
    return None


def why_waiting(want: Want, host: Host) -> str:
    """One sentence for `job show`: why this worker does not run the job now."""
    if (never := refusal(want, host)) is not None:
        return never
    busy = sum(1 for slot in host.slots if slot.held)
    if not host.slots:
        return "has no slot"
    if busy == len(host.slots):
        return f"is busy: {busy} of {busy} slots run other jobs"
    return "has a free slot: the job goes there next"


def place(wants: Iterable[Want], hosts: Sequence[Host], now: float) -> list[Placement]:
    """Hand waiting work to slots: warm ones first, then empty, then the least recently used; last, prefetch."""
    return _Round(wants, hosts, now).run()


class _Round:
    """One decision. `left` counts what each lane still wants, `room` what each slot can still hold."""

    def __init__(self, wants: Iterable[Want], hosts: Sequence[Host], now: float) -> None:
        self.wants = sorted(wants, key=lambda w: (-w.priority, w.since))
        self.now = now
        self.left = {want.lane: want.count for want in self.wants}
        open_hosts = [host for host in hosts if host.status is WorkerStatus.ONLINE]
        self.idle = [(host, slot) for host in open_hosts for slot in host.slots if slot.held == 0]
        self.busy = [(host, slot) for host in open_hosts for slot in host.slots if 0 < slot.held < slot.depth]
        self.placements: list[Placement] = []

    def run(self) -> list[Placement]:
        self._keep_warm()
        for want in self.wants:
            self._fill_idle(want)
        self._prefetch()
        return self.placements

    def _give(self, want: Want, host: Host, slot: Slot, count: int) -> None:
        self.left[want.lane] -= count
        self.placements.append(Placement(want.lane, host.id, slot.index, count))

    def _outranked(self, want: Want, host: Host) -> bool:
        """Does other waiting work have a better claim to this worker than a warm container gives?"""
        for other in self.wants:
            if other.lane == want.lane:
                return False
            urgent = other.priority > want.priority or self.now - other.since > PATIENCE
            if urgent and self.left[other.lane] > 0 and refusal(other, host) is None:
                return True
        return False

    def _keep_warm(self) -> None:
        by_warm = {want.warm: want for want in self.wants if want.warm}
        rest = []
        for host, slot in self.idle:
            want = by_warm.get(slot.warm or "")
            if want and self.left[want.lane] > 0 and refusal(want, host) is None and not self._outranked(want, host):
                self._give(want, host, slot, 1)
            else:
                rest.append((host, slot))
        self.idle = rest

    def _fill_idle(self, want: Want) -> None:
        if self.left[want.lane] <= 0 or not self.idle:
            return
        ready = [pair for pair in self.idle if refusal(want, pair[0]) is None]
        ready.sort(key=lambda pair: (pair[1].warm != want.warm, pair[1].warm is not None, pair[1].used_at))
        for host, slot in ready[: self.left[want.lane]]:
            self._give(want, host, slot, 1)
            self.idle.remove((host, slot))

    def _prefetch(self) -> None:
        """A job waits beside a running one only where the container is the same: else it would wait for a start too."""
        by_warm = {want.warm: want for want in self.wants if want.warm}
        for host, slot in self.busy:
            want = by_warm.get(slot.warm or "")
            if want is None or self.left[want.lane] <= 0 or refusal(want, host) is not None:
                continue
            if not self._outranked(want, host):
                self._give(want, host, slot, min(slot.depth - slot.held, self.left[want.lane]))
