"""Many jobs as one: submit in chunks, follow, fetch results as they come or in order. `BatchHandle` is what
`Client.submit_many` gives; `map_inputs` is behind `Client.map`."""

from __future__ import annotations

import base64
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import msgspec

from hecaton.client import jobs as job_calls
from hecaton.client import submission
from hecaton.client.heads import quoted
from hecaton.client.http import Transport
from hecaton.core.errors import Conflict, HecatonError, JobFailed, TooMany
from hecaton.core.model import JobState, Kind
from hecaton.core.options import values_of
from hecaton.wire.api import API, BatchItem, BatchResult, BatchSubmitted, BatchView, NewBatch, NewItems, NewJob
from hecaton.wire.decoding import decode

CHUNK = 500
CHUNK_BYTES = 1024 * 1024
"""Items travel in requests of so many and about so large: memory stays flat, and the server is not kept from others."""

STREAM = 3600.0
"""Seconds after which a stream of results is opened anew."""

PATIENCE = 0.05
"""Seconds that `map` waits for its inputs to fill a chunk."""

Line = TypeVar("Line", BatchView, BatchResult)

Progress = Callable[[int, int], None]
"""Called with how many have ended and how many were submitted."""


def path_of(batch: str | int, part: str = "") -> str:
    """`batch`: the id, or the short number."""
    return f"{API}/batches/{quoted(str(batch))}{part}"


def head_of(job: NewJob, name: str, *, pause: bool) -> NewBatch:
    """What all items share, taken from a job without payload."""
    return NewBatch(
        image=job.image,
        closed=False,
        name=name,
        pause=pause,
        mode=job.mode,
        file=job.file,
        file_name=job.file_name,
        args=job.args,
        tags=job.tags,
        workdir=job.workdir,
        **values_of(job),
    )


def item_of(transport: Transport, value: Any) -> BatchItem:
    """A JSON value as an item; a large one is uploaded."""
    return submission.with_payload(transport, BatchItem(), value, None, None)


def submit(transport: Transport, head: NewBatch, items: Iterable[BatchItem], key: str | None) -> BatchHandle:
    """Durable when this returns. With the same key and items it goes on where an earlier call was cut off."""
    chunks = _chunks(items)
    first, last = next(chunks)
    request = msgspec.structs.replace(head, items=first, closed=last)
    made = create(transport, request, key)
    offset = len(first)
    for chunk, last in chunks:
        if last or offset + len(chunk) > made.size:  # else it is there from an earlier call
            append(transport, made.id, offset, chunk, closed=last)
        offset += len(chunk)
    return BatchHandle(transport, made.id, made.index)


def create(transport: Transport, request: NewBatch, key: str | None) -> BatchSubmitted:
    return transport.call(
        "POST", f"{API}/batches", BatchSubmitted, request, key=submission.checked_key(key), within=transport.timeout * 4
    )


def append(
    transport: Transport, batch: str, offset: int, items: tuple[BatchItem, ...], *, closed: bool
) -> BatchSubmitted:
    """Waits while the user's quota of waiting jobs is full. Raises Conflict when the batch is paused meanwhile."""
    # The position makes it repeatable, not the key; the key tells the transport so.
    request, key = NewItems(offset, items, closed), f"{batch}/{offset}"
    while True:
        try:
            return transport.call(
                "POST", path_of(batch, "/items"), BatchSubmitted, request, key=key, within=transport.timeout * 4
            )
        except TooMany as error:
            view = transport.call("GET", path_of(batch), BatchView)
            if view.paused is not None:
                raise paused(view) from error
            time.sleep(error.retry_after)


def _chunks(items: Iterable[BatchItem]) -> Iterator[tuple[tuple[BatchItem, ...], bool]]:
    """Each with whether it is the last; at least one."""
    source = iter(items)
    chunk: list[BatchItem] = []
    size = 0
    for item in source:
        if len(chunk) == CHUNK or size > CHUNK_BYTES:
            yield tuple(chunk), False
            chunk, size = [], 0
        chunk.append(item)
        size += _size(item)
    yield tuple(chunk), True


