"""Which waiting work goes to which slot, and for the rest: why not. A pure function of a snapshot.

Work is looked at by *lane*: all waiting jobs that any slot would treat alike (same owner,
image, mode and handler file). So a decision costs lanes times slots, never jobs.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from hecaton.core.doors import DEFAULT, WAYS
from hecaton.core.files.mounts import mounts_in
from hecaton.core.model import Mode, WorkerId, WorkerStatus
from hecaton.core.options import EVERYWHERE, FOLDER, OPTIONS, Asks, container_key

PATIENCE = 5.0
"""Seconds that older work of another lane lets a warm lane go first. Below it, alternating images would swap
containers on every job (a start costs 230 ms and a model load); above it, a busy lane would starve the others."""

TURN = 1.0
"""Seconds after which an owner who got nothing, and has no more slots than the one whose container is warm, takes it
over: the share that people have of the slots evens out, and containers are swapped once per turn at most."""


class Lane(msgspec.Struct, frozen=True):
    """What makes jobs alike. `key()` is stable: it is stored with each job."""

    owner_id: int
    image_id: int
    mode: Mode = DEFAULT
    file: str | None = None
    asks: Asks = ()  # of options that make jobs unlike, those that are not at their default

    def key(self) -> int:
        return _key(self)


@lru_cache(4096)
def _key(lane: Lane) -> int:
    # hot: benchmarks/throughput.py - asked three times for each job, and few lanes are in use at a time
    text = f"{lane.owner_id}/{lane.image_id}/{lane.mode}/{lane.file or ''}"
    if lane.asks:  # what is at its default is not named: a new option changes no key that there is
        text += "".join(f"/{name}={value}" for name, value in lane.asks)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def warm_key(lane: Lane, digest: str | None, env_revision: int) -> str | None:
    """Names the container that a lane's jobs may share; None: each job needs a fresh one."""
    if not WAYS[lane.mode].warm:
        return None
    key = f"{lane.owner_id}-{lane.image_id}-{(digest or 'tag')[-12:]}-{env_revision}-{(lane.file or '')[:16]}"
    return key + container_key(lane.asks) if lane.asks else key


class Want(msgspec.Struct, frozen=True):
    """A lane with waiting jobs."""

    lane: int
    image: str
    mode: Mode
    warm_key: str | None
    count: int
    priority: int  # of its first job
    since: float  # when its first job was submitted
    owner: int = 0
    running: int = 0  # slots that work for its owner
    passed_over: float = 0.0  # since when its owner, with work waiting, got nothing
    shunned: frozenset[WorkerId] = frozenset()  # machines that failed its jobs a moment ago: others first
    asks: frozenset[str] = frozenset()  # options that its worker has to carry out, beyond those that all do
    barred: frozenset[WorkerId] = frozenset()  # of the shunned, machines that cannot get its image now


class Slot(msgspec.Struct, frozen=True):
    index: int
    held: int = 0  # jobs assigned to it and not ended
    depth: int = 1  # how many it may hold: one runs, the others wait beside it (prefetch)
    warm_key: str | None = None  # of the container that lives on it, or will for the jobs it holds
    used_at: float = 0.0


class Ability(msgspec.Struct, frozen=True, cache_hash=True):
    """What a worker can run, whatever it does at the moment. Whatever else than its status may make `refusal` refuse is
    a field here: the server's index of free slots is keyed by the whole value. `serves`: images (process runtime);
    None: all. `doors`: modes. `options`: those that it carries out, by name."""

    serves: frozenset[str] | None = None
    doors: frozenset[str] = frozenset(WAYS)
    options: frozenset[str] = EVERYWHERE


ANYTHING = Ability()


BY_ITSELF = "takes nothing new for now: it is being stopped, or its disk is full, as its log says"
"""Of a worker that drains, and not because an admin has said so."""


class Host(msgspec.Struct, frozen=True):
    """A worker as the scheduler sees it."""

    id: WorkerId
    name: str
    status: WorkerStatus
    slots: tuple[Slot, ...]
    ability: Ability = ANYTHING
    quarantine: str | None = None  # why
    runtime: str = "docker"
    leaves: bool = False  # drains since it says so itself


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
    if host.status is WorkerStatus.DRAINING and host.leaves:
        return BY_ITSELF
    if host.status is WorkerStatus.DRAINING:
        return "is draining: it finishes what it has and takes nothing new"
    if host.status is WorkerStatus.QUARANTINED:
        return f"is quarantined: {host.quarantine}"
    if host.id in want.barred:
        return "cannot get the image now"
    why = unable(want, host.ability)
    return None if why is None else f"uses the {host.runtime} runtime{why}"


