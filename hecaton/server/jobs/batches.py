"""Use cases around batches, for people: submit many jobs as one, watch them, fetch results, pause, cancel, repeat.

The jobs of a batch are jobs like all others, in the lane of their kind; what is here works on them as one. No HTTP, no
SQL.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence

import msgspec

from hecaton.core.batches import Batch, FailureGroup, lane_of
from hecaton.core.errors import BadRequest, Conflict, HecatonError, NotFound, TooLarge, Unavailable
from hecaton.core.model import Body, JobId, JobSpec, JobState, Kind
from hecaton.server.accounts.auth import Caller
from hecaton.server.accounts.directory import Directory
from hecaton.server.accounts.permissions import Action
from hecaton.server.clock import uuid7
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.server.hub import KEEP_ALIVE, Hub
from hecaton.server.jobs.quotas import Quotas
from hecaton.server.jobs.requests import (
    payload_of,
    request_digest,
    require_blob,
    require_blobs,
    spec_of,
    spoken_to,
    with_other_file,
)
from hecaton.server.resources import Resources
from hecaton.store import port
from hecaton.store.port import Appended, EndedItem, Store
from hecaton.wire import api
from hecaton.wire.api import RetryBatch

PAGE = 500
PAGE_BYTES = 1024 * 1024
"""Of results in memory for one reader: a slow one costs the server no more than this."""

FIRST_BREATH, BREATH = 0.01, 0.25
"""Seconds at least between two pictures of a batch that is watched: few at first, for short batches."""

GATHER = 0.01
"""Seconds at least between two looks for new results, so that a thousand that end one by one cost no thousand reads."""

LONGEST_NAME = 200


class BatchParts(msgspec.Struct, frozen=True):
    """What one read of the store knows about a batch."""

    batch: Batch
    running: int
    pace: float | None
    failures: list[FailureGroup]


class Batches:
    """On the server's event loop; keeps nothing of its own between two calls."""

    def __init__(
        self, resources: Resources, directory: Directory, scheduler: Scheduler, quotas: Quotas, hub: Hub
    ) -> None:
        self._database, self._blobs = resources.database, resources.blobs
        self._clock, self._settings = resources.clock, resources.settings
        self._directory, self._scheduler, self._quotas, self._hub = directory, scheduler, quotas, hub

    # -- submit --------------------------------------------------------------------------------

    async def create(self, caller: Caller, request: api.NewBatch, key: str | None, digest: bytes) -> api.BatchSubmitted:
        # hot: benchmarks/throughput.py
        self._quotas.budget.require_disk(caller)
        spec = spec_of(request)
        if len(request.name) > LONGEST_NAME or not (request.name.isprintable()):
            raise BadRequest(f"the name of a batch is at most {LONGEST_NAME} printable characters")
        image = await self._directory.image_of(caller, caller.user_id, request.image)
        spec = spoken_to(spec, image.defaults)
        now = self._clock.now()
        batch_id = uuid7(now)
        new = port.NewBatch(
            batch_id, caller.user_id, image.id, request.name, spec, now, key or batch_id, digest, request.pause
        )
        jobs = self._jobs(batch_id, 0, caller.user_id, image.id, spec, request.items)
        return await self._store(jobs, 0, new, batch_id, request.closed)

    async def append(self, caller: Caller, batch_id: str, request: api.NewItems) -> api.BatchSubmitted:
        # hot: benchmarks/throughput.py
        self._quotas.budget.require_disk(caller)
        if request.offset < 0:
            raise BadRequest(f"offset is {request.offset}: expected the position of the first item")
        batch = await self._batch(caller, batch_id, Action.STEER_BATCHES)
        jobs = self._jobs(batch.id, request.offset, batch.owner_id, batch.image_id, batch.spec, request.items)
        return await self._store(jobs, request.offset, None, batch.id, request.closed)

    def _jobs(
        self,
        batch_id: str,
        offset: int,
        owner_id: int,
        image_id: int,
        spec: JobSpec,
        items: Sequence[api.BatchItem],
    ) -> list[port.NewJob]:
        """All items checked. The error of a bad one names its position in the batch."""
        if len(items) > api.MAX_ITEMS:
            raise TooLarge(
                f"{len(items)} items in one request, the limit is {api.MAX_ITEMS}",
                "Send the others with POST /v1/batches/{id}/items.",
            )
        lane, now = lane_of(owner_id, image_id, spec), self._clock.now()
        jobs = []
        for position, item in enumerate(items, offset):
            try:
                payload = payload_of(item, self._settings.max_payload)
            except HecatonError as error:
                raise type(error)(f"item {position}: {error.message}", error.hint) from None
            digest = request_digest(payload.data or (payload.blob or "").encode())
            key = f"{batch_id}/{position}"
            jobs.append(port.NewJob(JobId(uuid7(now)), owner_id, image_id, lane, spec, payload, now, key, digest))
        return jobs

    async def _store(
        self, jobs: list[port.NewJob], offset: int, new: port.NewBatch | None, batch_id: str, close: bool
    ) -> api.BatchSubmitted:
        """Batch, items and the claims for free slots in one transaction."""
        if self._hub.closing:
            raise Unavailable("the server is stopping", "Try again in a moment.")
        now, count = self._clock.now(), len(jobs)
        if new is not None:
            self._quotas.require_batch(new)
        if jobs:
            self._quotas.require(jobs)
            self._scheduler.add(jobs[0].lane, jobs[0].spec.priority, now, count)

        def write(store: Store) -> tuple[Batch, bool, Appended]:
            known = False
            if new is not None:
                batch, known = store.create_batch(new)
                if known:
                    return batch, known, Appended(batch.size, 0)
            require_blobs(store, self._blobs, jobs, offset)
            appended = store.append(batch_id, offset, jobs)
            if close:
                store.close_batch(batch_id)
            stored = store.batch(batch_id)
            assert stored is not None
            return stored, known, appended

        try:
            batch, known, appended = await self._scheduler.claiming(self._database, now, write)
        except BaseException:
            self._uncount(jobs, count)
            raise
        self._uncount(jobs, count - appended.waiting)
        self._hub.wake(batch.index)
        return api.BatchSubmitted(batch.id, batch.index, appended.size, batch.closed, known)

    def _uncount(self, jobs: list[port.NewJob], count: int) -> None:
        if jobs and count:
            self._scheduler.remove(jobs[0].lane, count)

    async def retry_failed(
        self, caller: Caller, batch_id: str, key: str | None, changes: RetryBatch
    ) -> api.BatchSubmitted:
        """The failed jobs as a new batch. Large ones need several calls with the same key: until it is closed."""
        self._quotas.budget.require_disk(caller)
        old = await self._batch(caller, batch_id, Action.RETRY_JOBS)
        image = await self._directory.image_of(caller, old.owner_id, old.image)
        now = self._clock.now()
        new_id = uuid7(now)
        name = old.name and f"{old.name} (retry)"[:LONGEST_NAME]
        spec = with_other_file(old.spec, changes)
        asked = f"retry {old.id}" + (f" {changes.file}" if changes.file else "")
        new = port.NewBatch(
            new_id, old.owner_id, image.id, name, spec, now, key or new_id, asked.encode(), True, old.id
        )

        self._quotas.require_batch(new)

        def create(store: Store) -> tuple[Batch, bool]:
            if changes.file is not None:  # its jobs would be refused for it, and an empty batch be left
                require_blob(store, self._blobs, changes.file, old.owner_id)
            return store.create_batch(new)

        made, known = await self._database.write(create)
        if made.closed:
            return api.BatchSubmitted(made.id, made.index, made.size, True, known)
        last = await self._database.write(lambda store: store.last_retried(made.index))
        start = 0 if last is None else last + 1
        failed = await self._database.read(lambda store: store.failed_items(old.index, start, PAGE))
        if not failed and not made.size:
            await self._database.write(lambda store: store.cancel_batch(made.index))
            raise Conflict(f"batch {old.index} has no failed jobs", f"hecaton batch show {old.index}")
        lane = lane_of(old.owner_id, image.id, spec)
        jobs = [
            port.NewJob(
                JobId(uuid7(now)), old.owner_id, image.id, lane, spec, item.payload, now,
                f"{made.id}/{position}", item.job.encode(), item.job,
            )
            for position, item in enumerate(failed, made.size)
        ]  # fmt: skip
        return await self._store(jobs, made.size, None, made.id, len(failed) < PAGE)

    # -- look ----------------------------------------------------------------------------------

    async def _batch(self, caller: Caller, batch_id: str, action: Action = Action.SEE_JOBS) -> Batch:
        """The same answer for a batch of somebody else as for one that does not exist."""
        batch = await self._database.read(lambda store: store.batch(batch_id))
        if batch is None or not caller.may(action, batch.owner_id):
            raise NotFound(f"no batch {batch_id[:80]!r}", "hecaton batch list shows yours.")
        return batch

    async def show(self, caller: Caller, batch_id: str) -> api.BatchView:
        return await self._view((await self._batch(caller, batch_id)).index)

    async def _view(self, index: int) -> api.BatchView:
        now = self._clock.now()

        def read(store: Store) -> BatchParts:
            batch = store.batch(str(index))
            assert batch is not None, "batches are never deleted"
            pace = None if batch.complete else store.batch_pace(index, now)
            return BatchParts(batch, store.batch_running(index), pace, store.batch_failures(index))

        return batch_view(await self._database.read(read))

    async def events(self, caller: Caller, batch_id: str) -> AsyncIterator[api.BatchView]:
        """The batch whenever something has changed, and every ten seconds, until nothing more will happen by itself."""
        batch = await self._batch(caller, batch_id)
        return self._pictures(batch.index)

    async def _pictures(self, index: int) -> AsyncIterator[api.BatchView]:
        breath = FIRST_BREATH
        with self._hub.watching(index) as watch:
            while True:
                view = await self._view(index)
                yield view
                if view.complete or (view.paused and not view.running) or self._hub.closing:
                    return
                if await watch.wait(KEEP_ALIVE):
                    await asyncio.sleep(breath)
                    breath = min(BREATH, breath * 2)

    async def results(
        self, caller: Caller, batch_id: str, after: int, in_input_order: bool, seconds: float
    ) -> AsyncIterator[bytes]:
        """Lines of `BatchResult`: what is there, and for `seconds` what comes. Ends when nothing more will come."""
        batch = await self._batch(caller, batch_id)
        return self._lines(batch.index, after, in_input_order, seconds)

    async def _lines(self, index: int, after: int, in_input_order: bool, seconds: float) -> AsyncIterator[bytes]:
        deadline = self._clock.now() + seconds
        looked = 0.0
        with self._hub.watching(index) as watch:
            while True:
                looked = self._clock.now()
                items, batch, running = await self._page(index, after, in_input_order)
                if items:
                    last = items[-1]
                    after = last.item + 1 if in_input_order else last.ended_as
                    yield b"".join(map(result_line, items))
                if _no_more(batch, running, after, bool(items)):
                    return
                left = deadline - self._clock.now()
                if not items and (left <= 0 or self._hub.closing):
                    return
                if not items and not await watch.wait(min(left, KEEP_ALIVE)):
                    yield b"\n"
                await asyncio.sleep(max(0.0, looked + GATHER - self._clock.now()))

    async def _page(self, index: int, after: int, in_input_order: bool) -> tuple[list[EndedItem], Batch, int]:
        def read(store: Store) -> tuple[list[EndedItem], Batch, int]:
            items = store.ended_items(index, after, PAGE, max_bytes=PAGE_BYTES, in_input_order=in_input_order)
            batch = store.batch(str(index))
            assert batch is not None, "batches are never deleted"
            return items, batch, store.batch_running(index) if batch.paused is not None else 0

        return await self._database.read(read)

    async def list(self, caller: Caller, before: int | None, limit: int) -> list[api.BatchView]:
        owner = None if caller.may(Action.SEE_JOBS) else caller.user_id

        def read(store: Store) -> list[BatchParts]:
            found = store.batches(owner_id=owner, before=before, limit=limit)
            return [BatchParts(batch, store.batch_running(batch.index), None, []) for batch in found]

        return [batch_view(parts) for parts in await self._database.read(read)]

    # -- steer ---------------------------------------------------------------------------------

    async def resume(self, caller: Caller, batch_id: str) -> api.BatchView:
        batch = await self._batch(caller, batch_id, Action.STEER_BATCHES)
        if batch.paused is None:
            raise Conflict(f"batch {batch.index} is not paused", f"hecaton batch show {batch.index}")
        self._quotas.resume(batch.index, batch.lane)
        try:
            await self._database.write(lambda store: store.set_paused(batch.index, None))
        except BaseException:
            self._quotas.resumed(batch.index)
            raise
        self._hub.wake(batch.index, decided=True)
        return await self._view(batch.index)

    async def cancel(self, caller: Caller, batch_id: str) -> api.BatchView:
        batch = await self._batch(caller, batch_id, Action.CANCEL_JOBS)
        await self._database.write(lambda store: store.cancel_batch(batch.index))
        self._hub.wake(batch.index, decided=True)
        return await self._view(batch.index)


