"""A worker that starts anew: goes on with the containers that an earlier process of it left, and clears away the rest.
Later, every half minute: what has the worker's label or lies in its folder and belongs to nothing is removed.

Which attempt runs where is in the journal; a container's folder is as that left it: not to be trusted.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Failure, Gpu, Reason
from hecaton.serverless.protocol import LOG_NAME, OUT_NAME
from hecaton.wire.channel import Assignment
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.failures.words import UNHEARD
from hecaton.worker.brain.places import Places
from hecaton.worker.containers.container import LiveContainer
from hecaton.worker.containers.plan import Plan
from hecaton.worker.doors.channel_folder import Spoilt
from hecaton.worker.doors.removal import Remover
from hecaton.worker.doors.table import DOORS
from hecaton.worker.files import caches
from hecaton.worker.link.logs import AttemptLog, LogFile
from hecaton.worker.memory.journal import Journal
from hecaton.worker.memory.records import Ended, Given, Placed
from hecaton.worker.runtimes.port import LABEL_CONTAINER, Found, RuntimeFault
from hecaton.worker.site import Site

SWEEP_INTERVAL = 30.0
"""Seconds between two looks for what belongs to nothing."""

GONE = "its container was lost while the worker was away"

_log = structlog.get_logger("hecaton.worker.adoption")


class Adoption:
    """`old_logs`: of containers that are gone and whose results wait, by container and name of the file."""

    def __init__(self, site: Site, places: Places, journal: Journal) -> None:
        self.old_logs: dict[str, dict[str, LogFile]] = {}
        self._site = site
        self._places = places
        self._journal = journal
        self._placed = dict(journal.placed)
        self._given: dict[str, list[Given]] = {}
        for given in journal.given.values():
            self._given.setdefault(given.container, []).append(given)
        self._never_began: set[AttemptRef] = set()
        self._spoilt: dict[str, str] = {}  # containers that have damaged their folders, and how
        self._adopted: dict[str, LiveContainer] = {}

    async def run(self) -> list[tuple[LiveContainer, Found, ev.ContainerAdopted]]:
        """The containers to go on with, and what to tell the brain of each. Raises RuntimeFault."""
        # An engine that went away while it made a container may have left another one of that name, which never ran.
        running_last = sorted(await self._site.runtime.found(), key=lambda item: item.running)
        found = {item.labels.get(LABEL_CONTAINER, ""): item for item in running_last}
        adopted = []
        taken: set[int] = set()
        for placed in self._placed.values():
            item = found.get(placed.container)
            wanted = self._event(placed, item) if item is not None and placed.slot not in taken else None
            container, event = (None, None) if wanted is None else await self._adopt(placed, wanted)
            if item is not None and event is not None and container is not None:
                taken.add(placed.slot)
                adopted.append((container, item, event))
            elif item is None:
                self._journal.gone(placed.container)
        if adopted:
            _log.info(f"Going on with {len(adopted)} containers of an earlier run of this worker")
        for record in self._journal.ended.values():
            self._restore_log(record)
        return adopted

    def lost(self, now: float) -> Iterator[ev.AttemptLost]:
        """The attempts that an earlier process gave to containers that are no more. After `run`."""
        adopted = {given.ref for name, held in self._given.items() for given in held if name in self._adopted}
        for given in list(self._journal.given.values()):
            if given.ref in self._never_began:
                yield ev.AttemptLost(now, given.ref, self._placed[given.container].slot, Reason.RELEASED)
            if given.ref in adopted:
                continue
            placed = self._placed.get(given.container)
            slot = placed.slot if placed is not None and placed.slot in self._places.by_number else 0
            if self._site.guard.has_ended(given.container):
                yield ev.AttemptLost(now, given.ref, slot, Reason.RELEASED, UNHEARD)
                continue
            if given.container in self._spoilt:
                yield ev.AttemptLost(now, given.ref, slot, Reason.HANDLER_ERROR, Failure(self._spoilt[given.container]))
                continue
            # Without a word of where it ran: a power cut took the records that were not synced.
            if placed is None or placed.boot != self._site.boot:
                yield ev.AttemptLost(now, given.ref, slot, Reason.RELEASED)
            else:
                yield ev.AttemptLost(now, given.ref, slot, Reason.WORKER_ERROR, Failure(GONE))

    def _event(self, placed: Placed, item: Found) -> ev.ContainerAdopted | None:
        """None: it is of no use any more."""
        if placed.boot != self._site.boot or self._gpus(placed) is None:
            return None
        now, held = self._site.now(), self._given.get(placed.container)
        first = placed.first
        image = first.image.digest or item.image_id or None
        if held and (item.running or item.ended):
            job, *ahead = (_job(placed, given) for given in held)
            behind = tuple(ahead)
            return ev.ContainerAdopted(now, placed.container, placed.slot, first, job, held[0].at, behind, image)
        unfinished = first.ref not in self._journal.ended
        if DOORS[first.mode].begins_at_start and (item.running or item.ended) and unfinished:
            return ev.ContainerAdopted(now, placed.container, placed.slot, first, first, placed.at, image=image)
        if first.warm_key is not None and item.running:
            return ev.ContainerAdopted(now, placed.container, placed.slot, first, image=image)
        return None

    def _gpus(self, placed: Placed) -> tuple[Gpu, ...] | None:
        """That its place holds. None: this machine has no such place any more."""
        holds = placed.first.holds
        if holds is not None:
            return self._places.gpus_of(holds) if self._places.gpus.keys() >= set(holds.uuids) else None
        slot = self._places.by_number.get(placed.slot)
        if slot is None or placed.gpu != (None if slot.gpu is None else slot.gpu.uuid):
            return None
        return () if slot.gpu is None else (slot.gpu,)

    async def _adopt(
        self, placed: Placed, event: ev.ContainerAdopted
    ) -> tuple[LiveContainer, ev.ContainerAdopted] | tuple[None, None]:
        gpus = self._gpus(placed) or ()
        container = LiveContainer(self._site, Plan(self._site, placed.container, placed.slot, placed.first, gpus))
        held = self._given.setdefault(placed.container, [])
        if not held and event.job is not None:
            job = event.job
            given = Given(job.ref, placed.container, job.key, event.started_at, options=job.options)
            self._journal.give(given)
            held.append(given)
        try:
            unread = await container.adopt(placed, held)
        except (OSError, Spoilt) as error:
            if isinstance(error, Spoilt):
                self._spoilt[container.id] = str(error)
            _log.warning("Cannot go on with a container: removing it", container=placed.container, error=str(error))
            await container.close()
            return None, None
        self._adopted[container.id] = container
        begun = len(held) - unread
        self._never_began.update(given.ref for given in held[begun:])
        return container, msgspec.structs.replace(event, ahead=event.ahead[: max(0, begun - 1)])

    def _restore_log(self, record: Ended) -> None:
        """The log of a result that the earlier process could not deliver, if its container's folder is still there."""
        name, ref = record.container, record.outcome.ref
        if not name or "/" in name or record.log_end <= record.log_start:
            return
        container = self._adopted.get(name)
        if container is not None and container.log is not None:
            self._site.outbox.track(container.log.go_on(ref, record.log, record.log_start, record.log_end))
            return
        file = self._old_log(name, record.log)
        if file is not None:
            self._site.outbox.track(AttemptLog(ref, file, record.log_start, record.log_end))

    def _old_log(self, container: str, name: str) -> LogFile | None:
        files = self.old_logs.setdefault(container, {})
        if name not in files:
            folder = self._site.folder / container
            fd = _open_log(folder / name if name == LOG_NAME else folder / OUT_NAME / name)
            if fd is None:
                return None
            files[name] = LogFile(fd, name)
        return files[name]


