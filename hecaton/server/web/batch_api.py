"""HTTP for batches: parse, one use case, answer. A table of routes beside that of `api`."""

from __future__ import annotations

import msgspec

from hecaton.core.errors import BadRequest
from hecaton.server.accounts.permissions import Action
from hecaton.server.jobs.batches import Batches
from hecaton.server.jobs.requests import request_digest
from hecaton.server.web.api import key_of
from hecaton.server.web.http import Call, Route, Stream, decode
from hecaton.wire import api

BODY_LIMIT = 16 * 1024 * 1024
"""Of a request with items. Clients send about 1 MiB at a time, so that nobody waits long behind the parser."""

ORDERS = {"ended": False, "input": True}
LONGEST_STREAM = 3600.0


class BatchApi:
    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    async def create_batch(self, call: Call) -> api.BatchSubmitted:
        body = await call.body(BODY_LIMIT)
        request: api.NewBatch = decode(body, api.NewBatch)
        return _answer(call, await self._batches.create(call.caller, request, key_of(call), request_digest(body)))

    async def append_items(self, call: Call) -> api.BatchSubmitted:
        request: api.NewItems = decode(await call.body(BODY_LIMIT), api.NewItems)
        return await self._batches.append(call.caller, call.params["batch"], request)

    async def list_batches(self, call: Call) -> list[api.BatchView]:
        limit = int(call.number("limit", 50, 1, 1000) or 50)
        before = call.number("before", None, 0, 2**53)
        return await self._batches.list(call.caller, None if before is None else int(before), limit)

    async def show_batch(self, call: Call) -> api.BatchView:
        return await self._batches.show(call.caller, call.params["batch"])

    async def batch_events(self, call: Call) -> Stream:
        views = await self._batches.events(call.caller, call.params["batch"])
        lines = (msgspec.json.encode(view) + b"\n" async for view in views)
        return Stream(lines, "application/x-ndjson", endless=True)

    async def batch_results(self, call: Call) -> Stream:
        order = call.query().get("order", "ended")
        if order not in ORDERS:
            raise BadRequest(f"order={order[:40]!r}: expected one of {', '.join(ORDERS)}")
        after = int(call.number("after", 0, 0, 2**53) or 0)
        seconds = call.number("wait", 0, 0, LONGEST_STREAM) or 0.0
        lines = await self._batches.results(call.caller, call.params["batch"], after, ORDERS[order], seconds)
        return Stream(lines, "application/x-ndjson", endless=True)

    async def resume_batch(self, call: Call) -> api.BatchView:
        return await self._batches.resume(call.caller, call.params["batch"])

    async def cancel_batch(self, call: Call) -> api.BatchView:
        return await self._batches.cancel(call.caller, call.params["batch"])

    async def retry_batch(self, call: Call) -> api.BatchSubmitted:
        return _answer(call, await self._batches.retry_failed(call.caller, call.params["batch"], key_of(call)))

    def routes(self) -> list[Route]:
        batches, batch, items = "/v1/batches", "/v1/batches/{batch}", "/v1/batches/{batch}/items"
        submit, see, steer = Action.SUBMIT, Action.SEE_JOBS, Action.STEER_BATCHES
        cancel, retry = Action.CANCEL_JOBS, Action.RETRY_JOBS
        made, view, line = api.BatchSubmitted, api.BatchView, api.BatchResult
        return [
            Route("POST", batches, submit, self.create_batch, "Submit many jobs as one", api.NewBatch, made, 201),
            Route("POST", items, steer, self.append_items, "More items of an open batch", api.NewItems, made),
            Route("GET", batches, see, self.list_batches, "Batches, newest first", None, list[api.BatchView]),
            Route("GET", batch, see, self.show_batch, "Counts, pace, causes of failure", None, view),
            Route("GET", batch + "/events", see, self.batch_events, "How it goes on, live (NDJSON)", None, view),
            Route("GET", batch + "/results", see, self.batch_results, "Results, as they come (NDJSON)", None, line),
            Route("POST", batch + "/resume", steer, self.resume_batch, "Go on after a pause", None, view),
            Route("POST", batch + "/cancel", cancel, self.cancel_batch, "Stop all its jobs", None, view),
            Route("POST", batch + "/retry", retry, self.retry_batch, "Its failed jobs as a new batch", None, made, 201),
        ]


def _answer(call: Call, submitted: api.BatchSubmitted) -> api.BatchSubmitted:
    if submitted.duplicate:
        call.status = 200
    return submitted
