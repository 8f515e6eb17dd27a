"""Carries out what the worker's brain (`state`) orders, and tells it what happens. One method per action.

All on one event loop: events are handled one after the other, in the order in which they were posted.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Gpu
from hecaton.wire.channel import Assignment, CardInfo
from hecaton.worker.adoption import Adoption, ContainerSweeper, boot_id
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.events import row
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Done
from hecaton.worker.brain.state import WorkerState
from hecaton.worker.cards.watch import CardWatch
from hecaton.worker.containers.container import LiveContainer
from hecaton.worker.containers.live_containers import LiveContainers
from hecaton.worker.containers.plan import Plan
from hecaton.worker.doors.removal import Remover
from hecaton.worker.end_lines import EndLines
from hecaton.worker.files import mounts
from hecaton.worker.files.checkpoints import Checkpoints, Together
from hecaton.worker.files.content import Contents
from hecaton.worker.files.fetching import BroughtFolders
from hecaton.worker.files.folders import Folders
from hecaton.worker.files.made import MadeFiles
from hecaton.worker.files.workfolders import WorkFolders
from hecaton.worker.hearing import Hearing
from hecaton.worker.image_watch import ImageWatch
from hecaton.worker.link.bodies import Bodies, BodyRefused
from hecaton.worker.link.leftovers import Leftovers
from hecaton.worker.link.link import Sender
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.memory import disk
from hecaton.worker.memory.disk import Disk
from hecaton.worker.memory.journal import Journal
from hecaton.worker.memory.outbox import Outbox
from hecaton.worker.memory.records import Ended
from hecaton.worker.memory.spool import Spool
from hecaton.worker.no_overlap import Guard, NoOverlapLease
from hecaton.worker.runtimes.port import ProcMark, Runtime
from hecaton.worker.site import Site

_log = structlog.get_logger("hecaton.worker.agent")


class Agent:
    """`link` and `bodies` are the way to the server, `python` is what containers without a Python of their own get.

    What comes over the link is heard in `hearing`. What journal, disk and cards say comes on the loop."""

    def __init__(
        self,
        config: WorkerConfig,
        runtime: Runtime,
        gpus: tuple[Gpu, ...],
        settings: WorkerSettings,
        link: Sender,
        bodies: Bodies,
        python: Path,
    ) -> None:
        """Raises OSError for the worker's folder; NewerJournal; BadRequest for the file that names mounts."""
        self._runtime = runtime
        self._gpus, self._new_cards = gpus, settings.new_cards
        self._cards: CardWatch | None = None
        self._link = link
        self._bodies = bodies
        self._loop = asyncio.get_running_loop()
        self._journal = Journal(config.folder / "journal", self._results_safe, self._journal_refused)
        self._disk = Disk(config.folder, self._disk_full)
        self._spool = Spool(config.folder, self._journal.ended)
        self._remover = Remover()
        self._made = MadeFiles(config.folder, bodies, self._remover.remove, self._journal.ended)
        self._checkpoints = Checkpoints(config.folder, bodies, self._made, self._remover.remove)
        self._outbox = Outbox(link, bodies, self._spool, Together(self._checkpoints, self._made))
        self._boot = boot_id()
        self._lease = NoOverlapLease(config.folder, self._boot)
        self._guard = Guard(config.folder, self._lease, self._guarded)
        done = (_restored(record, self._loop.time()) for record in self._journal.ended.values())
        self.state = WorkerState(gpus, settings, secrets.token_hex(3), done, self._loop.time() + self._lease.left())
        self._holdings = self.state.holdings
        self._live = LiveContainers(self._holdings, self._outbox, self._remover)
        self._images = ImageWatch(runtime, self._live.by_id, self.post, link.send)
        self._end_lines = EndLines()
        self._sweeper: ContainerSweeper | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._fetches: dict[AttemptRef, asyncio.Task[None]] = {}
        self._events: deque[ev.Event] = deque()
        self._handling = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.left: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._table: dict[type[msgspec.Struct], Callable[[Any], None]] = dict(self._rows())
        self._site = self._site_of(config, python)
        self.hearing = Hearing(runtime, self._holdings, self._images, self._outbox, self._lease, self._site)

    def _rows(self) -> Iterable[tuple[type[msgspec.Struct], Callable[[Any], None]]]:
        return (
            row(ev.Fetch, self._fetch),
            row(ev.StartContainer, self._start_container),
            row(ev.StopContainer, self._stop_container),
            row(ev.GiveJob, self._give_job),
            row(ev.GiveAhead, self._give_ahead),
            row(ev.Withdraw, self._withdraw),
            row(ev.Acknowledge, self._acknowledge),
            row(ev.Report, self._report),
            row(ev.Deliver, self._deliver),
            row(ev.Forget, self._forget),
            row(ev.Leave, self._leave),
        )

    def _site_of(self, config: WorkerConfig, python: Path) -> Site:
        work = WorkFolders(config.folder, Contents(config.folder / "content"), self._boot, self._remover.remove)
        return Site(
            worker_id=config.worker_id,
            folder=config.folder / "c",
            python=python,
            folders=Folders(config.folder, mounts.read(mounts.file_of(config.folder))),
            runtime=self._runtime,
            bodies=self._bodies,
            spool=self._spool,
            outbox=self._outbox,
            made=self._made,
            checkpoints=self._checkpoints,
            work=work,
            fetching=BroughtFolders(work, self._bodies, self._disk),
            leftovers=Leftovers(config.folder / "leftovers"),
            journal=self._journal,
            boot=self._boot,
            guard=self._guard,
            disk=self._disk,
            memory=self.state.settings.memory,
            look_at_cards=self._look_at_cards,
            max_result=lambda: self.hearing.max_result,
            miss=self._images.miss,
            say=self._link.send,
            post=self.post,
            now=self._loop.time,
        )

    async def start(self) -> None:
        """Go on with what an earlier process of this worker left; the rest of it goes. Raises RuntimeFault."""
        self._site.folder.mkdir(mode=0o700, exist_ok=True)
        self._site.folder.chmod(0o700)
        await self._site.work.find_out(self._runtime.sees)
        adoption = Adoption(self._site, self._holdings.places, self._journal)
        for container, found, event in await adoption.run():
            self._live.add(container)
            self.post(event)
            container.watch(found)
        for lost in adoption.lost(self._loop.time()):
            self.post(lost)
        self._guard.forget_all_but(self._live.by_id.keys())
        if (why := self._runtime.unreachable()) is None:
            self._guard.start()
        else:
            _log.warning("This worker takes no no-overlap jobs: it could not be sure to end them in time", why=why)
            self.hearing.options -= {"no_overlap"}
        self._sweeper = sweeper = ContainerSweeper(self._site, adoption.old_logs, self._remover)
        await sweeper.sweep(self._live.in_use, at_start=True)
        if self._gpus or self._new_cards:
            self.hearing.cards = self._holdings.places.infos()
            self._cards = CardWatch(self._gpus, self)
        self._sweeping = self._loop.create_task(sweeper.run(self._live.in_use))
        self._images.start()
        self._live.look()

    async def close(self) -> None:
        """After `left`: nothing of this worker runs any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._disk.close()
        await self._images.close()
        if self._cards is not None:
            self._cards.close()
        tasks = [*self._fetches.values(), *([self._sweeping] if self._sweeping is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._live.close()
        await self._outbox.close()
        await self._journal.close()
        await self._guard.close()
        self._lease.close()
        self._live.remove_folders()
        if self._sweeper is not None:
            with contextlib.suppress(OSError):  # the next process of this worker removes them
                await self._sweeper.sweep_folders(self._live.in_use)
        await self._remover.close()

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
                    self._table[type(action)](action)
        except Exception as defect:
            # What is known can no longer be trusted: end loudly. The next process adopts the containers.
            if not self.left.done():
                self.left.set_exception(defect)
            raise
        finally:
            self._handling = False
        self._set_timer()

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

    def marks(self) -> tuple[ProcMark, ...]:
        return tuple(map(self._runtime.mark, tuple(self._live.by_id)))  # on another thread: a copy first

    def card_lost(self, uuid: str, why: str) -> None:
        _log.error("A card is lost: its slot takes no more jobs until this worker is restarted", why=why)
        self.post(ev.GpuLost(self._loop.time(), uuid, why))

    def cards_came(self, gpus: tuple[Gpu, ...]) -> None:
        if self._new_cards:
            _log.info("Cards came: each is a slot from now on", cards=[gpu.name for gpu in gpus])
            self.post(ev.GpusCame(self._loop.time(), gpus))
            self._link.reconnect()

    def cards_changed(self, cards: tuple[CardInfo, ...]) -> None:
        known = self._holdings.places.gpus
        self.hearing.tell_cards(tuple(card for card in cards if card.gpu.uuid in known))

    def _guarded(self, guarded: bool) -> None:
        self.post(ev.Guarded(self._loop.time(), guarded))

    def _disk_full(self, full: bool) -> None:
        self.post(ev.DiskFull(self._loop.time(), full))

    def _journal_refused(self, error: OSError) -> None:
        self._disk.refused()

    def _results_safe(self, refs: tuple[AttemptRef, ...]) -> None:
        self.post(ev.ResultsSafe(self._loop.time(), refs))

    # -- actions -------------------------------------------------------------------------------------

    def _fetch(self, action: ev.Fetch) -> None:
        task = self._loop.create_task(self._fetch_payload(action.assignment))
        ref = action.assignment.ref
        self._fetches[ref] = task
        task.add_done_callback(lambda done: self._fetches.pop(ref, None))

    async def _fetch_payload(self, job: Assignment) -> None:
        try:
            file = self._spool.payload(job.ref)
            self._disk.require_room(job.payload.size)
            await self._bodies.fetch(job.ref.job, job.payload.blob or "", file, say=partial(self._outbox.note, job.ref))
        except BodyRefused as refused:
            self.post(ev.FetchFailed(self._loop.time(), job.ref, refused.error.message))
        except OSError as error:
            # Where the disk is full it is handed back by now, with all others that wait.
            why = self._disk.lacks(job.payload.size) if error.errno in disk.ERRORS else None
            self.post(ev.FetchFailed(self._loop.time(), job.ref, why or str(error), no_room=why is not None))
        else:
            self.post(ev.Fetched(self._loop.time(), job.ref))

    def _start_container(self, action: ev.StartContainer) -> None:
        gpus = self._holdings.places.gpus_of(self._holdings.containers[action.container].holds)
        plan = Plan(self._site, action.container, action.slot, action.assignment, gpus)
        container = LiveContainer(self._site, plan)
        self._live.add(container)
        container.start()

    def _give_job(self, action: ev.GiveJob) -> None:
        self._live.by_id[action.container].give(action.assignment)
        self._live.look_soon()

    def _give_ahead(self, action: ev.GiveAhead) -> None:
        self._live.by_id[action.container].give_ahead(action.assignments)

    def _withdraw(self, action: ev.Withdraw) -> None:
        self._live.by_id[action.container].withdraw()

    def _acknowledge(self, action: ev.Acknowledge) -> None:
        self._live.by_id[action.container].acknowledge(action.ref)

    def _stop_container(self, action: ev.StopContainer) -> None:
        self._live.by_id[action.container].stop(action.grace)

    def _report(self, action: ev.Report) -> None:
        self._link.send(action.message)

    def _deliver(self, action: ev.Deliver) -> None:
        outcome = action.outcome
        if not action.again:
            self._settle_log(action)
            log = self._outbox.log_of(outcome.ref)
            where = (log.start, log.end or log.start, log.file.name) if log else ()
            slot = self._holdings.done[outcome.ref].slot
            self._journal.end(Ended(outcome, time.time(), slot, action.container, *where))
            self._end_lines.say(outcome)
        self._outbox.deliver(outcome)

    def _settle_log(self, action: ev.Deliver) -> None:
        """A log ends with its job; one that was never begun says why the container did not come up."""
        ref = action.outcome.ref
        log = self._outbox.log_of(ref)
        container = self._live.by_id.get(action.container or "")
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
        self._live.forget(ref)

    def _leave(self, action: ev.Leave) -> None:
        if not self.left.done():
            self.left.set_result((action.code, action.message))


def _restored(record: Ended, now: float) -> Done:
    """A result of an earlier process, which the journal has kept. Its log may be gone: the server keeps what it has."""
    age = max(0.0, time.time() - record.at)
    outcome = msgspec.structs.replace(record.outcome, log_size=record.log_end - record.log_start)
    return Done(outcome, record.slot, now - age, record.container, acknowledged=True)
