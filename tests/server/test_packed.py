"""Jobs with needs: places are opened for them, what is idle gives way, and why they wait is said in figures."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hecaton.core.model import AttemptRef, Gpu, JobId, WorkerId
from hecaton.core.options import OF_WORKERS
from hecaton.core.placement.holds import Holds, Part
from hecaton.core.placement.needs import GIB
from hecaton.core.placement.packing import Fit
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.places.leases import Lease
from hecaton.server.jobs.machines import machine_view
from hecaton.wire.channel import PROTOCOL, Assignment, Hello, Revoke, SlotInfo, Warm
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import ScriptedWorker, holding
from tests.server.test_openings import NoLink

EVERY_OPTION = tuple(OF_WORKERS | {"mount"})
T4, A100 = 15 * GIB, 79 * GIB


def cards(*memories: int) -> tuple[SlotInfo, ...]:
    names = {T4: "Tesla T4", A100: "NVIDIA A100-SXM4-80GB"}
    return tuple(
        SlotInfo(index, Gpu(f"GPU-{index}", names[memory], memory), None, None) for index, memory in enumerate(memories)
    )


async def box(server: Running, *memories: int, name: str = "box", **hello: Any) -> ScriptedWorker:
    await server.image()
    return await server.worker(name, slots=cards(*memories), **hello)


async def start(worker: ScriptedWorker) -> Assignment:
    """As a worker does: its container is there first."""
    job = await worker.take()
    await worker.send(Warm(job.slot, job.warm_key, IMAGE))
    return job


async def test_two_cards_are_one_place_and_keep_both_from_others(server: Running) -> None:
    worker = await box(server, T4, T4)
    pair = await server.admin.submit(IMAGE, gpus=2)
    job = await start(worker)
    assert job.holds == Holds((Part("GPU-0"), Part("GPU-1")))
    single = await server.admin.submit(IMAGE, priority=5)
    assert (await server.admin.job(single))["waiting"][0]["why"] == "is busy: 2 of 2 slots run other jobs"
    await worker.finish(job.ref)
    await server.admin.ended(pair)
    after = await worker.take()
    assert (after.holds, after.slot) == (None, 0), "the place that was there from the start"
    await worker.finish(after.ref)
    await server.admin.ended(single)


async def test_parts_of_one_card_are_given_until_it_is_full(server: Running) -> None:
    worker = await box(server, T4)
    jobs = [await server.admin.submit(IMAGE, vram="6G") for _ in range(3)]
    first, second = await start(worker), await start(worker)
    assert first.slot != second.slot
    assert {first.holds, second.holds} == {Holds((Part("GPU-0", 6 * GIB),))}
    [why] = (await server.admin.job(jobs[2]))["waiting"]
    assert why["why"] == "has at most 3 GB free on one card, of 6 GB"
    await worker.finish(first.ref)
    third = await worker.take()
    assert (third.slot, third.holds) == (first.slot, first.holds), "its container is warm"
    await worker.finish(second.ref)
    await worker.finish(third.ref)
    for job in jobs:
        await server.admin.ended(job)


async def test_models_and_sizes_choose_the_card_of_a_mixed_machine(server: Running) -> None:
    worker = await box(server, T4, A100)
    for asked in ({"gpu": "a100"}, {"gpus": 1, "vram": "24G"}, {"gpu": "40GB..80GB:1"}, {"vram": "24G", "on": "box"}):
        job = await server.admin.submit(IMAGE, **asked)
        given = await start(worker)
        uuids = given.holds.uuids if given.holds is not None else (f"GPU-{given.slot}",)
        assert uuids == ("GPU-1",), asked
        await worker.finish(given.ref)
        await server.admin.ended(job)


async def test_a_warm_container_that_is_idle_gives_way(server: Running) -> None:
    """Of a place of the worker's own, and of one that was opened: also for a job that needs nothing in particular."""
    worker = await box(server, T4)
    jobs = [
        await server.admin.submit(IMAGE),
        await server.admin.submit(IMAGE, vram="4G"),
        await server.admin.submit(IMAGE),
    ]
    places = []
    for job in jobs:
        given = await start(worker)
        places.append((given.slot, given.holds))
        await worker.finish(given.ref)
        await server.admin.ended(job)
    assert places == [(0, None), (1, Holds((Part("GPU-0", 4 * GIB),))), (0, None)]
    [shown] = await server.admin.get("/v1/workers")
    assert [slot["index"] for slot in shown["slots"]] == [0], "what gave way is no place any more"


async def test_a_large_job_is_not_starved_by_small_ones(server: Running) -> None:
    """What becomes free on one machine is kept for it, though others wait that would fit at once."""
    worker = await box(server, T4, T4)
    small = [await server.admin.submit(IMAGE) for _ in range(2)]
    running = [await worker.take() for _ in small]
    large = await server.admin.submit(IMAGE, gpus=2)
    small += [await server.admin.submit(IMAGE, tags={"a": "b"}) for _ in range(3)]
    await worker.finish(running[0].ref)
    [why] = (await server.admin.job(large))["waiting"]
    assert why["why"] == "has 1 of 2 cards free"
    await worker.finish(running[1].ref)
    given = await worker.take()
    assert given.holds is not None
    assert len(given.holds.cards) == 2
    await worker.finish(given.ref)
    for _ in small[2:]:
        given = await worker.take()
        assert given.holds is None
        await worker.finish(given.ref)
    for job in (*small, large):
        await server.admin.ended(job)


