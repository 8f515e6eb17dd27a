"""Requests that arrive in the same moment share one hand-over to the store, and nobody notices; what replies look like
on the wire."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.server.running import IMAGE, Running, running

MANY = 20


def _head(server: Running, method: str, path: str, *headers: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {server.admin.token}", *headers)
    return "\r\n".join((*lines, "", "")).encode()


def _submission(server: Running, **job: Any) -> bytes:
    body = json.dumps({"image": IMAGE, **job}).encode()
    return _head(server, "POST", "/v1/jobs", f"Content-Length: {len(body)}") + body


async def _open(server: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))


async def _reply(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length) or b"null")


async def _at_once(server: Running, requests: list[bytes]) -> list[tuple[int, Any]]:
    """All of them lie at the server before it reads the first."""
    connections = [await _open(server) for _ in requests]
    for (_, writer), request in zip(connections, requests, strict=True):
        writer.write(request)
    replies = [await _reply(reader) for reader, _ in connections]
    for _, writer in connections:
        writer.close()
    return replies


async def test_a_submission_that_is_refused_takes_none_of_the_same_moment_with_it(server: Running) -> None:
    await server.image()
    await server.admin.must("POST", "/v1/jobs", {"image": IMAGE}, headers={"Idempotency-Key": "known"})
    requests = [_submission(server, input=number) for number in range(MANY)]
    requests[3] = _submission(server, mode="script", file="ab" * 32, file_name="a.py")
    requests[9] = requests[9].replace(b"Host: x", b"Host: x\r\nIdempotency-Key: known")
    replies = await _at_once(server, requests)
    bad = {number: reply for number, reply in enumerate(replies) if reply[0] != 201}
    assert {number: status for number, (status, _) in bad.items()} == {3: 404, 9: 409}
    assert "no upload" in bad[3][1]["error"]["message"]
    page = await server.admin.get("/v1/jobs?limit=100")
    assert len(page["jobs"]) == MANY - 2 + 1
    worker = await server.worker()
    for _ in range(MANY - 2 + 1):
        await worker.finish((await worker.start()).ref, "done")


async def test_one_that_fails_for_no_known_reason_takes_none_of_the_same_moment_with_it(server: Running) -> None:
    await server.image()
    with sqlite3.connect(server.server.settings.folder / "hecaton.db") as database:
        database.execute(
            "CREATE TRIGGER odd BEFORE INSERT ON job WHEN new.priority = 13"
            " BEGIN SELECT abs(-9223372036854775807 - 1); END"
        )
    database.close()
    replies = await _at_once(server, [_submission(server, priority=number) for number in range(MANY)])
    assert {number: status for number, (status, _) in enumerate(replies) if status != 201} == {13: 500}
    assert len((await server.admin.get("/v1/jobs?limit=100"))["jobs"]) == MANY - 1


async def test_the_same_key_in_the_same_moment_makes_one_job(server: Running) -> None:
    await server.image()
    request = _submission(server, input=1).replace(b"Host: x", b"Host: x\r\nIdempotency-Key: one")
    replies = await _at_once(server, [request] * MANY)
    assert {reply["id"] for _, reply in replies} == {replies[0][1]["id"]}
    assert sorted(status for status, _ in replies) == [200] * (MANY - 1) + [201]


async def test_a_quota_holds_to_the_job_for_those_that_come_in_the_same_moment(tmp_path: Path) -> None:
    async with running(tmp_path / "server", max_queued=7) as server:
        await server.image()
        replies = await _at_once(server, [_submission(server, input=number) for number in range(MANY)])
        assert sorted(status for status, _ in replies) == [201] * 7 + [429] * (MANY - 7)
        assert len((await server.admin.get("/v1/jobs"))["jobs"]) == 7


async def test_a_client_that_asks_first_is_told_to_send_its_body(server: Running) -> None:
    await server.image()
    reader, writer = await _open(server)
    head, _, body = _submission(server).partition(b"\r\n\r\n")
    writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(20):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await _reply(reader))[0] == 201
    writer.close()


async def test_the_head_of_a_reply_without_a_body_arrives(server: Running) -> None:
    reader, writer = await _open(server)
    for method, path, status in (("HEAD", "/healthz", b"200"), ("DELETE", "/v1/users/nobody", b"404")):
        writer.write(_head(server, method, path))
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            if method != "HEAD":
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        assert head.startswith(b"HTTP/1.1 " + status)
    writer.close()


async def test_a_stream_that_has_nothing_to_say_yet_begins_all_the_same(server: Running) -> None:
    await server.image()
    batch = await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}]})
    reader, writer = await _open(server)
    writer.write(_head(server, "GET", f"/v1/batches/{batch['id']}/results?wait=60"))
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"200"
    writer.close()


async def test_requests_that_are_sent_without_waiting_are_answered_in_their_order(server: Running) -> None:
    reader, writer = await _open(server)
    last = _head(server, "GET", "/v1/images/nothing", "Connection: close")
    writer.write(_head(server, "GET", "/v1/server") + _head(server, "GET", "/v1/images") + last)
    async with asyncio.timeout(20):
        assert (await _reply(reader))[1]["username"] == "admin"
        assert (await _reply(reader))[1] == []
        assert (await _reply(reader))[0] == 404
        assert await reader.read() == b""  # as the last one asked
    writer.close()
