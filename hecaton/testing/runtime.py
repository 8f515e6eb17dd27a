"""A container runtime that does as it is told: hangs, refuses, crashes, lies. For tests of the worker's failures.

Its containers are tasks that speak the container's side of the real protocol over the real socket in the channel
folder; their handler is a Python function from payload to result, both as bytes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hecaton.core.model import Mode, Reason
from hecaton.serverless import protocol
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes.port import ContainerSpec, Exit, Found, Here, Prepared, ProcMark, RuntimeFault


class Script(msgspec.Struct):
    """How the next containers behave. A `hold` keeps a step from ending until it is set; None: no waiting.

    `exits`: a container that runs ends like this before it says hello. `stop_faults`: how often `stop` fails first.
    `ids`: of images by name, where it is not the name itself; `moved`: to be set when one is another."""

    prepare_fault: RuntimeFault | None = None
    start_fault: RuntimeFault | None = None
    stop_faults: int = 0
    hold_prepare: asyncio.Event | None = None
    hold_start: asyncio.Event | None = None
    hold_stop: asyncio.Event | None = None
    exits: Exit | None = None
    output: bytes = b""
    ids: dict[str, str] = msgspec.field(default_factory=dict)
    moved: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


class ScriptedRuntime:
    """`containers`: those that run, by handle. `orders`: what was asked of it, in order."""

    name = "scripted"
    serves: tuple[str, ...] | None = None
    doors = frozenset(Mode)
    options: frozenset[str] = frozenset()

    def __init__(self, handler: Callable[[bytes], bytes] = lambda payload: payload) -> None:
        self.script = Script()
        self.handler = handler
        self.containers: dict[str, ScriptedContainer] = {}
        self.orders: list[str] = []

    async def check(self, folder: Path, cards: Sequence[str] = ()) -> str:
        return "scripted runtime"

    async def sees(self, path: Path) -> bool:
        return True

    async def prepare(self, image: ImageRef, note: Callable[[str], None]) -> Prepared:
        self.orders.append(f"prepare {image.name}")
        note(f"pulling {image.name}")
        await _held(self.script.hold_prepare)
        if self.script.prepare_fault is not None:
            raise self.script.prepare_fault
        return Prepared(self.script.ids.get(image.name, image.name), {})

    async def here(self, image: ImageRef) -> Here | None:
        return Here(self.script.ids.get(image.name, image.name), None)

    async def resolve(self, name: str) -> str:
        raise RuntimeFault(Reason.IMAGE_PULL, "the scripted runtime has no registry")

    async def until_names_move(self) -> None:
        await self.script.moved.wait()
        self.script.moved.clear()

    async def start(self, spec: ContainerSpec) -> str:
        self.orders.append(f"start {spec.image_name}")
        await _held(self.script.hold_start)
        if self.script.start_fault is not None:
            raise self.script.start_fault
        self.containers[spec.id] = ScriptedContainer(spec, self.handler, self.script.exits)
        return spec.id

    async def wait(self, handle: str) -> Exit:
        return await asyncio.shield(self.containers[handle].exit)

    async def stop(self, handle: str, grace: float) -> None:
        self.orders.append("stop")
        await _held(self.script.hold_stop)
        if self.script.stop_faults > 0:
            self.script.stop_faults -= 1
            raise RuntimeFault(Reason.WORKER_ERROR, "the engine does not answer")
        container = self.containers.pop(handle, None)
        if container is not None:
            await container.end(Exit(143))

    async def output(self, handle: str, limit: int) -> bytes:
        return self.script.output[-limit:]

    async def follow(self, handle: str, since: float = 0.0) -> AsyncIterator[bytes]:
        if not since:
            yield self.script.output

    async def network(self, handle: str) -> int:
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def mark(self, container: str) -> ProcMark:
        return ProcMark("environ", f"scripted {container}")

    def unreachable(self) -> str | None:
        return "its containers are no processes"

    async def found(self) -> list[Found]:
        return [Found(handle, container.spec.labels, True) for handle, container in self.containers.items()]

    async def close(self) -> None:
        for handle in list(self.containers):
            await self.containers.pop(handle).end(Exit(137))


class ScriptedContainer:
    """`mute`: takes jobs and never answers them. `send` says whatever a test wants said."""

    def __init__(self, spec: ContainerSpec, handler: Callable[[bytes], bytes], exits: Exit | None) -> None:
        loop = asyncio.get_running_loop()
        self.spec = spec
        self.exit: asyncio.Future[Exit] = loop.create_future()
        self.mute = False
        self._handler = handler
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        if exits is None:
            self._task = loop.create_task(self._run())
        else:
            self.exit.set_result(exits)

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        if self._writer is not None:
            self._writer.write(protocol.encode(header, body))

    async def end(self, exit: Exit) -> None:
        """It ends now, like this."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if not self.exit.done():
            self.exit.set_result(exit)

    async def _run(self) -> None:
        folder_fd = os.open(self.spec.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            address = protocol.socket_address(self.spec.folder, folder_fd)
            reader, self._writer = await asyncio.open_unix_connection(address)
        finally:
            os.close(folder_fd)
        try:
            hello = {"type": "hello", "protocol": protocol.PROTOCOL_VERSION, "pending": [], "sdk": "0", "pid": 1}
            self.send({**hello, "nonce": self.spec.env.get("HECATON_NONCE") or self.spec.env["HECATON_FILE_NONCE"]})
            decoder = protocol.FrameDecoder()
            while data := await reader.read(1 << 20):
                for header, body in decoder.feed(data):
                    self._take(header, body)
        finally:
            self._writer.close()

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        if header["type"] != "job" or self.mute:
            return
        answer = {"type": "result", "status": "ok", "kind": header["kind"], "log_end": 0}
        payload = (Path(self.spec.folder) / "in" / header["file"]).read_bytes() if "file" in header else body
        self.send({**answer, "job": header["job"], "attempt": header["attempt"]}, self._handler(payload))


async def _held(event: asyncio.Event | None) -> None:
    if event is not None:
        await event.wait()
