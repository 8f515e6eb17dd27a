"""One container from its image to its removal: folder, door, start, jobs, end. Made by `agent` for `StartContainer`.

Everything that happens to it becomes an event for the brain; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, Kind, Mode, Reason
from hecaton.serverless.protocol import MAX_INLINE
from hecaton.wire.channel import DIRECT_LIMIT, Assignment
from hecaton.worker import events as ev
from hecaton.worker.bodies import Bodies, BodyRefused
from hecaton.worker.channel_folder import ChannelFolder, NotAPlainFile
from hecaton.worker.handlers import script
from hecaton.worker.handlers.door import Answer, Door
from hecaton.worker.handlers.native import NativeDoor
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
)
from hecaton.worker.spool import Spool, TooLong, file_name

OUTPUT_LIMIT = 4 * 1024
"""Bytes of last words that go into a failure's message; the whole log is kept beside."""

STOP_RETRY = 2.0
"""Seconds until the next try when the engine could not stop a container."""

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
    grace: float
    max_result: Callable[[], int]
    post: Callable[[ev.Event], None]
    now: Callable[[], float]


class LiveContainer:
    def __init__(self, site: Site, order: ev.StartContainer, gpu: Gpu | None) -> None:
        self.id = order.container
        self.log: ContainerLog | None = None
        self._site = site
        self._slot = order.slot
        self._first = order.assignment
        self._gpu = gpu
        self._folder: ChannelFolder | None = None
        self._door: Door | None = None
        self._handle: str | None = None
        self._given: AttemptRef | None = None
        self._given_file: str | None = None
        self._storing: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[str] | None = None
        self._began = site.now()
        self._life = asyncio.get_running_loop().create_task(self._live())
        self._end: asyncio.Task[None] | None = None
        self.gone = False

    # -- orders --------------------------------------------------------------------------------------

    def give(self, job: Assignment) -> None:
        if self._door is None or self.log is None:
            return
        try:
            if self._given != job.ref:
                self._given, self._given_file = job.ref, None
                self._site.outbox.track(self.log.begin(job.ref))
            self._door.give(job, *self._payload(job))
        except OSError as error:
            failure = Failure(f"the worker could not hand over the payload: {error}")
            self._post(ev.JobAnswered(self._now(), self.id, job.ref, Reason.WORKER_ERROR, None, failure))

    def acknowledge(self, ref: AttemptRef) -> None:
        if self._door is not None:
            self._door.acknowledge(ref)

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
        """Once nobody needs its log."""
        folder, self._folder, self.log = self._folder, None, None
        if folder is not None:
            folder.remove()

    # -- its life ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            prepared = await self._site.runtime.prepare(self._first.image, self._note)
            await self._make_ready()
            spec = self._spec(prepared)
            self._post(ev.ImageReady(self._now(), self.id))
            # A start is never cut off in its middle: what it makes would be left behind.
            self._starting = asyncio.get_running_loop().create_task(self._site.runtime.start(spec))
            self._handle = await asyncio.shield(self._starting)
        except RuntimeFault as fault:
            await self._fail(fault.reason, fault.message, fault.hint)
            return
        except BodyRefused as refused:
            await self._fail(Reason.WORKER_ERROR, f"the job's file could not be fetched: {refused.error.message}")
            return
        except OSError as error:
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
        if self._first.mode is Mode.SCRIPT:
            self._door = script.ScriptDoor(self._first, self._folder, self)
        else:
            self._door = NativeDoor(self._folder.path, self, self._site.max_result())
        await self._door.open()

    async def _fetch_file(self, sha256: str) -> None:
        path = self._site.spool.file(sha256)
        try:
            os.utime(path)  # recently used
        except FileNotFoundError:
            self._note("fetching the job's file")
            await self._site.bodies.fetch(self._first.ref.job, sha256, path)
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
        self.gone = True
        self._post(ev.ContainerFailed(self._now(), self.id, reason, message, hint))

    async def _watch(self, handle: str) -> None:
        try:
            exit = await self._site.runtime.wait(handle)
        except RuntimeFault as fault:
            exit = Exit(-1, error=fault.message)
        if self._storing is not None:  # a result that came before the end counts
            await asyncio.wait([self._storing])
        answer = self._door.ended(exit) if self._door else None
        if answer is not None:
            await self._store(answer)
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
        self._life.cancel()
        await asyncio.wait([self._life])
        while self._handle is not None:
            try:
                await self._site.runtime.stop(self._handle, self._site.grace)
                break
            except RuntimeFault as fault:
                _log.error(f"Could not stop a container: trying again in {STOP_RETRY:g} s", error=fault.message)
                await asyncio.sleep(STOP_RETRY)
        await self._close_door()
        if not self.gone:
            self.gone = True
            self._post(ev.ContainerGone(self._now(), self.id))

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
        if answer.ref != self._given:  # said before: the brain knows whether it is safe by now
            self._post(ev.JobAnswered(self._now(), self.id, answer.ref, answer.reason))
        elif self._storing is None:
            if answer.file is None and len(answer.data) <= DIRECT_LIMIT:
                self._answered(answer, Body.inline(answer.kind, answer.data))
            else:
                self._storing = asyncio.get_running_loop().create_task(self._store(answer))
                self._storing.add_done_callback(self._stored)

    def _stored(self, task: asyncio.Task[None]) -> None:
        self._storing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("Lost a result", container=self.id, error=repr(error))

    async def _store(self, answer: Answer) -> None:
        """Bring a result to the spool first: it is too large for a message, or comes as a file."""
        limit = self._site.max_result()
        try:
            body = await asyncio.to_thread(self._keep, answer, limit)
        except TooLong:
            message = f"the result is larger than the {limit} bytes that the server takes"
            self._reject(answer, Reason.RESULT_TOO_LARGE, message)
        except NotAPlainFile as error:
            self._reject(answer, Reason.RESULT_INVALID, str(error))
        except OSError as error:
            self._reject(answer, Reason.WORKER_ERROR, f"the worker could not store the result: {error}")
        else:
            self._answered(answer, body)

    def _keep(self, answer: Answer, limit: int) -> Body:
        spool, folder = self._site.spool, self._folder
        if answer.file is None or folder is None:
            if len(answer.data) > limit:
                raise TooLong(len(answer.data))
            sha256, size = spool.keep_bytes(answer.ref, answer.data)
        else:
            source = folder.open_result(answer.file)
            try:
                sha256, size = spool.keep_file(answer.ref, source, limit)
            finally:
                os.close(source)
                folder.discard(answer.file)
        if size > DIRECT_LIMIT:
            return Body(answer.kind, b"", sha256, size)
        return Body.inline(answer.kind, spool.result(answer.ref).read_bytes())

    def _reject(self, answer: Answer, reason: Reason, message: str) -> None:
        self._answered(msgspec.structs.replace(answer, reason=reason, failure=Failure(message)), None)

    def _answered(self, answer: Answer, body: Body | None) -> None:
        reason, failure = answer.reason, answer.failure
        if reason is Reason.OK and answer.kind is Kind.JSON and body is not None and body.blob is None:
            try:
                msgspec.json.decode(body.data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                reason, failure = Reason.RESULT_INVALID, Failure(f"the result is not JSON: {error}")
        log = self._site.outbox.log_of(answer.ref)
        if log is not None:
            log.finish(answer.log_end)
        if self._given_file is not None and self._folder is not None:
            self._folder.discard(self._given_file)
        self._given = None
        body = body if reason is Reason.OK else None
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