def batch_view(parts: BatchParts) -> api.BatchView:
    batch = parts.batch
    left = batch.size - batch.ended
    return api.BatchView(
        id=batch.id,
        index=batch.index,
        name=batch.name,
        image=batch.image,
        owner=batch.owner,
        created_at=batch.created_at,
        size=batch.size,
        closed=batch.closed,
        waiting=max(0, left - parts.running),
        running=parts.running,
        finished=batch.finished,
        failed=batch.failed,
        cancelled=batch.cancelled,
        complete=batch.complete,
        paused=batch.paused,
        cancel_requested=batch.cancel_requested,
        retry_of=batch.retry_of,
        rate=parts.pace,
        seconds_left=left / parts.pace if parts.pace and batch.paused is None else None,
        mode=batch.spec.mode,
        file=batch.spec.file,
        file_name=batch.spec.file_name,
        failures=tuple(parts.failures),
    )


def _no_more(batch: Batch, running: int, after: int, some: bool) -> bool:
    """Will a reader who has got everything up to `after` get nothing more, as things stand?"""
    if batch.complete:
        return after >= batch.size or not some
    return batch.paused is not None and not running and not some


_encode = msgspec.json.Encoder().encode


def result_line(item: EndedItem) -> bytes:
    # hot: benchmarks/throughput.py
    line = _encode(_result(item))
    return (line.replace(b"\n", b" ") if b"\n" in line else line) + b"\n"


def _result(item: EndedItem) -> api.BatchResult:
    body = item.result
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    encoded = None
    if body is not None and body.blob is None and item.state is JobState.FINISHED:  # what was refused is fetched alone
        if body.kind is Kind.BYTES:
            encoded = base64.b64encode(body.data).decode()
        else:
            value = msgspec.Raw(body.data if body.kind is Kind.JSON else _text(body))
    return api.BatchResult(
        item.item,
        item.job,
        item.state,
        item.ended_as,
        item.reason,
        item.failure,
        body.kind if body else None,
        body.size if body else 0,
        value,
        encoded,
    )


def _text(body: Body) -> bytes:
    return msgspec.json.encode(body.data.decode("utf-8", "replace"))
