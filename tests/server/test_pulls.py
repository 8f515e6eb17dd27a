"""Images that a machine cannot get: jobs wait for one that has them, other images are not touched, nobody is blamed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.core.model import Failure, Reason, WorkerId
from hecaton.server.fleet.images.pulls import REFUSED, RETRY, Pulls
from hecaton.wire.channel import Assignment, Have, Outcome, Warm
from tests.server.people import eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker

OTHER = "registry.example/team/other:1"
AWAY = Failure("cannot pull team/app:1: dial tcp: connection refused")
REFUSAL = Failure("no access to team/app:1: it wants a login")
PATIENCE = 600.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Running]:
    """No worker is lost when its clock is put on."""
    async with running(tmp_path / "server", suspect_after=1e6, lost_after=1e6) as started:
        yield started


async def without(worker: ScriptedWorker, reason: Reason = Reason.IMAGE_PULL) -> Assignment:
    """It takes its next job and cannot get the image."""
    job = await worker.take()
    failure = AWAY if reason is Reason.IMAGE_PULL else REFUSAL
    await worker.report(Outcome(job.ref, reason, failure=failure))
    await worker.answer(job.ref)
    return job


async def why(server: Running, job: str) -> dict[str, str]:
    return {line["worker"]: line["why"] for line in (await server.admin.job(job))["waiting"]}


async def has_run(server: Running, worker: ScriptedWorker) -> None:
    """Its only slot has a container of the image, and the server knows."""

    async def shown() -> str:
        return str((await server.admin.get("/v1/workers"))[0]["slots"][0]["image"])

    await worker.send(Warm(0, "key", IMAGE))
    await eventually(shown, IMAGE)


async def finishes(server: Running, worker: ScriptedWorker, job: str) -> None:
    taken = await worker.start()
    assert taken.ref.job == job
    await worker.finish(taken.ref, "done")
    assert (await server.admin.ended(job))["result"] == "done"


async def later(server: Running, seconds: float) -> None:
    """So much time passes, and the server looks what it can give out."""
    server.later(seconds)
    await server.server.parts.dispatcher.dispatch()


async def test_an_image_that_cannot_be_pulled_takes_no_machine_from_another_image(server: Running) -> None:
    for name in (IMAGE, OTHER):
        await server.image(name)
    worker = await server.worker()
    for name in ("ann", "bob", "eve"):  # each has a lane of his own
        user = await server.user(name)
        await user.submit(IMAGE)
        await without(worker)
        await later(server, 0.5)  # the others are not even tried before the time
    good = await server.admin.submit(OTHER)
    assert (await server.admin.get("/v1/workers"))[0]["status"] == "ONLINE"
    await finishes(server, worker, good)
    assert len(worker.assigned) == 4


async def test_a_registry_that_is_away_for_longer_than_three_tries_costs_a_job_time_and_no_attempt_of_its_own(
    server: Running,
) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)
    for delay in (*RETRY, RETRY[-1], RETRY[-1]):
        await without(worker)
        said = (await why(server, job))["w1"]
        assert said.startswith(f"cannot get the image: {AWAY.message}; tries again in ")
        await later(server, delay)
    await finishes(server, worker, job)
    view = await server.admin.job(job)
    assert {attempt["charged"] for attempt in view["attempts"]} == {"none"}
    assert [attempt["reason"] for attempt in view["attempts"]] == ["image_pull"] * 6 + ["ok"]


async def test_the_patience_ends_with_a_sentence(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)
    await without(worker)
    await later(server, PATIENCE - 1)
    await without(worker)
    assert (await server.admin.job(job))["state"] == "IN_QUEUE"
    await later(server, RETRY[-1])
    await without(worker)
    view = await server.admin.ended(job)
    assert (view["reason"], view["failure"]["message"]) == (
        "image_pull",
        f"{AWAY.message} (no machine could get it for 600 s)",
    )
    fresh = await server.admin.submit(IMAGE)  # has a patience of its own
    await later(server, RETRY[-1])
    await without(worker)
    assert (await server.admin.job(fresh))["state"] == "IN_QUEUE"


async def test_the_patience_goes_on_over_a_restart_of_the_server(tmp_path: Path) -> None:
    """Else a job would wait for ever for an image that can be had nowhere, at a server that is restarted now and
    then."""
    async with running(tmp_path / "server") as server:
        await server.image()
        worker = await server.worker()
        job = await server.admin.submit(IMAGE)
        await without(worker)
    for passed, state in ((PATIENCE - 5, "IN_QUEUE"), (PATIENCE + 5, "FAILED")):
        async with running(tmp_path / "server", suspect_after=1e6, lost_after=1e6) as server:
            server.later(passed)
            worker = await server.worker(f"after-{passed:.0f}")
            await without(worker)
            assert (await server.admin.job(job))["state"] == state


async def test_an_image_that_was_had_meanwhile_has_a_patience_of_its_own_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        worker = await server.worker()
        job = await server.admin.submit(IMAGE)
        await without(worker)
        await worker.send(Have((IMAGE,)))
        await finishes(server, worker, job)
        job = await server.admin.submit(IMAGE)
        await server.admin.must("DELETE", "/v1/workers/w1")
    async with running(tmp_path / "server", suspect_after=1e6, lost_after=1e6) as server:
        server.later(PATIENCE - 5)
        worker = await server.worker("after")
        await without(worker)
        await later(server, 10)
        await without(worker)
        assert (await server.admin.job(job))["state"] == "IN_QUEUE"


@pytest.mark.parametrize("reason", [Reason.IMAGE_PULL, Reason.IMAGE_DENIED])
async def test_a_job_waits_for_a_busy_machine_that_may_have_its_image(server: Running, reason: Reason) -> None:
    await server.image()
    await server.image(OTHER)
    busy = await server.worker("busy")
    long = await server.admin.submit(OTHER)
    at_work = await busy.start()
    idle = await server.worker("idle")
    job = await server.admin.submit(IMAGE)
    await without(idle, reason)
    for _ in range(3):
        await later(server, PATIENCE)
        await without(idle, reason)
    assert (await server.admin.job(job))["state"] == "IN_QUEUE"
    await busy.finish(at_work.ref)
    await finishes(server, busy, job)
    assert (await server.admin.job(long))["state"] == "FINISHED"


async def test_an_image_that_every_machine_is_refused_fails_at_once_after_each_was_tried_once(server: Running) -> None:
    await server.image()
    worker = await server.worker("w1")
    job = await server.admin.submit(IMAGE)
    for name in ("w2", "w3"):  # comes while the one before it has the job
        tried, worker = worker, await server.worker(name)
        await without(tried, Reason.IMAGE_DENIED)
    await without(worker, Reason.IMAGE_DENIED)
    view = await server.admin.ended(job)
    assert (view["reason"], view["failure"]["message"]) == ("image_denied", REFUSAL.message)
    assert [attempt["charged"] for attempt in view["attempts"]] == ["none", "none", "user"]
    again = await server.admin.submit(IMAGE)  # somebody may have mended it meanwhile
    await eventually(lambda: server.admin.state(again), "ASSIGNED")


async def test_a_machine_that_is_away_and_has_had_the_image_is_waited_for(server: Running) -> None:
    await server.image()
    owner = await server.worker("owner")
    await has_run(server, owner)
    await owner.cut()
    other = await server.worker("other")
    job = await server.admin.submit(IMAGE)
    await without(other, Reason.IMAGE_DENIED)
    assert (await server.admin.job(job))["state"] == "IN_QUEUE"
    await owner.connect()
    await finishes(server, owner, job)


async def test_a_removed_machine_is_not_waited_for(server: Running) -> None:
    await server.image()
    owner = await server.worker("owner")
    await has_run(server, owner)
    await server.admin.must("DELETE", "/v1/workers/owner")
    other = await server.worker("other")
    job = await server.admin.submit(IMAGE)
    await without(other, Reason.IMAGE_DENIED)
    assert (await server.admin.ended(job))["reason"] == "image_denied"


async def test_a_machine_that_has_the_image_now_is_given_the_job_at_once(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)
    await without(worker)
    await later(server, RETRY[0])
    await without(worker)
    await worker.send(Have((IMAGE,)))
    await finishes(server, worker, job)


async def test_a_machine_that_starts_anew_is_tried_at_once(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)
    await without(worker)
    await later(server, RETRY[0])
    await without(worker)
    await worker.cut()
    await worker.connect()
    await finishes(server, worker, job)


# -- the rule --------------------------------------------------------------------------------------


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.pulls = Pulls(lambda: self.now, PATIENCE)

    def fails(self, worker: str, image: str = IMAGE, reason: Reason = Reason.IMAGE_PULL) -> float:
        return self.pulls.failed(WorkerId(worker), image, reason, "why")

    def hopes(self, reason: Reason, *others: str, since: float = 0.0) -> bool:
        return self.pulls.hopes(IMAGE, reason, since, frozenset(map(WorkerId, others)))


def test_the_pauses_are_those_of_a_machine_with_a_registry() -> None:
    world = World()
    assert [world.fails("a") for _ in range(3)] == [*RETRY[:3]]
    assert world.fails("a", "team/another:1") == RETRY[3]  # the same registry: Docker Hub
    assert world.fails("a", OTHER) == RETRY[0]
    assert world.fails("b") == RETRY[0]
    world.pulls.has(WorkerId("a"), IMAGE)
    assert world.fails("a") == RETRY[0]
    world.now += 3 * RETRY[-1]
    assert world.fails("b") == RETRY[0]  # it is long ago


def test_what_is_barred_is_barred_for_that_image_on_that_machine_until_then() -> None:
    world = World()
    delay = world.fails("a")
    assert world.pulls.barred(IMAGE) == {"a"}
    assert world.pulls.barred(OTHER) == frozenset()
    world.now += delay
    assert world.pulls.barred(IMAGE) == frozenset()
    assert world.pulls.why(IMAGE) == {}


def test_a_refusal_holds_for_a_while_and_then_may_have_been_mended() -> None:
    world = World()
    world.fails("a", reason=Reason.IMAGE_DENIED)
    world.fails("b", reason=Reason.IMAGE_DENIED)
    assert not world.hopes(Reason.IMAGE_DENIED, "a")
    assert world.pulls.barred(IMAGE) == frozenset()  # the next job is tried at once
    assert world.hopes(Reason.IMAGE_DENIED, "a", "c")
    world.now += REFUSED
    assert world.hopes(Reason.IMAGE_DENIED, "a")


def test_a_machine_whose_registry_is_away_is_waited_for_as_long_as_the_patience_goes() -> None:
    world = World()
    world.fails("a")
    world.fails("b", reason=Reason.IMAGE_DENIED)
    assert world.hopes(Reason.IMAGE_DENIED, "a")
    world.now += PATIENCE
    world.fails("b", reason=Reason.IMAGE_DENIED)
    assert not world.hopes(Reason.IMAGE_DENIED, "a")
    assert world.hopes(Reason.IMAGE_DENIED, "a", since=world.now - 1)  # a job that came a second ago
