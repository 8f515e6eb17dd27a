"""Results that several workers send at the same moment are stored together, and yet each counts for itself."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from hecaton.core.model import AttemptRef, Reason
from hecaton.server.fleet import attempts, channel
from hecaton.wire.channel import Accepted, Assignment, Draining, Outcome
from tests.server.people import eventually
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import ScriptedWorker, json_body, slots

WORKERS = 5


async def _all_work(server: Running) -> list[tuple[ScriptedWorker, Assignment]]:
    await server.image()
    workers = [await server.worker(f"w{number}") for number in range(WORKERS)]
    for _ in workers:
        await server.admin.submit(IMAGE)
    return [(worker, await worker.start()) for worker in workers]


async def test_each_worker_is_told_about_its_own(server: Running) -> None:
    at_work = await _all_work(server)
    await asyncio.gather(*(worker.finish(job.ref, number) for number, (worker, job) in enumerate(at_work)))
    for number, (worker, job) in enumerate(at_work):
        assert await worker.answer(job.ref) == "accepted"
        assert (await server.admin.ended(job.ref.job))["result"] == number
    for worker, job in at_work:
        assert [m for m in worker.heard if isinstance(m, Accepted)] == [Accepted((job.ref,), ())]


async def test_what_one_says_of_anothers_attempt_at_the_same_moment_is_refused(server: Running) -> None:
    await server.image()
    holder, liar = await server.worker("holder"), await server.worker("liar", serves=())
    body = {"image": IMAGE, "input": 1}
    waiting = asyncio.create_task(server.admin.must("POST", "/v1/jobs?wait=60", body))
    job = await holder.start()
    await eventually(lambda: server.admin.state(job.ref.job), "IN_PROGRESS")
    lie = Outcome(job.ref, Reason.OK, json_body("a lie"), ran=0.1)
    await asyncio.gather(holder.finish(job.ref, "true"), liar.report(lie))
    assert (await holder.answer(job.ref), await liar.answer(job.ref)) == ("accepted", "fenced")
    assert (await waiting)["result"] == "true"
    assert (await server.admin.job(job.ref.job))["result"] == "true"


def _refuse(server: Running, job: Assignment) -> None:
    """Its result can be stored no more."""
    _run(
        server,
        f"CREATE TRIGGER broken BEFORE UPDATE ON job WHEN new.id = '{job.ref.job}' AND new.state = 'FINISHED'"
        " BEGIN SELECT raise(ABORT, 'broken'); END",
    )


def _run(server: Running, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(server.server.settings.folder / "hecaton.db")) as database, database:
        database.execute(sql)


async def test_a_result_that_cannot_be_stored_keeps_none_of_its_worker_back(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside it in one message, before and after; and it is taken without a word as soon as it can be."""
    monkeypatch.setattr(attempts, "TRY_AGAIN", (0.05,) * 1000)
    await server.image()
    worker = await server.worker(slots=slots(3))
    for _ in range(4):
        await server.admin.submit(IMAGE)
    refused, *others = [await worker.start() for _ in range(3)]
    _refuse(server, refused)
    await worker.report(
        *(Outcome(job.ref, Reason.OK, json_body(1), ran=0.1) for job in (others[0], refused, others[1]))
    )
    for job in (*others, await worker.start()):
        if job not in others:
            await worker.finish(job.ref)
        assert await worker.answer(job.ref) == "accepted"
    view = await server.admin.job(refused.ref.job)
    assert view["note"] == "the server could not store its result: it tries again"
    assert worker.close_code is None
    _run(server, "DROP TRIGGER broken")
    assert await worker.answer(refused.ref) == "accepted"
    assert (await server.admin.ended(refused.ref.job))["result"] == 1
    assert not server.server.parts.attempts._unstored


async def test_a_result_that_is_stored_later_ended_when_it_came(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "TRY_AGAIN", (0.05,) * 1000)
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)
    begun = await worker.start()
    _refuse(server, begun)
    await worker.report(Outcome(begun.ref, Reason.OK, json_body(1), ran=0.1))
    trying = "the server could not store its result: it tries again"
    await eventually(lambda: _note(server, job), trying)
    server.later(10.0)
    _run(server, "DROP TRIGGER broken")
    view = await server.admin.ended(job)
    assert view["ended_at"] - view["created_at"] < 10.0


async def _note(server: Running, job: str) -> str:
    return str((await server.admin.job(job))["note"])


async def test_of_one_worker_so_many_results_are_tried_again_and_no_more(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAX_UNSTORED", 0)
    await server.image()
    worker = await server.worker()
    await server.admin.submit(IMAGE)
    job = await worker.start()
    _refuse(server, job)
    await worker.finish(job.ref)
    assert await worker.closed() == 1013


async def test_a_result_that_cannot_be_stored_takes_no_other_with_it(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "TRY_AGAIN", (0.01, 0.01))
    at_work = await _all_work(server)
    broken, its_job = at_work.pop(2)
    _refuse(server, its_job)
    await asyncio.gather(broken.finish(its_job.ref), *(worker.finish(job.ref) for worker, job in at_work))
    for worker, job in at_work:
        assert await worker.answer(job.ref) == "accepted"
        assert (await server.admin.ended(job.ref.job))["state"] == "FINISHED"
    assert await broken.closed() == 1013
    assert not [m for m in broken.heard if isinstance(m, Accepted)]


async def _resting(server: Running, monkeypatch: pytest.MonkeyPatch) -> tuple[ScriptedWorker, AttemptRef]:
    """A worker that has nothing more to do, and what it has done. Nothing leaves for the reason that it has waited."""
    monkeypatch.setattr(channel, "ALONG", 3600.0)
    await server.image()
    worker = await server.worker("resting")
    worker.silent = True  # the answer to a beat would take it along
    await server.admin.submit(IMAGE)
    job = await worker.start()
    await worker.finish(job.ref)
    await server.admin.ended(job.ref.job)
    assert not any(isinstance(message, Accepted) for message in worker.heard)
    return worker, job.ref


async def test_an_acknowledgement_that_nobody_waits_for_comes_with_the_next_job(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, ref = await _resting(server, monkeypatch)
    await server.admin.submit(IMAGE)
    await worker.start()
    assert await worker.answer(ref) == "accepted"


async def test_a_worker_that_leaves_gets_its_acknowledgements_at_once(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, ref = await _resting(server, monkeypatch)
    await worker.send(Draining())
    assert await worker.answer(ref) == "accepted"
