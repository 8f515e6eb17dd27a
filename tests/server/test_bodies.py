"""Bodies that arrive have so much memory and no more; who sends too much at a time waits for himself."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import aiohttp
import msgspec
import pytest

from hecaton.core.errors import TooMany, Unavailable
from hecaton.server import bodies as module
from hecaton.server.bodies import MAX_BODIES, MAX_WAITING_BODIES, BodyBudget, Reservation
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD, Running
from tests.server.server_process import ServerProcess
from tests.server.test_heads import memory

MIB = 1 << 20
SHARE = BodyBudget(None).share


def _take(bodies: BodyBudget, whose: object, size: int) -> asyncio.Task[Reservation]:
    return asyncio.ensure_future(bodies.take(str(whose), size))


async def test_a_user_has_a_share_and_waits_for_himself_alone() -> None:
    bodies = BodyBudget(None)
    first = await bodies.take("ada", SHARE)
    second, third = _take(bodies, "ada", SHARE), _take(bodies, "ada", 1)
    await asyncio.sleep(0)
    bob = await bodies.take("bob", SHARE)
    assert not second.done()
    first.release()
    first.release()
    (await second).release()
    (await third).release()
    bob.release()
    for whose in range(4):
        await bodies.take(whose, SHARE)
    late = [_take(bodies, "ada", SHARE), _take(bodies, "bob", 1)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in late)


async def test_room_is_given_back_by_who_leaves_while_he_waits_and_in_the_moment_of_his_turn() -> None:
    bodies = BodyBudget(None)
    full = [await bodies.take(n, SHARE) for n in range(4)]
    left, early, late = _take(bodies, "ada", SHARE), _take(bodies, "bob", SHARE), _take(bodies, "eve", SHARE)
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    full[0].release()
    early.cancel()
    await asyncio.gather(early, return_exceptions=True)
    await late
    for reservation in full[1:]:
        reservation.release()
    await asyncio.gather(*(bodies.take(n, SHARE) for n in range(3)))


async def test_who_waits_for_long_is_told_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    bodies = BodyBudget(None)
    reservations = [await bodies.take("ada", SHARE)]
    with pytest.raises(TooMany, match=f"requests of yours with {SHARE} bytes"):
        await bodies.take("ada", 1)
    reservations += [await bodies.take(n, SHARE) for n in range(3)]
    with pytest.raises(Unavailable, match=f"the server is receiving {MAX_BODIES} bytes"):
        await bodies.take("bob", 1)
    for reservation in reservations:
        reservation.release()
    await bodies.take("bob", SHARE)


async def test_not_many_of_one_user_wait() -> None:
    bodies = BodyBudget(None)
    await bodies.take("ada", SHARE)
    waiting = [_take(bodies, "ada", 1) for _ in range(MAX_WAITING_BODIES)]
    await asyncio.sleep(0)
    refused = _take(bodies, "ada", 1)
    await asyncio.sleep(0)
    assert isinstance(refused.exception(), TooMany)
    await bodies.take("bob", 1)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


def test_small_machines_have_less() -> None:
    assert [BodyBudget(size * MIB).most // MIB for size in (512, 800, 65536)] == [64, 100, MAX_BODIES // MIB]


@pytest.mark.parametrize("path", ["/v1/jobs?wait=20", "/v1/jobs/followed"])
async def test_large_jobs_are_waited_for_without_their_payload(server: Running, path: str) -> None:
    await server.image()
    worker = await server.worker()
    text = "x" * MIB

    async def waits() -> object:
        reply = await server.admin.call("POST", path, {"image": IMAGE, "text": text})
        return msgspec.json.decode(reply.body.splitlines()[-1])["result"]

    for _ in range(3):
        waiting = asyncio.create_task(waits())
        job = await worker.start()
        assert not server.server.connections.bodies._of
        await worker.finish(job.ref, "done")
        assert await waiting == "done"


async def test_half_bodies_of_one_user_take_a_share_of_memory_and_nobodys_turn(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "home")
    try:
        url = process.ready()
        async with aiohttp.ClientSession() as session:
            admin = await Person(session, url).login("admin", PASSWORD)
            await admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
            await admin.must("POST", "/v1/users", {"username": "eve", "password": PASSWORD})
            eve = await admin.login("eve", PASSWORD)
            before = memory(process)
            said = (
                f"POST /v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {eve.token}\r\n"
                f"Content-Length: {16 * MIB}\r\n\r\n"
            )
            halves = [_Half(url, said.encode()) for _ in range(MAX_WAITING_BODIES + 5)]
            async with contextlib.AsyncExitStack() as stack:
                for half in halves:
                    stack.push_async_callback(_cancelled, asyncio.create_task(half.send()))
                while not _settled(halves):
                    await admin.must("POST", "/v1/jobs", {"image": IMAGE, "text": "x" * MIB})
                await eve.submit(IMAGE)  # a small one is not in the way
                assert (await admin.get("/healthz"))["status"] == "ok"
                assert sum(half.sent for half in halves) == 2
            grown = memory(process) - before
            print(f"grew by {grown // 1024} KiB")
            assert grown < 100_000_000
    finally:
        process.kill()


def _settled(halves: list[_Half]) -> bool:
    """Two have a share, and some are more than may wait."""
    return sum(half.sent for half in halves) >= 2 and sum(half.sent or half.answered for half in halves) >= 5


class _Half:
    """15 of the 16 MiB of a body. `sent`: the server has taken them; `answered`: without having read them."""

    def __init__(self, url: str, said: bytes) -> None:
        self._port, self._said = int(url.rpartition(":")[2]), said
        self.sent = self.answered = False

    async def send(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        sending, answer = asyncio.create_task(self._write(writer)), asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait((sending, answer), return_when=asyncio.FIRST_COMPLETED)
            self.sent, self.answered = sending.done(), answer.done()
            await asyncio.Event().wait()
        finally:
            sending.cancel()
            answer.cancel()
            await asyncio.gather(sending, answer, return_exceptions=True)
            writer.close()

    async def _write(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._said)
        for _ in range(15):
            writer.write(b" " * MIB)
            await writer.drain()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