async def test_nothing_is_kept_for_him_whose_jobs_may_not_start(server: Running) -> None:
    """A large job's machine is free for others again once its owner has stored more than he may."""
    worker = await box(server, T4, T4)
    other = await server.user("other")
    first = [await server.admin.submit(IMAGE) for _ in range(2)]
    running = [await worker.take() for _ in first]
    await other.submit(IMAGE, gpus=2)
    await worker.finish(running[0].ref)
    small = await server.admin.submit(IMAGE)
    assert (await server.admin.job(small))["state"] == "IN_QUEUE", "kept for the large one"
    scheduler = server.server.parts.scheduler
    scheduler.hold(
        False, frozenset(state.lane.owner_id for state in scheduler.lanes.values() if state.count == 1) - {1}
    )
    server.server.parts.dispatcher.kick()
    given = await worker.take()
    assert given.holds is None
    await worker.finish(given.ref)
    await server.admin.ended(small)


async def test_what_never_runs_there_says_why(server: Running) -> None:
    await box(server, T4, T4)
    for asked, why in (
        ({"vram": "24G"}, "is too small for 24 GB: it has 2 x Tesla T4 16 GB"),
        ({"gpus": 3}, "has 2 of 3 such cards: it has 2 x Tesla T4 16 GB"),
        ({"gpu": "h100"}, "has no such card: it has 2 x Tesla T4 16 GB"),
        ({"on": "!box"}, "is not asked for (--on)"),
        ({"gpus": 0}, "does not say how much of its CPUs jobs may have"),
    ):
        job = await server.admin.submit(IMAGE, **asked)
        lines = (await server.admin.job(job))["waiting"]
        assert {line["worker"]: line["why"] for line in lines}["box"] == why
        first = "no machine here has 24 GB; the largest is box, 16 GB" if "vram" in asked else f": box {why}"
        assert lines[0]["worker"] == "*"
        assert lines[0]["why"].endswith(first)


async def test_a_place_without_a_card_takes_a_cpu(server: Running) -> None:
    worker = await box(server, T4, cpus=1.5, memory=8 * GIB)
    jobs = [await server.admin.submit(IMAGE, gpus=0) for _ in range(2)]
    given = await start(worker)
    assert given.holds == Holds((), 1.0)
    [why] = (await server.admin.job(jobs[1]))["waiting"]
    assert why["why"] == "has 0.5 of 1.5 CPUs free, of 1"
    card = await server.admin.submit(IMAGE)
    beside = await worker.take()
    assert beside.slot == 0
    for ref in (given.ref, beside.ref):
        await worker.finish(ref)
    await worker.finish((await worker.take()).ref)
    for job in (*jobs, card):
        await server.admin.ended(job)


async def test_a_worker_of_the_release_before_gets_no_such_job_and_the_reason_names_the_option(
    server: Running,
) -> None:
    await box(server, T4, options=("timeout",))
    job = await server.admin.submit(IMAGE, gpus=1)
    [line] = (await server.admin.job(job))["waiting"]
    assert "does not carry out --gpus there" in line["why"]


async def test_places_are_there_again_when_their_worker_is_back(server: Running) -> None:
    worker = await box(server, T4, T4)
    await server.admin.submit(IMAGE, gpus=2)
    given = await start(worker)
    await worker.cut()
    place = SlotInfo(given.slot, None, given.warm_key, IMAGE, holds=given.holds)
    await worker.connect(slots=(*cards(T4, T4), place), held=(holding(given),))
    single = await server.admin.submit(IMAGE)
    assert (await server.admin.job(single))["waiting"][0]["why"].startswith("is busy")
    await worker.finish(given.ref)
    assert (await worker.take()).slot in (0, 1)


async def test_an_image_has_needs_for_jobs_that_say_none(server: Running) -> None:
    worker = await box(server, T4, T4)
    await server.admin.must("PATCH", f"/v1/images/{IMAGE}", {"defaults": {"gpus": 2}})
    await server.admin.submit(IMAGE)
    given = await worker.take()
    assert given.holds == Holds((Part("GPU-0"), Part("GPU-1")))
    await worker.finish(given.ref)
    await server.admin.submit(IMAGE, gpus=1)
    assert (await worker.take()).holds is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"vram": "24X"}, "vram is '24X': expected a size such as 24G or 512M"),
        ({"gpus": -1}, "gpus is -1: expected a whole number from 0 to 64"),
        ({"gpu": "a100,"}, "gpu is 'a100,': expected models of cards"),
        ({"gpus": 0, "vram": "1G"}, "gpus is 0, and a card is asked for"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(server: Running, asked: dict[str, Any], says: str) -> None:
    await server.image()
    reply = await server.admin.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1, **asked})
    assert reply.status == 400
    assert says in reply.message


