"""Every field of every message of a worker, and of every body of the API, with whatever can be put there: the sender's
connection or request is all that it costs. Beside it a user submits, a worker works, and both are served."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import pkgutil
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, get_args

import aiohttp
import msgspec
import pytest
from msgspec import inspect

from hecaton import wire
from hecaton.core.model import AttemptRef
from hecaton.wire.channel import (
    CLOSE_PROTOCOL,
    PROTOCOL,
    Accepted,
    Assignment,
    FromWorker,
    Hello,
    Log,
    Released,
    ServerBeat,
    Started,
    Welcome,
    WorkerBeat,
    encode,
)
from tests.faults.figures import figure
from tests.server.hostile_values import JSON, MESSAGEPACK, MIB, Format, Known, hostile
from tests.server.people import Person
from tests.server.running import IMAGE, PASSWORD
from tests.server.scripted_worker import ScriptedWorker, holding, slots
from tests.server.server_process import ServerProcess

pytestmark = pytest.mark.full

EVILS_IMAGE = "team/evil:1"
SHARE = figure(0.1, 1.0)

GROWTH = 100 * MIB
"""Bytes that the server's memory may grow by, and stays well below."""

REFUSALS = {CLOSE_PROTOCOL, 1006, 1009}
"""How a connection may end: what was said is not understood, or was too long (then perhaps while it was being sent)."""

BEAT = msgspec.msgpack.encode([["beat"]])

LEAK = re.compile(rb"Traceback|sqlite|File \"|/site-packages/")


