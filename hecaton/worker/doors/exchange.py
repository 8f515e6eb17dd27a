"""Jobs into one container and answers out of it, through its door: payloads, logs, results."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hecaton.core.model import AttemptRef, Body, Failure, Reason
from hecaton.serverless.protocol import LOG_NAME, MAX_INLINE, OUT_NAME, answered_name
from hecaton.wire.channel import Assignment
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.failures.words import UNHEARD, no_room
from hecaton.worker.doors import answers
from hecaton.worker.doors.channel_folder import ChannelFolder, Spoilt
from hecaton.worker.doors.door import Answer, Door
from hecaton.worker.link.logs import AttemptLog, ContainerLog
from hecaton.worker.memory import disk
from hecaton.worker.memory.peers import Peer
from hecaton.worker.memory.records import Given
from hecaton.worker.memory.spool import file_name
from hecaton.worker.memory.usage import excess
from hecaton.worker.runtimes.port import CHANNEL_TARGET
from hecaton.worker.site import Site

_OUT_HINT = "It is for one result at a time. What a job needs while it runs belongs elsewhere, such as in /tmp."

_log = structlog.get_logger("hecaton.worker.doors.exchange")


class Exchange:
    """The visitor of a container's door. `on_card`: a failure there may be the card's.

    On the worker's loop. Answers count in the order in which the jobs were given: one that comes while an earlier one
    is on its way to the disk waits. What is given is in the journal before the container hears of it."""

    door: Door

    def __init__(self, site: Site, container: str, folder: ChannelFolder, *, on_card: bool, begun: bool) -> None:
        """`begun`: an earlier process of this worker has given its container a job."""
        self.folder = folder
        self.log = ContainerLog(folder, site.leftovers.of(container), begun=begun)
        self._site = site
        self._container = container
        self._on_card = on_card
        self._given: AttemptRef | None = None
        self._given_file: str | None = None
        self._ahead: deque[Given] = deque()  # behind it, in this order; as the journal has them
        self._result_files: dict[AttemptRef, str] = {}
        self._storing: asyncio.Task[None] | None = None
        self._expected: asyncio.Future[None] | None = None  # the answer of the job that is given
        self._unheard: deque[Answer] = deque()  # that came while an earlier one is being stored

    def go_on(self, given: Sequence[Given]) -> None:
        """With what an earlier process gave: the first one, and those behind that the container has begun since."""
        first, *rest = given
        if first.options.no_overlap:  # the release before had no warden
            mark = self._site.runtime.mark(self._container)
            self._site.guard.watch(self._container, mark, self._answered_file(first.ref))
        self._given, self._given_file = first.ref, file_name(first.ref)
        self._ahead.extend(rest)
        self._track(self.log.go_on(first.ref, first.log, first.log_start))

    def begin_early(self, ref: AttemptRef) -> None:
        """Of the job that the container is started for: what it says until it asks for work is seen live."""
        self._site.outbox.track(self.log.begin_early(ref))

    # -- in ------------------------------------------------------------------------------------------

    def give(self, job: Assignment) -> None:
        try:
            if not self.may_begin(job):
                self._post(ev.JobAnswered(self._now(), self._container, job.ref, Reason.RELEASED, None, UNHEARD))
                return
            if self._given != job.ref:
                log = self.log.begin(job.ref)
                self._site.journal.give(self._record(job, log))
                self._begin(log)
            self.door.give(job, *self._payload(job))
        except Spoilt as spoilt:
            self.misbehaves(str(spoilt))
        except OSError as error:
            failure = Failure(f"the worker could not hand over the payload: {error}")
            reason = Reason.WORKER_ERROR
            if error.errno in disk.ERRORS:
                reason, why = Reason.RELEASED, self._site.disk.lacks(job.payload.size)
                failure = failure if why is None else no_room(why)
            self._post(ev.JobAnswered(self._now(), self._container, job.ref, reason, None, failure))

    def may_begin(self, job: Assignment) -> bool:
        """A no-overlap job begins when the warden watches its container, and none while the server may take this worker
        for lost. Raises OSError."""
        # hot: benchmarks/throughput.py
        guard = self._site.guard
        if not job.options.no_overlap:
            guard.release(self._container)
            return True
        mark = self._site.runtime.mark(self._container)
        return guard.watch(self._container, mark, self._answered_file(job.ref))

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """Their logs begin where the log of the one before ends: until that is known, where it began."""
        log = None if self._given is None else self._site.outbox.log_of(self._given)
        for job in jobs:
            record = self._record(job, log)
            self._ahead.append(record)
            self._site.journal.give(record)
        if log is not None:
            log.share()
        self.door.give_ahead(jobs)

    def withdraw(self) -> tuple[AttemptRef, ...]:
        """All that was given ahead and has not begun."""
        refs = self.door.withdraw()
        self._drop_ahead(set(refs))
        return refs

    def talks_in_doubt(self) -> bool:
        """Whether something was printed that may be of the job that runs, or of one that was given ahead."""
        log = None if self._given is None else self._site.outbox.log_of(self._given)
        return log is not None and log.is_in_doubt

    def _drop_ahead(self, refs: set[AttemptRef]) -> None:
        for ref in refs:
            self._site.journal.forget(ref)
        self._ahead = deque(record for record in self._ahead if record.ref not in refs)
        if not self._ahead and self._given is not None and (log := self._site.outbox.log_of(self._given)) is not None:
            log.regain()

    def _record(self, job: Assignment, log: AttemptLog | None) -> Given:
        start, name = (0, LOG_NAME) if log is None else (log.start, log.file.name)
        return Given(job.ref, self._container, job.key, self._now(), start, job.options, name)

    def _begin(self, log: AttemptLog) -> None:
        self._given, self._given_file = log.ref, None
        self._track(log)

    def _track(self, log: AttemptLog) -> None:
        """With jobs behind it that may have begun unheard, as it has."""
        if self._ahead:
            log.follow()
        self._site.outbox.track(log)

    def _next_begins(self, log_start: int | None) -> None:
        record = self._ahead.popleft()
        log = self.log.begin(record.ref, log_start)
        if (log.start, log.file.name) != (record.log_start, record.log):
            self._site.journal.give(msgspec.structs.replace(record, log_start=log.start, log=log.file.name))
        self._begin(log)

    def _payload(self, job: Assignment) -> tuple[bytes, str | None]:
        if job.payload.blob is None:
            return job.payload.data, None
        staged = self._site.spool.payload(job.ref)
        if job.payload.size <= MAX_INLINE:
            return staged.read_bytes(), None
        if self._given_file is None:
            self.folder.put(file_name(job.ref), staged, move=True)
            self._given_file = file_name(job.ref)
        return b"", self._given_file

    # -- out -----------------------------------------------------------------------------------------

    def gets_ready(self, hint: str) -> None:
        self._post(ev.ContainerUnready(self._now(), self._container, hint))

    def waits(self, why: str) -> None:
        self._post(ev.ContainerNote(self._now(), self._container, why))

    def asks_for_work(self, busy: tuple[AttemptRef, ...], takes_ahead: bool, log: str | None = None) -> None:
        if self._given not in busy:  # else it is in its file already, or its result will name the next
            self.log.moved(log or LOG_NAME)
        self._drop_ahead({record.ref for record in self._ahead} - set(busy))
        self._post(ev.ContainerReady(self._now(), self._container, busy, takes_ahead))

    async def network(self, handle: str) -> int:
        return await self._site.runtime.network(handle)

    def misbehaves(self, why: str) -> None:
        failure = Failure(f"the container was stopped: {why}")
        self._post(ev.ContainerMisbehaved(self._now(), self._container, Reason.HANDLER_ERROR, failure))

    def is_served_by(self, peer: Peer | None) -> None:
        journal = self._site.journal
        if (placed := journal.placed.get(self._container)) is not None:
            journal.place(msgspec.structs.replace(placed, served=peer))

    def progresses(self, ref: AttemptRef, value: Any) -> None:
        if ref == self._given:
            self._site.outbox.progress(ref, value)

    def answers(self, answer: Answer) -> None:
        if answer.file is not None:
            self._result_files[answer.ref] = answer.file
        if self._storing is None:
            self._hear(answer)
        elif any(record.ref == answer.ref for record in self._ahead):
            if all(earlier.ref != answer.ref for earlier in self._unheard):
                self._unheard.append(answer)
        elif answer.ref != self._given:
            self._repeated(answer)

    def _hear(self, answer: Answer) -> None:
        if answer.ref != self._given:
            self._repeated(answer)
        elif answers.is_small(answer) and not self._doubtful(answer):
            self._answered(answer, Body.inline(answer.kind, answer.data))
        else:
            self._storing = asyncio.get_running_loop().create_task(self.store(answer))
            self._storing.add_done_callback(self._stored)

    def _repeated(self, answer: Answer) -> None:
        """It was said before: the brain knows whether it is safe by now."""
        self._post(ev.JobAnswered(self._now(), self._container, answer.ref, answer.reason))

    def _stored(self, task: asyncio.Task[None]) -> None:
        if self._storing is task:
            self._storing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("Lost a result", container=self._container, error=repr(error))

    async def store(self, answer: Answer) -> None:
        """Bring a result to the spool first: it is too large for a message, or comes as a file."""
        site = self._site
        kept: tuple[Answer, Body | None] = (answer, None)
        if self._doubtful(answer):
            await site.look_at_cards()
        if answer.reason in (Reason.OK, Reason.RESULT_INVALID):
            kept = await answers.stored(answer, self.folder, site.spool, site.max_result(), site.disk.refused)
        self._storing = None  # before the next job is given: its answer may be here before this task has ended
        self._answered(*kept)
        while self._unheard and self._storing is None:
            self._hear(self._unheard.popleft())

    def _doubtful(self, answer: Answer) -> bool:
        """A failure on a card is the handler's only if the card still answers."""
        return self._on_card and answer.reason is not Reason.OK

    def _answered(self, answer: Answer, body: Body | None) -> None:
        if answer.failure is not None:
            answer = answers.judged(answer, self._site.finds_no_room)
        reason, body, failure = answers.checked(answer, body)
        if answer.made_files:
            self._site.made.take(answer.ref, self.folder.outputs, aside=True)
        log = self._site.outbox.log_of(answer.ref)
        if log is not None:
            log.finish(answer.log_end)
        log_start = None if log is None else log.end
        if answer.next_log is not None:
            log_start = 0 if self.log.moved(answer.next_log) else None
        if self._given_file is not None:
            self.folder.discard(self._given_file)
        self._given = None
        if self._expected is not None and not self._expected.done():
            self._expected.set_result(None)
        self.log.opens = False
        if self._ahead:
            self._next_begins(log_start)
        self._post(ev.JobAnswered(self._now(), self._container, answer.ref, reason, body, failure))

    def acknowledge(self, ref: AttemptRef) -> None:
        """The container, and its folder, need not keep this result any longer."""
        self.door.acknowledge(ref)
        file = self._result_files.pop(ref, None)
        if file is not None:
            self.folder.discard(file)

    async def measure(self) -> None:
        """What the container keeps in out/: with too much it is not gone on with."""
        try:
            out = self.folder.another_of_out()
        except OSError:  # no descriptor is left: the next time
            return
        found = await asyncio.to_thread(excess, out, self._site.max_result(), self.log.names)
        if found is not None:
            failure = Failure(
                f"the container was stopped: it kept {found} in {CHANNEL_TARGET}/{OUT_NAME}", hint=_OUT_HINT
            )
            self._post(ev.ContainerMisbehaved(self._now(), self._container, Reason.RESULT_TOO_LARGE, failure))

    # -- the end -------------------------------------------------------------------------------------

    async def hear_out(self) -> None:
        """After the container has ended: results that came before count."""
        while self._storing is not None:
            await asyncio.wait([self._storing])

    def take_outputs(self) -> None:
        """What it has made for the job that it works on, as far as it came."""
        if self._given is not None:
            self._site.made.take(self._given, self.folder.outputs)

    async def hear_answer(self, seconds: float) -> None:
        """Of a container that says that it has done its job, and has not come back yet since this worker was away."""
        if self._given is None or not self._answered_file(self._given).exists():
            return
        self._expected = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._expected], timeout=seconds)

    def _answered_file(self, ref: AttemptRef) -> Path:
        return self.folder.path / OUT_NAME / answered_name(ref.job, ref.attempt)

    async def cut_off(self) -> None:
        self._unheard.clear()
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.wait([self._storing])

    def last_words(self, limit: int) -> str:
        """What the job that it works on has printed."""
        log = self._site.outbox.log_of(self._given) if self._given else None
        return "" if log is None else log.tail(limit)

    def _post(self, event: ev.Event) -> None:
        self._site.post(event)

    def _now(self) -> float:
        return self._site.now()