def _size(item: BatchItem) -> int:
    raw = b"" if item.input is msgspec.UNSET else bytes(item.input)
    return len(raw) + len(item.text or "") + len(item.base64 or "")


# -- results ---------------------------------------------------------------------------------------


def results(
    transport: Transport, batch: str, *, ordered: bool, after: int = 0, wait: bool = True
) -> Iterator[BatchResult]:
    """Ended items in input order from position `after` on, or as they end, without the first `after`.

    `wait`: until the batch is complete; goes on over a restart of the server. Raises Conflict when it has paused."""
    query = {"order": "input" if ordered else "ended", "wait": STREAM if wait else None}
    while True:
        started = time.monotonic()
        try:
            for line in transport.lines(path_of(batch, "/results"), {**query, "after": after or None}):
                result = _decoded(transport, line, BatchResult)
                after = result.index + 1 if ordered else result.ended_as
                yield result
            if not wait or _all_there(transport, batch, after):
                return
        except HecatonError as error:
            if not job_calls.goes_on(transport, error):
                raise
        job_calls.keep_pace(started)


def _decoded(transport: Transport, line: bytes, kind: type[Line]) -> Line:
    try:
        return decode(line, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HecatonError(
            f"{transport.address} sent a line that is no {kind.__name__}: {error}", "Is the server of another version?"
        ) from error


def _all_there(transport: Transport, batch: str, count: int) -> bool:
    view = transport.call("GET", path_of(batch), BatchView)
    if view.paused is not None and not view.running:
        raise paused(view)
    return view.complete and count >= view.size


def paused(view: BatchView) -> Conflict:
    return Conflict(f"batch {view.index} is paused: {view.paused}", f"To go on: hecaton batch resume {view.index}")


def value_of(transport: Transport, result: BatchResult) -> Any:
    """What the handler returned. Raises JobFailed for items that FAILED or were CANCELLED."""
    if result.state is not JobState.FINISHED:
        raise failure_of(result)
    if result.result_kind is None:
        return None
    if result.result_base64 is not None:
        return base64.b64decode(result.result_base64)
    if result.result is not msgspec.UNSET:
        return job_calls.decoded(result.id, Kind.JSON, bytes(result.result))
    return job_calls.fetched(transport, result.id, result.result_kind)


def failure_of(result: BatchResult) -> JobFailed:
    return job_calls.job_failed(f"item {result.index} (job {result.id})", result)


# -- map -------------------------------------------------------------------------------------------


def map_inputs(
    transport: Transport,
    head: NewBatch,
    inputs: Iterable[Any],
    *,
    ordered: bool,
    window: int,
    return_exceptions: bool,
    progress: Progress | None,
) -> Iterator[Any]:
    """See `Client.map`."""
    feed = _Feed(transport, head, iter(inputs), window)
    feed.fill(0)
    if feed.batch is None:
        return
    early: dict[int, BatchResult] = {}
    ended = taken = 0
    try:
        for result in results(transport, feed.batch, ordered=False):
            ended += 1
            if progress is not None:
                progress(ended, feed.sent)
            early[taken if not ordered else result.index] = result
            while taken in early:
                one = early.pop(taken)
                taken += 1
                yield _outcome(transport, one, return_exceptions)
            feed.fill(taken)
            if feed.closed and ended == feed.sent:
                return
    finally:
        if not feed.closed or ended < feed.sent:  # nobody wants the others any more
            transport.call("POST", path_of(feed.batch, "/cancel"), BatchView)


def _outcome(transport: Transport, result: BatchResult, return_exceptions: bool) -> Any:
    try:
        return value_of(transport, result)
    except JobFailed as error:
        if not return_exceptions:
            raise
        return error


class _Feed:
    """Sends inputs as items of one batch, so that at most `window` are on the way."""

    def __init__(self, transport: Transport, head: NewBatch, inputs: Iterator[Any], window: int) -> None:
        self._transport, self._head, self._inputs, self._window = transport, head, inputs, window
        self._chunk = max(1, min(CHUNK, window // 4))
        self.batch: str | None = None
        self.sent = 0
        self.closed = False

    def fill(self, taken: int) -> None:
        while not self.closed and self.sent - taken + self._chunk <= self._window:
            chunk, hurried = self._gather()
            self._send(chunk)
            if hurried:
                return

    def _gather(self) -> tuple[tuple[BatchItem, ...], bool]:
        """A chunk, and whether the inputs come so slowly that it was not waited for."""
        until = time.monotonic() + PATIENCE
        chunk: list[BatchItem] = []
        size = 0
        for value in islice(self._inputs, self._chunk):
            chunk.append(item_of(self._transport, value))
            size += _size(chunk[-1])
            if size > CHUNK_BYTES:
                return tuple(chunk), False
            if time.monotonic() > until:
                return tuple(chunk), True
        if len(chunk) < self._chunk:
            self.closed = True
        return tuple(chunk), False

    def _send(self, chunk: tuple[BatchItem, ...]) -> None:
        if self.batch is not None:
            append(self._transport, self.batch, self.sent, chunk, closed=self.closed)
        elif chunk:
            request = msgspec.structs.replace(self._head, items=chunk, closed=self.closed)
            self.batch = create(self._transport, request, None).id
        self.sent += len(chunk)


class BatchHandle:
    """A submitted batch. Methods ask the server each time; they raise what `Client` raises."""

    def __init__(self, transport: Transport, batch_id: str, index: int) -> None:
        self._transport = transport
        self.id = batch_id
        self.index = index

    def __repr__(self) -> str:
        return f"<BatchHandle {self.index} {self.id}>"

    def view(self) -> BatchView:
        """Counts, pace, and failures by cause, as they are now."""
        return self._transport.call("GET", path_of(self.id), BatchView)

    def events(self) -> Iterator[BatchView]:
        """The batch whenever something has changed, until it is complete or paused with nothing running."""
        while True:
            started = time.monotonic()
            try:
                for line in self._transport.lines(path_of(self.id, "/events")):
                    view = _decoded(self._transport, line, BatchView)
                    yield view
                    if view.complete or (view.paused is not None and not view.running):
                        return
            except HecatonError as error:
                if not job_calls.goes_on(self._transport, error):
                    raise
            job_calls.keep_pace(started)

    def wait(self) -> BatchView:
        """The complete batch, however its jobs ended. Raises Conflict when it has paused."""
        [view] = deque(self.events(), maxlen=1)
        if not view.complete:
            raise paused(view)
        return view

    def items(self, *, ordered: bool = True, after: int = 0, wait: bool = True) -> Iterator[BatchResult]:
        """Ended items with state, result and failure: in input order from position `after`, or as they end."""
        return results(self._transport, self.id, ordered=ordered, after=after, wait=wait)

    def results(self, *, ordered: bool = True, return_exceptions: bool = False) -> Iterator[Any]:
        """What the handler returned, one by one, until the batch is complete. Raises JobFailed for an item that
        failed, or gives that as its result."""
        for item in self.items(ordered=ordered):
            yield _outcome(self._transport, item, return_exceptions)

    def result_of(self, item: BatchResult) -> Any:
        """Of one of `items`. Raises JobFailed."""
        return value_of(self._transport, item)

    def cancel(self) -> BatchView:
        return self._transport.call("POST", path_of(self.id, "/cancel"), BatchView)

    def resume(self) -> BatchView:
        """Go on after a pause."""
        return self._transport.call("POST", path_of(self.id, "/resume"), BatchView)

    def retry_failed(self, file: submission.PathLike | None = None) -> BatchHandle:
        """The failed jobs as a new batch. `file`: with this handler file in the place of the one that they had. Raises
        Conflict when there are none."""
        key = submission.new_key()
        changes = None if file is None else submission.other_file(self._transport, self.view().mode, file)
        while True:
            made = self._transport.call("POST", path_of(self.id, "/retry"), BatchSubmitted, changes, key=key)
            if made.closed:
                return BatchHandle(self._transport, made.id, made.index)