class Scene:
    """A server process, its admin, and an honest user and worker at work."""

    def __init__(self, process: ServerProcess, admin: Person) -> None:
        self.process, self.admin = process, admin
        self.served = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        await self.admin.must("POST", "/v1/users", {"username": "ada", "password": PASSWORD})
        await self.admin.must("POST", "/v1/images", {"name": IMAGE, "verify": False})
        ada = await self.admin.login("ada", PASSWORD)
        honest = await self.enrol("honest")
        await honest.connect(serves=(IMAGE,))
        self._tasks = [asyncio.create_task(self._work(honest)), asyncio.create_task(self._ask(ada))]
        await asyncio.gather(*(self.admin.login("ada", PASSWORD) for _ in range(4)))
        await self._serve(20)
        self._forget_peak()
        self._before = self._memory("VmRSS")

    async def enrol(self, name: str) -> ScriptedWorker:
        made = await self.admin.must("POST", "/v1/workers", {"name": name})
        return ScriptedWorker(self.admin.session, self.admin.url, made["token"])

    async def _work(self, honest: ScriptedWorker) -> None:
        while True:
            job = await honest.until(lambda: honest.assigned[honest._taken : honest._taken + 1])
            honest._taken += 1
            await honest.finish(job[0].ref, "done")

    async def _ask(self, ada: Person) -> None:
        while True:
            view = await ada.must("POST", "/v1/jobs?wait=60", {"image": IMAGE, "input": self.served})
            assert view["result"] == "done", view
            self.served += 1

    async def _serve(self, more: int) -> None:
        wanted = self.served + more
        while self.served < wanted:
            done = [task for task in self._tasks if task.done()]
            assert not done, (done, self.process.said[-2000:])
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Both are still at work, and served once more; the server has not grown, and nothing failed in it."""
        await self._serve(2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        grown = self._memory("VmHWM") - self._before
        print(f"{self.served} jobs served beside it; the server's memory grew by {grown / MIB:.0f} MiB at most")
        assert grown < GROWTH
        assert "Traceback" not in self.process.said

    def _forget_peak(self) -> None:
        Path(f"/proc/{self.process.process.pid}/clear_refs").write_text("5")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        found = re.search(rf"{name}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    started = ServerProcess(tmp_path / "home")
    yield started
    started.kill()


@asynccontextmanager
async def _scene(process: ServerProcess) -> AsyncIterator[Scene]:
    async with aiohttp.ClientSession() as session:
        scene = Scene(process, await Person(session, process.ready()).login("admin", PASSWORD))
        await scene.begin()
        yield scene
        await scene.end()


class Evil:
    """A registered worker that says what it likes. It always has a job, so that what it says is about one."""

    def __init__(self, worker: ScriptedWorker) -> None:
        self._worker = worker
        self._worker.silent = True
        self._job: Assignment | None = None
        self._connected = False
        self.ends: Counter[int] = Counter()

    @property
    def hello(self) -> Hello:
        held = (holding(self._job),) if self._job is not None else ()
        return Hello(PROTOCOL, "2.0.0", "docker", slots(1), held, (EVILS_IMAGE,), "boot")

    async def at_work(self) -> AttemptRef:
        """What it says next is about this attempt."""
        if not self._connected:
            welcome = await self._worker.connect(self.hello)
            self._worker._taken, self._connected = 0, True
            if self._job is not None and self._job.ref not in welcome.keep:
                self._job = None
        if self._job is not None and any(
            self._job.ref in message.refs for message in self._worker.heard if isinstance(message, Accepted)
        ):
            self._job = None
        if self._job is None:
            self._job = await self._worker.take()
        return self._job.ref

    async def say(self, frame: bytes) -> None:
        """Returns when the server has dealt with it: it has answered a beat that came behind it, or hung up."""
        before = self._beats()
        await self.send(frame, BEAT)
        await self._worker.until(lambda: self._beats() > before or self._worker.close_code)
        await self._note_end()

    async def greet(self, frame: bytes) -> None:
        """Says it in place of a hello."""
        await self.leave()
        await self._worker.open()
        await self.send(frame)
        await self._worker.until(lambda: self._worker.close_code or any(map(_is_welcome, self._worker.heard)))
        await self._note_end()
        await self.leave()

    async def leave(self) -> None:
        await self._worker.gone()
        self._connected = False

    async def send(self, *frames: bytes) -> None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            for frame in frames:
                await self._worker.socket.send_bytes(frame)

    async def _note_end(self) -> None:
        if (code := self._worker.close_code) is not None:
            self.ends[code] += 1
            await self.leave()

    def _beats(self) -> int:
        return sum(isinstance(message, ServerBeat) for message in self._worker.heard)


def _is_welcome(message: object) -> bool:
    return isinstance(message, Welcome)


def _frame(message: Any) -> bytes:
    return msgspec.msgpack.encode([message])


def _drawn(kind: type, known: Known, form: Format, draw: Random) -> Iterator[tuple[str, Any]]:
    """One in so many of all that there is."""
    for case in hostile(inspect.type_info(kind), known, form):
        if draw.random() < SHARE:
            yield case


async def test_whatever_a_worker_says_costs_its_own_connection_alone(process: ServerProcess, seed: int) -> None:
    draw = Random(seed)
    async with _scene(process) as scene:
        await scene.admin.must("POST", "/v1/images", {"name": EVILS_IMAGE, "verify": False})
        items = [{"input": number} for number in range(2000)]
        await scene.admin.must("POST", "/v1/batches", {"image": EVILS_IMAGE, "items": items, "pause": False})
        evil = Evil(await scene.enrol("evil"))
        said = 0
        for kind in get_args(FromWorker):
            known: Known = {"slot": 0, "index": 0, "offset": 0, "protocol": PROTOCOL, "serves": [EVILS_IMAGE]}
            ref = await evil.at_work()
            for way, message in _drawn(kind, {**known, AttemptRef: [*_plain(ref)]}, MESSAGEPACK, draw):
                said += 1
                try:
                    if kind is Hello:
                        await evil.greet(_frame(message))
                    else:
                        await evil.say(_frame(message))
                        await evil.at_work()
                except TimeoutError:
                    pytest.fail(f"{kind.__name__}{way}: no answer")
        print(f"{said} messages, connections ended: {dict(evil.ends)}")
        assert set(evil.ends) <= REFUSALS
        assert evil.ends.total() > said / 3


async def test_nor_does_what_it_says_without_end(process: ServerProcess) -> None:
    """Frames as long as they may be, one after the other, as fast as they are read."""
    async with _scene(process) as scene:
        await scene.admin.must("POST", "/v1/images", {"name": EVILS_IMAGE, "verify": False})
        await scene.admin.must("POST", "/v1/batches", {"image": EVILS_IMAGE, "items": [{"input": 1}] * 50})
        evil = Evil(await scene.enrol("evil"))
        ref = await evil.at_work()
        other = AttemptRef(ref.job, ref.attempt + 1)
        floods: tuple[list[FromWorker], ...] = (
            [Log(ref, number * MIB, bytes(MIB)) for number in range(3)],
            [Log(ref, 0, b"")] * 9_000,
            [Started((ref,) * 10_000)] * 5,
            [Released((other,) * 10_000)] * 4,
            [WorkerBeat()] * 9_000,
        )
        for messages in floods:
            await evil.at_work()
            await evil.send(*[encode(messages)] * figure(5, 20))
            await evil.leave()


def _plain(ref: AttemptRef) -> tuple[str, int]:
    return ref.job, ref.attempt


# -- bodies of the API -------------------------------------------------------------------------------

VICTIM, PATHS = "victim", {"name": "victim", "job": "1", "batch": "1"}
HONEST_BODIES: Known = {
    "image": IMAGE, "username": "new", "password": PASSWORD, "verify": False, "offset": 0, "name": "new/image:1",
}  # fmt: skip


def _messages() -> dict[str, type[msgspec.Struct]]:
    """Of all modules that have some."""
    parts = [importlib.import_module(f"hecaton.wire.{one.name}") for one in pkgutil.iter_modules(wire.__path__)]
    return {
        name: kind
        for part in parts
        for name, kind in vars(part).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }


async def _bodies(admin: Person) -> list[tuple[str, str, type[msgspec.Struct]]]:
    """Of the description that the server gives of itself."""
    description, messages = await admin.get("/openapi.json"), _messages()
    found = []
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None:
                name = content["schema"]["$ref"].rpartition("/")[2]
                filled = path.format(**PATHS) if "images" not in path else path.format(name=IMAGE)
                found.append((method.upper(), filled, messages[name]))
    return found


def _long_bodies() -> Iterator[tuple[str, bytes]]:
    """Little text that takes much memory, as long as a body may be."""
    nothing = b"{}," * 5_000_000 + b"{}"
    tags = b",".join(b'"%d":""' % number for number in range(1_000_000))
    yield "/v1/batches", b'{"image":"%s","items":[%s]}' % (IMAGE.encode(), nothing)
    yield "/v1/batches/1/items", b'{"offset":0,"items":[%s]}' % nothing
    yield "/v1/batches", b'{"image":"%s","items":[],"tags":{%s}}' % (IMAGE.encode(), tags)
    yield "/v1/batches", b'{"image":"%s","items":[],"args":[%s]}' % (IMAGE.encode(), b'"ab",' * 3_000_000 + b'"ab"')
    lists = b"[" + b"[]," * 600_000 + b"[]]"
    yield "/v1/jobs", b'{"image":"%s","input":%s}' % (IMAGE.encode(), lists)
    yield "/v1/batches", b'{"image":"%s","items":[{"input":%s}]}' % (IMAGE.encode(), b"[%s]" % b",".join([lists] * 8))


async def test_whatever_stands_in_a_request_is_answered_in_words(process: ServerProcess, seed: int) -> None:
    draw = Random(seed)
    async with _scene(process) as scene:
        await scene.admin.must("POST", "/v1/users", {"username": VICTIM, "password": PASSWORD})
        await scene.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [], "closed": False})
        answers: Counter[int] = Counter()
        bodies = await _bodies(scene.admin)
        assert len(bodies) >= 9
        for method, path, kind in bodies:
            for way, value in _drawn(kind, HONEST_BODIES, JSON, draw):
                body = JSON.encode(value)
                reply = await scene.admin.call(method, path, body=body)
                answers[reply.status] += 1
                assert reply.status < 500, (method, path, way, reply.body)
                assert not LEAK.search(reply.body), (method, path, way, reply.body)
                if reply.status >= 400:
                    assert json.loads(reply.body)["error"]["message"]
        for path, body in _long_bodies():
            assert (await scene.admin.call("POST", path, body=body)).status == 413
        print(f"answers: {dict(answers)}")
        assert answers[400] > answers.total() / 2
