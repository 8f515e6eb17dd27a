"""Runs named handler files as child processes: for development and machines without a container engine.

It isolates nothing. A process carries its labels in its environment: the next worker finds what this one left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hecaton.core.model import Mode, Reason
from hecaton.wire.channel import ImageRef
from hecaton.worker.runtimes import port
from hecaton.worker.runtimes.port import (
    FOLDER_VARIABLES,
    LABEL_CONTAINER,
    LABEL_WORKER,
    WORKDIR,
    ContainerSpec,
    Exit,
    Found,
    Here,
    Prepared,
    ProcMark,
    RuntimeFault,
)
from hecaton.worker.runtimes.starting import environment

LABELS_VARIABLE = "HECATON_LABELS"
"""Environment variable that holds a process's labels as JSON."""

_NOT_FOR_HANDLERS = ("HECATON_USERNAME", "HECATON_PASSWORD", "HECATON_TOKEN", "HECATON_ADMIN_PASS")
_KEPT_OUTPUT = 256 * 1024
_KILL_DEADLINE = 10.0
_LOOK_SECONDS = 0.25


class _Child:
    """A process that this runtime started, the last bytes of its output, and its end."""

    def __init__(self, process: subprocess.Popen[bytes], labels: dict[str, str], output: int) -> None:
        self.process = process
        self.labels = labels
        self.exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.tail = bytearray()
        self.followers: list[asyncio.Queue[bytes]] = []  # each gets what is read, and nothing as the end
        self._output = output
        self._pidfd = os.pidfd_open(process.pid)
        os.set_blocking(output, False)
        asyncio.get_running_loop().add_reader(output, self._read)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _read(self) -> None:
        """Reads also when nobody asks: a full pipe would stop the handler. One read empties the pipe."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._output, 1 << 20)
            self.tail += data
            del self.tail[:-_KEPT_OUTPUT]
            if not data:
                asyncio.get_running_loop().remove_reader(self._output)
            for follower in self.followers:
                follower.put_nowait(data)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._read()
        for follower in self.followers:  # a child of the process may hold the pipe open for long
            follower.put_nowait(b"")
        code = self.process.wait()
        if not self.exit.done():
            self.exit.set_result(Exit(code if code >= 0 else 128 - code))

    def close(self) -> None:
        for fd in (self._output, self._pidfd):
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)


class ProcessRuntime:
    """`handlers`: image name -> path of the handler file that stands for it. A handle is the spec's container id."""

    name = "process"
    doors = frozenset({Mode.NATIVE})
    options = frozenset({"env"})

    def __init__(self, worker_id: str, handlers: Mapping[str, Path]) -> None:
        self._worker_id = worker_id
        self._handlers = {image: path.absolute() for image, path in handlers.items()}
        self._children: dict[str, _Child] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}

    @property
    def serves(self) -> tuple[str, ...]:
        return tuple(self._handlers)

    async def check(self, folder: Path, cards: Sequence[str] = ()) -> str:
        missing = [str(path) for path in self._handlers.values() if not path.is_file()]
        if missing:
            raise RuntimeFault(
                Reason.WORKER_ERROR,
                f"no such handler file: {', '.join(missing)}",
                "Give existing files: --handler NAME=handler.py",
            )
        return "process runtime: handlers run as this user, without isolation: what is the worker's they can change too"

    async def sees(self, path: Path) -> bool:
        return await asyncio.to_thread(path.exists)

    async def prepare(self, image: ImageRef, note: Callable[[str], None]) -> Prepared:
        if image.name not in self._handlers:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise RuntimeFault(
                Reason.IMAGE_DENIED,
                f"this worker's process runtime has no handler for {image.name}; it has: {known}",
                f"Start the worker with --handler {image.name}=handler.py, or use the docker runtime.",
            )
        return Prepared(image_id=await asyncio.to_thread(self._identity, image.name), env={})

    def _identity(self, name: str) -> str:
        """Of what the handler file says now: an edited one is another image."""
        try:
            return f"sha256:{hashlib.sha256(self._handlers[name].read_bytes()).hexdigest()}"
        except OSError as error:
            raise RuntimeFault(
                Reason.WORKER_ERROR, f"cannot read the handler file of {name}: {error}", "Put it back where it was."
            ) from error

    async def here(self, image: ImageRef) -> Here | None:
        if image.name not in self._handlers:
            return None
        made = self._stamps().get(image.name)
        return Here(await asyncio.to_thread(self._identity, image.name), None if made is None else made[0] / 1e9)

    async def resolve(self, name: str) -> str:
        raise RuntimeFault(Reason.IMAGE_DENIED, "the process runtime runs handler files and asks no registry")

    async def until_names_move(self) -> None:
        """A handler file has been edited. Nothing tells of that on all file systems, and to look costs microseconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(port.LOOK_AGAIN):
                while self._stamps() == self._seen:  # noqa: ASYNC110 - nobody else could tell
                    await asyncio.sleep(_LOOK_SECONDS)
        self._seen = self._stamps()

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        """Of the handler files, by image: when each was written last, its size, and its inode."""
        stamps = {}
        for name, path in self._handlers.items():
            with contextlib.suppress(OSError):
                found = path.stat()
                stamps[name] = (found.st_mtime_ns, found.st_size, found.st_ino)
        return stamps

    async def start(self, spec: ContainerSpec) -> str:
        handler = self._handlers.get(spec.image_name)
        if handler is None or spec.commands is not None:
            raise RuntimeFault(
                Reason.IMAGE_DENIED,
                f"the process runtime runs only the handler files it was given, nothing else for {spec.image_name}",
                "Scripts and handler files of a job need a worker with the docker runtime.",
            )
        _refuse_what_cannot_hold(spec)
        workdir = next((bind.source for bind in spec.binds if bind.target == WORKDIR), handler.parent)
        labels = spec.labels | {LABEL_WORKER: self._worker_id, LABEL_CONTAINER: spec.id}
        read_end, write_end = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - a vfork takes a millisecond, less than a thread would
                [sys.executable, str(handler)],
                cwd=workdir,
                env=_environment(spec, labels),
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,  # Ctrl-C at the worker's terminal is for the worker
            )
        except OSError as error:
            os.close(read_end)
            raise RuntimeFault(Reason.WORKER_ERROR, f"cannot start {handler}: {error}") from error
        finally:
            os.close(write_end)
        _make_expendable(process.pid)
        self._children[spec.id] = _Child(process, labels, read_end)
        return spec.id

    async def wait(self, handle: str) -> Exit:
        if child := self._children.get(handle):
            return await asyncio.shield(child.exit)
        while pids := list(self._processes(handle)):
            await _until_ended(pids[0])
        return Exit(-1, error="the exit code went with the worker that had started this process")

    async def stop(self, handle: str, grace: float) -> None:
        pids = list(self._processes(handle))
        _signal(pids, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                for pid in pids:
                    await _until_ended(pid)
        try:
            async with asyncio.timeout(_KILL_DEADLINE):
                while pids := list(self._processes(handle)):  # again: a process may have started another one
                    _signal(pids, signal.SIGKILL)
                    await _until_ended(pids[0])
                if child := self._children.get(handle):
                    await asyncio.shield(child.exit)
        except TimeoutError:
            raise RuntimeFault(Reason.WORKER_ERROR, f"process {pids} does not end, even by SIGKILL") from None
        if child := self._children.pop(handle, None):
            child.close()

    async def output(self, handle: str, limit: int) -> bytes:
        child = self._children.get(handle)
        return bytes(child.tail[-limit:]) if child and limit > 0 else b""

    async def follow(self, handle: str, since: float = 0.0) -> AsyncIterator[bytes]:
        child = self._children.get(handle)
        if child is None:  # an earlier process has started it, and had the other end of its pipe
            return
        news: asyncio.Queue[bytes] = asyncio.Queue()
        child.followers.append(news)
        over = child.exit.done()
        try:
            text = b"" if since else bytes(child.tail)  # which has no times
            if text:
                yield text
            while not over and (text := await news.get()):
                yield text
        finally:
            child.followers.remove(news)

    async def network(self, handle: str) -> int:
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def mark(self, container: str) -> ProcMark:
        return ProcMark("environ", f"{json.dumps(LABEL_CONTAINER)}: {json.dumps(container)}")

    def unreachable(self) -> str | None:
        return None

    async def found(self) -> list[Found]:
        # The environment of a process shows a moment after its start, and not after it was given a new one: this
        # runtime's own are known without it.
        running = {handle: child for handle, child in self._children.items() if not child.exit.done()}
        labels_by_container = {handle: child.labels for handle, child in running.items()}
        for _, labels in _labelled():
            if labels.get(LABEL_WORKER) == self._worker_id and LABEL_CONTAINER in labels:
                labels_by_container[labels[LABEL_CONTAINER]] = labels
        return [Found(handle, labels, running=True) for handle, labels in labels_by_container.items()]

    async def close(self) -> None:
        for child in self._children.values():
            child.close()
        self._children.clear()

    def _processes(self, handle: str) -> Iterator[int]:
        """Every live process of the container, also those that left its process group."""
        child = self._children.get(handle)
        own = child.process.pid if child is not None and not child.exit.done() else None
        if own is not None:
            yield own
        for pid, labels in _labelled():
            if pid != own and labels.get(LABEL_WORKER) == self._worker_id and labels.get(LABEL_CONTAINER) == handle:
                yield pid


def _environment(spec: ContainerSpec, labels: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_HANDLERS}
    return {
        **inherited,
        **environment(spec, inherited, spec.folder, spec.python),
        "CUDA_VISIBLE_DEVICES": ",".join(spec.gpus),
        LABELS_VARIABLE: json.dumps(labels),
    }


def _refuse_what_cannot_hold(spec: ContainerSpec) -> None:
    """RuntimeFault. The job's own folders are found by their variables; what has none was asked for by its place."""
    for bind in spec.binds:
        if bind.target not in FOLDER_VARIABLES:
            raise RuntimeFault(
                Reason.WORKER_ERROR,
                f"the process runtime mounts nothing: there would be no {bind.target}",
                "Mounts need a worker with the docker runtime.",
            )


def _make_expendable(pid: int) -> None:
    """The worker's service is the last to be killed when memory runs out (OOMScoreAdjust); its handlers inherit
    that."""
    with contextlib.suppress(OSError):  # it has ended, or the worker is no service
        Path(f"/proc/{pid}/oom_score_adj").write_text("0")


def _labelled() -> Iterator[tuple[int, dict[str, str]]]:
    prefix = f"{LABELS_VARIABLE}=".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(prefix):
                    yield int(folder.name), json.loads(entry[len(prefix) :])
                    break


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def _until_ended(pid: int) -> None:
    """Until the process has ended; a process that is gone, or is nobody's child any more, ended too."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, ended.cancel)
    try:
        await asyncio.wait([ended])
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


__all__ = ["LABELS_VARIABLE", "ProcessRuntime"]
