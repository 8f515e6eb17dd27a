"""The door to a container that calls `hecaton.serverless.start`: frames over the Unix socket in the channel folder.

What comes through it is hostile by default: a wrong nonce, junk and floods close the connection, and never more.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import msgspec
import structlog

from hecaton.core.content import advice_on
from hecaton.core.model import AttemptRef, Failure, JobId, Kind, Mode, Reason
from hecaton.serverless import protocol
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.doors.door import Answer, Door, Kept, Unready, Visitor
from hecaton.worker.doors.turns import Turns
from hecaton.worker.memory.peers import Peer
from hecaton.worker.runtimes.port import Commands, Exit

HELLO_SECONDS = 10.0
"""A connection that has not said a valid hello by then is closed."""

MAX_STRANGERS = 8
"""Connections that have not said hello yet; more are refused."""

ACK_SECONDS = 0.05
"""How long an acknowledgement waits for a job to travel with."""

MAX_JOB_ID = 200
"""Characters; what a container calls a job goes into answers to it."""

_REASONS = {
    "ok": Reason.OK,
    "handler_error": Reason.HANDLER_ERROR,
    "result_invalid": Reason.RESULT_INVALID,
    "result_too_large": Reason.RESULT_TOO_LARGE,
}

_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(dict[str, Any]).decode

_log = structlog.get_logger("hecaton.worker.native")


class NativeDoor(Door):
    """`nonce` is what the container must say; it is handed over in its environment.

    One process has said it, and works: it may come back, since the end of its connection may not have been noticed yet.
    Another one of its container, which had the same environment, is refused as long as that one lives, or every job
    would run in both. What strangers cost is bounded: `MAX_STRANGERS` of them for `HELLO_SECONDS`."""

    mode = Mode.NATIVE
    begins_at_start = False

    def __init__(
        self,
        folder: Path,
        turns_fd: int,
        visitor: Visitor,
        max_result: int,
        nonce: str | None = None,
        served: Peer | None = None,
    ) -> None:
        """`nonce`, `served`: of a container that an earlier process of this worker started."""
        self.nonce: str = nonce or secrets.token_hex(16)
        self._folder = folder
        self._turns = Turns(turns_fd)
        self._visitor = visitor
        self._max_result = max_result
        self._server: asyncio.Server | None = None
        self._strangers: set[_ContainerConnection] = set()
        self._container: _ContainerConnection | None = None
        self._served = served
        self._served_pid: object = None  # as the container numbers it
        self._has_refused = False
        self._acks: list[bytes] = []
        self._ack_timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(
        cls,
        job: Assignment,
        folder: ChannelFolder,
        visitor: Visitor,
        max_result: int,
        nonce: str | None = None,
        served: Peer | None = None,
    ) -> Self:
        return cls(folder.path, folder.turns_fd, visitor, max_result, nonce, served)

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return ()

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        return None

    def environment(self, job: Assignment) -> dict[str, str]:
        return {"HECATON_NONCE": self.nonce}

    async def open(self) -> None:
        listener = _listener(self._folder)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _ContainerConnection(self), sock=listener)

    def started(self, handle: str) -> None:
        """Nothing to do: it says hello by itself."""

    def adopted(self, handle: str) -> None:
        """Nothing to do: it comes back by itself."""

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """Lost if the container is not connected: it says in its next hello that it has no such job."""
        header = _job(job)
        if file is not None:
            header["file"] = file
        self._send(_encode(header, payload))

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """One write into the pipe, one into the socket, in this order: a number is there before its job is."""
        # hot: benchmarks/batch.py
        try:
            turns = self._turns.offer([job.ref for job in jobs])
        except OSError as error:  # it can only be full if the container fills it
            _log.warning("Closed a connection of a container whose turns cannot be written", error=str(error))
            if self._container is not None:
                self._container.abort()
            return
        self._send(
            *(_encode({**_job(job), "turn": turn}, job.payload.data) for job, turn in zip(jobs, turns, strict=True))
        )

    def withdraw(self) -> tuple[AttemptRef, ...]:
        return self._turns.withdraw()

    def acknowledge(self, ref: AttemptRef) -> None:
        """Leaves with the next job, or soon: alone it would cost both sides a wake-up for every job."""
        self._acks.append(_encode({"type": "ack", "job": ref.job, "attempt": ref.attempt}))
        if self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_SECONDS, self._flush_acks)

    def unready(self, job: Assignment, entrypoint: Sequence[str]) -> Unready:
        return Unready()

    def ended(self, exit: Exit) -> Answer | None:
        return None

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in [*self._strangers, *([self._container] if self._container else [])]:
            connection.abort()

    # -- connections ---------------------------------------------------------------------------------

    def admit(self, connection: _ContainerConnection) -> bool:
        if len(self._strangers) >= MAX_STRANGERS:
            return False
        self._strangers.add(connection)
        return True

    def lost(self, connection: _ContainerConnection) -> None:
        self._strangers.discard(connection)
        if self._container is connection:
            self._container = None

    def take(self, connection: _ContainerConnection, header: dict[str, Any], body: bytes) -> None:
        """Raises ProtocolError for what makes no sense."""
        if connection is self._container:
            self._take_from_container(header, body)
        elif connection in self._strangers:
            self._greet(connection, header)

    def _greet(self, connection: _ContainerConnection, header: dict[str, Any]) -> None:
        nonce, version = header.get("nonce"), header.get("protocol")
        if header["type"] != "hello" or not isinstance(nonce, str) or not isinstance(version, int):
            raise protocol.ProtocolError("the first frame is no hello")
        if version < protocol.OLDEST_VERSION:
            raise protocol.ProtocolError(f"the container speaks protocol {version}: update hecaton in its image")
        if not hmac.compare_digest(nonce.encode("utf-8", "replace"), self.nonce.encode()):
            raise protocol.ProtocolError("the hello has a wrong nonce")
        peer, pid = Peer.of(connection.transport.get_extra_info("socket")), header.get("pid")
        if not self._may_serve(peer, pid):
            self._refuse(connection, pid)
            return
        pending = header.get("pending")
        running = header.get("running")
        said = [*(pending if isinstance(pending, list) else []), *([running] if running else [])]
        busy = tuple(_ref(item) for item in said)
        self._strangers.discard(connection)
        if self._container is not None:
            self._container.abort()  # it has come back before the end of its old connection was noticed
        self._container = connection
        self._served_pid = pid
        if peer != self._served:
            self._served = peer
            self._visitor.is_served_by(peer)
        self._acks.clear()  # what it still has, its hello says, and it sends again
        connection.greeted()
        self._turns.void()
        spoken = min(version, protocol.PROTOCOL_VERSION)
        welcome = {"type": "welcome", "protocol": spoken, "max_result": self._max_result}
        self._send(_encode(welcome))
        log = header.get("log")
        self._visitor.asks_for_work(busy, header.get("ahead") is True, log if isinstance(log, str) else None)

    def _may_serve(self, peer: Peer | None, pid: object) -> bool:
        """Whether it is the process that said hello before, or the first one since that ended."""
        if self._served is not None:
            return peer == self._served or not self._served.lives()
        # It cannot be seen from here: only an open connection shows that it lives.
        return self._container is None or pid == self._served_pid

    def _refuse(self, connection: _ContainerConnection, pid: object) -> None:
        """Said once in the worker's log: a process with an older SDK does not know the word, and goes on asking."""
        if not self._has_refused:
            _log.warning("A second process of a container called start(): it gets no jobs", pid=pid)
        self._has_refused = True
        connection.transport.write(_encode({"type": "refused", "pid": self._served_pid}))
        self._strangers.discard(connection)
        connection.greeted()
        connection.transport.close()

    def _take_from_container(self, header: dict[str, Any], body: bytes) -> None:
        if header["type"] == "result":
            answer = _answer(header, body)
            self._turns.begun(answer.ref)
            self._visitor.answers(answer)
        elif header["type"] == "progress":
            self._visitor.progresses(_ref(header), header.get("value"))
        elif header["type"] == "skipped" and self._turns.is_offered(header.get("turn")):
            raise protocol.ProtocolError("a container left out a job that nobody had withdrawn")

    def _send(self, *frames: bytes) -> None:
        if self._container is not None:
            acks, self._acks = self._acks, []
            self._container.transport.write(b"".join((*acks, *frames)))

    def _flush_acks(self) -> None:
        self._ack_timer = None
        acks, self._acks = self._acks, []
        if acks and self._container is not None:
            self._container.transport.write(b"".join(acks))