class InUse(msgspec.Struct, frozen=True):
    """Ids of containers, and of containers whose folders are needed."""

    containers: set[str]
    folders: set[str]


class ContainerSweeper:
    """Removes only what was of no use both before and after it looked. Folders are listed in a thread."""

    def __init__(self, site: Site, old_logs: dict[str, dict[str, LogFile]], remover: Remover) -> None:
        """`old_logs`: as of `Adoption`; closed here, with their folders."""
        self._site = site
        self._old_logs = old_logs
        self._remover = remover
        self._look_at_caches = 0.0  # when next

    async def run(self, in_use: Callable[[], InUse]) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            try:
                await self.sweep(in_use)
            except RuntimeFault as fault:
                _log.warning("Could not look for containers without use", error=fault.message)
            except OSError as error:  # this process has no descriptor left, say: it may have one the next time
                _log.warning("Could not look for folders without use", error=str(error))

    async def sweep(self, in_use: Callable[[], InUse], *, at_start: bool = False) -> None:
        """Remove containers of this worker and folders that nothing uses. Folders that take long are left to the
        remover. Raises RuntimeFault, OSError.

        Names that begin with a dot are sockets on their way into a folder: only at the start nobody needs them."""
        before = in_use().containers
        found = await self._site.runtime.found()
        wanted = before | in_use().containers  # what came or went meanwhile sees to itself
        orphans = [item for item in found if item.labels.get(LABEL_CONTAINER) not in wanted]
        if orphans:
            _log.warning(f"Removing {len(orphans)} containers of this worker that belong to no job")
            await asyncio.gather(*(self._site.runtime.stop(item.handle, 0) for item in orphans))
        if time.monotonic() >= self._look_at_caches:
            self._look_at_caches = time.monotonic() + caches.LOOK_EVERY
            await asyncio.to_thread(caches.set_aside, self._site.folders.caches, self._site.folder, time.time())
        await self.sweep_folders(in_use, at_start=at_start)
        await self._remover.wait()

    async def sweep_folders(self, in_use: Callable[[], InUse], *, at_start: bool = False) -> None:
        """Those that nothing uses, as `sweep`; it need not be the time for one: at the end of the worker there are some
        whose last result the server has taken since. Raises OSError."""
        names = await asyncio.to_thread(os.listdir, self._site.folder)
        wanted = in_use().folders
        useless = [name for name in names if name not in wanted and (at_start or not name.startswith("."))]
        for name in useless:
            for file in self._old_logs.pop(name, {}).values():
                os.close(file.fd)
            self._remover.remove(self._site.folder / name)
        self._site.work.sweep(wanted)


def boot_id() -> str:
    """Changes with every start of the machine; empty where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _job(placed: Placed, given: Given) -> Assignment:
    """The job as far as it matters once the container has it."""
    return msgspec.structs.replace(
        placed.first, ref=given.ref, slot=placed.slot, key=given.key, args=(), options=given.options,
    )  # fmt: skip


def _open_log(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None