async def test_no_part_is_given_twice_whatever_ends_in_between(server: Running) -> None:
    """Kept by itself, from what the worker hears alone."""
    worker = await box(server, T4, A100, cpus=4.0)
    asked: list[dict[str, Any]] = [
        {}, {"vram": "8G"}, {"gpus": 2}, {"vram": "30G"}, {"gpus": 0}, {"gpu": "t4"}, {"vram": "8G"}, {"gpus": 1},
    ]  # fmt: skip
    jobs = [await server.admin.submit(IMAGE, **asked[n % len(asked)], priority=n % 3) for n in range(32)]
    own = {0: Holds((Part("GPU-0"),)), 1: Holds((Part("GPU-1"),))}
    running: list[Assignment] = []
    for turn in range(len(jobs)):
        while len(worker.assigned) > turn - len(running) and worker.assigned[worker._taken :]:
            running.append(await start(worker))
        if not running:
            running.append(await start(worker))
        by_slot = {job.slot: job.holds or own[job.slot] for job in running}
        parts = [part for holds in by_slot.values() for part in holds.cards]
        for card, memory in (("GPU-0", T4), ("GPU-1", A100)):
            mine = [part.bytes for part in parts if part.card == card]
            assert 0 not in mine or len(mine) == 1
            assert sum(mine) <= memory
        assert sum(holds.cpus for holds in by_slot.values()) <= 4.0
        ended = running.pop(turn % len(running))
        await worker.finish(ended.ref)
        await worker.answer(ended.ref)
    for job in jobs:
        assert (await server.admin.ended(job))["state"] == "FINISHED"
    assert not [one for one in worker.heard if isinstance(one, Revoke)]


async def test_what_one_lane_cannot_run_on_is_there_for_another_that_needs_the_same(server: Running) -> None:
    """Jobs that need a mount wait for the machine that has it; the card of the machine beside it is no less free."""
    with_mount = await box(server, T4, name="has", mounts=("data",), options=EVERY_OPTION)
    without = await server.worker("lacks", slots=cards(T4), options=EVERY_OPTION)
    first = await server.admin.submit(IMAGE, gpus=1, mount={"data": "/mnt/data"})
    there = await start(with_mount)
    second = await server.admin.submit(IMAGE, gpus=1, mount={"data": "/mnt/data"}, tags={"a": "b"})
    other = await server.admin.submit(IMAGE, gpus=1)
    here = await start(without)
    await without.finish(here.ref)
    await with_mount.finish(there.ref)
    await with_mount.finish((await start(with_mount)).ref)
    for job in (first, second, other):
        await server.admin.ended(job)


def test_a_place_that_is_being_opened_while_its_worker_returns_holds_what_it_was_opened_for() -> None:
    """The claim is on its way into the store when the worker says hello anew, which knows nothing of that place."""
    fleet, worker = Fleet(), WorkerId("w")
    hello = Hello(PROTOCOL, "1", "docker", cards(T4, T4), ())
    fleet.join(worker, "w", NoLink(), hello, 0.0)
    pair = Holds((Part("GPU-0"), Part("GPU-1")))
    number = fleet.open(worker, Fit(None, pair, (), (0, 0, 0)))
    assert number is not None
    fleet.reserve(worker, number, 1, None, opened=True)
    fleet.join(worker, "w", NoLink(), hello, 1.0)
    fleet.reserve(worker, number, -1, None)
    assert fleet.held_there(worker, number) == pair
    member = fleet.grant(worker, Lease(AttemptRef(JobId("j"), 1), number, 1, None), 1)
    assert member is not None
    assert [slot.held for slot in member.host().slots] == [1, 1], "both cards are taken"


def test_what_a_worker_has_not_said_of_itself_is_no_place_for_others() -> None:
    """A lease may come back to a number that has been closed since: once it is over, nobody is sent there."""
    fleet, worker, ref = Fleet(), WorkerId("w"), AttemptRef(JobId("j"), 1)
    fleet.join(worker, "w", NoLink(), Hello(PROTOCOL, "1", "docker", cards(T4), ()), 0.0)
    member = fleet.grant(worker, Lease(ref, 7, 1, None), 1)
    assert member is not None
    fleet.release(worker, ref, 1.0)
    assert [slot.index for slot in member.host().slots] == [0]


async def test_a_machine_is_shown_whose_place_closes_in_that_moment(server: Running) -> None:
    worker = await box(server, T4, T4)
    await server.admin.submit(IMAGE, gpus=2)
    given = await start(worker)
    parts = server.server.parts
    [member] = parts.fleet.members.values()
    [record] = await parts.directory.workers()
    showing = asyncio.ensure_future(machine_view(parts.resources, record, member, 0.0, None))
    await asyncio.sleep(0)
    closed = member.slots.pop(given.slot)
    view = await showing
    member.slots[given.slot] = closed
    assert [[job.index for job in card.jobs] for card in view.cards] == [[1], [1]]
