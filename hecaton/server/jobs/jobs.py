"""Use cases around jobs, for people: submit, look, wait, cancel, retry, read logs. No HTTP, no SQL."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from hecaton.core.batches import lane_of
from hecaton.core.doors import WAYS
from hecaton.core.errors import Conflict, Forbidden, NotFound
from hecaton.core.model import INLINE_LIMIT, JOB_ID_LENGTH, Body, Job, JobId, JobState, Reason
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.directory import Directory
from hecaton.server.accounts.permissions import Action
from hecaton.server.clock import uuid7
from hecaton.server.fleet.attempts import Attempts, EndNews
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.hub import KEEP_ALIVE, QUEUE_LIMIT, Hub, Watch
from hecaton.server.jobs.end_news import view_at_end
from hecaton.server.jobs.quotas import Quotas
from hecaton.server.jobs.requests import Sought, changed_spec, payload_of, request_digest, spec_of, spoken_to
from hecaton.server.jobs.submissions import Submissions
from hecaton.server.jobs.views import JobParts, job_summary, job_view, removed
from hecaton.server.jobs.waits import Waits
from hecaton.server.resources import Resources
from hecaton.store import port
from hecaton.store.port import Store
from hecaton.wire import api
from hecaton.wire.channel import Cancel

MAX_WAIT = 50.0
"""Seconds that one request may wait. Clients ask again: proxies cut silences of a minute."""

LOG_CHUNK = 64 * 1024
TAIL_BYTES = 16 * 1024
TAILS = 20
"""Attempts, the last ones, that are shown with the end of their log."""


class Jobs:
    """On the server's event loop; keeps nothing of its own between two calls."""

    def __init__(
        self,
        resources: Resources,
        directory: Directory,
        fleet: Fleet,
        scheduler: Scheduler,
        quotas: Quotas,
        attempts: Attempts,
        hub: Hub,
    ) -> None:
        self._database, self._clock, self._settings = resources.database, resources.clock, resources.settings
        self._statistics = resources.statistics
        self._directory, self._fleet, self._attempts, self._hub = directory, fleet, attempts, hub
        self._submissions = Submissions(resources, scheduler, quotas, hub)
        self.budget = quotas.budget
        self._waiting = Waits(resources, directory, fleet, scheduler)

    # -- submit --------------------------------------------------------------------------------

    async def submit(self, caller: Caller, request: api.NewJob, key: str | None, digest: bytes) -> api.Submitted:
        return await self._store(await self._new_job(caller, request, key, digest))

    async def submit_and_wait(
        self, caller: Caller, request: api.NewJob, key: str | None, digest: bytes, seconds: float
    ) -> api.JobView:
        """As `submit` and then `wait`; the watch stands before the job does, so its end needs no second look."""
        # hot: benchmarks/latency.py
        job = await self._new_job(caller, request, key, digest)
        with self._hub.watching(job.id, end_only=True, holder=caller.user_id) as watch:
            submitted = await self._store(job)
            if not submitted.duplicate:
                await self._until_ended(caller, watch, seconds)
                return self._at_end(caller, job, submitted, watch.end) or await self.show(caller, submitted.id)
        return await self.wait(caller, submitted.id, seconds)

    async def submit_and_follow(
        self, caller: Caller, request: api.NewJob, key: str | None, digest: bytes, seconds: float, is_large: bool
    ) -> AsyncGenerator[api.Submitted | api.JobView]:
        """As `submit_and_wait`, but that the job is stored is said before its end; what `is_large` is not held for as
        long. TooMany where too many such answers are open."""
        # hot: benchmarks/sdk.py
        self._hub.follow(caller.user_id)
        try:
            job = await self._new_job(caller, request, key, digest)
            with self._hub.watching(job.id, end_only=True, holder=caller.user_id) as watch:
                submitted = await self._store(job)
                yield submitted
                if not submitted.duplicate and not is_large:
                    await self._until_ended(caller, watch, seconds)
                    yield self._at_end(caller, job, submitted, watch.end) or await self.show(caller, submitted.id)
                    return
            del job, request
            yield await self.wait(caller, submitted.id, seconds)
        finally:
            self._hub.unfollow(caller.user_id)

    def _at_end(self, caller: Caller, job: port.NewJob, submitted: api.Submitted, end: object) -> api.JobView | None:
        """As `show`, where what passed through memory suffices for it."""
        if not isinstance(end, EndNews) or end.said.by is None:
            return None
        image, member = self._directory.image(job.image_id), self._fleet.members.get(end.said.by)
        if image is None or member is None:
            return None
        return view_at_end(job, submitted.index, caller.name, image, member.name, end)

    async def _new_job(self, caller: Caller, request: api.NewJob, key: str | None, digest: bytes) -> port.NewJob:
        self.budget.require_disk(caller)
        spec = spec_of(request)
        payload = payload_of(request, self._settings.max_payload)
        image = await self._directory.image_of(caller, caller.user_id, request.image)
        spec = spoken_to(spec, image.defaults)
        lane = lane_of(caller.user_id, image.id, spec)
        now = self._clock.now()
        job_id = JobId(uuid7(now))
        return port.NewJob(job_id, caller.user_id, image.id, lane, spec, payload, now, key or job_id, digest)

    async def _store(self, job: port.NewJob) -> api.Submitted:
        stored = await self._submissions.store(job)
        return api.Submitted(stored.id, stored.index, stored.duplicate)

    async def retry(self, caller: Caller, job_id: str, key: str | None, changes: bytes = b"") -> api.Submitted:
        """A new job with the same payload and options: a terminal state is never opened again. `changes`: the body of
        `Retry`."""
        self.budget.require_disk(caller)
        old = await self._job(caller, job_id, Action.RETRY_JOBS)
        if not old.state.terminal:
            raise Conflict(f"job {old.index} is {old.state}: only ended jobs can be retried")
        payload = await self._database.read(lambda store: store.payload(old.id))
        if payload is None:
            raise NotFound(f"the payload of job {old.index} is gone")
        spec = changed_spec(old.spec, changes)
        image = await self._directory.image_of(caller, old.owner_id, old.image)  # which may have another number now
        spec = spoken_to(spec, image.defaults)
        now = self._clock.now()
        new_id = JobId(uuid7(now))
        lane = lane_of(old.owner_id, image.id, spec)
        digest = request_digest(f"retry {old.id}".encode() + changes)
        return await self._store(
            port.NewJob(new_id, old.owner_id, image.id, lane, spec, payload, now, key or new_id, digest, old.id)
        )

    # -- look ----------------------------------------------------------------------------------

    async def _job(self, caller: Caller, job_id: str, action: Action = Action.SEE_JOBS) -> Job:
        """The same answer for a job of somebody else as for one that does not exist."""
        owner = self._owner_seen(caller, action)
        job = await self._database.read(lambda store: store.job(job_id, owner))
        return self._permitted(caller, job, job_id, action)

    @staticmethod
    def _owner_seen(caller: Caller, action: Action) -> int | None:
        """Among whose jobs he may do it; None: among everybody's."""
        return None if caller.may(action) else caller.user_id

    def _permitted(self, caller: Caller, job: Job | None, job_id: str, action: Action) -> Job:
        if job is None or not caller.may(action, job.owner_id):
            raise NotFound(f"no job {job_id[:80]!r}", "hecaton job list shows yours.")
        return job

    async def show(self, caller: Caller, job_id: str) -> api.JobView:
        owner = self._owner_seen(caller, Action.SEE_JOBS)

        def read(store: Store) -> JobParts | None:
            job = store.job(job_id, owner)
            if job is None:
                return None
            attempts = store.attempts(job.id)
            bad = [one.number for one in attempts[-TAILS:] if one.reason not in (None, Reason.OK)]
            return JobParts(
                job,
                store.payload(job.id) if job.payload_size <= INLINE_LIMIT else None,
                store.result(job.id) if job.result_kind is not None else None,
                attempts,
                store.queue_position(job.id) if job.state is JobState.IN_QUEUE else None,
                {number: store.log_tail(job.id, number, TAIL_BYTES) for number in bad},
                None if WAYS[job.spec.mode].warm else store.checkpoint(job.id),
            )

        parts = await self._database.read(read)
        job = self._permitted(caller, parts.job if parts else None, job_id, Action.SEE_JOBS)
        assert parts is not None
        holders = await self._waiting.holders() if job.state is JobState.IN_QUEUE else {}
        why = self._waiting.why(job, holders)
        return job_view(parts, self._attempts.live.get(job.id), why, self._settings.keep_results)

    async def list(self, caller: Caller, sought: Sought, before: int | None, limit: int) -> api.JobPage:
        """Forbidden to who seeks everybody's and may see his own alone."""
        owner = caller.user_id if sought.whose == api.Whose.MINE else self._owner_seen(caller, Action.SEE_JOBS)
        if sought.whose == api.Whose.ALL and owner is not None:
            raise Forbidden(f"only an admin may see everybody's jobs; {caller.name!r} has the role {caller.role}")
        state = JobState(sought.state) if sought.state else None
        page = await self._database.read(
            lambda store: store.jobs(owner_id=owner, state=state, before=before, limit=limit, labels=sought.labels)
        )
        cursor = None if page.next_index is None else str(page.next_index)
        return api.JobPage(tuple(job_summary(job) for job in page.jobs), cursor)

    async def payload(self, caller: Caller, job_id: str) -> Body:
        job = await self._job(caller, job_id)
        body = await self._database.read(lambda store: store.payload(job.id))
        if body is None:
            raise NotFound(f"the payload of job {job.index} is gone")
        return body

    async def result(self, caller: Caller, job_id: str) -> Body:
        job = await self._job(caller, job_id)
        body = await self._database.read(lambda store: store.result(job.id))
        if body is None and job.result_kind is not None:
            raise NotFound(
                f"job {job.index} has no result any longer: {removed(self._settings.keep_results)}",
                f"hecaton job retry {job.index} computes it again. How long they stay: hecaton-server --keep-results",
            )
        if body is None:
            raise NotFound(f"job {job.index} has no result: it is {job.state}", f"hecaton job show {job.index}")
        return body

    async def logs(self, caller: Caller, job_id: str, attempt: int | None, offset: int) -> AsyncIterator[bytes]:
        """Pieces from `offset` to the end of what is there now. Raises before the first piece, not in mid-stream."""
        job = await self._job(caller, job_id)
        number = job.attempt if attempt is None else attempt
        return self._log_pieces(job.id, number, offset)

    async def _log_pieces(self, job_id: JobId, attempt: int, offset: int) -> AsyncIterator[bytes]:
        while data := await self._read_log(job_id, attempt, offset):
            yield data
            offset += len(data)
            if len(data) < LOG_CHUNK:  # that was the end
                return

    async def _read_log(self, job_id: JobId, attempt: int, offset: int) -> bytes:
        return await self._database.read(lambda store: store.read_log(job_id, attempt, offset, LOG_CHUNK))

    async def own_among(self, caller: Caller, jobs: Sequence[JobId]) -> frozenset[JobId]:
        """Those of these jobs that are the caller's."""
        found = await self._database.read(lambda store: [store.job(job) for job in jobs]) if jobs else ()
        return frozenset(job.id for job in found if job is not None and job.owner_id == caller.user_id)

    # -- wait ----------------------------------------------------------------------------------

    async def wait(self, caller: Caller, job_id: str, seconds: float) -> api.JobView:
        """The job when it is terminal, or as it is when the time is over."""
        known = JobId(job_id) if len(job_id) == JOB_ID_LENGTH else (await self._job(caller, job_id)).id
        with self._hub.watching(known, end_only=True, holder=caller.user_id) as watch:
            view = await self.show(caller, known)
            if view.state.terminal:
                return view
            await self._until_ended(caller, watch, seconds)
        return await self.show(caller, known)

    async def _until_ended(self, caller: Caller, watch: Watch, seconds: float) -> None:
        """Unauthenticated as soon as the caller has lost his rights."""
        left = min(seconds, MAX_WAIT)
        deadline = self._clock.now() + left
        known: int | None = None
        while not watch.ended and not self._hub.closing:
            if known != self._hub.revocations:
                known = self._hub.revocations
                self._directory.require(caller)
            if left <= 0 or not await watch.wait(left):
                break
            left = deadline - self._clock.now()
        if known != self._hub.revocations:
            self._directory.require(caller)

    async def events(self, caller: Caller, job_id: str, offset: int) -> AsyncIterator[api.JobEvent | None]:
        """What happens to a job, live, until it is terminal; None is a keep-alive. Logs come from the store by offset,
        so none is missed or doubled; the hub only says that there is something new. Each event costs what it says: the
        whole job is read once, for its end."""
        job = await self._job(caller, job_id)
        return self._stream(caller, job.id, offset)

    async def _stream(self, caller: Caller, job_id: JobId, offset: int) -> AsyncIterator[api.JobEvent | None]:
        with self._hub.watching(job_id) as watch:
            reader = _LogReader(self, job_id, offset)
            job = await self._job(caller, job_id)
            attempt, ended, talks = job.attempt, job.state.terminal, True
            yield api.JobEvent("state", job.state, attempt)
            while not ended and not self._hub.closing:
                if talks:
                    async for event in reader.new(attempt):
                        yield event
                talks = not await watch.wait(KEEP_ALIVE)
                if talks:
                    yield None
                    continue
                news = _taken(watch)
                for event in news:
                    if event.event in _SHOWN:
                        yield event
                attempt = max((attempt, *(event.attempt for event in news)))
                talks = len(news) == QUEUE_LIMIT or any(event.event == "log" for event in news)
                ended = watch.ended
            view = await self.show(caller, job_id) if ended else None
            async for event in reader.new(view.attempt if view is not None else attempt):
                yield event
            if view is not None:
                yield api.JobEvent("end", view, view.attempt)

    # -- cancel --------------------------------------------------------------------------------

    async def cancel(self, caller: Caller, job_id: str) -> api.JobView:
        job = await self._job(caller, job_id, Action.CANCEL_JOBS)
        now = self._clock.now()
        result = await self._database.write(lambda store: store.cancel(job.id, now))
        if result.worker_id is not None and not result.state.terminal:
            member = self._fleet.members.get(result.worker_id)
            if member is not None and member.link is not None:
                member.link.send(Cancel((result.ref,)))
        elif result.state is JobState.CANCELLED:
            self._statistics.end(job.image_id, result.state, Reason.CANCELLED)
            self._hub.publish(job.id, api.JobEvent("end", None))
            if result.batch is not None:
                self._hub.wake(result.batch)
        return await self.show(caller, job.id)


