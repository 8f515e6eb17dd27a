"""What one user may have at a time: he is told of it, and the others do not notice."""

from __future__ import annotations

import asyncio
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


async def test_many_paused_batches_are_not_resumed_at_once_over_the_bound_of_kinds(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them waits before the first step of its resumption is done; what was refused is as it was."""
    await server.image()
    bob, ada = await server.user("bob"), await server.user("ada")
    batches = [
        await person.must("POST", "/v1/batches", {**await handler(person, text), "items": [{}], "pause": True})
        for person, text in [*((bob, text) for text in "abcd"), (ada, "e")]
    ]
    database, hub, quotas_ = server.server.database, server.server.parts.hub, server.server.parts.batches._quotas

    def pause(store: Store) -> None:
        for batch in batches:
            store.set_paused(batch["index"], "a test")

    await database.write(pause)
    hub.wake(batches[0]["index"], decided=True)

    async def kinds() -> list[int]:
        return [(await person.get("/v1/usage"))["kinds"] for person in (bob, ada)]

    await eventually(kinds, [0, 0])
    monkeypatch.setattr(quotas, "MAX_WAITING_LANES", 2)
    monkeypatch.setattr(hub, "decided", asyncio.Event())  # nobody hears of it: the steps are as slow as can be

    async def resume(batch: Any) -> int:
        owner = ada if batch is batches[4] else bob
        return (await owner.call("POST", f"/v1/batches/{batch['index']}/resume")).status

    assert [await resume(batch) for batch in batches] == [200, 200, 429, 429, 200]
    refused = await bob.call("POST", "/v1/jobs", await handler(bob, "f"))
    assert (refused.status, "your waiting jobs are of 2 kinds" in refused.message) == (429, True)
    await bob.must("POST", "/v1/jobs", await handler(bob, "a"))  # of a kind that waits in a moment
    assert [bool((await bob.get(f"/v1/batches/{batch['index']}"))["paused"]) for batch in batches[:4]] == [
        False, False, True, True,
    ]  # fmt: skip
    while await server.server.parts._sweeper.run_once():
        pass
    assert not quotas_._resuming
    assert await kinds() == [2, 1]


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
