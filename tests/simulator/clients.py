"""The people: each job has one, who submits it until the server has said yes, waits for it, cancels it, retries it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from hecaton.core.errors import HecatonError, NotFound, Unavailable
from hecaton.core.model import JobState, Reason, User
from hecaton.wire import api
from tests.simulator.engine import Input, result_of
from tests.simulator.loop import Process, SimLoop
from tests.simulator.oracle import Oracle
from tests.simulator.plan import JobPlan
from tests.simulator.service import Request, Service, image_name

T = TypeVar("T")

CALL_TIMEOUT = 75.0


class Lost(Exception):
    """No answer came."""


class People:
    """`server`: the one that answers now, if any. `lossy`: the share of requests and of answers that are lost."""

    def __init__(
        self, loop: SimLoop, oracle: Oracle, rng: random.Random, users: list[User], latency: float,
        server: Callable[[], Service | None],
    ) -> None:  # fmt: skip
        self.process = Process("people")
        self.lossy = 0.0
        self.acknowledged: dict[str, str] = {}  # key -> job id
        self.cancelled: set[str] = set()
        self.unfinished = 0
        self.seen: dict[str, api.JobView] = {}
        self._loop, self._oracle, self._rng = loop, oracle, rng
        self._users, self._latency, self._server = users, latency, server

    def plan(self, jobs: tuple[JobPlan, ...]) -> None:
        for job in jobs:
            self.unfinished += 1
            self._loop.post(self.process, job.at, self._begin, job)

    def _begin(self, job: JobPlan) -> None:
        self._loop.spawn(self.process, self._live(job))

    async def _live(self, job: JobPlan) -> None:
        key = f"key-{job.number}"
        self._oracle.plans[key] = job
        request = api.NewJob(
            image=image_name(job.image),
            input=msgspec.Raw(msgspec.json.encode(Input(job.number, job.runs, job.does, job.after))),
            timeout=job.timeout,
            retries=job.retries,
            priority=job.priority,
            queue_ttl=job.queue_ttl,
        )
        digest = hashlib.sha256(msgspec.json.encode(request)).digest()
        user = self._users[job.user]

        def submit(service: Service) -> Any:
            return service.parts.jobs.submit(service.caller(user), request, key, digest)

        if job.twice:
            self._loop.create_task(self._hopeful(submit))
        if job.abandon:
            await self._hopeful(submit)
            self.unfinished -= 1
            return
        submitted: api.Submitted = await self._insist(submit)
        self.acknowledged[key] = submitted.id
        self._oracle.say("people", f"have job {job.number} as j{submitted.index}")
        if job.cancel_after is not None:
            self._loop.create_task(self._cancel(user, submitted.id, job.cancel_after))
        view = await self._wait(user, submitted.id)
        self._check(job, view)
        if job.again and view.state is JobState.FAILED:
            await self._retry(job, user, view.id)
        self.unfinished -= 1

    async def _retry(self, job: JobPlan, user: User, old: str) -> None:
        """Once, as the SDK does: the request has no idempotency key, so that a lost answer is not asked for again."""
        with contextlib.suppress(Lost, Unavailable):
            again: api.Submitted = await self._ask(
                lambda service: service.parts.jobs.retry(service.caller(user), old, None)
            )
            self._check(job, await self._wait(user, again.id))

    async def _wait(self, user: User, job: str) -> api.JobView:
        while True:
            view: api.JobView = await self._insist(
                lambda service: service.parts.jobs.wait(service.caller(user), job, 60.0)
            )
            if view.state.terminal:
                self.seen[job] = view
                return view

    async def _cancel(self, user: User, job: str, delay: float) -> None:
        await asyncio.sleep(delay)
        self.cancelled.add(job)
        await self._insist(lambda service: service.parts.jobs.cancel(service.caller(user), job))

    def _check(self, job: JobPlan, view: api.JobView) -> None:
        if view.state is JobState.FINISHED:
            right = bytes(view.result) == result_of(job.number)
            self._oracle.rule(right, f"job j{view.index} has the result {bytes(view.result)!r}")
        self._oracle.rule(view.reason is not None, f"job j{view.index} ended without a reason")
        self._oracle.rule(
            (view.state is JobState.FINISHED) == (view.reason is Reason.OK), f"j{view.index} {view.state} {view.reason}"
        )

    # -- requests --------------------------------------------------------------------------------------

    async def _insist(self, request: Request) -> Any:
        """Ask until there is an answer, with growing pauses."""
        pause = 0.2
        while True:
            try:
                return await self._ask(request)
            except NotFound as error:
                self._oracle.fail(f"what was acknowledged is not there: {error.message}")
                raise
            except (Lost, Unavailable):
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.0))
                pause = min(pause * 2, 5.0)

    async def _hopeful(self, request: Request) -> None:
        try:
            await self._ask(request)
        except (Lost, HecatonError):
            return

    async def _ask(self, request: Request) -> Any:
        answer: asyncio.Future[Any] = self._loop.create_future()
        service = self._server()
        if service is None or self._rng.random() < self.lossy:
            await asyncio.sleep(self._delay() + 0.01)
            raise Lost
        self._loop.post(service.process, self._delay(), self._arrive, service, request, answer)
        broken = self._loop.call_later(CALL_TIMEOUT, _lose, answer)
        self._watch(service, answer)
        try:
            return await answer
        finally:
            broken.cancel()

    def _watch(self, service: Service, answer: asyncio.Future[Any]) -> None:
        """A server that died breaks its connections: its callers hear of it soon."""
        if answer.done():
            return
        if not service.process.alive:
            _lose(answer)
        else:
            self._loop.post(self.process, 5.0, self._watch, service, answer)

    def _arrive(self, service: Service, request: Request, answer: asyncio.Future[Any]) -> None:
        if service.ready:
            self._loop.create_task(self._serve(service, request, answer))
        else:
            self._loop.post(self.process, self._delay(), _lose, answer)

    async def _serve(self, service: Service, request: Request, answer: asyncio.Future[Any]) -> None:
        """In the server's process."""
        try:
            value, error = await request(service), None
        except HecatonError as raised:
            value, error = None, raised
        if self._rng.random() >= self.lossy:
            self._loop.post(self.process, self._delay(), _settle, answer, value, error)

    def _delay(self) -> float:
        return self._latency * self._rng.uniform(0.5, 2.0)


def _settle(answer: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


def _lose(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_exception(Lost())
