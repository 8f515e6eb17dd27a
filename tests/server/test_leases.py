"""Who holds a job: lost workers, workers that come back, fences, and a worker's ways to leave."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from hecaton.core.model import JobId, Reason, WorkerStatus
from hecaton.wire.channel import (
    CLOSE_PROTOCOL,
    CLOSE_REPLACED,
    CLOSE_SUPERSEDED,
    CLOSE_UNAUTHENTICATED,
    OLDEST,
    PROTOCOL,
    Accepted,
    AttemptRef,
    Cancel,
    Draining,
    Held,
    Hello,
    Outcome,
    Released,
    Retire,
    Started,
    Warm,
    Welcome,
    WorkerBeat,
)
from tests.server.people import eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker, holding, json_body, slots


async def _status_becomes(server: Running, name: str, status: WorkerStatus) -> None:
    async def question() -> str:
        return next(str(view["status"]) for view in await server.admin.get("/v1/workers") if view["name"] == name)

    await eventually(question, status.value)


async def _state_becomes(server: Running, job_id: str, state: str) -> None:
    await eventually(lambda: server.admin.state(job_id), state)


# -- lost and found --------------------------------------------------------------------------------


async def test_the_jobs_of_a_lost_worker_run_elsewhere_and_its_late_result_is_refused(hasty: Running) -> None:
    await hasty.image()
    lost = await hasty.worker("lost")
    job_id = await hasty.admin.submit(IMAGE)
    old = await lost.start()
    await lost.cut()
    other = await hasty.worker("other")
    new = await other.start()
    assert (new.ref.job, new.ref.attempt, new.key) == (job_id, 2, old.key)
    welcome = await lost.connect(held=(holding(old),))
    assert (welcome.keep, welcome.drop) == ((), (old.ref,))
    await lost.finish(old.ref, "too late")
    assert await lost.answer(old.ref) == "fenced"
    await other.finish(new.ref, "in time")
    view = await hasty.admin.ended(job_id)
    assert (view["result"], view["worker"], view["attempt"]) == ("in time", "other", 2)
    assert [(one["reason"], one["charged"]) for one in view["attempts"]] == [
        ("worker_lost", "infra"),
        ("ok", "none"),
    ]


async def test_a_worker_that_is_silent_on_an_open_connection_is_lost_too(hasty: Running) -> None:
    await hasty.image()
    mute = await hasty.worker("mute")
    job_id = await hasty.admin.submit(IMAGE)
    await mute.start()
    mute.silent = True
    other = await hasty.worker("other")
    assert (await other.take()).ref == AttemptRef(JobId(job_id), 2)
    await mute.closed()


async def test_a_worker_that_was_suspect_is_given_at_its_next_word_what_came_meanwhile(tmp_path: Path) -> None:
    async with running(tmp_path / "server", heartbeat=0.05, suspect_after=0.3, lost_after=60.0) as server:
        await server.image()
        worker = await server.worker()
        worker.silent = True
        await _status_becomes(server, "w1", WorkerStatus.SUSPECT)
        job_id = await server.admin.submit(IMAGE)
        worker.silent = False
        assert (await worker.take()).ref.job == job_id


async def test_a_server_that_stood_still_loses_no_worker_for_it(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker()
    job_id = await hasty.admin.submit(IMAGE)
    job = await worker.start()
    worker.silent = True  # nothing of it is on its way to the server when that stops
    await _state_becomes(hasty, job_id, "IN_PROGRESS")
    time.sleep(3 * hasty.server.settings.lost_after)  # noqa: ASYNC251 - all of this process stands still
    await asyncio.sleep(0.2)  # the server notices first how late it is
    worker.silent = False
    await worker.finish(job.ref, "done")
    view = await hasty.admin.ended(job_id)
    assert (view["attempt"], view["result"]) == (1, "done")


async def test_a_worker_that_is_back_in_time_keeps_its_attempt(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await worker.cut()
    await _status_becomes(server, "w1", WorkerStatus.OFFLINE)
    welcome = await worker.connect(held=(holding(job),))
    assert (welcome.keep, welcome.drop) == ((job.ref,), ())
    await worker.finish(job.ref, "done")
    view = await server.admin.ended(job_id)
    assert (view["attempt"], view["result"]) == (1, "done")


async def test_a_result_that_was_not_acknowledged_may_come_again(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await worker.finish(job.ref, "done")
    await worker.answer(job.ref)
    worker.heard.clear()
    await worker.finish(job.ref, "done")
    assert await worker.answer(job.ref) == "accepted"
    assert [one["reason"] for one in (await server.admin.job(job_id))["attempts"]] == ["ok"]


async def test_nobody_can_end_the_job_of_another_worker(server: Running) -> None:
    await server.image()
    holder = await server.worker("holder")
    thief = await server.worker("thief", slots=())
    job_id = await server.admin.submit(IMAGE)
    job = await holder.start()
    await thief.finish(job.ref, "stolen")
    assert await thief.answer(job.ref) == "fenced"
    assert (await server.admin.job(job_id))["state"] in ("ASSIGNED", "IN_PROGRESS")


async def test_an_attempt_number_of_the_future_is_refused(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    await server.admin.submit(IMAGE)
    job = await worker.start()
    future = AttemptRef(job.ref.job, 2)
    await worker.finish(future)
    assert await worker.answer(future) == "fenced"


async def test_what_a_returning_worker_never_received_is_handed_out_again_uncharged(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    await worker.take()
    await worker.cut()
    await worker.connect()  # holds nothing
    assert (await worker.take()).ref == AttemptRef(JobId(job_id), 2)
    view = await server.admin.job(job_id)
    assert (view["attempts"][0]["reason"], view["attempts"][0]["charged"]) == ("released", "none")


async def test_what_a_returning_worker_started_and_lost_is_charged_to_the_machines(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    await worker.start()
    await _state_becomes(server, job_id, "IN_PROGRESS")
    await worker.cut()
    await worker.connect()
    assert (await worker.take()).ref == AttemptRef(JobId(job_id), 2)
    assert (await server.admin.job(job_id))["attempts"][0]["reason"] == "worker_lost"


async def test_a_job_that_takes_three_workers_down_is_stopped_and_its_neighbours_are_not(hasty: Running) -> None:
    await hasty.image()
    first = await hasty.worker("w0")
    await hasty.admin.submit(IMAGE, "warm up")
    await first.finish((await first.start()).ref, ran=0.001)
    poison = await hasty.admin.submit(IMAGE, "poison", priority=1)
    innocent = await hasty.admin.submit(IMAGE, "innocent")
    worker = first
    for number in range(3):
        assert (await worker.start()).ref == AttemptRef(JobId(poison), number + 1)
        await worker.cut()
        if number < 2:
            worker = await hasty.worker(f"w{number + 1}")
    view = await hasty.admin.ended(poison)
    assert (view["state"], view["reason"]) == ("FAILED", "poison")
    assert [one["worker"] for one in view["attempts"]] == ["w0", "w1", "w2"]
    last = await hasty.worker("last")
    assert (await last.take()).ref.job == innocent
    charges = [one.get("charged") for one in (await hasty.admin.job(innocent))["attempts"]]
    assert set(charges[:-1]) <= {"none"}


async def test_a_worker_that_says_it_holds_unknown_jobs_is_told_to_drop_them(server: Running) -> None:
    unknown = AttemptRef(JobId("0192f0c1-0000-7000-8000-000000000000"), 1)
    worker = await server.enrol("w1")
    welcome = await worker.connect(held=(Held(unknown, 0, "running", 5.0),))
    assert (welcome.keep, welcome.drop) == ((), (unknown,))


async def test_the_newer_connection_of_a_worker_takes_over(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    clone = ScriptedWorker(server.session, server.url, worker._token)
    server.workers.append(clone)
    welcome = await clone.connect(held=(holding(job),))
    assert welcome.keep == (job.ref,)
    assert await worker.closed() == CLOSE_SUPERSEDED
    await clone.finish(job.ref, "from the newer one")
    assert (await server.admin.ended(job_id))["result"] == "from the newer one"


async def test_of_two_connections_of_one_process_the_newer_stays_in_whatever_order_they_arrive(server: Running) -> None:
    worker = await server.worker("w1", boot_id="monday", started=5.0, connection=2)
    late = ScriptedWorker(server.session, server.url, worker._token)
    server.workers.append(late)
    await late.open()
    await late.send(_hello(boot_id="monday", started=5.0, connection=1))
    assert await late.closed() == CLOSE_REPLACED
    newest = ScriptedWorker(server.session, server.url, worker._token)
    server.workers.append(newest)
    await newest.connect(boot_id="monday", started=5.0, connection=3)
    assert await worker.closed() == CLOSE_REPLACED  # nobody exits for that


async def test_the_hello_of_a_killed_process_that_arrives_late_does_not_end_its_successor(server: Running) -> None:
    successor = await server.worker("w1", boot_id="monday", started=9.0, connection=1)
    late = ScriptedWorker(server.session, server.url, successor._token)
    server.workers.append(late)
    await late.open()
    await late.send(_hello(boot_id="monday", started=5.0, connection=7))
    assert await late.closed() == CLOSE_SUPERSEDED
    assert successor.close_code is None


def _hello(**fields: Any) -> Hello:
    return Hello(protocol=PROTOCOL, version="2.0.0", runtime="docker", slots=(), held=(), **fields)


# -- leaving ---------------------------------------------------------------------------------------


async def test_a_removed_worker_is_sent_home_and_locked_out(server: Running) -> None:
    await server.image()
    removed = await server.worker("removed")
    job_id = await server.admin.submit(IMAGE)
    job = await removed.start()
    await server.admin.must("DELETE", "/v1/workers/removed")
    assert "removed from the server by an admin" in (await removed.hear(Retire)).message
    assert await removed.closed() == CLOSE_UNAUTHENTICATED
    path = f"/v1/worker/jobs/{job_id}/blobs/{'0' * 64}"
    reply = await server.nobody.call("GET", path, headers=removed.http)
    assert reply.status == 401
    await removed.gone()
    await removed.open()
    assert await removed.closed() == CLOSE_UNAUTHENTICATED
    other = await server.worker("other")
    assert (await other.take()).ref == AttemptRef(job.ref.job, 2)
    assert (await server.admin.job(job_id))["attempts"][0]["charged"] == "none"
    assert [view["name"] for view in await server.admin.get("/v1/workers")] == ["other"]


async def test_the_name_of_a_removed_worker_is_free_again(server: Running) -> None:
    await server.enrol("w1")
    taken = await server.admin.call("POST", "/v1/workers", {"name": "w1"})
    assert (taken.status, "there is a worker 'w1' already" in taken.message) == (409, True)
    await server.admin.must("DELETE", "/v1/workers/w1")
    await server.enrol("w1")


async def test_a_draining_worker_finishes_what_it_has_and_gets_nothing_new(server: Running) -> None:
    await server.image()
    worker = await server.worker(slots=slots(2))
    first = await server.admin.submit(IMAGE, 1)
    job = await worker.start()
    await worker.send(Draining())
    await _status_becomes(server, "w1", WorkerStatus.DRAINING)
    second = await server.admin.submit(IMAGE, 2)
    (line,) = (await server.admin.job(second))["waiting"]
    assert "its disk is full" in line["why"]
    assert "its disk is full" in (await server.admin.get("/v1/workers"))[0]["note"]
    await worker.finish(job.ref, "done")
    assert (await server.admin.ended(first))["result"] == "done"
    assert len(worker.assigned) == 1
    await worker.send(Draining(active=False))  # its disk has room again
    assert (await worker.start()).ref.job == second


async def test_what_a_worker_hands_back_runs_elsewhere_and_costs_nothing(server: Running) -> None:
    await server.image()
    leaving = await server.worker("leaving")
    job_id = await server.admin.submit(IMAGE)
    job = await leaving.take()
    await leaving.send(Draining(), Released((job.ref,)))
    other = await server.worker("other")
    new = await other.take()
    assert new.ref == AttemptRef(JobId(job_id), 2)
    await other.finish(new.ref)
    view = await server.admin.ended(job_id)
    assert [(one["reason"], one["charged"]) for one in view["attempts"]] == [("released", "none"), ("ok", "none")]


async def test_a_suspect_worker_gets_nothing_new_until_it_speaks_again(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    member = server.server.parts.fleet.members[next(iter(server.server.parts.fleet.members))]
    worker.silent = True
    member.suspect = True
    job_id = await server.admin.submit(IMAGE)
    (line,) = (await server.admin.job(job_id))["waiting"]
    assert line["why"] == "has not been heard from for a few heartbeats"
    await worker.send(WorkerBeat())
    await server.admin.submit(IMAGE)
    assert (await worker.take()).ref.job == job_id


# -- cancel ----------------------------------------------------------------------------------------


async def test_a_waiting_job_is_cancelled_at_once(server: Running) -> None:
    await server.image()
    job_id = await server.admin.submit(IMAGE)
    waiting = asyncio.create_task(server.admin.ended(job_id))
    await asyncio.sleep(0)
    view = await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    assert (view["state"], view["reason"]) == ("CANCELLED", "cancelled")
    assert (await waiting)["state"] == "CANCELLED"
    worker = await server.worker()
    other = await server.admin.submit(IMAGE)
    assert (await worker.take()).ref.job == other


@pytest.mark.parametrize("started", [False, True])
async def test_a_job_at_a_worker_is_cancelled_when_the_worker_has_stopped_it(server: Running, started: bool) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, retries=3)
    job = await worker.take()
    if started:
        await worker.send(Started((job.ref,)))
        await _state_becomes(server, job_id, "IN_PROGRESS")
    view = await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    assert (view["state"], view["cancel_requested"]) == ("IN_PROGRESS" if started else "ASSIGNED", True)
    assert (await worker.hear(Cancel)).refs == (job.ref,)
    await worker.fail(job.ref, Reason.CANCELLED)
    assert (await server.admin.ended(job_id))["state"] == "CANCELLED"


async def test_a_job_in_its_back_off_is_cancelled_at_once(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, retries=3)
    await worker.fail((await worker.start()).ref, Reason.HANDLER_ERROR)
    await _state_becomes(server, job_id, "IN_QUEUE")
    view = await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    assert (view["state"], [one["reason"] for one in view["attempts"]]) == ("CANCELLED", ["handler_error"])


async def test_a_job_in_a_paused_batch_is_cancelled_at_once(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    batch = await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": n} for n in range(30)]})
    for _ in range(20):  # all alike: it pauses
        await worker.fail((await worker.start()).ref, Reason.STARTUP_EXIT)

    async def paused() -> str:
        return str((await server.admin.get(f"/v1/batches/{batch['id']}"))["paused"] is not None)

    await eventually(paused, "True")
    (last, *_) = (await server.admin.get("/v1/jobs?state=IN_QUEUE"))["jobs"]
    view = await server.admin.must("POST", f"/v1/jobs/{last['id']}/cancel")
    assert view["state"] == "CANCELLED"


async def test_a_job_that_was_sent_ahead_is_cancelled_when_the_worker_has_dropped_it(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    for _ in range(3):  # short jobs: the next ones are sent ahead
        await server.admin.submit(IMAGE)
        job = await worker.start()
        await worker.finish(job.ref, ran=0.001)
        await server.admin.ended(job.ref.job)
    ids = [await server.admin.submit(IMAGE) for _ in range(2)]
    running_job, ahead = [await worker.take() for _ in ids]
    view = await server.admin.must("POST", f"/v1/jobs/{ids[1]}/cancel")
    assert (view["state"], view["cancel_requested"]) == ("ASSIGNED", True)
    assert (await worker.hear(Cancel)).refs == (ahead.ref,)
    await worker.send(Released((ahead.ref,)))
    assert (await server.admin.ended(ids[1]))["state"] == "CANCELLED"
    await worker.finish(running_job.ref, "the one before it is not touched")
    assert (await server.admin.ended(ids[0]))["state"] == "FINISHED"


async def test_a_result_that_was_faster_than_the_cancellation_counts(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    await worker.finish(job.ref, "made it")
    view = await server.admin.ended(job_id)
    assert (view["state"], view["result"]) == ("FINISHED", "made it")


async def test_cancelling_an_ended_job_changes_nothing(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref)
    before = await server.admin.ended(job_id)
    assert await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel") == before
    other = await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref)
    await server.admin.ended(other)
    assert not any(isinstance(message, Cancel) for message in worker.heard)


async def test_a_worker_that_was_away_during_the_cancellation_is_told_when_it_returns(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await worker.cut()
    await _status_becomes(server, "w1", WorkerStatus.OFFLINE)
    await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    await worker.connect(held=(holding(job),))
    assert (await worker.hear(Cancel)).refs == (job.ref,)


async def test_a_cancelled_job_of_a_lost_worker_is_cancelled_and_not_run_again(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker()
    job_id = await hasty.admin.submit(IMAGE)
    await worker.start()
    await hasty.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    await worker.cut()
    assert (await hasty.admin.ended(job_id))["state"] == "CANCELLED"


# -- workers that do not keep to the protocol --------------------------------------------------------


async def test_a_worker_that_is_too_old_is_told_what_to_upgrade(server: Running) -> None:
    worker = await server.enrol("w1")
    await worker.open()
    await worker.send(Hello(OLDEST - 1, "1.0", "docker", slots(1), ()))
    assert await worker.closed() == CLOSE_PROTOCOL
    assert "upgrade hecaton on the worker's machine" in worker.close_reason


@pytest.mark.parametrize(("offered", "spoken"), [(OLDEST, OLDEST), (PROTOCOL, PROTOCOL), (PROTOCOL + 1, PROTOCOL)])
async def test_the_lower_of_the_two_protocols_is_spoken(server: Running, offered: int, spoken: int) -> None:
    worker = await server.enrol("w1")
    await worker.open()
    await worker.send(Hello(offered, "2.0.0", "docker", slots(1), ()))
    assert (await worker.hear(Welcome)).protocol == spoken


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"garbage",
        b"\x90",  # an empty list
        b"\x91\x91\xa4beat",  # no hello
        b"\x91\xa2\xff\xfe",  # a string that is not UTF-8
        b"\x91" * 5000,  # nested without end
        "text",
    ],
)
async def test_a_connection_that_begins_with_nonsense_is_closed(server: Running, frame: bytes | str) -> None:
    worker = await server.enrol("w1")
    await worker.open()
    if isinstance(frame, str):
        await worker.socket.send_str(frame)
    else:
        await worker.socket.send_bytes(frame)
    assert await worker.closed() == CLOSE_PROTOCOL
    assert (await server.nobody.get("/healthz"))["status"] == "ok"


async def test_nonsense_later_on_costs_the_connection_but_not_the_jobs(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await worker.socket.send_bytes(b"\x91\xc1")
    assert await worker.closed() == CLOSE_PROTOCOL
    await worker.gone()
    assert (await worker.connect(held=(holding(job),))).keep == (job.ref,)
    await worker.finish(job.ref)
    assert (await server.admin.ended(job_id))["attempt"] == 1


@pytest.mark.parametrize("token", ["hkw_wrong", "", "eyJ.eyJ.x"])
async def test_a_connection_without_a_workers_token_is_closed(server: Running, token: str) -> None:
    worker = ScriptedWorker(server.session, server.url, token)
    server.workers.append(worker)
    await worker.open()
    assert await worker.closed() == CLOSE_UNAUTHENTICATED


async def test_news_about_slots_that_do_not_exist_make_none(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    await worker.send(*(Warm(index, "x", "y") for index in range(1, 50)))
    await server.admin.submit(IMAGE)
    await worker.take()
    assert len(next(iter(await server.admin.get("/v1/workers")))["slots"]) == 1


async def test_a_result_for_the_same_job_twice_in_one_frame_counts_once(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    outcome = Outcome(job.ref, Reason.OK, json_body(1), ran=0.1)
    await worker.report(outcome, outcome)
    accepted = await worker.hear(Accepted)
    assert (accepted.refs, accepted.fenced) == ((job.ref, job.ref), ())
    assert (await server.admin.ended(job_id))["result"] == 1
