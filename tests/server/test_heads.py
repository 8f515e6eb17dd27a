"""Clients that never come to the point: heads, trailers and chunks without end cost nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from hecaton.server.web.heads import MAX_HEAD, MAX_HEADERS, MAX_PIPELINED
from tests.server.people import Person
from tests.server.running import IMAGE, Running
from tests.server.server_process import ServerProcess

MIB = 1 << 20
STREAM = 64 * MIB
ROOM = 50 * MIB
"""That a server may grow by while somebody streams at it; what is promised is 100 MB."""

ROUTE = b"POST /v1/login HTTP/1.1\r\nHost: x\r\n"
CHUNKED = ROUTE + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"

ENDLESS = {
    "a header": (GET + b"X-A: ", b"a" * MIB),
    "the name of a header": (GET, b"a" * MIB),
    "the URL": (b"GET /", b"a" * MIB),
    "a million headers": (GET, b"a:b\r\n" * (MIB // 5)),
    "line breaks before a request": (b"", b"\r\n" * (MIB // 2)),
    "the extension of a chunk": (CHUNKED + b"1;", b"a" * MIB),
    "chunks with extensions": (CHUNKED, (b"1;" + b"a" * 1000 + b"\r\na\r\n") * (MIB // 1007)),
    "a trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX-A: ", b"a" * MIB),
    "a million trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a:b\r\n" * (MIB // 5)),
    "requests that wait for an answer": (b"", (GET + b"\r\n") * (MIB // 35)),
    "a body that nobody reads": (GET + b"Content-Length: 68157440\r\n\r\n", b"a" * MIB),
}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    started = ServerProcess(tmp_path_factory.mktemp("heads") / "home")
    started.ready()
    yield started
    started.kill()


def memory(process: ServerProcess) -> int:
    """Bytes, at most so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def said_to(port: int, said: bytes, more: bytes) -> tuple[int, bytes]:
    """The bytes that the server took before it closed the connection, and its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(reader.read())
    taken = 0
    try:
        async with asyncio.timeout(30):
            writer.write(said)
            with contextlib.suppress(ConnectionError):
                while taken < STREAM and not answer.done():
                    writer.write(more)
                    await writer.drain()
                    taken += len(more)
            with contextlib.suppress(ConnectionError):
                return taken, await answer
            return taken, b""
    finally:
        writer.close()


@pytest.mark.parametrize("kind", ENDLESS)
async def test_what_never_comes_to_the_point_is_cut_off_and_costs_nobody_anything(
    process: ServerProcess, kind: str
) -> None:
    url = process.ready()
    before = memory(process)
    said, more = ENDLESS[kind]
    async with aiohttp.ClientSession() as session:
        served = 0

        async def others() -> None:
            nonlocal served
            while True:
                assert (await Person(session, url).get("/healthz"))["status"] == "ok"
                served += 1

        beside = asyncio.create_task(others())
        takings: list[tuple[int, bytes]] = []
        while not (takings and served):
            takings += await asyncio.gather(*(said_to(int(url.rpartition(":")[2]), said, more) for _ in range(4)))
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        await Person(session, url).get("/healthz")
    grown = memory(process) - before
    print(f"{kind}: took {max(taken for taken, _ in takings)} bytes, grew by {grown // 1024} KiB")
    assert all(taken < STREAM for taken, _ in takings)
    assert grown < ROOM


async def answer_to(server: Running, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    writer.write(said)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


LAST = b"Connection: close\r\n\r\n"


async def test_a_head_may_have_64_kib_and_100_headers_and_no_more(server: Running) -> None:
    long = GET + b"X-A: " + b"a" * (MAX_HEAD - 200) + b"\r\n" + LAST
    assert (await answer_to(server, long)).startswith(b"HTTP/1.1 200 ")
    longer = await answer_to(server, GET + b"X-A: " + b"a" * MAX_HEAD + b"\r\n" + LAST)
    assert longer.startswith(b"HTTP/1.1 431 ")
    assert b"the head of the request has more than 65536 bytes" in longer
    assert b"\r\nx-content-type-options: nosniff\r\n" in longer
    many = GET + b"".join(b"X-%d: b\r\n" % n for n in range(MAX_HEADERS - 2)) + LAST
    assert (await answer_to(server, many)).startswith(b"HTTP/1.1 200 ")
    more = await answer_to(server, GET + b"".join(b"X-%d: b\r\n" % n for n in range(MAX_HEADERS)) + LAST)
    assert more.startswith(b"HTTP/1.1 431 ")
    assert b"more than 100 headers" in more


async def test_small_chunks_and_trailers_are_no_reason_to_refuse(server: Running) -> None:
    await server.image()
    body = b'{"image": "%s", "text": "%s"}' % (IMAGE.encode(), b"x" * MAX_HEAD)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    trailers = b"0\r\nAuthorization: Bearer x\r\nX-Sum: 1\r\n\r\n"
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.admin.token}\r\n".encode()
    made = await answer_to(server, head + b"Transfer-Encoding: chunked\r\n" + LAST + chunks + trailers)
    assert made.startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    "body", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
async def test_a_body_behind_an_upgrade_is_refused_and_is_no_request_of_its_own(server: Running, body: bytes) -> None:
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n"
    answer = await answer_to(server, ROUTE + upgrade + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"has no body here" in answer
    answer = await answer_to(server, GET + upgrade + b"Content-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_few_requests_may_wait_for_an_answer_and_get_theirs_in_order(server: Running) -> None:
    answers = await answer_to(server, (GET + b"\r\n") * MAX_PIPELINED + GET + LAST)
    assert answers.count(b"HTTP/1.1 200 ") == MAX_PIPELINED + 1
    assert (await answer_to(server, (GET + b"\r\n") * (MAX_PIPELINED + 2))).count(b"HTTP/1.1 200 ") <= 1
