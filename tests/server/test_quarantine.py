"""Workers that get nothing new: drained, quarantined; and losses that count against nobody."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pytest

from hecaton.core.model import JobState, Reason
from hecaton.core.placement.matching import TURN
from hecaton.server.fleet.quarantine import QUARANTINE
from hecaton.wire.channel import Broken, Drain, Outcome, Released, Revoke, Warm
from tests.server.people import eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker, slots


async def status(server: Running, name: str) -> str:
    views = {view["name"]: view for view in await server.admin.get("/v1/workers")}
    return str(views[name]["status"])


# -- drain -----------------------------------------------------------------------------------------


async def test_a_drained_worker_finishes_what_it_runs_and_gets_nothing_new(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    running_job = await server.admin.submit(IMAGE, 1)
    job = await worker.start()
    view = await server.admin.must("POST", "/v1/workers/w1/drain")
    assert (view["status"], view["drained"]) == ("DRAINING", True)
    waiting = await server.admin.submit(IMAGE, 2)
    await worker.finish(job.ref, "done")
    assert (await server.admin.ended(running_job))["result"] == "done"
    shown = await server.admin.job(waiting)
    assert shown["state"] == "IN_QUEUE"
    assert shown["waiting"] == [
        {"worker": "w1", "why": "is draining: it finishes what it has and takes nothing new", "holders": []}
    ]
    assert len(worker.assigned) == 1

    await server.admin.must("POST", "/v1/workers/w1/undrain")
    assert (await worker.take()).ref.job == waiting
    assert await status(server, "w1") == "ONLINE"


async def test_jobs_that_wait_at_a_drained_worker_go_to_another_and_lose_no_attempt(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    for _ in range(3):  # short jobs: the next ones are sent ahead
        await server.admin.submit(IMAGE, 0)
        job = await worker.start()
        await worker.finish(job.ref, ran=0.001)
        await server.admin.ended(job.ref.job)
    jobs = [await server.admin.submit(IMAGE, number, retries=0) for number in range(2)]
    first = await worker.start()
    second = await worker.take()
    assert [first.ref.job, second.ref.job] == jobs
    await eventually(lambda: server.admin.state(jobs[0]), "IN_PROGRESS")
    await server.admin.must("POST", "/v1/workers/w1/drain")
    revoked = await worker.hear(Revoke)
    assert revoked.refs == (second.ref,)
    other = await server.worker("w2")
    await worker.send(Released((second.ref,)))
    again = await other.start()
    assert (again.ref.job, again.ref.attempt) == (jobs[1], 2)
    await other.finish(again.ref, "elsewhere")
    shown = await server.admin.ended(jobs[1])
    assert shown["result"] == "elsewhere"
    assert [attempt["charged"] for attempt in shown["attempts"]] == ["none", "none"]
    await worker.finish(first.ref, "here")
    assert (await server.admin.ended(jobs[0]))["attempt"] == 1


async def test_a_drain_outlives_restarts_of_worker_and_server(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        worker = await server.worker("w1")
        await server.admin.must("POST", "/v1/workers/w1/drain")
        await worker.cut()
        await worker.connect()
        assert await status(server, "w1") == "DRAINING"
        token = worker.http["Authorization"].removeprefix("Bearer ")
    async with running(tmp_path / "server") as server:
        worker = ScriptedWorker(server.session, server.url, token)
        server.workers.append(worker)
        await worker.connect()
        assert await status(server, "w1") == "DRAINING"
        job = await server.admin.submit(IMAGE)
        await server.admin.must("POST", "/v1/workers/w1/undrain")
        assert (await worker.take()).ref.job == job


async def test_a_worker_hears_that_it_is_drained_and_again_when_it_comes_back(server: Running) -> None:
    worker = await server.worker("w1")
    await server.admin.must("POST", "/v1/workers/w1/drain")
    assert await worker.hear(Drain) == Drain(active=True)
    await worker.cut()
    assert (await worker.connect()).drained
    await server.admin.must("POST", "/v1/workers/w1/undrain")
    assert await worker.hear(Drain) == Drain(active=False)
    await worker.cut()
    assert not (await worker.connect()).drained


async def test_draining_a_worker_that_does_not_exist_says_so(server: Running) -> None:
    reply = await server.admin.call("POST", "/v1/workers/nobody/drain")
    assert (reply.status, reply.message) == (404, "there is no worker 'nobody'")


# -- quarantine ------------------------------------------------------------------------------------


async def fail(server: Running, worker: ScriptedWorker, *reasons: Reason) -> None:
    """One job for each reason, each ended with it by this worker, and then cancelled."""
    for reason in reasons:
        job_id = await server.admin.submit(IMAGE, retries=0)
        job = await worker.start()
        assert job.ref.job == job_id
        await worker.fail(job.ref, reason)
        assert await worker.answer(job.ref) == "accepted"
        await server.admin.must("POST", f"/v1/jobs/{job_id}/cancel")


async def test_a_machine_that_fails_three_attempts_in_a_row_is_quarantined_with_the_reason(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    await fail(server, worker, Reason.WORKER_ERROR, Reason.GPU_LOST, Reason.WORKER_ERROR)
    await eventually(lambda: status(server, "w1"), "QUARANTINED")
    job = await server.admin.submit(IMAGE)
    why = "its last 3 attempts were ended by the machine (worker_error, gpu_lost, worker_error)"
    assert (await server.admin.job(job))["waiting"] == [
        {"worker": "w1", "why": f"is quarantined: {why}", "holders": []}
    ]
    (view,) = await server.admin.get("/v1/workers")
    assert view["note"] == f"quarantined: {why}"
    await worker.cut()
    await worker.connect()
    assert await status(server, "w1") == "QUARANTINED"
    await server.admin.must("POST", "/v1/workers/w1/undrain")
    assert (await worker.take()).ref.job == job


async def test_attempts_that_one_failure_of_the_machine_ends_together_are_one_failure(server: Running) -> None:
    """Its engine is restarted: that costs all of its containers, and is no reason to keep it idle for ten minutes."""
    await server.image()
    worker = await server.worker("w1", slots=slots(4))
    jobs = [await server.admin.submit(IMAGE, retries=0) for _ in range(4)]
    begun = [await worker.start() for _ in jobs]
    await worker.report(*(Outcome(job.ref, Reason.WORKER_ERROR, ran=5.0) for job in begun[:2]))
    for job in begun[2:]:
        await worker.report(Outcome(job.ref, Reason.WORKER_ERROR, ran=5.0))
    for job in begun:
        assert await worker.answer(job.ref) == "accepted"
    assert await status(server, "w1") == "ONLINE"


async def test_failures_of_jobs_and_successes_in_between_keep_a_machine_in_use(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    await fail(server, worker, Reason.WORKER_ERROR, Reason.WORKER_ERROR, Reason.HANDLER_ERROR)
    await fail(server, worker, Reason.WORKER_ERROR, Reason.WORKER_ERROR)
    done = await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref)
    await server.admin.ended(done)
    await fail(server, worker, Reason.WORKER_ERROR, Reason.WORKER_ERROR, Reason.HANDLER_EXIT)
    assert await status(server, "w1") == "ONLINE"


async def test_a_quarantine_ends_by_itself_and_the_next_failure_brings_it_back(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    await fail(server, worker, *[Reason.WORKER_ERROR] * 3)
    await eventually(lambda: status(server, "w1"), "QUARANTINED")
    holds, fleet = server.server.parts.quarantine, server.server.parts.fleet
    assert await holds.release_due() == 0
    (held,) = fleet.out_of_service.items()
    assert 0 < held[1].until - server.server.parts.resources.clock.now() <= QUARANTINE
    fleet.set_out_of_service(
        held[0], held[1].__class__(False, held[1].quarantine, server.server.parts.resources.clock.now())
    )
    await eventually(lambda: status(server, "w1"), "ONLINE")  # by the server's duties
    await fail(server, worker, Reason.WORKER_ERROR)
    await eventually(lambda: status(server, "w1"), "QUARANTINED")


async def test_a_machine_that_says_it_starts_nothing_is_out_at_once_and_eats_no_queue(server: Running) -> None:
    await server.image()
    broken, healthy = await server.worker("broken"), await server.worker("healthy")
    jobs = [await server.admin.submit(IMAGE, number, retries=0) for number in range(20)]
    lost = await broken.take()
    await broken.send(Broken("driver/library version mismatch. Reboot."))
    await broken.fail(lost.ref, Reason.WORKER_ERROR)
    for _ in jobs:
        job = await healthy.start()
        await healthy.finish(job.ref, ran=2.0)  # too long to be sent ahead
    states = [(await server.admin.ended(job))["state"] for job in jobs]
    assert states == ["FINISHED"] * 20
    assert len(broken.assigned) == 1
    view = next(view for view in await server.admin.get("/v1/workers") if view["name"] == "broken")
    assert (view["status"], view["note"]) == (
        "QUARANTINED",
        "quarantined: it starts no container: driver/library version mismatch. Reboot.",
    )


# -- whose fault -----------------------------------------------------------------------------------


async def test_workers_lost_together_charge_no_job(hasty: Running) -> None:
    await hasty.image()
    workers = [await hasty.worker(name) for name in ("w1", "w2")]
    jobs = [await hasty.admin.submit(IMAGE, number) for number in range(2)]
    held = [await worker.start() for worker in workers]
    for worker in workers:
        worker.silent = True
    for job in jobs:
        await eventually(lambda job=job: hasty.admin.state(job), "IN_QUEUE")  # type: ignore[misc]
    charged = [(await hasty.admin.job(job))["attempts"][0]["charged"] for job in jobs]
    assert {ref.ref.job for ref in held} == set(jobs)
    assert charged == ["none", "none"]


async def test_a_worker_lost_alone_charges_its_job(hasty: Running) -> None:
    await hasty.image()
    await hasty.worker("w0", slots=slots(0))  # there, and heard from
    worker = await hasty.worker("w1")
    job = await hasty.admin.submit(IMAGE)
    await worker.start()
    worker.silent = True
    await eventually(lambda: hasty.admin.state(job), "IN_QUEUE")
    (attempt,) = (await hasty.admin.job(job))["attempts"]
    assert (attempt["reason"], attempt["charged"]) == ("worker_lost", "infra")


async def test_a_reboot_charges_no_job_and_a_crash_of_the_worker_alone_does(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1", boot_id="monday")
    job = await server.admin.submit(IMAGE)
    charged = []
    for boot_id in ("tuesday", "tuesday"):
        await worker.start()
        await eventually(lambda: server.admin.state(job), "IN_PROGRESS")
        await worker.cut()
        await worker.connect(boot_id=boot_id)
        await worker.take()
        worker._taken -= 1
        charged.append((await server.admin.job(job))["attempts"][-2]["charged"])
    assert charged == ["none", "infra"]


@pytest.mark.parametrize(("boot_id", "status"), [("tuesday", "ONLINE"), ("monday", "QUARANTINED")])
async def test_a_reboot_that_takes_longer_than_a_worker_may_be_silent_is_no_failure_of_the_machine(
    hasty: Running, boot_id: str, status: str
) -> None:
    await hasty.image()
    worker = await hasty.worker("w1", slots=slots(3), boot_id="monday")
    jobs = [await hasty.admin.submit(IMAGE) for _ in range(3)]
    for _ in jobs:
        await worker.start()
    worker.silent = True
    for job in jobs:
        await eventually(functools.partial(hasty.admin.state, job), "IN_QUEUE")
    worker.silent = False
    await worker.connect(slots=slots(3), boot_id=boot_id)
    (view,) = await hasty.admin.get("/v1/workers")
    assert view["status"] == status


async def test_after_a_start_of_the_server_nobody_knows_of_a_reboot_and_nobody_is_charged(tmp_path: Path) -> None:
    """The power may have gone for both. A crash that the server saw is charged again."""
    async with running(tmp_path / "server") as server:
        await server.image()
        worker = await server.worker("w1", boot_id="monday")
        job = await server.admin.submit(IMAGE)
        await worker.start()

        async def stored() -> list[JobState]:
            return [state for *_, state in await server.server.database.read(lambda store: store.assigned())]

        await eventually(stored, [JobState.IN_PROGRESS])  # a start is written a moment later
    ends = []
    async with running(tmp_path / "server") as server:
        worker = ScriptedWorker(server.session, server.url, worker._token)
        server.workers.append(worker)
        for _ in range(2):
            await worker.connect(boot_id="tuesday")
            await worker.start()
            await eventually(lambda: server.admin.state(job), "IN_PROGRESS")
            lost = (await server.admin.job(job))["attempts"][-2]
            ends.append((lost["reason"], lost["charged"]))
            await worker.cut()
    assert ends == [("worker_lost", "none"), ("worker_lost", "infra")]


async def test_after_a_failure_of_the_machine_the_next_attempt_goes_to_another(server: Running) -> None:
    await server.image()
    first = await server.worker("w1")
    job = await server.admin.submit(IMAGE)
    attempt = await first.start()
    second = await server.worker("w2")
    await first.fail(attempt.ref, Reason.WORKER_ERROR)
    again = await second.take()
    assert (again.ref.job, again.ref.attempt) == (job, 2)
    assert len(first.assigned) == 1


# -- several people --------------------------------------------------------------------------------


async def test_another_users_job_starts_within_two_jobs_of_one_who_floods_the_queue(server: Running) -> None:
    await server.image()
    flood, other = await server.user("flood"), await server.user("other")
    worker = await server.worker("w1")
    for number in range(50):
        await flood.submit(IMAGE, number)
    running_job = await worker.start()
    await worker.send(Warm(0, running_job.warm_key, IMAGE))
    wanted = await other.submit(IMAGE)
    order = []
    for _ in range(2):
        await asyncio.sleep(TURN)  # as long as a job runs
        await worker.finish(running_job.ref, ran=TURN)
        running_job = await worker.start()
        order.append(running_job.ref.job)
    assert wanted in order
