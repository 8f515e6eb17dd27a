"""Clients that take too long, and too many of them: they are cut off, and others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from pathlib import Path

import pytest

from hecaton.server import app
from tests.server.people import eventually
from tests.server.running import IMAGE, Running, running

HEAD = b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"


async def cut_off_after(server: Running, said: bytes, more: bytes) -> float:
    """Seconds until the server hangs up on somebody who says this, and then `more` every tenth of a second."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))

    async def dribble() -> None:
        while True:
            writer.write(more)
            await asyncio.sleep(0.1)

    writer.write(said)
    dribbling = asyncio.create_task(dribble())
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    dribbling.cancel()
    writer.close()
    return time.monotonic() - began


async def test_whoever_never_ends_the_head_of_a_request_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path / "server", request_timeout=0.5) as server:
        for said, more in ((b"", b""), (HEAD, b"X-A: b\r\n"), (b"GET", b"")):
            assert 0.5 <= await cut_off_after(server, said, more) < 5


async def test_whoever_never_ends_a_small_body_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path / "server", request_timeout=0.5) as server:
        assert 0.5 <= await cut_off_after(server, HEAD + b"\r\n", b"") < 5


async def test_large_uploads_long_polls_and_workers_may_take_longer(tmp_path: Path) -> None:
    async with running(tmp_path / "server", request_timeout=0.3) as server:
        await server.image()
        job_id = await server.admin.submit(IMAGE)
        waiting = asyncio.create_task(server.admin.ended(job_id))
        sha256 = "6d96270004515a0486bb7f76196a72b40c55a47a6ef80cc5d9dcb6c8e5d6a0f7"

        async def slowly() -> object:
            for _ in range(4):
                yield b"x" * 65536
                await asyncio.sleep(0.5)

        reply = await server.admin.call("PUT", f"/v1/blobs/{sha256}", body=slowly())
        assert reply.status == 400  # it came in full: only its hash is not the one announced
        worker = await server.worker()
        job = await worker.start()
        await asyncio.sleep(1)
        await worker.finish(job.ref, "done")
        assert (await waiting)["result"] == "done"


async def test_hundreds_of_slow_clients_do_not_slow_down_the_others(server: Running) -> None:
    await server.image()
    port = int(server.url.rpartition(":")[2])
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(300)]
    for _, writer in slow:
        writer.write(HEAD)
    times = []
    for number in range(50):
        began = time.monotonic()
        await server.admin.submit(IMAGE, number)
        times.append(time.monotonic() - began)
    for _, writer in slow:
        writer.close()
    assert statistics.median(times) < 0.5  # all of them would wait; one alone may meet a slow disk


async def test_a_client_that_does_not_read_what_it_is_still_to_be_told_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path / "server", request_timeout=0.3) as server:
        await server.image()
        sha256 = await server.admin.upload(b"x" * (16 << 20))
        job = await server.admin.submit(IMAGE, payload={"sha256": sha256, "size": 16 << 20})
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            bearer = f"Authorization: Bearer {server.admin.token}"
            deaf.sendall(f"GET /v1/jobs/{job}/payload HTTP/1.1\r\nHost: x\r\n{bearer}\r\n\r\n".encode())
            assert await asyncio.to_thread(deaf.recv, 12) == b"HTTP/1.1 200"
            for _ in range(100):
                await server.nobody.get("/healthz")  # and meanwhile it writes more than any buffer takes
            deaf.sendall(b"\0\0")  # which ends the connection, were all of that read

            async def connected() -> int:
                await server.nobody.get("/healthz")  # on a connection that stays
                return len(server.server.connections)

            await eventually(connected, 1, 20)


async def test_a_connection_without_a_request_is_closed_also_after_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "IDLE", 0.2)
    async with running(tmp_path / "server") as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
        async with asyncio.timeout(20):
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                await asyncio.sleep(0.05)
            assert await reader.read() == b""
        writer.close()
