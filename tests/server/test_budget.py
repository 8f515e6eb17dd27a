"""What one user stores costs himself alone, and with the disk at its floor admins can still do everything."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hecaton.core.errors import TooLarge, Unavailable
from hecaton.core.model import Body, Kind, Reason
from hecaton.wire.channel import Log, Outcome, Revoke
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker, holding, slots
from tests.small_disk import fill, small_disk

MIB = 1024 * 1024
KIB = 1024


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Running]:
    """Everybody may have 1 MiB stored."""
    async with running(tmp_path / "server", max_user_bytes=MIB, lost_after=30.0) as started:
        await started.image()
        yield started


async def look(server: Running) -> None:
    """As `duties` does every second."""
    await server.server.parts.duties.look_at_room()


async def fill_up(person: Person) -> list[str]:
    """The jobs that he could submit until he was told of his budget."""
    jobs = []
    while (reply := await person.call("POST", "/v1/jobs", {"image": IMAGE, "text": "x" * 100 * KIB})).status == 201:
        jobs.append(reply.json()["id"])
    assert reply.status == 413
    assert "over your budget of 1.0 MiB" in reply.message
    assert "--max-user-bytes" in reply.json()["error"]["hint"]
    return jobs


async def run_one(server: Running, worker: ScriptedWorker, person: Person) -> None:
    job = await person.submit(IMAGE, 1)
    taken = await worker.take()
    assert taken.ref.job == job
    await worker.finish(taken.ref, 2)
    assert (await person.get(f"/v1/jobs/{job}?wait=20"))["result"] == 2


async def test_who_has_reached_his_budget_stores_nothing_more_and_nobody_else_notices(small: Running) -> None:
    bob, ada = await small.user("bob"), await small.user("ada")
    jobs = await fill_up(bob)
    assert len(jobs) == 10
    for path, value in (
        ("/v1/batches", {"image": IMAGE, "items": [{"text": "x" * 100 * KIB}]}),
        ("/v1/batches", {"image": IMAGE, "items": [{"input": n} for n in range(1000)]}),
    ):
        assert (await bob.call("POST", path, value)).status == 413
    body = b"y" * 500 * KIB
    refused = await bob.call("PUT", f"/v1/blobs/{hashlib.sha256(body).hexdigest()}", body=body)
    assert (refused.status, "budget" in refused.message) == (413, True)
    worker = await small.worker()
    taken = await worker.take()
    assert taken.owner == "bob"
    await worker.finish(taken.ref, "b" * 900 * KIB, ran=2.0)  # what runs is stored all the same
    assert await worker.answer(taken.ref) == "accepted"
    await look(small)
    next_one = await worker.take()  # it was given out before that was known
    await look(small)
    await worker.finish(next_one.ref, 1, ran=2.0)
    for _ in range(2):
        await run_one(small, worker, ada)
    waiting = (await bob.get(f"/v1/jobs/{jobs[-1]}"))["waiting"]
    assert waiting[0]["why"] == "bob has stored as much as one user may: nothing of it starts (hecaton usage)"


async def test_what_waits_at_a_worker_of_one_over_his_budget_is_asked_back(small: Running) -> None:
    bob = await small.user("bob")
    worker = await small.worker()
    for number in range(8):
        await bob.submit(IMAGE, number)
    first = await worker.start()
    await worker.finish(first.ref, 1, ran=0.001)  # so short that the others are given ahead
    second = await worker.start()
    await worker.until(lambda: len(worker.assigned) == 8 or None)
    await worker.finish(second.ref, "r" * 1020 * KIB, ran=0.001)
    third = await worker.start()
    await worker.answer(second.ref)
    await look(small)
    revoked = set((await worker.hear(Revoke)).refs)
    assert revoked == {job.ref for job in worker.assigned} - {first.ref, second.ref, third.ref}


async def test_what_is_removed_makes_room_and_what_waited_goes_on(small: Running) -> None:
    bob = await small.user("bob")
    worker = await small.worker()
    for _ in range(2):
        await bob.submit(IMAGE, 1)
        taken = await worker.take()
        await worker.finish(taken.ref, "b" * 600 * KIB)
        await worker.answer(taken.ref)
    await look(small)
    used = await bob.get("/v1/usage")
    assert (used["results"], used["total"] > used["max_bytes"]) == (2 * (600 * KIB + 2), True)
    refused = await bob.call("POST", "/v1/jobs", {"image": IMAGE, "text": "x"})
    assert refused.status == 413
    assert (await bob.must("POST", "/v1/usage/clear", {"older_than": 3600}))["jobs"] == 0
    cleared = await bob.must("POST", "/v1/usage/clear", {"older_than": 0})
    assert cleared["jobs"] == 2
    assert cleared["usage"]["results"] == 0
    await run_one(small, worker, bob)


async def test_items_of_a_paused_batch_count(small: Running) -> None:
    batch = await small.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 0}], "closed": False})
    await small.server.database.write(lambda store: store.set_paused(batch["index"], "a test"))
    small.server.parts.hub.wake(batch["index"], decided=True)
    statuses = []
    for offset in range(1, 9):
        more = {"offset": offset, "items": [{"text": "x" * 200 * KIB}], "closed": False}
        statuses.append((await small.admin.call("POST", f"/v1/batches/{batch['id']}/items", more)).status)
    assert statuses == [200] * 5 + [413] * 3


async def test_an_upload_counts_while_it_arrives_and_once_it_is_there(small: Running) -> None:
    bob = await small.user("bob")
    await bob.upload(b"a" * 600 * KIB)
    await bob.upload(b"a" * 300 * KIB)
    refused = await bob.call("PUT", f"/v1/blobs/{'0' * 64}", body=b"b" * 600 * KIB)
    assert refused.status == 413
    budget = small.server.parts.budget
    assert budget._arriving.total() == 0
    broken = await bob.call("PUT", f"/v1/blobs/{'0' * 64}", body=b"b" * 100 * KIB)  # it has another hash
    assert broken.status == 400
    for _ in range(2):
        await look(small)
    assert (await bob.get("/v1/usage"))["files"] == 900 * KIB
    await bob.upload(b"c" * 100 * KIB)


async def test_everybody_sees_what_is_his_and_admins_see_all_also_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        bob, _ = await server.user("bob"), await server.user("ada")
        worker = await server.worker()
        await bob.submit(IMAGE, "x" * 1000)
        taken = await worker.take()
        await worker.send(Log(taken.ref, 0, b"printed"))
        await worker.finish(taken.ref, "y" * 98)
        await worker.answer(taken.ref)
        await bob.submit(IMAGE, 1)
        before = await bob.get("/v1/usage")
        assert (before["results"], before["logs"], before["files"]) == (100, 7, 0)
        assert (before["waiting"], before["kinds"], before["running"]) == (0, 0, 1)
        assert (await bob.call("GET", "/v1/usage/users")).status == 403
        assert (await bob.call("POST", "/v1/usage/clear", {"older_than": 0, "username": "ada"})).status == 404
    async with running(tmp_path / "server") as server:
        every = await server.admin.get("/v1/usage/users")
        assert [one["username"] for one in every] == ["bob", "ada", "admin"]
        stored = ("payloads", "results", "logs", "files", "total")
        assert {name: every[0][name] for name in stored} == {name: before[name] for name in stored}


# -- the floor -------------------------------------------------------------------------------------


async def test_at_the_floor_admins_make_room_and_then_all_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 48) as disk:
        options: dict[str, Any] = {"max_user_bytes": 40 * MIB, "disk_floor": 16 * MIB}
        async with running(disk / "server", **options) as server:
            await server.image()
            bob, ada = await server.user("bob"), await server.user("ada")
            worker = await server.worker(slots=slots(1))
            await ada.submit(IMAGE, "runs")
            runs = await worker.start()
            jobs = []
            large = {"image": IMAGE, "text": "x" * 1000 * KIB}
            while (reply := await bob.call("POST", "/v1/jobs", large)).status == 201:
                jobs.append(reply.json()["id"])
                await look(server)
            assert (reply.status, "the server's disk is nearly full" in reply.message) == (503, True)
            for method, path, value in (
                ("POST", "/v1/jobs", {"image": IMAGE}),
                ("POST", "/v1/batches", {"image": IMAGE, "items": [{}]}),
                ("POST", f"/v1/jobs/{jobs[0]}/retry", None),
                ("PUT", f"/v1/blobs/{hashlib.sha256(b'1').hexdigest()}", "1"),
            ):
                assert (await bob.call(method, path, value)).status == 503
            # What runs is stored, and nothing more is started.
            await worker.finish(runs.ref, "r" * 500 * KIB)
            assert await worker.answer(runs.ref) == "accepted"
            assert len(worker.assigned) == 1
            reasons = (await bob.get(f"/v1/jobs/{jobs[0]}"))["waiting"]
            assert reasons[0]["why"] == "the server's disk is nearly full: nothing starts until there is room"
            # Admins cancel, drain, remove, create: then there is room.
            await server.admin.must("POST", "/v1/workers/w1/drain")
            await server.admin.must("POST", "/v1/workers/w1/undrain")
            await server.user("carol")
            await server.admin.must("DELETE", "/v1/users/carol")
            for job in jobs[1:]:
                await server.admin.must("POST", f"/v1/jobs/{job}/cancel")
            cleared = await server.admin.must("POST", "/v1/usage/clear", {"older_than": 0, "username": "bob"})
            assert cleared["jobs"] == len(jobs) - 1

            async def submitted() -> int:
                return (await bob.call("POST", "/v1/jobs", {"image": IMAGE, "input": 1})).status

            await eventually(submitted, 201)
            assert (await worker.take()).ref.job == jobs[0]


async def test_a_large_result_waits_at_its_worker_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 32) as disk:
        async with running(disk / "server", disk_floor=16 * MIB) as server:
            await server.image()
            await server.admin.submit(IMAGE, 1)
            worker = await server.worker()
            taken = await worker.start()
            result = b"r" * 2 * MIB
            sha256 = hashlib.sha256(result).hexdigest()
            path = f"/v1/worker/jobs/{taken.ref.job}/blobs/{sha256}"
            ballast = fill(disk)
            with ballast.open("r+b") as file:
                file.truncate(ballast.stat().st_size - 9 * MIB)
            nobody = server.nobody
            assert (await nobody.call("PUT", path, body=result, headers=worker.http)).status == 503
            ballast.unlink()
            assert (await nobody.call("PUT", path, body=result, headers=worker.http)).status == 201
            await worker.report(Outcome(taken.ref, Reason.OK, Body(Kind.BYTES, b"", sha256, len(result)), ran=0.1))
            assert await worker.answer(taken.ref) == "accepted"


async def test_batches_without_items_and_long_options_count(small: Running) -> None:
    bob = await small.user("bob")
    env = {f"K{n}": "v" * 300 for n in range(60)}
    made = 0
    while (reply := await bob.call("POST", "/v1/batches", {"image": IMAGE, "items": [], "env": env})).status == 201:
        made += 1
        await look(small)
    assert (reply.status, "budget" in reply.message, 40 < made < 60) == (413, True, True)
    ada = await small.user("ada")
    many = {"image": IMAGE, "items": [{"input": n} for n in range(100)], "env": env}
    assert (await ada.call("POST", "/v1/batches", many)).status == 413


async def test_two_looks_at_once_forget_nothing_that_is_on_its_way(small: Running) -> None:
    budget = small.server.parts.budget
    budget.require(7, 900 * KIB)
    await asyncio.gather(budget.look(), budget.look())  # the store does not know of it yet
    budget.require(8, 900 * KIB)
    await budget.look()
    with pytest.raises(TooLarge):
        budget.require(8, 900 * KIB)


async def test_a_look_that_fails_forgets_nothing(small: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = small.server.parts.budget
    budget.require(7, 900 * KIB)

    async def fails(work: object) -> None:
        raise Unavailable("the disk")

    with monkeypatch.context() as broken:
        broken.setattr(small.server.parts.resources.database, "read", fails)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await budget.look()
    with pytest.raises(TooLarge):
        budget.require(7, 900 * KIB)


async def test_what_a_worker_brings_back_of_one_over_his_budget_is_asked_back(small: Running) -> None:
    bob = await small.user("bob")
    worker = await small.worker(slots=slots(1))
    for number in range(2):
        await bob.submit(IMAGE, number)
    first = await worker.take()
    await worker.finish(first.ref, "b" * 1023 * KIB, ran=2.0)
    job = await worker.take()  # given out before it was known
    await worker.cut()
    await look(small)
    await worker.connect(held=(holding(job, "queued"),))
    await look(small)
    assert job.ref in (await worker.hear(Revoke)).refs
