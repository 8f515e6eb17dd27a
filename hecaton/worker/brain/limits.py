"""Times that run out: of a start, of a job, of a container without work, and of what the server has heard."""

from __future__ import annotations

from hecaton.core.model import Reason
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.ends import Ends
from hecaton.worker.brain.failures.words import no_hello_failure
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Container, EarlyEnd, Phase
from hecaton.worker.brain.steps import Steps


class Limits:
    """`due` says when `tick` has something to end."""

    def __init__(
        self, holdings: Holdings, settings: WorkerSettings, steps: Steps, ends: Ends, no_overlap_until: float
    ) -> None:
        """`no_overlap_until`: monotonic seconds until which no-overlap jobs may run."""
        self._holdings = holdings
        self._settings = settings
        self._steps = steps
        self._ends = ends
        self._no_overlap_until = no_overlap_until

    def assured(self, event: ev.Assured) -> None:
        self._no_overlap_until = event.until
        self._holdings.no_overlap_grace = event.grace

    def due(self) -> list[float]:
        # hot: benchmarks/throughput.py
        held = self._holdings
        due = []
        if held.no_overlap and any(held.jobs[name].ending is None for name in held.no_overlap):
            due.append(self._no_overlap_until)
        for container in held.containers.values():
            at = self._of_container(container)
            if at is not None:
                due.append(at)
        return due

    def tick(self, now: float) -> None:
        for container in list(self._holdings.containers.values()):
            due = self._of_container(container)
            if due is None or now < due:
                continue
            if container.running is not None:
                # It may wait for nothing but room for its result.
                ending = EarlyEnd.RELEASED if self._holdings.disk_full else EarlyEnd.TIMEOUT
                self._ends.end_early(container.running, ending, now)
            else:
                if container.phase is Phase.BOOTING:
                    self._give_up_start(container, now)
                self._steps.stop(container)
        if now >= self._no_overlap_until:
            for job in [self._holdings.jobs[name] for name in self._holdings.no_overlap]:
                self._ends.end_early(job, EarlyEnd.UNHEARD, now)

    def _give_up_start(self, container: Container, now: float) -> None:
        job = self._holdings.find(container.started_for)
        if job is not None and job.ending is None:
            failure = no_hello_failure(self._of_start(container), container.words, container.hint)
            self._ends.finish(job, Reason.STARTUP_EXIT, now, failure, container=container.id)

    def _of_start(self, container: Container) -> float:
        """Seconds that it may take to ask for work: those of the job that it is started for come first."""
        job = self._holdings.find(container.started_for)
        asked = None if job is None else job.assignment.options.startup_timeout
        return self._settings.startup_timeout if asked is None else asked

    def _of_container(self, container: Container) -> float | None:
        if container.phase is Phase.BOOTING:
            return container.since + self._of_start(container)
        if container.phase is not Phase.READY:
            return None
        job = container.running
        if job is None:
            at_work = self._holdings.slots[container.slot].jobs
            return None if at_work else container.since + self._settings.idle_timeout
        if job.assignment.options.timeout is None or job.started_at is None:
            return None
        return job.started_at + job.assignment.options.timeout