class _LogReader:
    """Turns stored log bytes into events, from an offset on, over attempts: a new attempt begins at 0."""

    def __init__(self, jobs: Jobs, job_id: JobId, offset: int) -> None:
        self._jobs, self._job_id, self._offset = jobs, job_id, offset
        self._attempt = 0
        self._text = _new_decoder("replace")

    async def new(self, attempt: int) -> AsyncIterator[api.JobEvent]:
        if attempt != self._attempt:
            if self._attempt:
                async for event in self._rest():
                    yield event
                self._offset = 0
            self._attempt = attempt
        async for event in self._rest():
            yield event

    async def _rest(self) -> AsyncIterator[api.JobEvent]:
        """The offset of an event is that of its text: a character cut in two comes whole with the next piece."""
        async for data in self._jobs._log_pieces(self._job_id, self._attempt, self._offset):
            self._offset += len(data)
            text = self._text.decode(data)
            if text:
                behind = len(self._text.getstate()[0])
                yield api.JobEvent("log", text, self._attempt, self._offset - behind)


_new_decoder = codecs.getincrementaldecoder("utf-8")


_SHOWN = ("state", "progress", "note")
"""Events that are passed on as they come."""


def _taken(watch: Watch) -> Sequence[api.JobEvent]:
    events = list(watch.events)
    watch.events.clear()
    return events
