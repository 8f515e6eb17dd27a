"""A payload that is larger than the disk of a worker: another one may have room, and nobody is charged."""

from __future__ import annotations

import asyncio

import pytest

from hecaton.core import lifecycle
from hecaton.core.model import Failure, JobState, Reason
from hecaton.server.fleet import attempts
from hecaton.wire.channel import Outcome
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import ScriptedWorker, slots

WHY = "the payload has 300 bytes, the disk of this machine has room for 200"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "RETRY_DELAY", (0.0, 0.0, 0.0))


async def _lacks_room(worker: ScriptedWorker) -> None:
    job = await worker.take()
    await worker.report(Outcome(job.ref, Reason.RELEASED, failure=Failure(WHY, type=Reason.NO_ROOM)))


async def test_it_is_tried_elsewhere_and_runs_where_there_is_room(server: Running) -> None:
    await server.image()
    workers = [await server.worker(f"w{number}") for number in range(2)]
    job = await server.admin.submit(IMAGE)
    taking = [asyncio.ensure_future(worker.take()) for worker in workers]
    done, _ = await asyncio.wait(taking, return_when=asyncio.FIRST_COMPLETED)
    first = 0 if taking[0] in done else 1
    worker, other = workers[first], workers[1 - first]
    await worker.report(Outcome(taking[first].result().ref, Reason.RELEASED, failure=Failure(WHY, type="no_room")))
    await other.finish((await taking[1 - first]).ref, "there")
    view = await server.admin.ended(job)
    assert view["result"] == "there"
    (before, _) = view["attempts"]
    assert (before["reason"], before["charged"], before["failure"]) == ("no_room", "none", {"message": WHY})


async def test_it_fails_with_that_reason_once_every_machine_has_said_so_and_no_machine_is_charged(
    server: Running,
) -> None:
    await server.image()
    workers = [await server.worker(f"w{number}") for number in range(4)]
    job = await server.admin.submit(IMAGE, retries=9)
    saying = [asyncio.ensure_future(_lacks_room(worker)) for worker in workers]
    view = await server.admin.ended(job)
    await asyncio.gather(*saying)
    assert (view["state"], view["reason"]) == (JobState.FAILED, "no_room")
    assert view["failure"]["message"] == f"{WHY}; no machine that could run the job has more"
    assert len(view["attempts"]) == 4
    assert {worker["status"] for worker in await server.admin.get("/v1/workers")} == {"ONLINE"}
    assert not server.server.parts.attempts._lacking


async def test_a_machine_that_has_said_so_is_asked_again_ever_more_seldom_while_another_is_busy(
    server: Running,
) -> None:
    await server.image()
    busy = await server.worker("busy")
    await server.admin.submit(IMAGE)
    first = await busy.start()
    worker = await server.worker("small")
    job = await server.admin.submit(IMAGE)
    for _ in range(2):
        await _lacks_room(worker)
    assert await worker.answer(worker.assigned[-1].ref) == "accepted"
    await busy.finish(first.ref)
    await server.admin.ended(first.ref.job)
    view = await server.admin.job(job)
    assert (view["state"], len(view["attempts"])) == ("IN_QUEUE", 2)


async def test_of_few_jobs_it_is_known_who_has_no_room(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_LACKING", 1)
    await server.image()
    worker, _ = await server.worker("w1", slots=slots(3)), await server.worker("w2", slots=())
    for number in range(3):
        await server.admin.submit(IMAGE, number)
    jobs = [await worker.take() for _ in range(3)]
    failure = Failure(WHY, type=Reason.NO_ROOM)
    await worker.report(*(Outcome(job.ref, Reason.RELEASED, failure=failure) for job in jobs))
    for job in jobs:
        assert await worker.answer(job.ref) == "accepted"
    assert len(server.server.parts.attempts._lacking) == 1
