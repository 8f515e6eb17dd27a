"""What the name of an image means on the workers' machines and to their logins: asked when somebody wants to know.

The server itself has no login at any registry, and what was built on a machine is known there alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import msgspec

from hecaton.core.model import WorkerId, WorkerStatus
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Member
from hecaton.wire.api import ImageVersion
from hecaton.wire.channel import Resolve, Resolved

ANSWER_WITHIN = 3.0
REGISTRY_ANSWER_WITHIN = 10.0
"""Seconds. Who has not said anything by then is shown without an answer."""

MAX_TEXT = 500

_REACHED = (WorkerStatus.ONLINE, WorkerStatus.DRAINING, WorkerStatus.QUARANTINED)


class _Question(msgspec.Struct):
    """`stop`: what ends it before all have answered."""

    open: set[WorkerId]
    stop: Callable[[ImageVersion], bool]
    over: asyncio.Event
    answers: dict[WorkerId, ImageVersion]


class Versions:
    """On the server's event loop."""

    def __init__(self, fleet: Fleet, now: Callable[[], float]) -> None:
        self._fleet, self._now = fleet, now
        self._questions: dict[int, _Question] = {}
        self._numbers = count(1)

    async def on_machines(self, name: str) -> list[ImageVersion]:
        """Of each worker that is there and could run the image, by name of the worker."""
        return await self._ask(name, False, ANSWER_WITHIN, lambda answer: False)

    async def at_registry(self, name: str) -> list[ImageVersion]:
        """The same, and what its registry says to the workers' logins. One answer of a registry is enough: what others
        would say then may be missing."""
        return await self._ask(name, True, REGISTRY_ANSWER_WITHIN, lambda answer: answer.digest is not None)

    async def _ask(
        self, name: str, at_registry: bool, seconds: float, stop: Callable[[ImageVersion], bool]
    ) -> list[ImageVersion]:
        asked = [member for member in self._fleet.members.values() if _can_say(member, name)]
        if not asked:
            return []
        number = next(self._numbers)
        question = _Question({member.id for member in asked}, stop, asyncio.Event(), {})
        self._questions[number] = question
        for member in asked:
            if member.link is not None:
                member.link.send(Resolve(number, name, at_registry))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await question.over.wait()
        finally:
            del self._questions[number]
        silent = ImageVersion("", None, None, None, "it did not answer")
        answers = [question.answers.get(one.id) or msgspec.structs.replace(silent, worker=one.name) for one in asked]
        return sorted(answers, key=lambda answer: answer.worker)

    def answered(self, worker: WorkerId, said: Resolved) -> None:
        question = self._questions.get(said.number)
        member = self._fleet.members.get(worker)
        if question is None or member is None or worker not in question.open:
            return
        made = None if said.age is None or not math.isfinite(said.age) else self._now() - said.age
        why = None if said.why is None else said.why[:MAX_TEXT]
        answer = ImageVersion(member.name, _cut(said.here), made, _cut(said.digest), why)
        question.answers[worker] = answer
        question.open.discard(worker)
        if not question.open or question.stop(answer):
            question.over.set()


def _can_say(member: Member, name: str) -> bool:
    serves = member.ability.serves
    here = member.link is not None and member.status in _REACHED
    return here and (serves is None or name in serves)


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:128]
