"""A worker uses as many slots as when it was here first, until an admin lets it use more."""

from __future__ import annotations

from typing import Any

from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import holding, slots

NOTE = "1 of its 3 slots are used: it was enrolled with 1. To use all: hecaton worker undrain w1"


async def _view(server: Running) -> Any:
    (view,) = await server.admin.get("/v1/workers")
    return view


async def _submit(server: Running, count: int) -> int:
    """So many jobs more; on how many slots there is work then. A job is given out before its submission is answered."""
    for number in range(count):
        await server.admin.submit(IMAGE, number)
    return sum(slot["state"] == "busy" for slot in (await _view(server))["slots"])


async def test_a_worker_that_says_more_slots_than_at_first_uses_no_more_until_an_admin_lets_it(
    server: Running,
) -> None:
    await server.image()
    worker = await server.worker()
    assert await _submit(server, 5) == 1
    kept = await worker.start()
    await worker.cut()
    await worker.connect(slots=slots(3), held=(holding(kept),))
    view = await _view(server)
    assert (view["note"], view["status"]) == (NOTE, "ONLINE")
    assert [slot["state"] for slot in view["slots"]] == ["busy", "lost", "lost"]
    assert await _submit(server, 1) == 1
    await server.admin.must("POST", "/v1/workers/w1/undrain")
    assert await worker.closed() == 1012
    await worker.connect(slots=slots(3), held=(holding(kept),))
    assert [(await worker.take()).slot for _ in range(2)] == [1, 2]
    await worker.finish(kept.ref, "kept")
    assert (await server.admin.ended(kept.ref.job))["result"] == "kept"
    await worker.cut()
    await worker.connect(slots=slots(4))
    assert (await _view(server))["note"].startswith("3 of its 4 slots are used")


async def test_fewer_slots_than_at_first_are_no_promise_to_use_no_more_again(server: Running) -> None:
    await server.image()
    worker = await server.worker(slots=slots(3))
    for count in (2, 0, 3):
        await worker.cut()
        await worker.connect(slots=slots(count))
    assert (await _view(server))["note"] is None
    assert await _submit(server, 4) == 3


async def test_a_worker_without_a_slot_is_enrolled_with_those_that_it_has_first(server: Running) -> None:
    await server.image()
    worker = await server.worker(slots=())
    for count in (2, 3):
        await worker.cut()
        await worker.connect(slots=slots(count))
    assert (await _view(server))["note"].startswith("2 of its 3 slots are used")
    assert await _submit(server, 3) == 2


async def test_the_end_of_a_drain_ends_no_connection_of_a_worker_that_uses_all_its_slots(server: Running) -> None:
    await server.image()
    worker = await server.worker(slots=slots(2))
    await server.admin.must("POST", "/v1/workers/w1/drain")
    await worker.cut()
    await worker.connect(slots=slots(1))
    await server.admin.must("POST", "/v1/workers/w1/undrain")
    await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref)
    assert worker.close_code is None
    await worker.cut()
    await worker.connect(slots=slots(2))
    assert (await _view(server))["note"] is None
