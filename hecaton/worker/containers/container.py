"""One container from its image to its removal: folder, door, start, jobs, end.

Everything that happens to it becomes an event for the brain; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Reason
from hecaton.wire.channel import Assignment, Broken, ImageRef, Pulled
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.failures.shortage import KILLED
from hecaton.worker.brain.failures.words import UNHEARD
from hecaton.worker.containers.kills import kernel_lines, last_kill, tells_of_containers
from hecaton.worker.containers.plan import Plan
from hecaton.worker.doors.channel_folder import ChannelFolder, Spoilt, name_of
from hecaton.worker.doors.door import Door, Unready
from hecaton.worker.doors.exchange import Exchange
from hecaton.worker.doors.turns import Turns
from hecaton.worker.files.fetching import NoRoom
from hecaton.worker.link.bodies import BodyRefused
from hecaton.worker.link.logs import AttemptLog, ContainerLog, LogFile
from hecaton.worker.memory import disk
from hecaton.worker.memory.records import Given, Placed
from hecaton.worker.runtimes.port import (
    Exit,
    Found,
    MachineBroken,
    RuntimeFault,
    Shortage,
    patiently,
)
from hecaton.worker.site import Site

OUTPUT_LIMIT = 4 * 1024
"""Bytes of last words that go into a failure's message; the whole log is kept beside."""

OPENING_SECONDS = 5.0
"""How long what an ended container has said while it started may be on its way from the engine."""

STOP_RETRY = 2.0
"""Seconds until the next try when the engine could not stop a container."""

LATEST_EFFECT = 60.0
"""Seconds after which the end of a container has another reason than that a child process was killed for memory."""

ANSWER_SECONDS = 3.0
"""More than a container takes to come back to a worker that was away."""

STOPPED_CODES = frozenset({0, KILLED, 128 + signal.SIGTERM})
"""Exit codes that an engine or machine that goes down leaves behind as well: no handler is blamed for them unseen."""

_log = structlog.get_logger("hecaton.worker.containers")


