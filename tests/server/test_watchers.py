"""To watch is cheap: an event costs what it says, however large the job is, and each user has so many streams."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hecaton.server import hub
from hecaton.wire.channel import Log, Note, Released
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import progress

WATCHERS = 20
EVENTS = 10
LARGE = "x" * 1_000_000


async def test_a_client_that_leaves_ends_what_runs_also_with_more_requests_behind_it(server: Running) -> None:
    await server.image()
    job = await server.admin.submit(IMAGE)
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"Host: x\r\nAuthorization: Bearer {server.admin.token}\r\n\r\n"
    writer.write(f"GET /v1/jobs/{job}/events HTTP/1.1\r\n{head}GET /v1/server HTTP/1.1\r\n{head}".encode())
    await reader.readuntil(b"IN_QUEUE")
    streams = server.server.parts.hub._streams
    assert len(streams) == 1
    writer.transport.abort()

    async def left() -> int:
        return len(streams)

    await eventually(left, 0, 20)


def _open(person: Person, path: str, body: object = None) -> Any:
    method = "GET" if body is None else "POST"
    headers = {"Authorization": f"Bearer {person.token}"}
    return person.session.request(method, person.url + path, json=body, headers=headers)


async def _event(stream: Any) -> Any:
    while True:
        line = await asyncio.wait_for(stream.content.readline(), 20)
        assert line, "the stream ended"
        if line.strip():
            return json.loads(line)


def _reads(server: Running) -> list[str]:
    """The statements with which the store is read from now on."""
    statements: list[str] = []
    reader = server.server.database._connections[1]
    reader.set_trace_callback(statements.append)
    return statements


async def test_an_event_does_not_read_what_it_does_not_say(server: Running) -> None:
    """Neither payload nor result, attempts or ends of logs: a piece of the log alone, once for each who watches."""
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE, LARGE, retries=1)
    job = await worker.start()
    await eventually(lambda: server.admin.state(job_id), "IN_PROGRESS")
    async with AsyncExitStack() as stack:
        path = f"/v1/jobs/{job_id}/events"
        streams = [await stack.enter_async_context(_open(server.admin, path)) for _ in range(WATCHERS)]
        for stream in streams:
            assert (await _event(stream))["value"] == "IN_PROGRESS"
        statements = _reads(server)
        for number in range(EVENTS):
            await worker.send(progress(job.ref, number), Note(job.ref, f"step {number}"))
            for stream in streams:
                assert [(await _event(stream))["value"] for _ in range(2)] == [number, f"step {number}"]
        assert statements == []
        await worker.send(Log(job.ref, 0, b"hello\n"))
        for stream in streams:
            assert (await _event(stream))["value"] == "hello\n"
        tables = Counter("log_piece" in statement for statement in statements if "SELECT" in statement)
        assert tables == {True: 2 * WATCHERS}, statements[:5]
        statements.clear()
        await worker.finish(job.ref, "done")
        for stream in streams:
            end = await _event(stream)
            assert (end["event"], end["value"]["result"]) == ("end", "done")


async def test_a_stream_follows_its_job_into_another_attempt(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job_id = await server.admin.submit(IMAGE)
    first = await worker.take()
    async with _open(server.admin, f"/v1/jobs/{job_id}/events") as stream:
        assert (await _event(stream))["value"] == "ASSIGNED"
        await worker.send(Log(first.ref, 0, b"one\n"))
        assert (await _event(stream))["value"] == "one\n"
        await worker.send(Released((first.ref,)))
        assert (await _event(stream))["value"] == "IN_QUEUE"
        second = await worker.start()
        started = await _event(stream)
        assert (started["value"], started["attempt"]) == ("IN_PROGRESS", 2)
        await worker.send(Log(second.ref, 0, b"two\n"))
        said = await _event(stream)
        assert (said["value"], said["attempt"], said["offset"]) == ("two\n", 2, 4)
        await worker.send(Log(second.ref, 4, b"three\n"))
        await worker.finish(second.ref)
        assert [(await _event(stream))["event"] for _ in range(2)] == ["log", "end"]


@pytest.mark.parametrize("size", [1, 200_000], ids=["small", "large"])
async def test_jobs_that_are_submitted_and_followed_count_as_well(
    server: Running, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(hub, "MAX_STREAMS", 2)
    await server.image()
    bob = await server.user("bob")
    body = {"image": IMAGE, "input": "x" * size}
    async with AsyncExitStack() as stack:
        followed = [await stack.enter_async_context(_open(bob, "/v1/jobs/followed?wait=60", body)) for _ in range(2)]
        indexes = [json.loads(await stream.content.readline())["index"] for stream in followed]
        refused = await bob.call("POST", "/v1/jobs/followed", body)
        assert (refused.status, "2 answers open" in refused.message) == (429, True)
        async with _open(bob, f"/v1/jobs/{indexes[0]}/events") as events:
            assert events.status == 429
        assert len((await bob.must("GET", "/v1/jobs"))["jobs"]) == 2, "what was refused is not stored"
        for index in indexes:
            await bob.must("POST", f"/v1/jobs/{index}/cancel")
        assert [json.loads(await stream.content.readline())["state"] for stream in followed] == ["CANCELLED"] * 2
    async with _open(bob, f"/v1/jobs/{indexes[0]}/events") as events:
        assert events.status == 200


async def test_a_user_has_so_many_streams_and_others_have_theirs(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_STREAMS", 3)
    await server.image()
    bob, ada = await server.user("bob"), await server.user("ada")
    job, hers = await bob.submit(IMAGE), await ada.submit(IMAGE)
    batch = await bob.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}]})
    watched = [
        f"/v1/jobs/{job}/events",
        f"/v1/batches/{batch['id']}/events",
        f"/v1/batches/{batch['id']}/results?wait=60",
    ]
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(_open(bob, path)) for path in watched]
        assert [stream.status for stream in streams] == [200, 200, 200]
        refused = await bob.call("GET", watched[0])
        assert (refused.status, refused.headers["Retry-After"]) == (429, "5")
        assert "3 answers open" in refused.message
        async with _open(ada, f"/v1/jobs/{hers}/events") as other:
            assert (await _event(other))["value"] == "IN_QUEUE"
        assert (await bob.call("GET", f"/v1/jobs/{job}?wait=0.01")).status == 200
        streams[1].close()

        async def is_let_in() -> int:
            async with _open(bob, watched[0]) as stream:
                return int(stream.status)

        await eventually(is_let_in, 200)
