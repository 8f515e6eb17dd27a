"""The worker's brain under any sequence of events: a machine plays server, engine and containers, and sees to it that
the invariants hold after each event, that orders make sense, and that no job is lost."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hecaton.core.model import AttemptRef, Gpu, Reason
from hecaton.core.placement.holds import Holds, Part
from hecaton.wire.channel import Released
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.departure import HANDOVER_SECONDS
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.runtimes.port import Exit
from tests.faults.figures import figure
from tests.worker.brain import Brain, assignment, ref

pytestmark = pytest.mark.full

SLOTS = 2
CARD = 4
FIRST, SECOND = ("GPU-0", "GPU-1")
HOLDS = {
    2: Holds((Part(FIRST), Part(SECOND))),
    3: Holds((Part(FIRST, 1),)),
    4: Holds((Part(FIRST, 3),)),
    5: Holds((Part(SECOND, 2),)),
    6: Holds(),
    7: Holds((Part("GPU-elsewhere"),)),
    8: Holds((Part(FIRST, CARD + 1),)),
}
"""Of places that an assignment opens, by number; no such place is ever on this machine for the last two."""
_pick = st.integers(min_value=0, max_value=999)


def _by_name(item: AttemptRef) -> tuple[str, int]:
    return item.job, item.attempt


class Machine(RuleBasedStateMachine):
    """`open`: jobs given to the worker and not yet answered for, as the server counts them."""

    def __init__(self) -> None:
        super().__init__()
        cards = tuple(Gpu(f"GPU-{slot}", "H", CARD) for slot in range(SLOTS))
        self.brain = Brain(WorkerSettings(idle_timeout=50, drain_timeout=20, startup_timeout=100), cards)
        self.made = 0
        self.open: set[AttemptRef] = set()
        self.ended: set[AttemptRef] = set()
        self.alive: dict[str, str] = {}  # containers of the engine: preparing, starting, up, ready, stopping
        self.at_work: dict[str, list[AttemptRef]] = {}  # by container: the first has begun, the others are ahead
        self.said: dict[str, list[AttemptRef]] = {}  # results on their way from a container to the worker
        self.begun: set[AttemptRef] = set()
        self.current: dict[str, AttemptRef] = {}  # what a container has begun last
        self.withdrawn: list[ev.Withdrawn] = []
        self.fetching: list[AttemptRef] = []
        self.left = False
        self.stopping = False
        self.stays = False  # what runs is for the next process of the worker
        self.asked_at = 0.0
        self.down = False  # the machine goes down, and waits for nothing

    # -- what the brain orders -----------------------------------------------------------------------

    def hear(self, event: ev.Event) -> None:
        for action in self.brain.hear(event):
            self.obey(action)
        while self.withdrawn:
            self.hear(self.withdrawn.pop(0))

    def obey(self, action: ev.Action) -> None:
        assert not self.left, "an order after Leave"
        if isinstance(action, ev.StartContainer):
            assert action.container not in self.alive, "an id was used twice"
            assert not self.stopping
            held = self.brain.state.holdings
            assert held.slots[action.slot].lost is None
            assert not held.places.lost.keys() & set(held.containers[action.container].holds.uuids)
            self.alive[action.container] = "preparing"
        elif isinstance(action, ev.StopContainer):
            assert self.alive[action.container] != "stopping"
            self.alive[action.container] = "stopping"
        elif isinstance(action, ev.GiveJob):
            assert self.alive[action.container] == "ready"
            assert not self.at_work.get(action.container), "two jobs at once"
            self.give(action.container, action.assignment.ref)
        elif isinstance(action, ev.GiveAhead):
            assert self.alive[action.container] == "ready"
            for job in action.assignments:
                self.give(action.container, job.ref)
        elif isinstance(action, ev.Withdraw):
            begun = self.at_work.get(action.container, [])[: self.has_begun(action.container)]
            ahead = self.at_work.get(action.container, [])[len(begun) :]
            self.at_work[action.container] = begun
            self.withdrawn.append(ev.Withdrawn(self.brain.now, action.container, tuple(ahead)))
        elif isinstance(action, ev.Acknowledge):
            assert action.container in self.alive
        elif isinstance(action, ev.Deliver):
            self.on_result(action)
        elif isinstance(action, ev.Fetch):
            self.fetching.append(action.assignment.ref)
        elif isinstance(action, ev.Report):
            if isinstance(action.message, Released):
                self.open -= set(action.message.refs)
                at_work = {job for jobs in self.at_work.values() for job in jobs}
                assert not at_work & set(action.message.refs), "handed back, and it may still run here"
        elif isinstance(action, ev.Leave):
            assert not self.alive or self.stays or self.down, "it leaves and containers are still there"
            steady = set(self.alive.values()) <= {"up", "ready"}
            late = self.brain.now >= self.asked_at + HANDOVER_SECONDS
            assert not self.stays or self.down or late or steady, "it leaves in the midst of a change"
            self.left = True

    def give(self, container: str, job: AttemptRef) -> None:
        assert job not in self.ended
        self.at_work.setdefault(container, []).append(job)
        self.begin(container)

    def has_begun(self, container: str) -> int:
        """How many of the jobs at the container: the first or none. What is withdrawn is not its any more."""
        jobs = self.at_work.get(container, [])
        return int(bool(jobs) and jobs[0] == self.current.get(container))

    def begin(self, container: str) -> None:
        for job in self.at_work[container][:1]:
            assert job not in self.begun or self.at_work[container][0] == self.current.get(container), "begun twice"
            self.begun.add(job)
            self.current[container] = job

    def on_result(self, action: ev.Deliver) -> None:
        job = action.outcome.ref
        assert action.again == (job in self.ended), "a second result for one attempt"
        if action.outcome.reason in (Reason.CANCELLED, Reason.TIMEOUT, Reason.GPU_LOST):
            for container, at_work in self.at_work.items():
                assert job not in at_work[:1] or container not in self.alive, "ended, and its container still runs"
        self.ended.add(job)

    # -- what happens --------------------------------------------------------------------------------

    @initialize(
        left=st.lists(
            st.sampled_from(["nothing", "idle", "working", "quick", "quick", "ahead", "lost"]),
            min_size=SLOTS,
            max_size=SLOTS,
        )
    )
    def restart(self, left: list[str]) -> None:
        """An earlier process of this worker has left containers, or jobs without one."""
        self.link(True, 1)
        for slot, what in enumerate(left):
            now, name = self.brain.now, f"old-{slot}"
            job = assignment(f"old{slot}", slot=slot, timeout=300)
            if what in ("working", "quick", "ahead", "lost"):
                self.open.add(job.ref)
            if what in ("idle", "working", "quick", "ahead"):
                self.alive[name] = "up" if what == "idle" else "ready"
                at_work = job if what != "idle" else None
                ahead = tuple(assignment(f"old{slot}-{n}", slot=slot) for n in range(2 if what == "ahead" else 0))
                self.open |= {item.ref for item in ahead}
                began = now - 10 if what == "working" else now
                self.hear(ev.ContainerAdopted(now, name, slot, assignment("before"), at_work, began, ahead))
            if what == "working":
                self.give(name, job.ref)
            elif what == "quick":  # has ended a job in no time, so that it is given the next ones ahead
                self.hear(ev.ContainerReady(now, name, (job.ref,), takes_ahead=True))
                self.hear(ev.JobAnswered(now, name, job.ref, Reason.OK))
            elif what == "ahead":  # the earlier process did not hear of the first two's end any more
                self.said[name] = [job.ref, ahead[0].ref]
                self.give(name, ahead[1].ref)
            elif what == "lost":
                self.hear(ev.AttemptLost(now, job.ref, slot, Reason.WORKER_ERROR))

    @precondition(lambda self: not self.left)
    @rule(
        slot=st.sampled_from([0, 0, 1, 1, *HOLDS]),
        warm_key=st.sampled_from(["w1", "w1", "w1", "w2", None]),
        blob=st.booleans(),
        count=st.integers(1, 4),
        pick=_pick,
    )
    def assign(self, slot: int, warm_key: str | None, blob: bool, count: int, pick: int) -> None:
        if not self.brain.state.connected:
            return
        jobs = tuple(
            assignment(
                f"job{self.made + n}",
                slot=slot,
                warm_key=warm_key,
                blob=blob and n == 0,
                timeout=30 if pick % 3 else None,
                holds=HOLDS.get(slot) if pick % 7 else HOLDS[2 + pick % len(HOLDS)],
            )
            for n in range(count)
        )
        self.made += count
        self.open |= {job.ref for job in jobs}
        self.hear(ev.Assigned(self.brain.now, jobs))

    def some(self, pick: int) -> AttemptRef:
        known = sorted(self.open, key=_by_name)
        return known[pick % len(known)] if known else ref("unknown")

    @precondition(lambda self: not self.left)
    @rule(pick=_pick, what=st.sampled_from(["revoke", "cancel", "again", "newer"]))
    def server_asks(self, pick: int, what: str) -> None:
        target = self.some(pick)
        now = self.brain.now
        if what == "revoke":
            self.hear(ev.Revoked(now, (target,)))
        elif what == "cancel":
            self.hear(ev.CancelAsked(now, (target,)))
        elif what == "again":
            if self.brain.state.holdings.has(target):
                self.hear(ev.Assigned(now, (assignment(target.job, attempt=target.attempt),)))
        elif self.brain.state.connected and target in self.open:
            newer = assignment(target.job, attempt=target.attempt + 1)
            self.open -= {target}
            self.open.add(newer.ref)
            self.hear(ev.Assigned(now, (newer,)))

    @precondition(lambda self: not self.left)
    @rule(pick=_pick, fenced=st.booleans())
    def server_accepts(self, pick: int, fenced: bool) -> None:
        waiting = sorted(self.brain.state.holdings.done, key=_by_name)
        if waiting:
            target = (waiting[pick % len(waiting)],)
            self.open -= set(target)
            refs, gone = ((), target) if fenced else (target, ())
            self.hear(ev.ResultsAccepted(self.brain.now, refs, gone))

    @precondition(lambda self: not self.left)
    @rule(up=st.booleans(), pick=_pick)
    def link(self, up: bool, pick: int) -> None:
        if not up:
            self.hear(ev.LinkLost(self.brain.now))
            return
        held = {item.ref for item in self.brain.state.holdings.held(self.brain.now)}
        self.open &= held  # what it does not list it does not have
        drop = (self.some(pick),) if pick % 3 == 0 else ()
        self.open -= set(drop)
        self.hear(ev.Welcomed(self.brain.now, drop))

    @precondition(lambda self: bool(self.alive) and not self.left)
    @rule(pick=_pick, broken=st.integers(0, 5))
    def container_moves(self, pick: int, broken: int) -> None:
        names = sorted(self.alive)
        name = names[pick % len(names)]
        phase, now = self.alive[name], self.brain.now
        if phase == "stopping":
            self.vanish(name)
            self.hear(ev.ContainerGone(now, name))
        elif phase == "preparing" and broken:
            self.alive[name] = "starting"
            self.hear(ev.ImageReady(now, name))
        elif phase == "starting" and broken:
            self.alive[name] = "up"
            self.hear(ev.ContainerStarted(now, name))
        elif phase in ("preparing", "starting"):
            self.vanish(name)
            self.hear(ev.ContainerFailed(now, name, Reason.IMAGE_PULL, "registry away"))
        elif not broken:
            self.answers(name)  # what it has said before it ends is heard
            begun = self.has_begun(name)
            waiting = self.at_work.pop(name, [])[begun:]
            self.hear(ev.ContainerExited(now, name, Exit(1), "", tuple(waiting)))
        elif phase == "up":
            self.alive[name] = "ready"
            self.hear(ev.ContainerReady(now, name, takes_ahead=pick % 5 != 0))
        elif broken == 1:  # its connection broke: what was ahead is gone with it, what was on its way comes again
            self.at_work[name] = self.at_work.get(name, [])[: self.has_begun(name)]
            busy = [*self.said.get(name, ()), *self.at_work[name]]
            self.hear(ev.ContainerReady(now, name, tuple(busy), takes_ahead=True))
        elif self.at_work.get(name) and not self.has_begun(name):
            self.begin(name)
        elif self.at_work.get(name) and pick % 2:
            self.said.setdefault(name, []).append(self.at_work[name].pop(0))
            if pick % 4 == 1:  # else a moment later
                self.begin(name)
        else:
            self.answers(name, len(self.said.get(name, ())) // 2 + 1)

    def answers(self, name: str, count: int = 999) -> None:
        for job in self.said.get(name, [])[:count]:
            self.said[name].remove(job)
            self.hear(ev.JobAnswered(self.brain.now, name, job, Reason.OK))

    def vanish(self, name: str) -> None:
        del self.alive[name]
        self.at_work.pop(name, None)
        self.said.pop(name, None)
        self.current.pop(name, None)

    @precondition(lambda self: bool(self.fetching) and not self.left)
    @rule(works=st.booleans())
    def fetched(self, works: bool) -> None:
        job = self.fetching.pop(0)
        self.hear(ev.Fetched(self.brain.now, job) if works else ev.FetchFailed(self.brain.now, job, "no"))

    @precondition(lambda self: not self.left)
    @rule(seconds=st.sampled_from([0.001, 0.001, 0.1, 5.0, 40.0, 120.0]))
    def time_passes(self, seconds: float) -> None:
        self.brain.now += seconds
        self.hear(ev.Tick(self.brain.now))
        due = self.brain.state.deadline()
        assert due is None or due > self.brain.now, "a tick that changes nothing would ring for ever"

    @precondition(lambda self: not self.left)
    @rule(pick=_pick)
    def card_is_lost(self, pick: int) -> None:
        if pick % 50 == 7:  # rarely, and for good
            self.hear(ev.GpuLost(self.brain.now, f"GPU-{pick // 50 % SLOTS}", "it fell off the bus"))

    @precondition(lambda self: not self.left)
    @rule(pick=_pick)
    def stop(self, pick: int) -> None:
        if pick % 50 == 7:  # rarely: most stories should go on
            self.stopping = True
            self.hear(ev.StopAsked(self.brain.now, at_once=pick % 100 == 7))

    @precondition(lambda self: not self.left)
    @rule(pick=_pick)
    def leaves(self, pick: int) -> None:
        if pick % 50 == 7:
            if not self.stopping:
                self.stays, self.asked_at = True, self.brain.now
            self.stopping = True
            self.hear(ev.LeaveAsked(self.brain.now))

    @precondition(lambda self: not self.left)
    @rule(pick=_pick)
    def machine_goes_down(self, pick: int) -> None:
        if pick % 50 == 7:
            self.stopping = self.down = True
            self.hear(ev.PowerOffAsked(self.brain.now))

    @precondition(lambda self: self.left)
    @rule()
    def nothing_more(self) -> None:
        self.hear(ev.Tick(self.brain.now + 1000.0))

    # -- at the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Given time and working parts, every job ends and the server hears of each."""
        if not self.left:
            self.link(True, 1)
        for step in range(2000):
            if self.left or not (self.alive or self.fetching or self.brain.state.holdings.jobs):
                break
            if self.fetching:
                self.fetched(True)
            for name in sorted(self.alive):
                self.container_moves(sorted(self.alive).index(name) if name in self.alive else 0, 5)
                while self.at_work.get(name):
                    self.begin(name)
                    self.said.setdefault(name, []).append(self.at_work[name].pop(0))
                if name in self.alive:
                    self.answers(name)
            if step > 1000:
                self.time_passes(40.0)
            if not self.brain.state.holdings.jobs and all(phase == "ready" for phase in self.alive.values()):
                break
        assert self.left or not self.brain.state.holdings.jobs, "a job never ended"
        if not self.left:
            assert self.open <= set(self.brain.state.holdings.done), "the server was never told what became of a job"


Machine.TestCase.settings = settings(max_examples=figure(120, 300), stateful_step_count=60, deadline=None)
TestAnySequenceOfEvents = Machine.TestCase