class LiveContainer:
    """`start` comes first, or `adopt` and then `watch`.

    All on the worker's loop. The brain hears of its end once, whatever happens: as failed, exited or gone, and nothing
    of it after that. Its folder stays, open until `close_folder`."""

    def __init__(self, site: Site, plan: Plan) -> None:
        self.id = plan.name
        self._site = site
        self._plan = plan
        self._first = plan.first
        self._exchange: Exchange | None = None
        self._handle: str | None = None
        self._starting: asyncio.Task[str] | None = None
        self._entrypoint: tuple[str, ...] = ()  # of the image; unknown of one that was adopted
        self._began = site.now()
        self._life: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[None] | None = None
        self.image_id = ""  # of the engine; empty: not known yet
        self._ended_unseen = False
        self.gone = False
        self._state = plan.state  # until it has ended

    # -- orders --------------------------------------------------------------------------------------

    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._live())

    @property
    def log(self) -> ContainerLog | None:
        return None if self._exchange is None else self._exchange.log

    @property
    def by_name(self) -> ImageRef | None:
        """Its image, where that is whatever its name means on this machine; None: it was asked for by digest, or nobody
        knows yet what it is."""
        image = self._first.image
        return image if image.digest is None and self.image_id and not self.gone else None

    async def adopt(self, placed: Placed, given: Sequence[Given]) -> int:
        """Listen to it as the process that started it did. Returns how many of `given`, the last ones, had not begun:
        they are its no longer. Raises OSError, Spoilt."""
        folder = ChannelFolder(self._site.folder / self.id, made=placed.layout)
        unread = min(Turns(folder.turns_fd).void(), max(0, len(given) - 1))
        self._exchange = exchange = self._plan.exchange(folder, placed)
        if given:
            exchange.go_on(given[: len(given) - unread])
        await exchange.door.open()
        return unread

    def watch(self, found: Found) -> None:
        """After `adopt`, when the brain knows of it. It may have ended while no process of this worker was there to see
        why."""
        self._handle, self.image_id, self._ended_unseen = found.handle, found.image_id, found.ended
        self._life = asyncio.get_running_loop().create_task(self._watch(found.handle, unseen=found.ended))
        if self._exchange is not None:
            if self._exchange.door.prints_elsewhere:  # for its next jobs; what it has said before is no job's
                self._hear(self._exchange, found.handle, since=time.time())
            self._exchange.door.adopted(found.handle)

    def give(self, job: Assignment) -> None:
        if self._exchange is not None:
            self._exchange.give(job)

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        if self._exchange is not None:
            self._exchange.give_ahead(jobs)

    def withdraw(self) -> None:
        refs = () if self._exchange is None else self._exchange.withdraw()
        self._post(ev.Withdrawn(self._now(), self.id, refs))

    def look_at_log(self) -> None:
        """Before it is sent on: nothing of a job goes into the log of another one."""
        if self._exchange is not None:
            if self._exchange.talks_in_doubt():
                self.withdraw()
            self._exchange.log.trim_idle()

    async def measure(self) -> None:
        if self._exchange is not None and not self.gone:
            await self._exchange.measure()

    @property
    def opens(self) -> bool:
        """Whether it may still say something elsewhere that goes into its log."""
        return self._opening is not None and not self._opening.done() and self.log is not None and self.log.opens

    def acknowledge(self, ref: AttemptRef) -> None:
        if self._exchange is not None:
            self._exchange.acknowledge(ref)

    def stop(self, grace: float) -> None:
        """`grace`: seconds between SIGTERM and SIGKILL."""
        if self._end is None:
            self._end = asyncio.get_running_loop().create_task(self._stop(grace))

    async def close(self) -> None:
        """At the end of the worker: leave no task behind, whatever state this is in."""
        for task in (self._life, self._end, self._opening):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._exchange is not None:
            await self._exchange.cut_off()
        self._site.checkpoints.stop(self._first.ref)
        await self._close_door()

    def close_folder(self) -> Path:
        """Once it is gone and nobody needs its log: where what is left of it lies."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.log.close()
            exchange.folder.close()
        self._site.work.drop(self.id)
        return self._site.folder / self.id

    # -- its life ------------------------------------------------------------------------------------

    async def _live(self) -> None:
        runtime, image = self._site.runtime, self._first.image

        def given_up() -> bool:
            return self._end is not None

        try:
            prepared = await patiently(lambda: runtime.prepare(image, self._note), self._note, given_up)
            if image.digest is None and prepared.pulled is not None:
                self._site.say(Pulled(image.name, prepared.pulled))
            self.image_id = prepared.image_id
            self._entrypoint = prepared.entrypoint
            door = await self._make_ready()
            if self._exchange is not None:
                self._exchange.begin_early(self._first.ref)
            spec = await self._plan.spec(prepared, door)
            if self._exchange is not None and door.begins_at_start and not self._exchange.may_begin(self._first):
                await self._fail(Reason.RELEASED, UNHEARD.message)
                return
            self._site.journal.place(self._plan.placed(door.nonce))
            self._post(ev.ImageReady(self._now(), self.id, image.digest or prepared.image_id))
            # A start is never cut off in its middle: what it makes would be left behind.
            starting = patiently(lambda: runtime.start(spec), self._note, given_up)
            self._starting = asyncio.get_running_loop().create_task(starting)
            self._handle = await asyncio.shield(self._starting)
        except RuntimeFault as fault:
            if fault.reason in (Reason.IMAGE_PULL, Reason.IMAGE_DENIED):
                self._site.miss(image)
            if isinstance(fault, MachineBroken):
                self._site.say(Broken(f"{fault.message} {fault.hint or ''}".rstrip()))
            await self._fail(fault.reason, fault.message, fault.hint)
            return
        except BodyRefused as refused:
            await self._fail(Reason.WORKER_ERROR, f"the job's file could not be fetched: {refused.error.message}")
            return
        except NoRoom as error:
            await self._fail(Reason.RELEASED, str(error), no_room=True)
            return
        except (OSError, Spoilt) as error:
            reason = Reason.WORKER_ERROR
            if isinstance(error, OSError) and error.errno in disk.ERRORS:
                self._site.disk.refused()
                reason = Reason.RELEASED
            await self._fail(reason, f"the worker could not make a container ready: {error}")
            return
        seconds = self._now() - self._began
        _log.info(f"Started a container in {seconds:.2f} s", image=self._first.image.name, container=self.id)
        self._post(ev.ContainerStarted(self._now(), self.id))
        if self._exchange is not None:
            hint = self._exchange.door.unready(self._first, self._entrypoint).hint
            self._post(ev.ContainerUnready(self._now(), self.id, hint))
            self._hear(self._exchange, self._handle)
            self._exchange.door.started(self._handle)
        await self._watch(self._handle)

    async def _make_ready(self) -> Door:
        files = await self._plan.files(self._note)
        await self._plan.working_folder(self._note)
        self._exchange = exchange = self._plan.exchange(ChannelFolder(self._site.folder / self.id))
        for file, content in files:
            exchange.folder.put_program(name_of(file), content)
        await exchange.door.open()
        return exchange.door

    async def _fail(self, reason: Reason, message: str, hint: str | None = None, *, no_room: bool = False) -> None:
        _log.warning("Could not start a container", image=self._first.image.name, reason=reason.value, error=message)
        if self._plan.gpus and reason is Reason.WORKER_ERROR:
            await self._site.look_at_cards()
        await self._close_door()
        self._is_gone()
        self._post(ev.ContainerFailed(self._now(), self.id, reason, message, hint, no_room))

    async def _watch(self, handle: str, *, unseen: bool = False) -> None:
        if self._state is not None:
            self._site.checkpoints.watch(self._first.ref, self._state, self._note)
        try:
            exit = await self._site.runtime.wait(handle)
        except RuntimeFault as fault:
            exit = Exit(-1, error=fault.message)
        if exit.code != 0:
            exit = await self._with_shortage(exit, handle)
        if self._exchange is not None:
            await self._exchange.hear_out()
            self._exchange.take_outputs()
        self._take_state(needed=exit.code != 0)
        if self._plan.gpus and exit.code != 0:
            await self._site.look_at_cards()
        answer = self._exchange.door.ended(exit) if self._exchange else None
        if self._exchange is not None and answer is not None:
            await self._exchange.store(answer)
        elif unseen and not exit.oom and exit.code in STOPPED_CODES:
            exit = Exit(exit.code, error=f"it ended with exit code {exit.code} while the worker was away")
        if self._opening is not None and self.opens:
            await asyncio.wait([self._opening], timeout=OPENING_SECONDS)
        words = await self._last_words(handle)
        if exit.code != 0 and any(said in words for said in disk.IN_WORDS) and self._site.finds_no_room():
            exit = msgspec.structs.replace(exit, error="the worker's disk was full")
        never_began = () if self._exchange is None else self._exchange.withdraw()
        unready = self._exchange.door.unready(self._first, self._entrypoint) if self._exchange else Unready()
        unheard = self._site.guard.has_ended(self.id)
        self._post(
            ev.ContainerExited(self._now(), self.id, exit, words, never_began, unready.how, unready.hint, unheard)
        )

    async def _with_shortage(self, exit: Exit, handle: str) -> Exit:
        """The engine keeps for ever that something of a container was killed for memory; its jobs come and go."""
        if "memory" not in self._site.runtime.options:  # then it has no control group of its own
            return exit
        lines = await asyncio.to_thread(kernel_lines)
        since = 0.0 if self._ended_unseen else time.monotonic() - LATEST_EFFECT
        found = last_kill(lines or (), handle, since)
        if found is None and exit.oom and (lines is None or exit.code == KILLED):
            found = Shortage()
        if found is not None:
            found = msgspec.structs.replace(found, limit=self._site.memory)
        sure = lines is not None and tells_of_containers(lines)
        return msgspec.structs.replace(exit, oom=found is not None, shortage=found, sure=sure)

    def _hear(self, exchange: Exchange, handle: str, since: float = 0.0) -> None:
        self._opening = asyncio.get_running_loop().create_task(self._hear_what_it_says(exchange, handle, since))

    async def _hear_what_it_says(self, exchange: Exchange, handle: str, since: float) -> None:
        """What it says before `start` turns its output into the log is the beginning of the log of its first job; what
        those say later that it has begun before, is no job's."""
        words = b""
        async for text in self._site.runtime.follow(handle, since):
            if exchange.log.add(text):
                words = (words + text)[-OUTPUT_LIMIT:]
                self._post(ev.ContainerSaid(self._now(), self.id, words.decode("utf-8", "replace")))

    async def _last_words(self, handle: str) -> str:
        written = "" if self._exchange is None else self._exchange.last_words(OUTPUT_LIMIT)
        if written.strip():
            return written
        with contextlib.suppress(RuntimeFault):
            said = (await self._site.runtime.output(handle, OUTPUT_LIMIT)).decode("utf-8", "replace")
            if said.strip() or self._exchange is None:
                return said
        # `start` had turned its output into the log before it failed.
        folder = None if self._exchange is None else self._exchange.folder
        return "" if folder is None else AttemptLog(self._first.ref, LogFile(folder.log_fd), 0).tail(OUTPUT_LIMIT)

    async def _stop(self, grace: float) -> None:
        if self._starting is not None:
            await asyncio.wait([self._starting])
            if not self._starting.cancelled() and self._starting.exception() is None:
                self._handle = self._starting.result()
        await self._hear_last()
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
        if self._exchange is not None:
            await self._exchange.cut_off()
        while self._handle is not None:
            try:
                await self._site.runtime.stop(self._handle, grace)
                break
            except RuntimeFault as fault:
                _log.error(f"Could not stop a container: trying again in {STOP_RETRY:g} s", error=fault.message)
                await asyncio.sleep(STOP_RETRY)
        if self._exchange is not None:
            self._exchange.take_outputs()
        self._take_state(needed=True)
        await self._close_door()
        if not self.gone:
            self._is_gone()
            self._post(ev.ContainerGone(self._now(), self.id))

    def _take_state(self, *, needed: bool) -> None:
        """Its container has ended. `needed`: another attempt may follow."""
        state, self._state = self._state, None
        if state is not None:
            self._site.checkpoints.stop(self._first.ref)
            if needed:
                self._site.checkpoints.take(self._first.ref, state)

    async def _hear_last(self) -> None:
        """What it had done before this process of the worker was there to hear it."""
        if self._ended_unseen and self._life is not None:
            await asyncio.wait([self._life], timeout=ANSWER_SECONDS)
        elif self._exchange is not None:
            await self._exchange.hear_answer(ANSWER_SECONDS)

    def _is_gone(self) -> None:
        self.gone = True
        self._site.guard.release(self.id)
        self._site.journal.gone(self.id)

    async def _close_door(self) -> None:
        if self._exchange is not None:
            await self._exchange.door.close()

    # -- small words ---------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        self._post(ev.ContainerNote(self._now(), self.id, text))

    def _post(self, event: ev.Event) -> None:
        self._site.post(event)

    def _now(self) -> float:
        return self._site.now()
