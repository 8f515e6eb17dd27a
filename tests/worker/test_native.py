"""The door to a container, from the outside: well-behaved, confused and hostile containers on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from hecaton.core.model import AttemptRef, Reason
from hecaton.serverless import protocol
from hecaton.worker.doors import connection, native
from hecaton.worker.doors.door import Answer
from hecaton.worker.doors.native import NativeDoor
from hecaton.worker.memory.peers import Peer
from tests.worker.brain import assignment, ref

A = ref("a")


class Visitor:
    def __init__(self) -> None:
        self.heard: list[object] = []
        self.served: Peer | None = None
        self._changed = asyncio.Event()

    def _hear(self, what: object) -> None:
        self.heard.append(what)
        self._changed.set()

    def asks_for_work(self, busy: tuple[AttemptRef, ...], takes_ahead: bool, log: str | None = None) -> None:
        self.takes_ahead = takes_ahead
        self._hear(busy)

    def gets_ready(self, hint: str) -> None:
        self._hear(hint)

    def waits(self, why: str) -> None:
        self._hear(why)

    def answers(self, answer: Answer) -> None:
        self._hear(answer)

    def misbehaves(self, why: str) -> None:
        self._hear(why)

    def is_served_by(self, peer: Peer | None) -> None:
        self.served = peer

    async def network(self, handle: str) -> int:
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def progresses(self, ref: AttemptRef, value: Any) -> None:
        self._hear((ref, value))

    async def has_heard(self, count: int) -> object:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.heard[count - 1]


class Container:
    """Plays the container's side, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._decoder = protocol.FrameDecoder()
        self._frames: list[tuple[dict[str, Any], bytes]] = []

    def send(self, body: bytes = b"", **header: Any) -> None:
        self.writer.write(protocol.encode(header, body))

    def hello(self, nonce: str, **more: Any) -> None:
        self.send(type="hello", protocol=1, nonce=nonce, sdk="2", python="3.9", **{"pid": 1, "pending": [], **more})

    async def frame(self) -> tuple[dict[str, Any], bytes]:
        async with asyncio.timeout(10):
            while not self._frames:
                data = await self._reader.read(1 << 20)
                assert data, "the worker closed the connection"
                self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    async def is_closed(self) -> None:
        """Until the worker has closed the connection."""
        async with asyncio.timeout(10):
            try:
                while await self._reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass


class Bench:
    def __init__(self, folder: Path, visitor: Visitor) -> None:
        self.folder = folder
        self.visitor = visitor
        os.mkfifo(folder / protocol.TURNS_NAME)
        self.turns = os.open(folder / protocol.TURNS_NAME, os.O_RDWR | os.O_NONBLOCK)
        self.door = NativeDoor(folder, self.turns, visitor, max_result=1000)
        self._containers: list[Container] = []

    async def connect(self) -> Container:
        made = Container(*await asyncio.open_unix_connection(str(self.folder / "socket")))
        self._containers.append(made)
        return made

    def read_turns(self, count: int = 1000) -> list[int]:
        """As the container does."""
        try:
            data = os.read(self.turns, count * protocol.TURN_NUMBER.size)
        except BlockingIOError:
            return []
        return [turn for (turn,) in protocol.TURN_NUMBER.iter_unpack(data)]

    async def greeted(self, **more: Any) -> Container:
        container = await self.connect()
        container.hello(self.door.nonce, **more)
        welcome, _ = await container.frame()
        assert welcome == {"type": "welcome", "protocol": 1, "max_result": 1000}
        return container

    async def close(self) -> None:
        await self.door.close()
        os.close(self.turns)
        for container in self._containers:
            container.writer.close()
            with_error = await asyncio.gather(container.writer.wait_closed(), return_exceptions=True)
            assert all(error is None or isinstance(error, ConnectionError) for error in with_error)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    folder = tmp_path / ("deep" * 40)  # longer than a Unix socket's address may be
    folder.mkdir()
    bench = Bench(folder, Visitor())
    await bench.door.open()
    short = tmp_path / "s"
    short.symlink_to(folder)
    bench.folder = short
    yield bench
    await bench.close()


