"""HTTP for batches: parse, one use case, answer. A table of routes beside that of `api`."""

from __future__ import annotations

from typing import Any

import msgspec

from hecaton.core.errors import TooLarge
from hecaton.server.accounts.permissions import Action
from hecaton.server.jobs.batches import Batches
from hecaton.server.jobs.requests import request_digest
from hecaton.server.web.api import key_of
from hecaton.server.web.http import BODY_LIMIT as ORDINARY_LIMIT
from hecaton.server.web.http import Call, Route, Stream, decode
from hecaton.server.web.queries import AFTER, BEFORE, LIMIT, ORDER, STREAM
from hecaton.server.web.transfer import LINES
from hecaton.wire import api
from hecaton.wire.api import RetryBatch

BODY_LIMIT = 16 * 1024 * 1024
"""Of a request with items. Clients send about 1 MiB at a time, so that nobody waits long behind the parser."""


MAX_OBJECTS = 500_000
"""In the items of a body over 2 MiB, those within payloads too. Three bytes make one, and sixty of memory."""


class _Outline(msgspec.Struct, frozen=True):
    """Of a body of which nothing else is read yet."""

    items: msgspec.Raw = msgspec.Raw(b"[]")


class BatchApi:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    async def create_batch(self, call: Call) -> api.BatchSubmitted:
        body = await call.body(BODY_LIMIT)
        request: api.NewBatch = _read(body, api.NewBatch)
        return _answer(call, await self._batches.create(call.caller, request, key_of(call), request_digest(body)))

    async def append_items(self, call: Call) -> api.BatchSubmitted:
        request: api.NewItems = _read(await call.body(BODY_LIMIT), api.NewItems)
        return await self._batches.append(call.caller, call.params["batch"], request)

    async def list_batches(self, call: Call) -> list[api.BatchView]:
        return await self._batches.list(call.caller, call.query["before"], call.query["limit"])

    async def show_batch(self, call: Call) -> api.BatchView:
        return await self._batches.show(call.caller, call.params["batch"])

    async def batch_events(self, call: Call) -> Stream:
        views = await self._batches.events(call.caller, call.params["batch"])
        lines = (msgspec.json.encode(view) + b"\n" async for view in views)
        return Stream(lines, LINES, endless=True)

    async def batch_results(self, call: Call) -> Stream:
        query, batch = call.query, call.params["batch"]
        in_order = query["order"] == "input"
        lines = await self._batches.results(call.caller, batch, query["after"], in_order, query["wait"])
        return Stream(lines, LINES, endless=True)

    async def resume_batch(self, call: Call) -> api.BatchView:
        return await self._batches.resume(call.caller, call.params["batch"])

    async def cancel_batch(self, call: Call) -> api.BatchView:
        return await self._batches.cancel(call.caller, call.params["batch"])

    async def retry_batch(self, call: Call) -> api.BatchSubmitted:
        body = await call.body()
        changes: RetryBatch = decode(body, RetryBatch) if body else RetryBatch()
        made = await self._batches.retry_failed(call.caller, call.params["batch"], key_of(call), changes)
        return _answer(call, made)

    def routes(self) -> list[Route]:
        batches, batch, items = "/v1/batches", "/v1/batches/{batch}", "/v1/batches/{batch}/items"
        submit, see, steer = Action.SUBMIT, Action.SEE_JOBS, Action.STEER_BATCHES
        cancel, retry = Action.CANCEL_JOBS, Action.RETRY_JOBS
        made, view, line = api.BatchSubmitted, api.BatchView, api.BatchResult
        return [
            Route("POST", batches, submit, self.create_batch, "Submit many jobs as one", api.NewBatch, made, 201,
                  keyed=True),
            Route("POST", items, steer, self.append_items, "More items of an open batch", api.NewItems, made),
            Route("GET", batches, see, self.list_batches, "Batches, newest first", None, list[api.BatchView],
                  query=(LIMIT, BEFORE)),
            Route("GET", batch, see, self.show_batch, "Counts, pace, causes of failure", None, view),
            Route("GET", batch + "/events", see, self.batch_events, "How it goes on, live", None, view, media=(LINES,)),
            Route("GET", batch + "/results", see, self.batch_results, "Results, as they come", None, line,
                  query=(ORDER, AFTER, STREAM), media=(LINES,)),
            Route("POST", batch + "/resume", steer, self.resume_batch, "Go on after a pause", None, view),
            Route("POST", batch + "/cancel", cancel, self.cancel_batch, "Stop all its jobs", None, view),
            Route("POST", batch + "/retry", retry, self.retry_batch, "Its failed jobs as a new batch", RetryBatch,
                  made, 201, keyed=True),
        ]  # fmt: skip


def _answer(call: Call, submitted: api.BatchSubmitted) -> api.BatchSubmitted:
    if submitted.duplicate:
        call.status = 200
    return submitted


def _read(body: bytes, kind: type[Any]) -> Any:
    """As `decode`. A long body is looked over first: how many parts a list in it has shows when all are in memory."""
    if len(body) > ORDINARY_LIMIT:
        items = decode(body, _Outline).items
        length = len(bytes(items))
        if len(body) - length > ORDINARY_LIMIT or bytes(items).count(b"{") > MAX_OBJECTS:
            raise TooLarge(
                f"the request holds more than {MAX_OBJECTS} objects, or {ORDINARY_LIMIT} bytes beside its items",
                "Send the others with POST /v1/batches/{id}/items.",
            )
    return decode(body, kind)
