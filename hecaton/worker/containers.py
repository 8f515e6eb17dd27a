"""One container from its image to its removal: folder, door, start, jobs, end. Made by `agent` for `StartContainer`.

Everything that happens to it becomes an event for the brain; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, Kind, Mode, Reason
from hecaton.serverless.protocol import MAX_INLINE
from hecaton.wire.channel import Assignment
from hecaton.worker import answers
from hecaton.worker import events as ev
from hecaton.worker.bodies import Bodies, BodyRefused
from hecaton.worker.channel_folder import ChannelFolder
from hecaton.worker.handlers import script
from hecaton.worker.handlers.door import Answer, Door
from hecaton.worker.handlers.native import NativeDoor
from hecaton.worker.journal import Given, Journal, Placed
from hecaton.worker.logs import AttemptLog, ContainerLog
from hecaton.worker.outbox import Outbox
from hecaton.worker.runtime import (
    CHANNEL_TARGET,
    LABEL_CONTAINER,
    LABEL_SLOT,
    LABEL_WARM,
    LABEL_WORKER,
    ContainerSpec,
    Exit,
    Prepared,
    Runtime,
    RuntimeFault,
    patiently,
)
from hecaton.worker.spool import Spool, file_name

OUTPUT_LIMIT = 4 * 1024
"""Bytes of last words that go into a failure's message; the whole log is kept beside."""

STOP_RETRY = 2.0
"""Seconds until the next try when the engine could not stop a container."""

STOPPED_CODES = frozenset({0, 128 + signal.SIGKILL, 128 + signal.SIGTERM})
"""Exit codes that an engine or machine that goes down leaves behind as well: no handler is blamed for them unseen."""

_log = structlog.get_logger("hecaton.worker.containers")


class Site(msgspec.Struct, frozen=True):
    """What all containers of a worker share."""

    worker_id: str
    folder: Path  # has a folder per container
    python: Path  # to appear at PYTHON_TARGET
    runtime: Runtime
    bodies: Bodies
    spool: Spool
    outbox: Outbox
    journal: Journal
    boot: str
    grace: Callable[[], float]
    max_result: Callable[[], int]
    disk_full: Callable[[], None]
    look_at_cards: Callable[[], Awaitable[None]]  # what was found, the brain knows when it returns
    post: Callable[[ev.Event], None]
    now: Callable[[], float]


