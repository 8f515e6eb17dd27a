"""Batches over HTTP, with a scripted worker: all or none, counted, paused, cancelled, repeated, streamed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from hecaton.core.batches import PAUSE_AFTER
from hecaton.core.model import AttemptRef, Body, Failure, Kind, Reason
from hecaton.wire.channel import Cancel, Outcome
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import ScriptedWorker


def inputs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"input": number} for number in range(start, start + count)]


async def batch(person: Person, count: int, **options: Any) -> str:
    made = await person.must("POST", "/v1/batches", {"image": IMAGE, "items": inputs(count), **options})
    return str(made["id"])


async def results(person: Person, batch_id: str, query: str = "") -> list[dict[str, Any]]:
    reply = await person.call("GET", f"/v1/batches/{batch_id}/results{query}")
    assert reply.status == 200, reply.body
    return [msgspec.json.decode(line) for line in reply.body.splitlines() if line]


async def view(person: Person, batch_id: str) -> Any:
    return await person.get(f"/v1/batches/{batch_id}")


async def fail(worker: ScriptedWorker, count: int, message: str = "no such model") -> None:
    for _ in range(count):
        job = await worker.take()
        await worker.report(Outcome(job.ref, Reason.HANDLER_ERROR, failure=Failure(message, "ValueError"), ran=0.01))


async def finish(worker: ScriptedWorker, count: int) -> None:
    for _ in range(count):
        job = await worker.take()
        await worker.finish(job.ref, msgspec.json.decode(job.payload.data))


@asynccontextmanager
async def lines(person: Person, path: str) -> AsyncIterator[AsyncIterator[Any]]:
    """The lines of an endless answer, decoded."""
    headers = {"Authorization": f"Bearer {person.token}"}
    async with person.session.get(person.url + path, headers=headers) as response:
        assert response.status == 200

        async def decoded() -> AsyncIterator[Any]:
            async for line in response.content:
                if line.strip():
                    yield msgspec.json.decode(line)

        yield decoded()


async def test_a_batch_runs_and_gives_its_results_in_both_orders(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    made = await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": inputs(3), "name": "pictures"})
    assert (made["size"], made["closed"], made["duplicate"]) == (3, True, False)
    await finish(worker, 3)
    await eventually(lambda: state(server.admin, made["id"]), (3, True))
    shown = await view(server.admin, str(made["index"]))
    assert (shown["name"], shown["owner"], shown["waiting"], shown["running"]) == ("pictures", "admin", 0, 0)
    for order in ("input", "ended"):
        found = await results(server.admin, made["id"], f"?order={order}")
        assert [(one["index"], one["state"], one["result"]) for one in found] == [
            (number, "FINISHED", number) for number in range(3)
        ]
    job = await server.admin.job(found[1]["id"])
    assert (job["batch"], job["item"], job["payload"]) == (made["id"], 1, 1)
    assert [one["ended_as"] for one in await results(server.admin, made["id"], "?after=2")] == [3]


async def state(person: Person, batch_id: str) -> tuple[int, bool]:
    shown = await view(person, batch_id)
    return shown["finished"], shown["complete"]


async def test_the_items_of_a_batch_may_be_of_every_kind(server: Running) -> None:
    await server.image()
    sha256 = await server.admin.upload(b"large")
    items = [
        {"input": {"a": [1, None]}},
        {"text": "words"},
        {"base64": base64.b64encode(b"\x00\xff").decode()},
        {"payload": {"sha256": sha256, "size": 5}},
        {},
    ]
    await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": items})
    worker = await server.worker()
    bodies = []
    for _ in items:
        job = await worker.take()
        bodies.append(job.payload)
        await worker.report(Outcome(job.ref, Reason.OK, Body.inline(Kind.BYTES, b"\xff"), ran=0.01))
    assert bodies == [
        Body.inline(Kind.JSON, b'{"a":[1,null]}'),
        Body.inline(Kind.TEXT, b"words"),
        Body.inline(Kind.BYTES, b"\x00\xff"),
        Body(Kind.BYTES, b"", sha256, 5),
        Body.inline(Kind.JSON, b"null"),
    ]


async def test_one_bad_item_is_named_and_nothing_is_stored(server: Running) -> None:
    await server.image()
    for bad, named in (
        ({"input": 1, "text": "x"}, "item 2"),
        ({"base64": "***"}, "item 2"),
        ({"payload": {"sha256": "0" * 64, "size": 5}}, "item 2"),
        ({"inputs": 1}, "items[2]"),
        ({"text": 5}, "items[2].text"),
    ):
        reply = await server.admin.call("POST", "/v1/batches", {"image": IMAGE, "items": [*inputs(2), bad, *inputs(2)]})
        assert (400 <= reply.status < 500, named in reply.message) == (True, True), reply.body
    assert await server.admin.get("/v1/batches") == []
    assert (await server.admin.get("/v1/jobs"))["jobs"] == []


async def test_a_lost_answer_can_be_asked_for_again(server: Running) -> None:
    await server.image()
    key = {"Idempotency-Key": "mine"}
    request = {"image": IMAGE, "items": inputs(2), "closed": False}
    first = await server.admin.must("POST", "/v1/batches", request, headers=key)
    again = await server.admin.call("POST", "/v1/batches", request, headers=key)
    assert (again.status, again.json()["id"], again.json()["duplicate"]) == (200, first["id"], True)
    other = await server.admin.call("POST", "/v1/batches", {**request, "items": inputs(3)}, headers=key)
    assert (other.status, "used before" in other.message) == (409, True)
    more = {"offset": 2, "items": inputs(2, 2), "closed": True}
    for _ in range(2):
        grown = await server.admin.must("POST", f"/v1/batches/{first['id']}/items", more)
        assert (grown["size"], grown["closed"]) == (4, True)
    gap = await server.admin.call("POST", f"/v1/batches/{first['id']}/items", {"offset": 9, "items": inputs(1)})
    assert gap.status == 409
    closed = await server.admin.call("POST", f"/v1/batches/{first['id']}/items", {"offset": 4, "items": inputs(1)})
    assert (closed.status, "closed" in closed.message) == (409, True)
    assert len((await server.admin.get("/v1/jobs"))["jobs"]) == 4


async def test_a_batch_and_what_runs_of_it_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        made = await batch(server.admin, 3)
        worker = await server.worker()
        await finish(worker, 1)
        await eventually(lambda: state(server.admin, made), (1, False))
        token = worker._token
    async with running(tmp_path / "server") as server:
        worker = ScriptedWorker(server.session, server.url, token)
        server.workers.append(worker)
        await worker.connect()
        await finish(worker, 2)
        await eventually(lambda: state(server.admin, made), (3, True))


async def test_results_stream_as_they_come_until_the_last(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 3, closed=False)
    async with lines(server.admin, f"/v1/batches/{made}/results?wait=20") as stream:
        worker = await server.worker()
        for number in range(3):
            await finish(worker, 1)
            assert (await anext(stream))["result"] == number
        await server.admin.must("POST", f"/v1/batches/{made}/items", {"offset": 3, "closed": True})
        assert [line async for line in stream] == []


async def test_the_stream_ends_when_its_time_is_over(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 1)
    assert await results(server.admin, made, "?wait=0.1") == []


async def test_watching_a_batch_shows_how_it_goes_on_and_ends_with_it(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 2)
    async with lines(server.admin, f"/v1/batches/{made}/events") as stream:
        assert (await anext(stream))["waiting"] == 2
        worker = await server.worker()
        await finish(worker, 2)
        last = [picture async for picture in stream][-1]
        assert (last["finished"], last["complete"]) == (2, True)


async def test_failures_are_grouped_by_cause_with_an_example(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    made = await batch(server.admin, 4)
    await fail(worker, 2, "no such row\nrow 7")
    await fail(worker, 1, "disk full")
    await finish(worker, 1)
    await eventually(lambda: state(server.admin, made), (1, True))
    causes = (await view(server.admin, made))["failures"]
    assert [(cause["reason"], cause["message"], cause["count"]) for cause in causes] == [
        ("handler_error", "ValueError: no such row", 2),
        ("handler_error", "ValueError: disk full", 1),
    ]
    example = await server.admin.job(causes[0]["example"])
    assert (example["batch"], example["item"]) == (made, 0)
    [first, *_] = await results(server.admin, made, "?order=input")
    assert (first["state"], first["failure"]["message"]) == ("FAILED", "no such row\nrow 7")


async def paused(person: Person, batch_id: str) -> bool:
    return bool((await view(person, batch_id))["paused"])


async def test_a_batch_whose_first_jobs_all_fail_alike_pauses_says_why_and_blocks_nobody(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    made = await batch(server.admin, PAUSE_AFTER + 80)
    await fail(worker, PAUSE_AFTER)
    await eventually(lambda: paused(server.admin, made), True)
    why = (await view(server.admin, made))["paused"]
    assert ("all failed alike" in why, "no such model" in why) == (True, True)
    # What the worker held already may still come; the rest stays where it is.
    other = await server.admin.submit(IMAGE, "single")
    while (job := await worker.take()).ref.job != other:
        await worker.finish(job.ref)
    await worker.finish(job.ref)
    await server.admin.ended(other)
    shown = await view(server.admin, made)
    assert shown["waiting"] >= 70
    waiting = next(
        job for job in (await server.admin.get("/v1/jobs?state=IN_QUEUE"))["jobs"] if job["state"] == "IN_QUEUE"
    )
    assert "its batch is paused" in str((await server.admin.job(waiting["id"]))["waiting"])
    assert await results(server.admin, made, "?wait=20&after=200") == []  # ends at once: nothing more will come
    left = PAUSE_AFTER + 80 - (shown["finished"] + shown["failed"])
    await server.admin.must("POST", f"/v1/batches/{made}/resume")
    await finish(worker, left)
    await eventually(lambda: complete(server.admin, made), True)


async def complete(person: Person, batch_id: str) -> bool:
    return bool((await view(person, batch_id))["complete"])


async def test_only_a_paused_batch_can_be_resumed(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 1)
    assert (await server.admin.call("POST", f"/v1/batches/{made}/resume")).status == 409


async def test_a_batch_may_say_that_it_must_not_pause(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    made = await batch(server.admin, PAUSE_AFTER + 5, pause=False)
    await fail(worker, PAUSE_AFTER + 5)
    await eventually(lambda: complete(server.admin, made), True)


async def test_cancelling_ends_what_waits_and_tells_the_worker_of_what_runs(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    made = await batch(server.admin, 2500, closed=False)
    running_job = await worker.start()
    await server.admin.must("POST", f"/v1/batches/{made}/cancel")
    assert running_job.ref in (await worker.hear(Cancel)).refs
    obedient = asyncio.create_task(_obey(worker))  # one of the last may have been handed out in that moment
    await eventually(lambda: complete(server.admin, made), True)
    obedient.cancel()
    assert (await view(server.admin, made))["cancelled"] == 2500
    more = {"offset": 2500, "items": inputs(1)}
    assert (await server.admin.call("POST", f"/v1/batches/{made}/items", more)).status == 409
    other = await server.admin.submit(IMAGE)
    assert await worker.until(lambda: worker.assigned[-1].ref.job == other)


async def _obey(worker: ScriptedWorker) -> None:
    stopped: set[AttemptRef] = set()

    def told() -> set[AttemptRef]:
        return {ref for message in worker.heard if isinstance(message, Cancel) for ref in message.refs} - stopped

    while refs := await worker.until(told):
        for ref in refs:
            await worker.fail(ref, Reason.CANCELLED)
        stopped |= refs


async def test_the_failed_ones_can_be_repeated_as_a_new_batch(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    made = await batch(server.admin, 4, name="pictures", pause=False)
    await finish(worker, 1)
    await fail(worker, 2)
    await finish(worker, 1)
    await eventually(lambda: complete(server.admin, made), True)
    key = {"Idempotency-Key": "again"}
    again = await server.admin.must("POST", f"/v1/batches/{made}/retry", headers=key)
    assert (again["size"], again["closed"]) == (2, True)
    same = await server.admin.must("POST", f"/v1/batches/{made}/retry", headers=key)
    assert (same["id"], same["size"]) == (again["id"], 2)
    await finish(worker, 2)
    await eventually(lambda: complete(server.admin, again["id"]), True)
    assert [one["result"] for one in await results(server.admin, again["id"], "?order=input")] == [1, 2]
    shown = await view(server.admin, again["id"])
    assert (shown["retry_of"], shown["name"]) == (made, "pictures (retry)")
    nothing = await server.admin.call("POST", f"/v1/batches/{again['id']}/retry")
    assert (nothing.status, "no failed jobs" in nothing.message) == (409, True)


async def test_the_failed_ones_can_be_repeated_with_a_repaired_handler(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    broken, repaired = [await server.admin.upload(text) for text in (b"raise ValueError", b"start(print)")]
    made = await batch(server.admin, 2, mode="handler", file=broken, file_name="h.py", pause=False)
    await fail(worker, 2)
    await eventually(lambda: complete(server.admin, made), True)
    changes = {"file": repaired, "file_name": "better.py"}
    again = await server.admin.must("POST", f"/v1/batches/{made}/retry", changes)
    files = set()
    for _ in range(2):
        job = await worker.take()
        assert job.file is not None
        files.add((job.file.sha256, job.file.name))
        await worker.finish(job.ref, 1)
    assert files == {(repaired, "better.py")}
    shown = await view(server.admin, again["id"])
    assert (shown["mode"], shown["file"], shown["file_name"]) == ("handler", repaired, "better.py")
    hers = await (await server.user("ada")).upload(b"start(secret)")
    for sha256 in (hers, "0" * 64):
        foreign = await server.admin.call("POST", f"/v1/batches/{made}/retry", {"file": sha256})
        assert (foreign.status, foreign.message) == (404, f"no upload with SHA-256 {sha256}")
    assert {one["id"] for one in await server.admin.get("/v1/batches")} == {made, again["id"]}
    plain = await batch(server.admin, 1)
    refused = await server.admin.call("POST", f"/v1/batches/{plain}/retry", changes)
    assert (refused.status, "no file runs in them" in refused.message) == (400, True)


async def test_a_large_retry_takes_several_calls_with_one_key(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 1200, queue_ttl=0.01)
    await eventually(lambda: complete(server.admin, made), True)
    key = {"Idempotency-Key": "again"}
    sizes = []
    while True:
        grown = await server.admin.must("POST", f"/v1/batches/{made}/retry", headers=key)
        sizes.append(grown["size"])
        if grown["closed"]:
            break
    assert sizes == [500, 1000, 1200]


async def test_a_batch_of_somebody_else_looks_like_one_that_does_not_exist(server: Running) -> None:
    await server.image()
    ada, bob = await server.user("ada"), await server.user("bob")
    made = await batch(ada, 1)
    for method, suffix in (
        ("GET", ""), ("GET", "/results"), ("GET", "/events"), ("POST", "/resume"), ("POST", "/cancel"),
        ("POST", "/retry"), ("POST", "/items"),
    ):  # fmt: skip
        value = {"offset": 0} if suffix == "/items" else None
        foreign = await bob.call(method, f"/v1/batches/{made}{suffix}", value)
        absent = await bob.call(method, f"/v1/batches/{made[:-1]}x{suffix}", value)
        assert foreign.status == absent.status == 404, suffix
        assert foreign.body.replace(made.encode(), b"ID") == absent.body.replace(f"{made[:-1]}x".encode(), b"ID")
    assert await bob.get("/v1/batches") == []
    assert [one["id"] for one in await ada.get("/v1/batches")] == [made]
    assert [one["id"] for one in await server.admin.get("/v1/batches")] == [made]


async def test_an_open_batch_of_an_admin_belongs_to_him_whoever_appends(server: Running) -> None:
    await server.image()
    ada = await server.user("ada")
    made = await batch(ada, 1, closed=False)
    await server.admin.must("POST", f"/v1/batches/{made}/items", {"offset": 1, "items": inputs(1, 1)})
    assert {job["owner"] for job in (await ada.get("/v1/jobs"))["jobs"]} == {"ada"}
    assert len((await ada.get("/v1/jobs"))["jobs"]) == 2


async def test_too_many_items_in_one_request_are_refused_with_the_limit(server: Running) -> None:
    await server.image()
    reply = await server.admin.call("POST", "/v1/batches", {"image": IMAGE, "items": [{}] * 10_001})
    assert (reply.status, "10000" in reply.message) == (413, True)


async def test_a_reader_that_goes_away_leaves_no_watch_behind(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 1)
    index = (await view(server.admin, made))["index"]

    async def watched() -> bool:
        return index in server.server.parts.hub._watches

    headers = {"Authorization": f"Bearer {server.admin.token}"}
    response = await server.session.get(f"{server.url}/v1/batches/{made}/results?wait=600", headers=headers)
    await eventually(watched, True)
    response.close()
    await eventually(watched, False)


async def test_json_of_many_lines_stays_one_line_of_the_stream(server: Running) -> None:
    await server.image()
    made = await batch(server.admin, 1)
    worker = await server.worker()
    job = await worker.take()
    await worker.report(Outcome(job.ref, Reason.OK, Body.inline(Kind.JSON, b'{\n "a": [1,\n 2]}'), ran=0.01))
    async with asyncio.timeout(20):
        [one] = await results(server.admin, made, "?wait=20")
    assert one["result"] == {"a": [1, 2]}


async def test_who_waits_for_a_batch_whose_jobs_expire_in_the_queue_is_told_at_once(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        waiting = await batch(server.admin, 3, queue_ttl=0.2)
        reply = await server.admin.call("GET", f"/v1/batches/{waiting}/results?wait=30")
        lines = reply.body.splitlines()  # an empty one would say that ten seconds have passed
        assert [msgspec.json.decode(line)["reason"] for line in lines] == ["queue_ttl"] * 3


async def test_a_batch_whose_first_jobs_all_expire_in_the_queue_pauses_and_hands_out_no_more(server: Running) -> None:
    await server.image()
    hopeless = await batch(server.admin, PAUSE_AFTER, queue_ttl=3600, closed=False)
    server.later(1800)
    more = {"items": inputs(2, PAUSE_AFTER), "offset": PAUSE_AFTER}
    await server.admin.must("POST", f"/v1/batches/{hopeless}/items", more)
    server.later(1900)

    async def paused() -> bool:
        return (await view(server.admin, hopeless))["paused"] is not None

    await eventually(paused, True)
    worker = await server.worker()
    own = await server.admin.submit(IMAGE, "another")
    assert (await worker.take()).ref.job == own
