"""Workers that were given up for lost and come back before anybody else got their jobs: the same attempts go on."""

from __future__ import annotations

from typing import Any

from hecaton.core.model import AttemptRef, JobId, WorkerStatus
from hecaton.wire.channel import Log
from tests.server.people import eventually
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import holding, slots


async def _is_given_up(server: Running, *jobs: str) -> None:
    for job in jobs:
        await eventually(lambda job=job: server.admin.state(job), "IN_QUEUE")  # type: ignore[misc]


async def _worker(server: Running, name: str) -> dict[str, Any]:
    views: list[dict[str, Any]] = await server.admin.get("/v1/workers")
    return next(view for view in views if view["name"] == name)


async def test_a_job_that_nobody_else_was_given_goes_on_as_if_nothing_had_been(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker()
    job_id = await hasty.admin.submit(IMAGE)
    job = await worker.start()
    await worker.cut()
    await _is_given_up(hasty, job_id)
    (lost,) = (await hasty.admin.job(job_id))["attempts"]
    assert (lost["reason"], lost["charged"]) == ("worker_lost", "infra")
    welcome = await worker.connect(held=(holding(job),))
    assert (welcome.keep, welcome.drop) == ((job.ref,), ())
    view = await hasty.admin.job(job_id)
    assert (view["state"], view["worker"], view["attempt"]) == ("IN_PROGRESS", "w1", 1)
    await worker.send(Log(job.ref, 0, b"still here\n"))
    await worker.finish(job.ref, "done")
    assert await worker.answer(job.ref) == "accepted"
    view = await hasty.admin.ended(job_id)
    assert (view["result"], view["attempt"]) == ("done", 1)
    assert [(one["number"], one["reason"], one["charged"]) for one in view["attempts"]] == [(1, "ok", "none")]
    assert (await hasty.admin.call("GET", f"/v1/jobs/{job_id}/logs")).body == b"still here\n"
    assert worker.assigned == []


async def test_a_result_that_waited_out_the_silence_is_taken(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker()
    job_id = await hasty.admin.submit(IMAGE)
    job = await worker.start()
    await worker.cut()
    await _is_given_up(hasty, job_id)
    welcome = await worker.connect(held=(holding(job, "done"),))
    assert welcome.keep == (job.ref,)
    await worker.finish(job.ref, "done meanwhile")
    assert (await hasty.admin.ended(job_id))["result"] == "done meanwhile"


async def test_jobs_that_another_worker_got_are_fenced_and_the_others_go_on(hasty: Running) -> None:
    await hasty.image()
    lost = await hasty.worker("lost", slots=slots(2))
    ids = [await hasty.admin.submit(IMAGE, number) for number in range(2)]
    jobs = [await lost.start() for _ in ids]
    await lost.cut()
    await _is_given_up(hasty, *ids)
    other = await hasty.worker("other")
    taken = await other.start()
    [gone] = [job for job in jobs if job.ref.job == taken.ref.job]
    [left] = [job for job in jobs if job is not gone]
    welcome = await lost.connect(slots=slots(2), held=tuple(map(holding, jobs)))
    assert (welcome.keep, welcome.drop) == ((left.ref,), (gone.ref,))
    await lost.finish(gone.ref, "too late")
    assert await lost.answer(gone.ref) == "fenced"
    await lost.finish(left.ref, "in time")
    assert (await hasty.admin.ended(left.ref.job))["attempt"] == 1
    await other.finish(taken.ref, "of the other")
    view = await hasty.admin.ended(gone.ref.job)
    assert (view["result"], view["attempt"]) == ("of the other", 2)


async def test_a_loss_that_was_taken_back_counts_against_neither_job_nor_machine(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker(slots=slots(3))
    ids = [await hasty.admin.submit(IMAGE, number) for number in range(3)]
    jobs = [await worker.start() for _ in ids]
    for _ in range(3):
        await worker.cut()
        await _is_given_up(hasty, *ids)
        await worker.connect(slots=slots(3), held=tuple(map(holding, jobs)))
        assert (await _worker(hasty, "w1"))["status"] == WorkerStatus.ONLINE
    for job in jobs:
        await worker.finish(job.ref, "done")
        view = await hasty.admin.ended(job.ref.job)
        assert [(one["reason"], one["charged"]) for one in view["attempts"]] == [("ok", "none")]
    next_job = await hasty.admin.submit(IMAGE)
    assert (await worker.take()).ref == AttemptRef(JobId(next_job), 1)


async def test_what_it_does_not_bring_back_counts(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker(slots=slots(3))
    ids = [await hasty.admin.submit(IMAGE, number) for number in range(3)]
    jobs = [await worker.start() for _ in ids]
    await worker.cut()
    await _is_given_up(hasty, *ids)

    async def is_quarantined() -> bool:
        return "quarantined" in ((await _worker(hasty, "w1"))["note"] or "")

    await eventually(is_quarantined, True)
    welcome = await worker.connect(slots=slots(3), held=(holding(jobs[0]),))
    assert welcome.keep == (jobs[0].ref,)
    assert (await _worker(hasty, "w1"))["status"] == WorkerStatus.ONLINE
    again = {(await worker.take()).ref for _ in range(2)}
    assert again == {AttemptRef(job.ref.job, 2) for job in jobs[1:]}
    (attempt, _) = (await hasty.admin.job(jobs[1].ref.job))["attempts"]
    assert (attempt["reason"], attempt["charged"]) == ("worker_lost", "infra")


async def test_a_job_cancelled_while_its_worker_was_given_up_is_stopped_when_it_returns(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker()
    job_id = await hasty.admin.submit(IMAGE)
    job = await worker.start()
    await worker.cut()
    await _is_given_up(hasty, job_id)
    view = await hasty.admin.must("POST", f"/v1/jobs/{job_id}/cancel")
    assert view["state"] == "CANCELLED"
    welcome = await worker.connect(held=(holding(job),))
    assert (welcome.keep, welcome.drop) == ((), (job.ref,))


async def test_an_attempt_that_only_the_store_knows_goes_on_too(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    job = await worker.start()
    await eventually(lambda: server.admin.state(job_id), "IN_PROGRESS")
    await worker.cut()
    server.server.parts.fleet.members.clear()
    assert (await worker.connect(held=(holding(job),))).keep == (job.ref,)
    await worker.finish(job.ref, "done")
    assert (await server.admin.ended(job_id))["attempt"] == 1


# -- no-overlap -------------------------------------------------------------------------------------


async def test_a_no_overlap_job_tells_its_worker_and_does_not_go_on_after_a_loss(hasty: Running) -> None:
    await hasty.image()
    worker = await hasty.worker()
    job_id = await hasty.admin.submit(IMAGE, no_overlap=True)
    assert (await hasty.admin.job(job_id))["no_overlap"] is True
    job = await worker.start()
    assert job.options.no_overlap
    await worker.cut()
    await _is_given_up(hasty, job_id)
    welcome = await worker.connect(held=(holding(job),))
    assert (welcome.keep, welcome.drop) == ((), (job.ref,))
    assert (await worker.take()).ref == AttemptRef(JobId(job_id), 2)


async def test_a_no_overlap_job_of_a_removed_worker_waits_until_that_must_have_stopped_it(hasty: Running) -> None:
    await hasty.image()
    removed = await hasty.worker("removed")
    other = await hasty.worker("other", slots=())
    job_id = await hasty.admin.submit(IMAGE, no_overlap=True)
    plain = await hasty.admin.submit(IMAGE)
    job = await removed.start()
    assert job.ref.job == job_id
    await hasty.admin.must("DELETE", "/v1/workers/removed")
    (line, *_) = (await hasty.admin.job(job_id))["waiting"]
    assert line["worker"] == "*"
    await other.cut()
    await other.connect(slots=slots(2))
    assert (await other.take()).ref.job == plain
    assert (await other.take()).ref == AttemptRef(JobId(job_id), 2)


async def test_jobs_may_overlap_unless_asked(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    assert not (await worker.start()).options.no_overlap
    assert (await server.admin.job(job_id))["no_overlap"] is False


async def test_the_jobs_of_a_no_overlap_batch_are_no_overlap_jobs(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}], "no_overlap": True})
    assert (await worker.start()).options.no_overlap
