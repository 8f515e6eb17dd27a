"""Which lane has work, which slot has room, and who gets what: memory only, decided by `core.placement.matching.place`.

A decision is three steps, so that the claim shares the transaction (one fsync) of whatever caused it. `claiming` takes
all three, or undoes the first:

    plan        reserves room in memory
    claim       in the store: commits attempt numbers, in the store's order of priority and age
    settle      turns reservations into leases and pushes the jobs

Counts of waiting jobs may be too high (a duplicate, a cancelled job): a claim then comes back short, and they are
read anew. They are never too low, so no job is forgotten; a slow tick of `duties` reads them anew all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TypeVar

import structlog

from hecaton.core.errors import Unavailable
from hecaton.core.model import Image, WorkerId
from hecaton.core.options import demands
from hecaton.core.placement.matching import Lane, Want, place
from hecaton.server.clock import submitted_at
from hecaton.server.fleet.images.pulls import Pulls
from hecaton.server.fleet.lanes import (
    LANE_KEPT,
    SHUN,
    LaneState,
    OfOwners,
    WaitingLanes,
    assigned,
    defaults_of,
    depth,
    needs,
    want_of,
)
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.packed import PackedLanes, Ranking, fewest, needs_asked
from hecaton.server.fleet.places.kinds import Work
from hecaton.server.fleet.places.leases import Lease, Member
from hecaton.server.fleet.places.openings import Openings
from hecaton.server.fleet.revoking import ask_back, is_cold, withdraw
from hecaton.store.port import Claim, Claimed, Database, LaneInfo, Store
from hecaton.wire.channel import Assign, Assignment

T = TypeVar("T")

_log = structlog.get_logger("hecaton.scheduler")


class Scheduler:
    """On the server's event loop. Only `claiming` and `claim` await: every other method is atomic, and so is what
    these two do before and after the store. Only `_count` changes a lane's `count`. What is given out or asked
    back is sent to the workers from here."""

    def __init__(
        self,
        fleet: Fleet,
        image: Callable[[int], Image | None],
        now: Callable[[], float],
        pulls: Pulls,
        max_running: int | None = None,
    ) -> None:
        self.fleet = fleet
        self.pulls = pulls
        self.max_running = max_running  # slots that may work for one owner at a time
        self._openings = Openings(fleet)
        self.may_revoke = self._openings.may_be_stacked  # else nothing waits beside a running job
        self._image, self._now = image, now
        self._lanes: dict[int, LaneState] = {}
        self._waiting = WaitingLanes()  # those with a count above 0, but for those that need places of their own
        self._packed = PackedLanes(fleet)
        self._openings.stirred = self._packed.stirred
        self._of_owners = OfOwners()
        self._served: dict[int, float] = {}  # when an owner was given a slot last
        self.miscounted: Callable[[], None] = lambda: None  # asks for a look at what waits, which is then handed out
        self.stopped, self.held = False, frozenset[int]()  # hand out nothing; nothing of these owners

    # -- what waits ----------------------------------------------------------------------------

    @property
    def lanes(self) -> Mapping[int, LaneState]:
        return self._lanes

    def recount(self) -> None:
        """Called before the store is asked; `load` then knows what was added while it counted."""
        for state in self._lanes.values():
            state.fresh = 0

    def load(self, infos: Iterable[LaneInfo]) -> None:
        """What the store says is waiting, and what came since `recount`; replaces all counts."""
        for state in self._lanes.values():
            self._count(state, state.fresh)
        for info in infos:
            state = self._state(info.key, info.lane)
            state.read(info)
            self._count(state, state.count + info.count)
        self._forget_unused()

    def _forget_unused(self) -> None:
        """Claims under way and leases still need their lane. Machines are shunned for less time than this, but from
        when a job of the lane fails, however long it runs."""
        before = self._now() - LANE_KEPT
        held = {lease.lane for member in self.fleet.members.values() for lease in member.all_leases()}
        for state in list(self._lanes.values()):
            if state.count <= 0 and not state.claims and state.used_at < before and state.key not in held:
                del self._lanes[state.key]

    def add(self, lane: Lane, priority: int, since: float, count: int = 1) -> None:
        """The store keeps new jobs under the key that their lane has now."""
        self._add(self._state(lane.key(), lane), priority, since, count)

    def _add(self, state: LaneState, priority: int, since: float, count: int) -> None:
        state.add(priority, since, count)
        self._count(state, max(state.count, 0) + count)

    def remove(self, lane: Lane, count: int = 1) -> None:
        state = self._state(lane.key(), lane)
        self._count(state, max(0, state.count - count))

    def again(self, key: int) -> None:
        """A job of a known lane waits once more."""
        state = self._lanes.get(key)
        if state is not None:
            state.used_at = self._now()
            self._add(state, state.priority, state.since or self._now(), 1)

    def knows(self, key: int) -> bool:
        return key in self._lanes

    def _state(self, key: int, lane: Lane) -> LaneState:
        """By the key under which the store has its jobs: another release may have made it, and by other rules."""
        state = self._lanes.get(key)
        if state is None:
            state = self._lanes[key] = LaneState(key, lane, asks=demands(lane.asks))
        state.used_at = self._now()
        return state

    def want(self, key: int) -> Want | None:
        state = self._lanes.get(key)
        return None if state is None else self._want(state)

    def _want(self, state: LaneState, running: Mapping[int, int] = MappingProxyType({})) -> Want | None:
        image = self._image(state.lane.image_id)
        if image is None:
            return None
        owner = state.lane.owner_id
        served, barred = self._served.get(owner, 0.0), self.pulls.barred(image.name)
        return want_of(state, image, self._now(), running.get(owner, 0), served, barred)

    def shun(self, key: int, worker: WorkerId) -> None:
        """A job of this lane was failed by the machine: it and its like go to others first, if there are any."""
        state = self._lanes.get(key)
        if state is not None:
            state.used_at = self._now()
            state.shunned[worker] = state.used_at + SHUN

    def forgive(self, key: int, worker: WorkerId) -> None:
        """It was no failure."""
        state = self._lanes.get(key)
        if state is not None:
            state.shunned.pop(worker, None)

    def queued(self, owner: int) -> int:
        """Jobs of this owner that wait to be given to a worker; may be too high, as `LaneState.count`."""
        return self._of_owners.queued.get(owner, 0)

    def waiting_lanes(self, owner: int) -> int:
        """In how many lanes they wait."""
        return self._of_owners.lanes.get(owner, 0)

    def waits_in(self, key: int) -> bool:
        """Do jobs wait in this lane?"""
        return key in self._lanes and self._lanes[key].count > 0

    def running(self, owner: int) -> int:
        """Slots that work for this owner."""
        return self._openings.running().get(owner, 0)

    def _count(self, state: LaneState, count: int) -> None:
        self._of_owners.count(state.lane.owner_id, state.count, count)
        state.count = count
        if count <= 0:
            self._waiting.remove(state)
            if self._packed:
                self._packed.remove(state)
        elif not state.waits:
            self._wait(state)

    def _wait(self, state: LaneState) -> None:
        """Not where its image is gone: then nobody is wanted for it."""
        image = self._image(state.lane.image_id)
        if (more := needs_asked(state.lane, image)) is not None:
            self._packed.add(state, more)
        elif image is not None:
            work = Work(image.name, state.lane.mode, needs(state.asks, image))
            self._openings.ask(work)
            self._waiting.add(state, work)

    # -- decide --------------------------------------------------------------------------------

    async def claiming(self, database: Database, now: float, work: Callable[[Store], T]) -> T:
        """Returns what `work` returns, once it is committed. In the same transaction waiting jobs are claimed for the
        room that there is; they are leased and sent before this returns. Raises what the store has against the work:
        then they are claimed without it."""
        # hot: benchmarks/throughput.py - runs with every submit and every result
        claims = self._plan()
        if not claims:
            return await database.write(work)
        try:
            done, _ = await self._claimed(claims, database, now, work)
        except Unavailable:
            raise
        except Exception:
            self.miscounted()  # others wait for this room; but the caller first takes back what it has counted
            raise
        return done

    async def claim(self, database: Database, now: float) -> int:
        """As `claiming`, with no other work. Returns how many jobs were given out."""
        claims = self._plan()
        return (await self._claimed(claims, database, now, nothing))[1] if claims else 0

    async def _claimed(
        self, claims: Sequence[Claim], database: Database, now: float, work: Callable[[Store], T]
    ) -> tuple[T, int]:
        """From the plan to its end, whatever that is."""

        def write(store: Store) -> tuple[T, list[Claimed]]:
            return work(store), store.claim(claims, now)

        claimed: list[Claimed] | None
        try:
            try:
                done, claimed = await database.write(write)
            except Unavailable:
                raise
            except Exception:  # whose fault that was shows when each is tried alone
                done, claimed = await database.write(work), None
        except BaseException:
            self._undo(claims)
            raise
        if claimed is None:
            return done, await self._one_by_one(claims, database, now)
        self._settle(claims, claimed)
        if len(claimed) < sum([claim.count for claim in claims]):
            self.miscounted()  # and who came meanwhile was told that there is no room
        return done, len(claimed)

    async def _one_by_one(self, claims: Sequence[Claim], database: Database, now: float) -> int:
        """Returns how many jobs were given out. Raises nothing of the store's: the caller's own work is done."""
        given, refused = 0, False
        left = list(claims)
        while left:
            try:
                claimed = await database.write(lambda store: store.claim(left[:1], now))
            except Unavailable:  # `duties` looks again
                break
            except Exception as error:
                _log.error("Jobs could not be given to a worker", worker=left[0].worker_id, error=str(error)[:500])
                refused = True
                self._undo(left[:1])
                self._set_apart(left.pop(0))
            except BaseException:
                self._undo(left)
                raise
            else:
                given += len(claimed)
                self._settle([left.pop(0)], claimed)
        self._undo(left)
        with suppress(Unavailable):  # `duties` looks again
            given += await self.claim(database, now) if refused else 0
        return given

    def _set_apart(self, claim: Claim) -> None:
        """One of the two cannot be stored. At first the worker is to blame, and comes back; the next time the lane is,
        and waits until the next look at all that waits."""
        lane = self._lanes[claim.lane]
        lane.refused += 1
        self.shun(claim.lane, claim.worker_id)  # it may come back at once, and would be the first again
        member = self.fleet.members.get(claim.worker_id)
        if lane.refused > 1:
            self._count(lane, 0)
        elif member is not None and member.link is not None:
            member.link.close(1011, "the server failed to give this worker jobs; its log says why")
            self.fleet.leave(member.id, member.link)

    def _plan(self) -> list[Claim]:
        claims = list[Claim]()
        if self.stopped or not (self._waiting.works or self._packed):
            return claims
        if self._packed:
            waiting = self._waiting.of(self._waiting.works, self.held)
            self._plan_packed(claims, fewest(waiting, self._openings.running()))
        if self._waiting.works and self._openings.any():
            self._plan_plain(claims)
        if self._packed:
            self._plan_packed(claims, None)
        return claims

    def _plan_plain(self, claims: list[Claim]) -> None:
        states = self._waiting.of(self._openings.doable(self._waiting.works), self.held)
        several = len({state.lane.owner_id for state in states}) > 1
        counted = several or self.max_running is not None
        running = self._openings.running() if counted else MappingProxyType({})
        wants = {want.lane: want for state in states if (want := self._want(state, running))}
        hosts = self._openings.hosts(tuple(wants.values()))
        for placed in place(wants.values(), hosts, self._now(), self.max_running) if hosts else ():
            self.fleet.reserve(placed.worker, placed.slot, placed.count, wants[placed.lane].warm_key)
            claims.append(self._claim_of(placed.lane, placed.worker, placed.slot, placed.count))

    def _plan_packed(self, claims: list[Claim], least: float | None) -> None:
        """What needs places of its own, of owners who have no more than `least`; None: of all, but for them nothing is
        kept free."""
        running = Counter(self._openings.running())
        states = self._packed.candidates(self.held)
        wants = {want.lane: want for state in states if (want := self._want(state, running))}

        def give(want: Want, worker: WorkerId, slot: int, count: int) -> None:
            self.fleet.reserve(worker, slot, count, want.warm_key, opened=True)
            claims.append(self._claim_of(want.lane, worker, slot, count))
            running[want.owner] += 1

        self._packed.place(wants, Ranking(running, self._served, self.max_running, least), give)

    def _claim_of(self, key: int, worker: WorkerId, slot: int, count: int) -> Claim:
        now = self._now()
        lane = self._lanes[key]
        self._count(lane, lane.count - count)
        lane.claims += 1
        lane.raised, lane.used_at = None, now
        self._served[lane.lane.owner_id] = now
        return Claim(key, worker, slot, count, defaults_of(self._image(lane.lane.image_id)))

    def _undo(self, claims: Sequence[Claim]) -> None:
        """The transaction failed: nothing was claimed."""
        for claim in claims:
            lane = self._lanes[claim.lane]
            lane.claims -= 1
            self._count(lane, lane.count + claim.count)
            self.fleet.reserve(claim.worker_id, claim.slot, -claim.count, None)

    def _settle(self, claims: Sequence[Claim], claimed: Sequence[Claimed]) -> None:
        for claim in claims:
            lane = self._lanes[claim.lane]
            lane.claims, lane.refused = lane.claims - 1, 0
            self.fleet.reserve(claim.worker_id, claim.slot, -claim.count, None)
        pushes: dict[str, tuple[Member, list[Assignment]]] = {}
        for job in claimed:
            claim = claims[job.claim]
            state = self._lanes[claim.lane]
            state.advance(job.spec.priority, submitted_at(job.ref.job))
            image = self._image(job.image_id)
            holds = self.fleet.held_there(claim.worker_id, claim.slot)
            assignment = assigned(job, claim, state.lane, image, holds) if image is not None else None
            warm = assignment.warm_key if assignment is not None else None
            lease = Lease(job.ref, claim.slot, claim.lane, warm, state.lane.owner_id)
            member = self.fleet.grant(claim.worker_id, lease, depth(state))
            if member is not None and is_cold(member, lease):
                lease.cold_since = self._now()
            # If it left in between, the lease expires, or the worker returns and is asked.
            if assignment is not None and member is not None and member.link is not None:
                pushes.setdefault(member.id, (member, []))[1].append(assignment)
        for member, jobs in pushes.values():
            if member.link is not None:
                member.link.send(Assign(tuple(jobs)))

    def ran(self, key: int, seconds: float | None) -> None:
        state = self._lanes.get(key)
        if state is not None and seconds is not None:
            state.pace = seconds if state.pace is None else state.pace + 0.2 * (seconds - state.pace)
            state.used_at = self._now()

    # -- withdraw -----------------------------------------------------------------------------

    def revoke(self) -> int:
        """Jobs that wait beside a running one while another slot is idle: ask for them back, for each idle slot as many
        as it would hold, and of those beside one job at most half. Returns how many."""
        return ask_back(self.fleet, self._openings, self._would_run, lambda lane: depth(self._lanes[lane]))

    def _would_run(self, key: int) -> bool:
        want = self.want(key)
        if want is None or (self.max_running is not None and self.running(want.owner) >= self.max_running):
            return False
        return self._openings.idle_for(want)

    def hold(self, everybody: bool, owners: frozenset[int]) -> None:
        """From now on nothing is given to anybody, or to the work of these; what has not started is asked for."""
        self.stopped, self.held = everybody, owners
        for member in self.fleet.members.values() if everybody or owners else ():
            withdraw(member, None if everybody else owners)


def nothing(store: Store) -> None:
    """The work of a transaction that only claims, or that only waits for those before it."""
