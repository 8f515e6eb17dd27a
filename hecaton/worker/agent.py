"""Carries out what the worker's brain (`state`) orders, and tells it what happens. One method per action.

All on one event loop: events are handled one after the other, in the order in which they were posted.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog

import hecaton
from hecaton.core.model import AttemptRef, Gpu, Reason
from hecaton.core.options import OF_WORKERS
from hecaton.serverless.protocol import DEFAULT_MAX_RESULT
from hecaton.wire.channel import (
    LOST_AFTER,
    PROTOCOL,
    Accepted,
    Assign,
    Assignment,
    Cancel,
    Hello,
    Outcome,
    Revoke,
    ToWorker,
    Welcome,
)
from hecaton.worker.adoption import Adoption, InUse, Sweeper, boot_id
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Done
from hecaton.worker.brain.state import WorkerState
from hecaton.worker.containers import LiveContainer
from hecaton.worker.link.bodies import Bodies, BodyRefused
from hecaton.worker.link.link import Link
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.memory.disk import Disk
from hecaton.worker.memory.journal import Ended, Journal
from hecaton.worker.memory.outbox import Outbox
from hecaton.worker.memory.spool import Spool
from hecaton.worker.no_overlap import NoOverlapLease
from hecaton.worker.runtimes.gpus import Watch
from hecaton.worker.runtimes.port import Runtime
from hecaton.worker.site import Site

LOG_INTERVAL = 0.25
"""Seconds between two looks at the logs of running jobs."""

IDLE_INTERVAL = 5.0
"""The same for containers without a job: only to give back the space of what they print."""

SAY_INTERVAL = 0.5
"""Seconds between two lines about jobs that finished."""

_log = structlog.get_logger("hecaton.worker.agent")


class Agent:
    """`link` and `bodies` are the way to the server; `attach` comes before `start`. Raises OSError for its folder."""

    def __init__(self, config: WorkerConfig, runtime: Runtime, gpus: tuple[Gpu, ...], settings: WorkerSettings) -> None:
        self._config = config
        self._runtime = runtime
        self._gpus = gpus
        self._cards: Watch | None = None
        self._folder = config.folder
        self._loop = asyncio.get_running_loop()
        self._journal = Journal(config.folder / "journal", self._results_safe, lambda error: self._disk.refused())
        self._disk = Disk(config.folder, self._disk_full)
        self._spool = Spool(config.folder, self._journal.ended)
        self._live: dict[str, LiveContainer] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._fetches: dict[AttemptRef, asyncio.Task[None]] = {}
        self._events: deque[ev.Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._log_timer: asyncio.TimerHandle | None = None
        self._looks_seldom = False
        self._removals: set[asyncio.Future[None]] = set()
        self._finished: list[Outcome] = []
        self._max_result = DEFAULT_MAX_RESULT
        self._lost_after = LOST_AFTER  # until a server has said it
        self._started_at = self._loop.time()
        self._connections = 0
        self.left: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._boot = boot_id()
        self._lease = NoOverlapLease(config.folder, self._boot)
        done = map(self._restored, self._journal.ended.values())
        self.state = WorkerState(gpus, settings, secrets.token_hex(3), done, self._lease.until)
        self._carry: dict[type[ev.Action], Callable[[Any], None]] = {
            ev.Fetch: self._fetch,
            ev.StartContainer: self._start_container,
            ev.StopContainer: lambda action: self._live[action.container].stop(),
            ev.GiveJob: self._give_job,
            ev.GiveAhead: lambda action: self._live[action.container].give_ahead(action.assignments),
            ev.TakeBack: lambda action: self._live[action.container].withdraw(),
            ev.Acknowledge: lambda action: self._live[action.container].acknowledge(action.ref),
            ev.Report: self._report,
            ev.Deliver: self._deliver,
            ev.Forget: self._forget,
            ev.Leave: self._leave,
        }

    def attach(self, link: Link, bodies: Bodies, python: Path) -> None:
        self._link = link
        self._bodies = bodies
        self._outbox = Outbox(link, bodies, self._spool)
        self._site = Site(
            worker_id=self._config.worker_id,
            folder=self._folder / "c",
            python=python,
            runtime=self._runtime,
            bodies=bodies,
            spool=self._spool,
            outbox=self._outbox,
            journal=self._journal,
            boot=self._boot,
            disk_full=self._disk.refused,
            look_at_cards=self._look_at_cards,
            grace=lambda: min(self.state.settings.grace, self._lost_after / 8),
            max_result=lambda: self._max_result,
            post=self.post,
            now=self._loop.time,
        )

    async def start(self) -> None:
        """Go on with what an earlier process of this worker left; the rest of it goes. Raises RuntimeFault."""
        self._site.folder.mkdir(mode=0o700, exist_ok=True)
        self._site.folder.chmod(0o700)
        adoption = Adoption(self._site, self.state.holdings.slots, self._journal)
        for container, found, event in await adoption.run():
            self._live[container.id] = container
            self.post(event)
            container.watch(found.handle, ended=found.ended)
        for lost in adoption.lost(self._loop.time()):
            self.post(lost)
        sweeper = Sweeper(self._site, adoption.old_logs)
        await sweeper.sweep(self._in_use, at_start=True)
        if self._gpus:
            self._cards = Watch([gpu.uuid for gpu in self._gpus], self._gpu_lost)
        self._sweeping = self._loop.create_task(sweeper.run(self._in_use))
        if self._live:
            self._look_at_logs()

    def _in_use(self) -> InUse:
        """Containers that are or come up, and folders, of which some are needed for their logs only."""
        logs = {done.container for done in self.state.holdings.done.values() if done.container is not None}
        return InUse({item.id for item in self._live.values() if not item.gone}, self._live.keys() | logs)

    async def close(self) -> None:
        """After `left`: nothing of this worker runs any more."""
        for timer in (self._timer, self._log_timer):
            if timer is not None:
                timer.cancel()
        self._disk.close()
        if self._cards is not None:
            self._cards.close()
        tasks = [*self._fetches.values(), *([self._sweeping] if self._sweeping is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for container in list(self._live.values()):
            await container.close()
        await asyncio.gather(*self._removals)
        await self._outbox.close()
        await self._journal.close()
        self._lease.close()
        for container in self._live.values():
            if container.gone and (container.log is None or not container.log.needed):
                container.remove_folder()

    # -- events --------------------------------------------------------------------------------------

    def post(self, event: ev.Event) -> None:
        """Handle it now, or, when called from within, right after what is being handled."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                for action in self.state.handle(self._events.popleft()):
                    self._carry[type(action)](action)
        except Exception as defect:
            # What is known can no longer be trusted: end loudly. The next process adopts the containers.
            if not self.left.done():
                self.left.set_exception(defect)
            raise
        finally:
            self._handling = False
        self._set_timer()

    def stop(self) -> None:
        """SIGTERM."""
        self.post(ev.StopAsked(self._loop.time()))

    def _set_timer(self) -> None:
        due = self.state.deadline()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due  # uvloop's handles do not tell
        self._timer = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.post(ev.Tick(self._loop.time()))

    async def _look_at_cards(self) -> None:
        if self._cards is not None:
            await self._cards.look()

    def _gpu_lost(self, uuid: str, why: str) -> None:
        _log.error("A card is lost: its slot takes no more jobs until this worker is restarted", why=why)
        self.post(ev.GpuLost(self._loop.time(), uuid, why))

    def _disk_full(self, full: bool) -> None:
        self.post(ev.DiskFull(self._loop.time(), full))

    def _results_safe(self, refs: tuple[AttemptRef, ...]) -> None:
        self.post(ev.ResultsSafe(self._loop.time(), refs))

    # -- what the link says --------------------------------------------------------------------------

    def hello(self) -> Hello:
        self._connections += 1
        return Hello(
            protocol=PROTOCOL,
            version=hecaton.__version__,
            runtime=self._runtime.name,
            slots=self.state.holdings.slot_infos(),
            held=self.state.holdings.held(self._loop.time()),
            serves=self._runtime.serves,
            boot_id=self._boot,
            started=self._started_at,
            connection=self._connections,
            doors=tuple(sorted(self._runtime.doors)),
            options=tuple(sorted(OF_WORKERS | self._runtime.options)),
        )

    def welcome(self, message: Welcome) -> None:
        self._max_result = message.max_result
        self._lost_after = message.lost_after
        self.post(ev.Welcomed(self._loop.time(), message.drop))

    def assured(self, at: float) -> None:
        self._lease.renew(at, self._lost_after)
        self.post(ev.Assured(self._loop.time(), self._lease.until))

    def hear(self, message: ToWorker) -> None:
        now = self._loop.time()
        if isinstance(message, Assign):
            self.post(ev.Assigned(now, message.jobs))
        elif isinstance(message, Accepted):
            self.post(ev.ResultsAccepted(now, message.refs, message.fenced))
        elif isinstance(message, Revoke):
            self.post(ev.Revoked(now, message.refs))
        elif isinstance(message, Cancel):
            self.post(ev.CancelAsked(now, message.refs))

    def lost(self) -> None:
        self._outbox.lost()
        self.post(ev.LinkLost(self._loop.time()))

    def dismissed(self, code: int, message: str) -> None:
        self.post(ev.ShutdownAsked(self._loop.time(), code, message))

    # -- actions -------------------------------------------------------------------------------------

    def _fetch(self, action: ev.Fetch) -> None:
        task = self._loop.create_task(self._fetch_payload(action.assignment))
        ref = action.assignment.ref
        self._fetches[ref] = task
        task.add_done_callback(lambda done: self._fetches.pop(ref, None))

    async def _fetch_payload(self, job: Assignment) -> None:
        try:
            file = self._spool.payload(job.ref)
            await self._bodies.fetch(job.ref.job, job.payload.blob or "", file, say=partial(self._outbox.note, job.ref))
        except BodyRefused as refused:
            self.post(ev.FetchFailed(self._loop.time(), job.ref, refused.error.message))
        except OSError as error:
            self.post(ev.FetchFailed(self._loop.time(), job.ref, str(error)))
        else:
            self.post(ev.Fetched(self._loop.time(), job.ref))

    def _start_container(self, action: ev.StartContainer) -> None:
        gpu = self.state.holdings.slots[action.slot].gpu
        container = LiveContainer(self._site, action.container, action.slot, action.assignment, gpu)
        self._live[action.container] = container
        container.start()

    def _give_job(self, action: ev.GiveJob) -> None:
        self._live[action.container].give(action.assignment)
        if self._log_timer is None or self._looks_seldom:
            self._look_in(LOG_INTERVAL)

    def _report(self, action: ev.Report) -> None:
        self._link.send(action.message)

    def _deliver(self, action: ev.Deliver) -> None:
        outcome = action.outcome
        if not action.again:
            self._settle_log(action)
            log = self._outbox.log_of(outcome.ref)
            start, end = (log.start, log.end or log.start) if log else (0, 0)
            slot = self.state.holdings.done[outcome.ref].slot
            self._journal.end(Ended(outcome, time.time(), slot, action.container, start, end))
            self._say_end(action)
        self._outbox.deliver(outcome)

    def _say_end(self, action: ev.Deliver) -> None:
        """Failures one by one, successes at most twice a second: a line for each would cost more than a short job."""
        outcome = action.outcome
        if outcome.reason is not Reason.OK:
            ran = "" if outcome.ran is None else f" after {outcome.ran:.3g} s"
            why = outcome.failure.message.splitlines()[0][:300] if outcome.failure else ""
            _log.info(f"A job ended: {outcome.reason.value}{ran}", job=outcome.ref.job, why=why)
            return
        self._finished.append(outcome)
        if len(self._finished) == 1:
            self._loop.call_later(SAY_INTERVAL, self._say_finished)

    def _say_finished(self) -> None:
        finished, self._finished = self._finished, []
        last = finished[-1]
        what = "A job finished" if len(finished) == 1 else f"{len(finished)} jobs finished, the last one"
        _log.info(f"{what} after {last.ran or 0:.3g} s", job=last.ref.job)

    def _settle_log(self, action: ev.Deliver) -> None:
        """A log ends with its job; one that was never begun says why the container did not come up."""
        ref = action.outcome.ref
        log = self._outbox.log_of(ref)
        container = self._live.get(action.container or "")
        if log is not None and log.end is None:
            log.finish()
        elif log is None and action.output and container is not None and container.log is not None:
            self._outbox.track(container.log.write(ref, action.output))

    def _forget(self, action: ev.Forget) -> None:
        ref = action.ref
        fetch = self._fetches.get(ref)
        if fetch is not None:
            fetch.cancel()
        self._outbox.forget(ref)
        self._spool.forget(ref)
        self._journal.forget(ref)
        for container in list(self._live.values()):
            if container.log is not None:
                container.log.forget(ref)
        self._remove_dead()

    def _leave(self, action: ev.Leave) -> None:
        if not self.left.done():
            self.left.set_result((action.code, action.message))

    # -- logs ----------------------------------------------------------------------------------------

    def _look_at_logs(self) -> None:
        self._log_timer = None
        self._remove_dead()
        self._outbox.tick()
        at_work = any(job.started_at is not None for job in self.state.holdings.jobs.values())
        for container in self._live.values():
            if container.log is not None:
                container.log.trim_idle()
        if self._live:
            self._look_in(LOG_INTERVAL if at_work else IDLE_INTERVAL)

    def _look_in(self, seconds: float) -> None:
        if self._log_timer is not None:
            self._log_timer.cancel()
        self._looks_seldom = seconds > LOG_INTERVAL
        self._log_timer = self._loop.call_later(seconds, self._look_at_logs)

    def _remove_dead(self) -> None:
        """Containers that are gone leave their folder behind until their last result is with the server."""
        for container in [item for item in self._live.values() if item.gone]:
            if container.log is None or not container.log.needed:
                del self._live[container.id]
                removal = self._loop.run_in_executor(None, container.remove_folder)
                self._removals.add(removal)
                removal.add_done_callback(self._removals.discard)

    # -- after a restart -----------------------------------------------------------------------------

    def _restored(self, record: Ended) -> Done:
        age = max(0.0, time.time() - record.at)
        return Done(record.outcome, record.slot, self._loop.time() - age, record.container, acknowledged=True)
