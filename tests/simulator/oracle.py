"""What was promised, what happened, and what must hold. It keeps its own ledger and trusts neither side.

`committed` hears of every row that the store changes, `begins` and `ends` of everything that runs in a container,
`fault` of everything that the simulator breaks. The first broken rule ends the run.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from hecaton.core.lifecycle import TRANSITIONS
from hecaton.core.model import AttemptRef, JobId, JobState
from tests.simulator.plan import JobPlan

TAIL = 300

NEWS = 8.0
"""Virtual seconds that the server may take to know what its slow disk has stored."""

_MOVES = {(source.value, target.value) for (source, _), target in TRANSITIONS.items()}
_HELD = (JobState.ASSIGNED.value, JobState.IN_PROGRESS.value)
_TERMINAL = {state.value for state in JobState if state.terminal}


class Broken(Exception):
    """A rule does not hold."""


class Moved(NamedTuple):
    """A row of the table `job` before and after a statement."""

    seq: int
    id: str
    key: str
    old_state: str | None
    state: str
    old_attempt: int | None
    attempt: int
    worker_id: str | None
    slot: int | None
    reason: str | None
    user_failures: int
    infra_failures: int


class Execution(msgspec.Struct):
    """One run of a handler. `outcome`: a Reason, or how it was cut off ("stopped", "lost"); None: it runs."""

    ref: AttemptRef
    host: str
    slot: int
    container: str
    began: float
    ended: float | None = None
    outcome: str | None = None


class Fault(NamedTuple):
    kind: str
    subject: str
    since: float
    until: float


class Oracle:
    def __init__(self, clock: Callable[[], float], keep_trace: bool) -> None:
        self._clock = clock
        self.broken: str | None = None
        self.over = False  # what happens from here on is the simulator's own cleaning up
        self.numbers: dict[str, int] = {}  # job id -> the number that the trace calls it by
        self.states: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.over_since: dict[AttemptRef, float] = {}  # attempts that are no longer current
        self.ended: dict[str, tuple[str, int, str | None]] = {}
        self.keys: dict[str, str] = {}  # job id -> idempotency key
        self.by_key: dict[str, list[str]] = {}
        self.results: set[int] = set()
        self.executions: dict[AttemptRef, Execution] = {}
        self.faults: list[Fault] = []
        self.plans: dict[str, JobPlan] = {}
        self.holders: dict[AttemptRef, str | None] = {}  # the id of the worker that each was given to
        self.resumed = 0  # attempts that went on after their worker had been given up
        self.open = 0  # jobs in the store that have not ended
        self._running: dict[tuple[str, int], Execution] = {}
        self._containers: dict[tuple[str, int], str] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self.tail: deque[str] = deque(maxlen=None if keep_trace else TAIL)
        self.lines = 0

    @property
    def now(self) -> float:
        return self._clock()

    # -- the trace -------------------------------------------------------------------------------------

    def say(self, who: str, what: str) -> None:
        if self.over:
            return
        line = f"{self.now:12.4f} {who:<10} {what}"
        self.tail.append(line)
        self.lines += 1
        self._hash.update(line.encode())

    def digest(self) -> str:
        return self._hash.hexdigest()

    def name(self, ref: AttemptRef) -> str:
        return f"j{self.numbers.get(ref.job, '?')}/{ref.attempt}"

    def fail(self, message: str) -> None:
        if self.broken is None and not self.over:
            self.broken = message
            self.say("ORACLE", message)

    def rule(self, holds: bool, message: str) -> None:
        if not holds:
            self.fail(message)

    # -- the store -------------------------------------------------------------------------------------

    def committed(self, rows: list[Moved]) -> None:
        for row in rows:
            if row.state == "RESULT":
                self.rule(row.seq not in self.results, f"job {row.seq}: a second result")
                self.results.add(row.seq)
            elif row.old_state is None:
                self._new(row)
            elif row.old_state != row.state or row.old_attempt != row.attempt:
                self._moved(row)

    def _new(self, row: Moved) -> None:
        self.numbers[row.id] = row.seq
        self.states[row.id] = row.state
        self.attempts[row.id] = 0
        self.open += 1
        self.rule(row.state == "IN_QUEUE" and row.attempt == 0, f"job {row.seq} begins as {row.state}")
        self.keys[row.id] = row.key
        self.by_key.setdefault(row.key, []).append(row.id)
        self.rule(len(self.by_key[row.key]) == 1, f"two jobs with the key {row.key}")
        self.say("store", f"j{row.seq} new")

    def _moved(self, row: Moved) -> None:
        name = f"job j{row.seq}"
        self.rule(row.old_state not in _TERMINAL, f"{name} had ended as {row.old_state}, now {row.state}")
        assert row.old_attempt is not None
        ref = AttemptRef(JobId(row.id), row.attempt)
        if row.old_state == "IN_QUEUE" and row.state in _HELD and row.attempt == row.old_attempt:
            self._resumed(row, ref)
            return
        self.rule((row.old_state, row.state) in _MOVES, f"{name} went from {row.old_state} to {row.state}")
        step = 1 if row.state == "ASSIGNED" else 0
        self.rule(row.attempt == row.old_attempt + step, f"{name}: attempt {row.old_attempt} became {row.attempt}")
        self.states[row.id] = row.state
        self.attempts[row.id] = row.attempt
        if row.state == "IN_QUEUE" or row.state in _TERMINAL:
            self.over_since[ref] = self.now
        if row.state == "ASSIGNED":
            self.holders[ref] = row.worker_id
        if row.state in _TERMINAL:
            self.rule(row.id not in self.ended, f"{name} ended twice")
            self.ended[row.id] = (row.state, row.attempt, row.reason)
            self.open -= 1
        self.say("store", f"j{row.seq}/{row.attempt} {row.state} {row.reason or ''}")

    def _resumed(self, row: Moved, ref: AttemptRef) -> None:
        """Its worker was given up for lost, and came back before anybody else got the job."""
        name = self.name(ref)
        self.rule(ref in self.over_since, f"{name} goes on and had never been over")
        self.rule(self.holders.get(ref) == row.worker_id, f"{name} goes on at {row.worker_id}, which never had it")
        self.over_since.pop(ref, None)
        self.states[row.id] = row.state
        self.resumed += 1
        self.say("store", f"j{row.seq}/{row.attempt} goes on as {row.state}")

    # -- containers ------------------------------------------------------------------------------------

    def container_starts(self, host: str, slot: int, container: str) -> None:
        there = self._containers.get((host, slot))
        self.rule(there is None, f"{host} slot {slot}: {container} starts while {there} is still there")
        self._containers[host, slot] = container

    def container_gone(self, host: str, slot: int, container: str) -> None:
        if self._containers.get((host, slot)) == container:
            del self._containers[host, slot]

    def containers(self) -> int:
        return len(self._containers)

    def begins(self, ref: AttemptRef, host: str, slot: int, container: str) -> Execution:
        before = self.executions.get(ref)
        if before is not None:
            self.fail(f"{self.name(ref)} was run twice under one attempt: on {before.host} and {host}")
        other = self._running.get((host, slot))
        if other is not None:
            self.fail(f"{host} slot {slot} runs {self.name(other.ref)} and {self.name(ref)}")
        committed = self.attempts.get(ref.job, 0)
        self.rule(ref.attempt <= committed, f"{self.name(ref)} runs and the store knows {committed} attempts only")
        execution = Execution(ref, host, slot, container, self.now)
        self.executions[ref] = self._running[host, slot] = execution
        self.say(host, f"{self.name(ref)} begins in {container}")
        return execution

    def ends(self, execution: Execution, outcome: str) -> None:
        execution.ended, execution.outcome = self.now, outcome
        if self._running.get((execution.host, execution.slot)) is execution:
            del self._running[execution.host, execution.slot]
        self.say(execution.host, f"{self.name(execution.ref)} {outcome}")

    def running(self) -> int:
        return len(self._running)

    def forgets(self, refs: Iterable[AttemptRef]) -> None:
        """A worker is told that the server needs nothing more of these: then it must be so in the store."""
        for ref in refs:
            current = self.attempts.get(ref.job) == ref.attempt and self.states[ref.job] in ("ASSIGNED", "IN_PROGRESS")
            self.rule(not current, f"{self.name(ref)} is to be forgotten, and the store still waits for it")

    def still_holds(self, who: str, refs: Iterable[AttemptRef], since: float) -> None:
        """A worker that compared notes with the server at `since` holds these: none may have been over long before."""
        for ref in refs:
            over = self.over_since.get(ref, since)
            self.rule(over > since - NEWS, f"{who} still holds {self.name(ref)}, which was over at {over:.3f}")

    # -- faults ----------------------------------------------------------------------------------------

    def fault(self, kind: str, subject: str, seconds: float) -> None:
        """What it broke is excused from now until a while after it is over: the system has to notice and recover."""
        self.faults.append(Fault(kind, subject, self.now, self.now + seconds))
        self.say("FAULT", f"{kind} {subject} for {seconds:.2f} s")

    def broken_between(self, subjects: tuple[str, ...], since: float, until: float, after: float) -> list[Fault]:
        """What broke these between `since` and `until`, or so shortly before that it still acted."""
        return [
            fault
            for fault in self.faults
            if fault.subject in subjects and fault.since <= until and fault.until + after >= since
        ]