async def test_hello_is_welcomed_and_a_job_goes_out_and_comes_back(bench: Bench) -> None:
    container = await bench.greeted()
    assert await bench.visitor.has_heard(1) == ()
    bench.door.give(assignment("a"), b'{"n":1}', None)
    header, body = await container.frame()
    assert header == {"type": "job", "job": "a", "attempt": 1, "key": "key-a", "kind": "json"}
    assert body == b'{"n":1}'
    container.send(b"2", type="progress", job="a", attempt=1, value={"done": 0.5})
    container.send(b"2", type="result", job="a", attempt=1, status="ok", kind="json", log_end=7)
    assert await bench.visitor.has_heard(2) == (A, {"done": 0.5})
    assert await bench.visitor.has_heard(3) == Answer(A, Reason.OK, data=b"2", log_end=7)
    bench.door.acknowledge(A)
    assert (await container.frame())[0] == {"type": "ack", "job": "a", "attempt": 1}


async def test_a_container_that_comes_back_says_what_it_has_and_replaces_its_old_connection(bench: Bench) -> None:
    old = await bench.greeted()
    new = await bench.connect()
    new.hello(bench.door.nonce, pending=[{"job": "a", "attempt": 1}], running={"job": "b", "attempt": 2})
    new.send(b"1", type="result", job="a", attempt=1, status="ok", kind="json", log_end=0)
    await old.is_closed()
    assert await bench.visitor.has_heard(2) == (A, ref("b", 2))
    answer = await bench.visitor.has_heard(3)
    assert isinstance(answer, Answer)
    assert answer.ref == A


SAYS_HELLO = """
import socket, sys
from hecaton.serverless.protocol import FrameReader, encode
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(encode({"type": "hello", "protocol": 1, "nonce": sys.argv[2], "pid": 7, "pending": []}))
print(FrameReader(connection).read()[0]["type"], flush=True)
if len(sys.argv) > 3:
    connection.close()
sys.stdin.read()
"""


async def other_process(bench: Bench, *more: str) -> asyncio.subprocess.Process:
    """One that has said hello, and was welcome."""
    arguments = [str(bench.folder / "socket"), bench.door.nonce, *more]
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SAYS_HELLO, *arguments, stdin=PIPE, stdout=PIPE)
    assert child.stdout is not None
    assert await asyncio.wait_for(child.stdout.readline(), 10) == b"welcome\n"
    return child


@pytest.mark.parametrize("more", [(), ("hang up",)])
async def test_another_process_of_the_container_is_refused_as_long_as_the_first_lives(
    bench: Bench, more: tuple[str, ...]
) -> None:
    first = await other_process(bench, *more)
    for _ in range(2):
        second = await bench.connect()
        second.hello(bench.door.nonce)
        assert await second.frame() == ({"type": "refused", "pid": 7}, b"")
        await second.is_closed()
    assert bench.visitor.heard == [()]
    first.kill()
    await first.wait()
    await bench.greeted()
    assert bench.visitor.served == Peer.of_process(os.getpid())