class Asked(Protocol):
    """What of a want an ability may have something against. The server's index of free slots is keyed by it, too."""

    @property
    def image(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def asks(self) -> frozenset[str]: ...


def unable(want: Asked, ability: Ability) -> str | None:
    """Why no worker of this ability ever takes work of this lane, as what follows 'uses the docker runtime'; None: one
    that is online does, given a free slot."""
    if want.mode not in ability.doors:
        # A runtime for any image carries out what its release knows.
        older = "" if ability.serves is not None else " in this version: the worker needs a newer hecaton-gpu"
        return f", which runs no {want.mode} jobs{older}"
    if ability.serves is not None and want.image not in ability.serves:
        known = ", ".join(sorted(ability.serves)) or "nothing"
        return f" and has no handler for {want.image!r} (it has: {known})"
    if want.asks and not want.asks <= ability.options:
        lacking = sorted((want.asks - ability.options) & {*OPTIONS, FOLDER})
        missing = ", ".join("--workdir" if name == FOLDER else OPTIONS[name].flag for name in lacking)
        if not missing:
            has, without = mounts_in(ability.options), mounts_in(want.asks - ability.options)
            return f" and has no mount {', '.join(without)} (it has: {', '.join(has) or 'none'})"
        return f", which does not carry out {missing} there, or not in this version of hecaton-gpu: its log says why"
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


def place(wants: Iterable[Want], hosts: Sequence[Host], now: float, max_running: int | None = None) -> list[Placement]:
    """Hand waiting work to slots: warm ones first, then empty, then the least recently used; last, prefetch. Among
    slots that were used at the same time, those of the hosts named first go first. `max_running`: slots that may work
    for one owner at a time."""
    return _Round(wants, hosts, now, max_running).run()


class _Round:
    """One decision. `left` counts what each lane still wants, `running` the slots that work for each owner. Hosts that
    are not online are left out first, so that of `refusal` only `unable` remains to be asked.

    What becomes of a lane on a worker depends on the slots that come before in these orders and on nothing else, so
    that `server.fleet.places.openings` need not show all slots: as many of each order as there are jobs are enough."""

    def __init__(self, wants: Iterable[Want], hosts: Sequence[Host], now: float, max_running: int | None) -> None:
        # hot: benchmarks/instructions.py - mostly one lane waits and one slot is free: what is alone is not sorted, and
        # loops cost no call
        self.wants = [*wants]
        if len(self.wants) > 1:
            self.wants.sort(key=lambda w: (-w.priority, w.since))
        self.now = now
        self.most = math.inf if max_running is None else max_running
        self.left: dict[int, int] = {}
        self.running: dict[int, int] = {}
        self.passed_over: dict[int, float] = {}  # of owners: the longest of any of their lanes
        for want in self.wants:
            owner = want.owner
            self.left[want.lane], self.running[owner] = want.count, want.running
            if want.passed_over <= self.passed_over.get(owner, math.inf):
                self.passed_over[owner] = want.passed_over
        self.idle: list[tuple[Host, Slot]] = []
        self.busy: list[tuple[Host, Slot]] = []
        for host in hosts:
            if host.status is WorkerStatus.ONLINE:
                for slot in host.slots:
                    if slot.held == 0:
                        self.idle.append((host, slot))
                    elif slot.held < slot.depth:
                        self.busy.append((host, slot))
        for pairs in (self.idle, self.busy):
            if len(pairs) > 1:
                pairs.sort(key=lambda pair: pair[1].used_at)
        self.taken: set[tuple[WorkerId, int]] = set()  # of the idle ones
        self.placements: list[Placement] = []

    def run(self) -> list[Placement]:
        if self.idle:
            self._keep_warm()
            self._fill_idle()
        if self.busy:
            self._prefetch()
        return self.placements

    def _give(self, want: Want, host: Host, slot: Slot, count: int) -> None:
        self.left[want.lane] -= count
        self.placements.append(Placement(want.lane, host.id, slot.index, count))

    def _take(self, want: Want, host: Host, slot: Slot) -> None:
        self._give(want, host, slot, 1)
        self.taken.add((host.id, slot.index))
        self.running[want.owner] += 1

    def _outranked(self, want: Want, host: Host) -> bool:
        """Does other waiting work have a better claim to this worker than a warm container gives?"""
        return len(self.wants) > 1 and any(
            self.left[other.lane] > 0
            and self.running[other.owner] < self.most
            and self._better(other, want)
            and host.id not in other.barred
            and unable(other, host.ability) is None
            for other in self.wants
            if other.lane != want.lane
        )

    def _better(self, other: Want, want: Want) -> bool:
        if other.owner != want.owner:
            fewer = self.running[other.owner] <= self.running[want.owner]
            return fewer and self.now - other.passed_over > TURN
        if other.priority != want.priority:
            return other.priority > want.priority
        return other.since < want.since and self.now - other.since > PATIENCE

    def _warm(self, pairs: Iterable[tuple[Host, Slot]]) -> dict[str | None, list[tuple[Host, Slot]]]:
        """Those whose container somebody wants."""
        by_warm: dict[str | None, list[tuple[Host, Slot]]] = {}
        for want in self.wants:
            if want.warm_key:
                by_warm[want.warm_key] = []
        for host, slot in pairs:
            if slot.warm_key in by_warm:
                by_warm[slot.warm_key].append((host, slot))
        return by_warm

    def _keep_warm(self) -> None:
        """The most recently used first: what is not needed then rests long enough to be given up."""
        by_warm = self._warm(reversed(self.idle))
        for want in self.wants:
            for host, slot in by_warm.get(want.warm_key, ()):
                if self.left[want.lane] <= 0 or self.running[want.owner] >= self.most:
                    break
                if (host.id, slot.index) not in self.taken and self._suits(want, host):
                    self._take(want, host, slot)

    def _suits(self, want: Want, host: Host) -> bool:
        able = host.id not in want.shunned and unable(want, host.ability) is None
        return able and not self._outranked(want, host)

    def _fill_idle(self) -> None:
        """Slot by slot to the owner who has the fewest, and of his work to what is most urgent, then to the oldest."""
        if len(self.taken) == len(self.idle):
            return
        turns = [(self._rank(want), place) for place, want in enumerate(self.wants) if self.left[want.lane] > 0]
        heapq.heapify(turns)
        choices: dict[int, Iterator[tuple[Host, Slot]]] = {}
        while turns and len(self.taken) < len(self.idle):
            rank, place = turns[0]
            want = self.wants[place]
            if self.running[want.owner] >= self.most:
                heapq.heappop(turns)
                continue
            if rank != self._rank(want):  # its owner got a slot for another lane meanwhile
                heapq.heapreplace(turns, (self._rank(want), place))
                continue
            if place not in choices:
                choices[place] = self._choices(want)
            pair = next(((h, s) for h, s in choices[place] if (h.id, s.index) not in self.taken), None)
            if pair is None:
                heapq.heappop(turns)
                continue
            self._take(want, *pair)
            if self.left[want.lane] <= 0:
                heapq.heappop(turns)

    def _rank(self, want: Want) -> tuple[int, float, int, int, float]:
        """Between owners nothing counts but what they have and when they got it: anybody may call his work urgent."""
        return self.running[want.owner], self.passed_over[want.owner], want.owner, -want.priority, want.since

    def _choices(self, want: Want) -> Iterator[tuple[Host, Slot]]:
        """Idle slots that may take it, the best first."""

        def badness(position: int) -> tuple[bool, bool, bool, int]:
            host, slot = self.idle[position]
            other = slot.warm_key != want.warm_key
            return host.id in want.shunned, other, slot.warm_key is not None, position if other else -position

        ready = [
            place
            for place, (host, _) in enumerate(self.idle)
            if host.id not in want.barred and unable(want, host.ability) is None
        ]
        return (self.idle[position] for position in sorted(ready, key=badness))

    def _prefetch(self) -> None:
        """A job waits beside a running one only where the container is the same: else it would wait for a start too."""
        by_warm = self._warm(self.busy)
        for want in self.wants:
            for host, slot in by_warm.get(want.warm_key, ()):
                if self.left[want.lane] <= 0:
                    break
                if self._suits(want, host):
                    self._give(want, host, slot, min(slot.depth - slot.held, self.left[want.lane]))