class _ContainerConnection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, door: NativeDoor) -> None:
        self._door = door
        self._decoder = protocol.FrameDecoder(_parse)
        self._hello_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_SECONDS, self.abort)
        if not self._door.admit(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for header, body in self._decoder.feed(data):
                self._door.take(self, header, body)
        except protocol.ProtocolError as error:
            _log.warning("Closed a connection of a container that broke the protocol", error=str(error)[:200])
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.greeted()
        self._door.lost(self)

    def greeted(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()

    def abort(self) -> None:
        self._door.lost(self)
        self.transport.abort()


def _listener(folder: Path) -> socket.socket:
    """A socket that listens in `folder`, in the place of whatever is there.

    It is made beside the folder, where no container can reach it, and moved in: a container that runs already could
    put a link in its place before it is opened to all users."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    parent = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    inside = -1
    made = f".{secrets.token_hex(4)}"
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        listener.bind(os.path.join(os.path.dirname(protocol.socket_address(str(folder.parent), parent)), made))
        os.chmod(made, 0o666, dir_fd=parent)
        os.rename(made, protocol.SOCKET_NAME, src_dir_fd=parent, dst_dir_fd=inside)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(parent)
        if inside >= 0:
            os.close(inside)
    return listener


def _job(job: Assignment) -> dict[str, Any]:
    return {
        "type": "job",
        "job": job.ref.job,
        "attempt": job.ref.attempt,
        "key": job.key,
        "kind": job.payload.kind.value,
    }


def _encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    return protocol.frame(_to_json(header), body)


def _parse(data: bytes) -> dict[str, Any]:
    """As `protocol.parse_header`, at a fifth of the cost. That one judges what msgspec finds strange."""
    try:
        header = _from_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return protocol.parse_header(data)
    return header if isinstance(header.get("type"), str) else protocol.parse_header(data)


def _ref(item: object) -> AttemptRef:
    if isinstance(item, dict):
        job, attempt = item.get("job"), item.get("attempt")
        if isinstance(job, str) and job.isascii() and len(job) <= MAX_JOB_ID and isinstance(attempt, int):
            return AttemptRef(JobId(job), attempt)
    raise protocol.ProtocolError("a frame names no job and attempt")


def _answer(header: dict[str, Any], body: bytes) -> Answer:
    reason = _REASONS.get(str(header.get("status")))
    kind, file = header.get("kind", "json"), header.get("file")
    log_end, next_log = header.get("log_end"), header.get("next_log")
    known = reason is not None and kind in ("json", "text", "bytes") and isinstance(file, str | None)
    if reason is None or not known or not isinstance(log_end, int | None) or not isinstance(next_log, str | None):
        raise protocol.ProtocolError("a result with unknown status, kind, file, log_end or next_log")
    failure = None if reason is Reason.OK else _failure(header.get("error"))
    if failure is not None and reason is Reason.RESULT_INVALID:
        failure = msgspec.structs.replace(failure, hint=advice_on(failure.message))
    if failure is not None and _is_gpu_memory(failure):
        reason = Reason.OOM_GPU
    if reason not in (Reason.OK, Reason.RESULT_INVALID):  # what is refused for what it says is kept
        body, file = b"", None
    return Answer(_ref(header), reason, Kind(kind), body, file, failure, log_end, next_log)


def _failure(error: object) -> Failure:
    said = error if isinstance(error, dict) else {}
    message, kind, traceback = (said.get(name) for name in ("message", "type", "traceback"))
    return Failure(
        message=_text(message or "the handler failed and did not say why", protocol.MAX_MESSAGE),
        type=_text(kind, 200) if kind else None,
        traceback=_text(traceback, protocol.MAX_TRACEBACK) if traceback else None,
    )


def _text(value: object, limit: int) -> str:
    """JSON can spell halves of characters, which no other encoding takes."""
    return str(value)[:limit].encode("utf-8", "replace").decode()


def _is_gpu_memory(failure: Failure) -> bool:
    """PyTorch: torch.cuda.OutOfMemoryError; CuPy: OutOfMemoryError; JAX: RESOURCE_EXHAUSTED."""
    named = (failure.type or "").endswith("OutOfMemoryError")
    return named or "CUDA out of memory" in failure.message or "RESOURCE_EXHAUSTED" in failure.message
