"""What one user may have at a time: he is told of it, and the others do not notice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from hecaton.server.jobs import quotas
from hecaton.store.port import LaneInfo, Store
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import slots


async def handler(person: Person, text: str) -> dict[str, Any]:
    """What submits a job of a handler file: each is a kind of its own."""
    return {"image": IMAGE, "mode": "handler", "file": await person.upload(text.encode())}


async def test_work_of_many_kinds_is_refused_beyond_a_bound_and_nobody_elses(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "MAX_WAITING_LANES", 3)
    await server.image()
    bob, ada = await server.user("bob"), await server.user("ada")
    for text in "abc":
        await bob.must("POST", "/v1/jobs", await handler(bob, text))
    fourth = await handler(bob, "d")
    refused = [
        await bob.call("POST", "/v1/jobs", fourth),
        await bob.call("POST", "/v1/batches", {**fourth, "items": [{}]}),
    ]
    for reply in refused:
        assert reply.status == 429, reply.body
        assert reply.message == (
            "your waiting jobs are of 3 kinds (image, mode, handler, options), the most for one user"
        )
    await bob.must("POST", "/v1/jobs", await handler(bob, "c"))  # one more of a kind that waits
    await ada.must("POST", "/v1/jobs", await handler(ada, "d"))
    worker = await server.worker()
    await worker.take()  # the only one of its kind
    await bob.must("POST", "/v1/jobs", fourth)


async def test_a_paused_batch_is_not_resumed_over_the_bound_of_kinds(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "MAX_WAITING_LANES", 1)
    await server.image()
    batch = await server.admin.must("POST", "/v1/batches", {**await handler(server.admin, "a"), "items": [{}]})
    await server.server.database.write(lambda store: store.set_paused(batch["index"], "a test"))
    server.server.parts.hub.wake(batch["index"], decided=True)
    other = await handler(server.admin, "b")

    async def status() -> int:
        return (await server.admin.call("POST", "/v1/jobs", other)).status

    await eventually(status, 201)  # the pause is carried out
    refused = await server.admin.call("POST", f"/v1/batches/{batch['index']}/resume")
    assert (refused.status, "kinds" in refused.message) == (429, True)


async def test_nobody_has_more_places_than_one_user_may_have(tmp_path: Path) -> None:
    async with running(tmp_path / "server", max_running=2) as server:
        await server.image()
        bob, ada = await server.user("bob"), await server.user("ada")
        for number in range(4):
            await bob.submit(IMAGE, number)
        worker = await server.worker(slots=slots(4))
        taken = [await worker.take(), await worker.take()]
        waiting = await bob.submit(IMAGE, "waits")
        reasons = (await bob.get(f"/v1/jobs/{waiting}"))["waiting"]
        assert reasons[0]["why"] == ("2 places work for bob, the most for one user (hecaton-server --max-running)")
        await ada.submit(IMAGE, "ada's")
        assert (await worker.take()).owner == "ada"
        await worker.finish(taken[0].ref)
        assert (await worker.take()).owner == "bob"


async def test_a_count_of_what_waits_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    """It takes as long as there are kinds of work."""
    async with running(tmp_path / "server") as server:
        await server.image()
        await server.admin.submit(IMAGE, 1)
        names: list[str] = []

        def look(store: Store) -> None:
            original = store.lanes

            def lanes(now: float) -> list[LaneInfo]:
                names.append(threading.current_thread().name)
                return original(now)

            store.lanes = lanes  # type: ignore[method-assign]

        await server.server.database.write(look)
        await server.server.database.read(look)
        await server.server.parts.dispatcher.read_waiting()
        assert names == ["hecaton-store-reader"]
        assert server.server.parts.scheduler.queued(1) == 1