class LiveContainer:
    """`start` or `adopt` comes first. `first`: the job that it is started for."""

    def __init__(self, site: Site, name: str, slot: int, first: Assignment, gpu: Gpu | None) -> None:
        self.id = name
        self.log: ContainerLog | None = None
        self._site = site
        self._slot = slot
        self._first = first
        self._gpu = gpu
        self._folder: ChannelFolder | None = None
        self._door: Door | None = None
        self._handle: str | None = None
        self._given: AttemptRef | None = None
        self._given_file: str | None = None
        self._result_files: dict[AttemptRef, str] = {}
        self._storing: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[str] | None = None
        self._began = site.now()
        self._life: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self.gone = False

    # -- orders --------------------------------------------------------------------------------------

    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._live())

    async def adopt(self, placed: Placed, given: Given | None) -> None:
        """Listen to it as the process that started it did. Raises OSError, NotAPlainFile: it spoilt its folder."""
        self._folder = ChannelFolder(self._site.folder / self.id, again=True)
        self.log = ContainerLog(self._folder.log_fd, begun=True)
        if given is not None:
            self._given, self._given_file = given.ref, file_name(given.ref)
            self._site.outbox.track(self.log.go_on(given.ref, given.log_start))
        self._door = self._make_door(self._folder, placed.nonce)
        await self._door.open()

    def watch(self, handle: str, *, ended: bool) -> None:
        """After `adopt`, when the brain knows of it. `ended`: while no process of this worker was there to see why."""
        self._handle = handle
        self._life = asyncio.get_running_loop().create_task(self._watch(handle, unseen=ended))

    def give(self, job: Assignment) -> None:
        if self._door is None or self.log is None:
            return
        try:
            if self._given != job.ref:
                self._given, self._given_file = job.ref, None
                log = self.log.begin(job.ref)
                self._site.outbox.track(log)
                self._site.journal.give(
                    Given(job.ref, self.id, job.key, job.timeout, self._now(), log.start, job.exclusive)
                )
            self._door.give(job, *self._payload(job))
        except OSError as error:
            failure = Failure(f"the worker could not hand over the payload: {error}")
            self._post(ev.JobAnswered(self._now(), self.id, job.ref, Reason.WORKER_ERROR, None, failure))

    def acknowledge(self, ref: AttemptRef) -> None:
        """The container, and its folder, need not keep this result any longer."""
        if self._door is not None:
            self._door.acknowledge(ref)
        file = self._result_files.pop(ref, None)
        if file is not None and self._folder is not None:
            self._folder.discard(file)

    def stop(self) -> None:
        if self._end is None:
            self._end = asyncio.get_running_loop().create_task(self._stop())

    async def close(self) -> None:
        """At the end of the worker: leave no task behind, whatever state this is in."""
        for task in (self._life, self._storing, self._end):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        await self._close_door()

    def remove_folder(self) -> None:
        """Once it is gone and nobody needs its log."""
        folder, self._folder, self.log = self._folder, None, None
        if folder is not None:
            folder.remove()

    # -- its life ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        runtime = self._site.runtime

        def given_up() -> bool:
            return self._end is not None

        try:
            prepared = await patiently(lambda: runtime.prepare(self._first.image, self._note), self._note, given_up)
            await self._make_ready()
            spec = self._spec(prepared)
            self._site.journal.place(self._placed())
            self._post(ev.ImageReady(self._now(), self.id))
            # A start is never cut off in its middle: what it makes would be left behind.
            starting = patiently(lambda: runtime.start(spec), self._note, given_up)
            self._starting = asyncio.get_running_loop().create_task(starting)
            self._handle = await asyncio.shield(self._starting)
        except RuntimeFault as fault:
            await self._fail(fault.reason, fault.message, fault.hint)
            return
        except BodyRefused as refused:
            await self._fail(Reason.WORKER_ERROR, f"the job's file could not be fetched: {refused.error.message}")
            return
        except OSError as error:
            if error.errno in answers.DISK_FULL:
                self._site.disk_full()
            await self._fail(Reason.WORKER_ERROR, f"the worker could not make a container ready: {error}")
            return
        seconds = self._now() - self._began
        _log.info(f"Started a container in {seconds:.2f} s", image=self._first.image.name, container=self.id)
        self._post(ev.ContainerStarted(self._now(), self.id))
        if self._door is not None:
            self._door.started()
        await self._watch(self._handle)

    async def _make_ready(self) -> None:
        file = self._first.file
        if file is not None:
            await self._fetch_file(file.sha256)
        self._folder = ChannelFolder(self._site.folder / self.id)
        self.log = ContainerLog(self._folder.log_fd)
        if file is not None:
            self._folder.put(script.safe_name(file), self._site.spool.file(file.sha256))
        self._door = self._make_door(self._folder)
        await self._door.open()

    def _make_door(self, folder: ChannelFolder, nonce: str | None = None) -> Door:
        if self._first.mode is Mode.SCRIPT:
            return script.ScriptDoor(self._first, folder, self)
        return NativeDoor(folder.path, self, self._site.max_result(), nonce)

    def _placed(self) -> Placed:
        """For the next process of this worker. Without payload and environment: both are with the container."""
        job = self._first
        image = msgspec.structs.replace(job.image, env={})
        first = msgspec.structs.replace(job, payload=Body(Kind.JSON, b""), image=image)
        nonce = self._door.nonce if isinstance(self._door, NativeDoor) else None
        gpu = self._gpu.uuid if self._gpu else None
        return Placed(self.id, self._slot, gpu, first, nonce, self._site.boot, self._now())

    async def _fetch_file(self, sha256: str) -> None:
        path = self._site.spool.file(sha256)
        try:
            os.utime(path)  # recently used
        except FileNotFoundError:
            self._note("fetching the job's file")
            await self._site.bodies.fetch(self._first.ref.job, sha256, path, lasting=True)
            await asyncio.to_thread(self._site.spool.prune_files)

    def _spec(self, prepared: Prepared) -> ContainerSpec:
        job = self._first
        env = {**job.image.env, "HECATON_DIR": CHANNEL_TARGET}
        commands = None
        if isinstance(self._door, NativeDoor):
            env["HECATON_NONCE"] = self._door.nonce
        if job.file is not None and job.mode is Mode.HANDLER:
            commands = script.handler_commands(job.file)
        elif job.file is not None and job.mode is Mode.SCRIPT:
            commands = script.script_commands(job.file, self._site.spool.file(job.file.sha256), job.args)
            env |= script.environment(job)
        return ContainerSpec(
            id=self.id,
            name=f"hecaton-{self._site.worker_id[:8]}-{self.id}",
            image=prepared,
            image_name=job.image.name,
            env=env,
            labels={
                LABEL_WORKER: self._site.worker_id,
                LABEL_SLOT: str(self._slot),
                LABEL_WARM: job.warm or "",
                LABEL_CONTAINER: self.id,
            },
            folder=str(self._site.folder / self.id),
            python=str(self._site.python),
            gpu=self._gpu.uuid if self._gpu else None,
            commands=commands,
        )

    async def _fail(self, reason: Reason, message: str, hint: str | None = None) -> None:
        _log.warning("Could not start a container", image=self._first.image.name, reason=reason.value, error=message)
        await self._close_door()
        self._is_gone()
        self._post(ev.ContainerFailed(self._now(), self.id, reason, message, hint))

    async def _watch(self, handle: str, *, unseen: bool = False) -> None:
        try:
            exit = await self._site.runtime.wait(handle)
        except RuntimeFault as fault:
            exit = Exit(-1, error=fault.message)
        if self._storing is not None:  # a result that came before the end counts
            await asyncio.wait([self._storing])
        if self._gpu is not None and exit.code != 0:
            await self._site.look_at_cards()
        answer = self._door.ended(exit) if self._door else None
        if answer is not None:
            await self._store(answer)
        elif unseen and not exit.oom and exit.code in STOPPED_CODES:
            exit = Exit(exit.code, error=f"it ended with exit code {exit.code} while the worker was away")
        self._post(ev.ContainerExited(self._now(), self.id, exit, await self._last_words(handle)))

    async def _last_words(self, handle: str) -> str:
        log = self._site.outbox.log_of(self._given) if self._given else None
        written = log.tail(OUTPUT_LIMIT) if log is not None else ""
        if written.strip():
            return written
        with contextlib.suppress(RuntimeFault):
            said = (await self._site.runtime.output(handle, OUTPUT_LIMIT)).decode("utf-8", "replace")
            if said.strip() or self._folder is None:
                return said
        # `start` had turned its output into the log before it failed.
        return "" if self._folder is None else AttemptLog(self._first.ref, self._folder.log_fd, 0).tail(OUTPUT_LIMIT)

    async def _stop(self) -> None:
        if self._starting is not None:
            await asyncio.wait([self._starting])
            if not self._starting.cancelled() and self._starting.exception() is None:
                self._handle = self._starting.result()
        for task in (self._life, self._storing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        while self._handle is not None:
            try:
                await self._site.runtime.stop(self._handle, self._site.grace())
                break
            except RuntimeFault as fault:
                _log.error(f"Could not stop a container: trying again in {STOP_RETRY:g} s", error=fault.message)
                await asyncio.sleep(STOP_RETRY)
        await self._close_door()
        if not self.gone:
            self._is_gone()
            self._post(ev.ContainerGone(self._now(), self.id))

    def _is_gone(self) -> None:
        self.gone = True
        self._site.journal.gone(self.id)

    async def _close_door(self) -> None:
        if self._door is not None:
            await self._door.close()

    # -- through the door ----------------------------------------------------------------------------

    def asks_for_work(self, busy: tuple[AttemptRef, ...]) -> None:
        self._post(ev.ContainerReady(self._now(), self.id, busy))

    def progresses(self, ref: AttemptRef, value: Any) -> None:
        if ref == self._given:
            self._site.outbox.progress(ref, value)

    def answers(self, answer: Answer) -> None:
        if answer.file is not None:
            self._result_files[answer.ref] = answer.file
        if answer.ref != self._given:  # said before: the brain knows whether it is safe by now
            self._post(ev.JobAnswered(self._now(), self.id, answer.ref, answer.reason))
        elif self._storing is None:
            if answers.is_small(answer) and not self._doubtful(answer):
                self._answered(answer, Body.inline(answer.kind, answer.data))
            else:
                self._storing = asyncio.get_running_loop().create_task(self._store(answer))
                self._storing.add_done_callback(self._stored)

    def _stored(self, task: asyncio.Task[None]) -> None:
        if self._storing is task:
            self._storing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("Lost a result", container=self.id, error=repr(error))

    async def _store(self, answer: Answer) -> None:
        """Bring a result to the spool first: it is too large for a message, or comes as a file."""
        site = self._site
        if self._doubtful(answer):
            await site.look_at_cards()
            self._storing = None
            self._answered(answer, None)
            return
        kept = await answers.stored(answer, self._folder, site.spool, site.max_result(), site.disk_full)
        self._storing = None  # before the next job is given: its answer may be here before this task has ended
        self._answered(*kept)

    def _doubtful(self, answer: Answer) -> bool:
        """A failure on a card is the handler's only if the card still answers."""
        return self._gpu is not None and answer.reason is not Reason.OK

    def _answered(self, answer: Answer, body: Body | None) -> None:
        reason, body, failure = answers.checked(answer, body)
        log = self._site.outbox.log_of(answer.ref)
        if log is not None:
            log.finish(answer.log_end)
        if self._given_file is not None and self._folder is not None:
            self._folder.discard(self._given_file)
        self._given = None
        self._post(ev.JobAnswered(self._now(), self.id, answer.ref, reason, body, failure))

    def _payload(self, job: Assignment) -> tuple[bytes, str | None]:
        if job.payload.blob is None:
            return job.payload.data, None
        staged = self._site.spool.payload(job.ref)
        if job.payload.size <= MAX_INLINE:
            return staged.read_bytes(), None
        if self._given_file is None and self._folder is not None:
            self._folder.put(file_name(job.ref), staged, move=True)
            self._given_file = file_name(job.ref)
        return b"", self._given_file

    # -- small words ---------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        self._post(ev.ContainerNote(self._now(), self.id, text))

    def _post(self, event: ev.Event) -> None:
        self._site.post(event)

    def _now(self) -> float:
        return self._site.now()