async def test_where_processes_cannot_be_seen_an_open_connection_shows_that_one_lives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a worker that is in a container itself."""
    monkeypatch.setattr(Peer, "of", lambda connection: None)
    first = await other_process(bench)
    second = await bench.connect()
    second.hello(bench.door.nonce)
    assert (await second.frame())[0]["type"] == "refused"
    await bench.greeted(pid=7)
    first.kill()
    await first.wait()


async def test_out_of_memory_on_the_gpu_has_a_reason_of_its_own(bench: Bench) -> None:
    container = await bench.greeted()
    error = {"type": "torch.cuda.OutOfMemoryError", "message": "CUDA out of memory", "traceback": "..."}
    container.send(type="result", job="a", attempt=1, status="handler_error", kind="json", log_end=0, error=error)
    answer = await bench.visitor.has_heard(2)
    assert isinstance(answer, Answer)
    assert answer.reason is Reason.OOM_GPU


@pytest.mark.parametrize(
    "first",
    [
        protocol.encode({"type": "hello", "protocol": 1, "nonce": "wrong", "pending": []}),
        protocol.encode({"type": "hello", "protocol": 1, "nonce": "\u00e9", "pending": []}),
        protocol.encode({"type": "result", "job": "a", "attempt": 1, "status": "ok"}),
        protocol.encode({"type": "hello"}),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
        b"\xff" * 100,
        b"\x00\x00\x00\x05\x00\x00\x00\x00[1,2]",
    ],
)
async def test_who_does_not_know_the_nonce_is_shown_out(bench: Bench, first: bytes) -> None:
    intruder = await bench.connect()
    intruder.writer.write(first)
    await intruder.is_closed()
    assert bench.visitor.heard == []
    await bench.greeted()  # the door works on


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "result", "job": 7, "attempt": 1, "status": "ok", "log_end": 0},
        {"type": "result", "job": "a", "attempt": "1", "status": "ok", "log_end": 0},
        {"type": "result", "job": "a", "attempt": True, "status": "ok", "log_end": 0},
        {"type": "result", "job": "a", "attempt": -1, "status": "ok", "log_end": 0},
        {"type": "result", "job": "a", "attempt": 2**31, "status": "ok", "log_end": 0},
        {"type": "result", "job": "a", "attempt": 10**4000, "status": "ok", "log_end": 0},
        {"type": "result", "job": "a" * 201, "attempt": 1, "status": "ok", "log_end": 0},
        {"type": "result", "job": "a", "attempt": 1, "status": "ok", "next_log": "x" * 256},
        {"type": "result", "job": "a", "attempt": 1, "status": ["ok"]},
        {"type": "result", "job": "a", "attempt": 1, "status": "perfect", "log_end": 0},
        {"type": "result", "job": "a", "attempt": 1, "status": "ok", "kind": "exe", "log_end": 0},
        {"type": "result", "job": "a", "attempt": 1, "status": "ok", "file": ["x"], "log_end": 0},
        {"type": "result", "job": "a", "attempt": 1, "status": "ok", "log_end": "much"},
        {"type": "progress", "job": None, "attempt": 1},
    ],
)
async def test_frames_that_make_no_sense_close_the_connection_and_the_container_may_come_back(
    bench: Bench, fields: dict[str, Any]
) -> None:
    container = await bench.greeted()
    container.send(**fields)
    await container.is_closed()
    assert bench.visitor.heard == [()]
    await bench.greeted()


@pytest.mark.parametrize(
    "more",
    [
        {"pending": [{"job": "a", "attempt": n} for n in range(native.MAX_PENDING + 1)]},
        {"pending": [{"job": "a", "attempt": 2**31}]},
        {"running": "a"},
    ],
)
async def test_a_hello_that_says_too_much_is_none(bench: Bench, more: dict[str, Any]) -> None:
    container = await bench.connect()
    container.hello(bench.door.nonce, **more)
    await container.is_closed()
    await bench.greeted()


async def test_only_what_a_container_was_given_or_keeps_is_acknowledged_to_it_once(bench: Bench) -> None:
    container = await bench.greeted(pending=[{"job": "kept", "attempt": 1}])
    bench.door.give(assignment("given"), b"", None)
    assert (await container.frame())[0]["type"] == "job"
    for _ in range(3):
        for job in ("forged", "kept", "given"):
            bench.door.acknowledge(ref(job))
    bench.door.give(assignment("next"), b"", None)
    frames = [(await container.frame())[0] for _ in range(3)]
    assert [(frame["type"], frame["job"]) for frame in frames] == [("ack", "kept"), ("ack", "given"), ("job", "next")]


async def test_what_waits_for_a_container_that_does_not_read_is_bounded(bench: Bench) -> None:
    container = await bench.greeted()
    for _ in range(connection.MAX_WAITING // protocol.MAX_INLINE + 1):
        bench.door.give(assignment("a"), bytes(protocol.MAX_INLINE), None)
    assert "does not read" in str(await bench.visitor.has_heard(2))
    await container.is_closed()
    await bench.greeted()


async def test_a_flood_of_frames_costs_the_container_its_turn(bench: Bench) -> None:
    container = await bench.greeted()
    progress = {"type": "progress", "job": "a", "attempt": 1}
    container.writer.write(protocol.encode(progress) * 4 * connection.FRAMES_AT_ONCE)
    await bench.visitor.has_heard(2)
    assert len(bench.visitor.heard) <= 1 + connection.FRAMES_AT_ONCE  # others are at it now
    await bench.visitor.has_heard(1 + 4 * connection.FRAMES_AT_ONCE)


async def test_a_container_that_says_more_than_any_may_is_read_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_FRAMES", 0.01)
    container = await bench.greeted()
    progress = protocol.encode({"type": "progress", "job": "a", "attempt": 1})
    container.writer.write(progress * connection.FRAMES_AT_ONCE)
    await bench.visitor.has_heard(1 + connection.FRAMES_AT_ONCE)
    for _ in range(40):  # 4 MiB: until the socket takes no more
        container.writer.write(progress * 1600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await container.writer.drain()
    assert len(bench.visitor.heard) == 1 + connection.FRAMES_AT_ONCE
    container.writer.transport.abort()


async def test_who_opens_many_connections_waits_for_each(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ACCEPT_SECONDS", 3600.0)
    await bench.greeted()
    second = await bench.connect()
    second.hello(bench.door.nonce)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await second.frame()


async def test_refused_connections_are_one_line_in_the_log(bench: Bench) -> None:
    with structlog.testing.capture_logs() as said:
        for _ in range(5):
            intruder = await bench.connect()
            intruder.hello("guessed")
            await intruder.is_closed()
    assert [line["log_level"] for line in said] == ["warning"]


async def test_unknown_frames_are_ignored(bench: Bench) -> None:
    container = await bench.greeted()
    container.send(type="weather", sun=True)
    container.send(b"1", type="result", job="a", attempt=1, status="ok", kind="json", log_end=0, extra=1)
    assert isinstance(await bench.visitor.has_heard(2), Answer)


async def test_a_crowd_of_strangers_is_held_at_the_door(bench: Bench) -> None:
    strangers = [await bench.connect() for _ in range(native.MAX_STRANGERS + 1)]
    await strangers[-1].is_closed()
    strangers[0].hello(bench.door.nonce)
    assert (await strangers[0].frame())[0]["type"] == "welcome"


async def test_the_socket_is_open_to_any_user_of_the_image(bench: Bench) -> None:
    mode = await asyncio.to_thread((bench.folder / "socket").stat)
    assert mode.st_mode & 0o777 == 0o666


class TestAhead:
    """Jobs given ahead of their turn, and the pipe that says which of them may still begin."""

    async def test_each_goes_out_with_a_number_that_is_in_the_pipe(self, bench: Bench) -> None:
        container = await bench.greeted(ahead=True)
        await bench.visitor.has_heard(1)
        assert bench.visitor.takes_ahead
        bench.door.give_ahead([assignment("a"), assignment("b")])
        headers = [(await container.frame())[0] for _ in range(2)]
        assert [header["job"] for header in headers] == ["a", "b"]
        assert [header["turn"] for header in headers] == bench.read_turns()

    async def test_what_the_container_has_not_taken_can_be_withdrawn_once(self, bench: Bench) -> None:
        await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment(name) for name in "abc"])
        bench.read_turns(1)
        assert bench.door.withdraw() == (ref("b"), ref("c"))
        assert bench.door.withdraw() == ()
        assert bench.read_turns() == []

    async def test_numbers_rise_from_one_process_of_the_worker_to_the_next(self, bench: Bench) -> None:
        await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment("a")])
        (last,) = bench.read_turns()
        later = NativeDoor(bench.folder, bench.turns, bench.visitor, 1000, bench.door.nonce)
        later.give_ahead([assignment("b")])
        assert bench.read_turns()[0] > last

    async def test_nothing_of_an_old_connection_is_valid_on_a_new_one(self, bench: Bench) -> None:
        await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment("a")])
        await bench.greeted(ahead=True)
        assert bench.read_turns() == []
        assert bench.door.withdraw() == ()

    async def test_a_container_that_leaves_out_a_job_which_was_withdrawn_may_go_on(self, bench: Bench) -> None:
        container = await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment("a")])
        turn = (await container.frame())[0]["turn"]
        bench.door.withdraw()
        container.send(type="skipped", turn=turn)
        container.send(b"1", type="result", job="z", attempt=1, status="ok", kind="json", log_end=0)
        assert isinstance(await bench.visitor.has_heard(2), Answer)

    @pytest.mark.parametrize("lost", ["read by a handler", "left out"])
    async def test_one_that_leaves_out_another_has_to_come_back_and_is_given_it_again(
        self, bench: Bench, lost: str
    ) -> None:
        container = await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment("a")])
        turn = (await container.frame())[0]["turn"]
        if lost == "read by a handler":
            bench.read_turns()
        container.send(type="skipped", turn=turn)
        await container.is_closed()

    async def test_a_container_that_stuffs_the_pipe_is_shown_out_and_blocks_nobody(self, bench: Bench) -> None:
        container = await bench.greeted(ahead=True)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(bench.turns, b"\xff" * 4096)
        bench.door.give_ahead([assignment("a")])
        await container.is_closed()
        await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment("a")])
        assert bench.door.withdraw() == (A,)

    async def test_junk_in_the_pipe_takes_nothing_back(self, bench: Bench) -> None:
        await bench.greeted(ahead=True)
        bench.door.give_ahead([assignment("a")])
        bench.read_turns()
        os.write(bench.turns, b"\0" * 37)
        assert bench.door.withdraw() == ()
