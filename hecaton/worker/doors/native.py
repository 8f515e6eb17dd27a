"""The door to a container that calls `hecaton.serverless.start`: frames over the Unix socket in the channel folder.

What comes through it is hostile by default: a wrong nonce, junk and floods close the connection, and never more.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog

from hecaton.core.content import advice_on
from hecaton.core.model import AttemptRef, Failure, JobId, Kind, Mode, Reason
from hecaton.serverless import protocol
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.connection import MAX_WAITING, Complaints, ContainerConnection, accept, listen
from hecaton.worker.doors.door import Answer, Door, Kept, Known, Unready, Visitor
from hecaton.worker.doors.turns import Turns
from hecaton.worker.memory.peers import Peer
from hecaton.worker.runtimes.port import Commands, Exit

MAX_STRANGERS = 8
"""Connections that have not said hello yet; more are refused."""

ACK_SECONDS = 0.05
"""How long an acknowledgement waits for a job to travel with."""

MAX_JOB_ID = 200
"""Characters; what a container calls a job goes into answers to it."""

MAX_ATTEMPT = 2**31 - 1
"""No number of an attempt is greater, nor one of a process."""

MAX_FILE_NAME = 255
"""Characters; no file system takes more."""

MAX_PENDING = 1024
"""Results that a container may say it keeps: it is given few jobs before it is told that the last ones are safe."""

_REASONS = {
    "ok": Reason.OK,
    "handler_error": Reason.HANDLER_ERROR,
    "result_invalid": Reason.RESULT_INVALID,
    "result_too_large": Reason.RESULT_TOO_LARGE,
}

_to_json = msgspec.json.Encoder().encode

_log = structlog.get_logger("hecaton.worker.native")


class NativeDoor(Door):
    """`nonce` is what the container must say; it is handed over in its environment.

    One process has said it, and works: it may come back, since the end of its connection may not have been noticed yet.
    Another one of its container, which had the same environment, is refused as long as that one lives, or every job
    would run in both. What strangers cost is bounded: `MAX_STRANGERS` of them for `HELLO_SECONDS`. An acknowledgement
    goes to whom has the job, once: else who asks for some and reads none would fill this process's memory."""

    mode = Mode.NATIVE
    prints_elsewhere = False
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
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._complaints = Complaints()
        self._strangers: set[ContainerConnection] = set()
        self._container: ContainerConnection | None = None
        self._served = served
        self._served_pid: object = None  # as the container numbers it
        self._has_refused = False
        self._kept: set[AttemptRef] = set()  # what the container was given, or says that it keeps
        self._acks: list[bytes] = []
        self._ack_timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, known: Known) -> Self:
        folder = known.folder
        return cls(folder.path, folder.turns_fd, known.visitor, known.max_result, known.nonce, known.served)

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return ()

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        return None

    def environment(self, job: Assignment) -> dict[str, str]:
        return {"HECATON_NONCE": self.nonce}

    async def open(self) -> None:
        self._listener = listen(self._folder)
        accepting = accept(self._listener, self, self._complaints)
        self._accepting = asyncio.get_running_loop().create_task(accepting)

    def started(self, handle: str) -> None:
        """Nothing to do: it says hello by itself."""

    def adopted(self, handle: str) -> None:
        """Nothing to do: it comes back by itself."""

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """Lost if the container is not connected: it says in its next hello that it has no such job."""
        self._kept.add(job.ref)
        header = _job(job)
        if file is not None:
            header["file"] = file
        self._send(_encode(header, payload))

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """One write into the pipe, one into the socket, in this order: a number is there before its job is."""
        # hot: benchmarks/batch.py
        try:
            refs = [job.ref for job in jobs]
            turns = self._turns.offer(refs)
        except OSError as error:  # it can only be full if the container fills it
            _log.warning("Closed a connection of a container whose turns cannot be written", error=str(error))
            if self._container is not None:
                self._container.abort()
            return
        self._kept.update(refs)
        self._send(
            *(_encode({**_job(job), "turn": turn}, job.payload.data) for job, turn in zip(jobs, turns, strict=True))
        )

    def withdraw(self) -> tuple[AttemptRef, ...]:
        refs = self._turns.withdraw()
        self._kept.difference_update(refs)
        return refs

    def acknowledge(self, ref: AttemptRef) -> None:
        """Leaves with the next job, or soon: alone it would cost both sides a wake-up for every job."""
        if ref not in self._kept:
            return
        self._kept.discard(ref)
        self._acks.append(_encode({"type": "ack", "job": ref.job, "attempt": ref.attempt}))
        if self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_SECONDS, self._flush_acks)

    def unready(self, job: Assignment, entrypoint: Sequence[str]) -> Unready:
        return Unready()

    def ended(self, exit: Exit) -> Answer | None:
        return None

    async def close(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
        for connection in [*self._strangers, *([self._container] if self._container else [])]:
            connection.abort()

    # -- connections ---------------------------------------------------------------------------------

    def admit(self, connection: ContainerConnection) -> bool:
        if len(self._strangers) >= MAX_STRANGERS:
            return False
        self._strangers.add(connection)
        return True

    def does_not_read(self, connection: ContainerConnection) -> None:
        if connection is self._container:
            self._visitor.misbehaves(f"it does not read: {MAX_WAITING} bytes wait for it")
        connection.abort()

    def lost(self, connection: ContainerConnection) -> None:
        self._strangers.discard(connection)
        if self._container is connection:
            self._container = None

    def take(self, connection: ContainerConnection, header: dict[str, Any], body: bytes) -> None:
        """Raises ProtocolError for what makes no sense."""
        if connection is self._container:
            self._take_from_container(header, body)
        elif connection in self._strangers:
            self._greet(connection, header)

    def _greet(self, connection: ContainerConnection, header: dict[str, Any]) -> None:
        nonce, version = header.get("nonce"), header.get("protocol")
        if header["type"] != "hello" or not isinstance(nonce, str) or not isinstance(version, int):
            raise protocol.ProtocolError("the first frame is no hello")
        if version < protocol.OLDEST_VERSION:
            raise protocol.ProtocolError(f"the container speaks protocol {version}: update hecaton in its image")
        if not hmac.compare_digest(nonce.encode("utf-8", "replace"), self.nonce.encode()):
            raise protocol.ProtocolError("the hello has a wrong nonce")
        peer, pid = Peer.of(connection.transport.get_extra_info("socket")), _number(header.get("pid"))
        if not self._may_serve(peer, pid):
            self._refuse(connection, pid)
            return
        busy = _busy(header)
        self._strangers.discard(connection)
        if self._container is not None:
            self._container.abort()  # it has come back before the end of its old connection was noticed
        self._container = connection
        self._served_pid = pid
        if peer != self._served:
            self._served = peer
            self._visitor.is_served_by(peer)
        self._acks.clear()  # what it still has, its hello says, and it sends again
        self._kept = set(busy)
        connection.greeted()
        self._turns.void()
        spoken = min(version, protocol.PROTOCOL_VERSION)
        welcome = {"type": "welcome", "protocol": spoken, "max_result": self._max_result}
        self._send(_encode(welcome))
        log = header.get("log")
        log = log if isinstance(log, str) and _is_name(log) else None
        self._visitor.asks_for_work(busy, header.get("ahead") is True, log)

    def _may_serve(self, peer: Peer | None, pid: object) -> bool:
        """Whether it is the process that said hello before, or the first one since that ended."""
        if self._served is not None:
            return peer == self._served or not self._served.lives()
        # It cannot be seen from here: only an open connection shows that it lives.
        return self._container is None or pid == self._served_pid

    def _refuse(self, connection: ContainerConnection, pid: object) -> None:
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


def _ref(item: object) -> AttemptRef:
    if isinstance(item, dict):
        job, attempt = item.get("job"), _number(item.get("attempt"))
        if isinstance(job, str) and job.isascii() and len(job) <= MAX_JOB_ID and attempt is not None:
            return AttemptRef(JobId(job), attempt)
    raise protocol.ProtocolError("a frame names no job and attempt")


def _number(value: Any) -> int | None:
    """None: it is none that an attempt or a process may have."""
    return value if type(value) is int and 0 <= value <= MAX_ATTEMPT else None


def _busy(hello: dict[str, Any]) -> tuple[AttemptRef, ...]:
    """What a container works on, or has the result of. Raises ProtocolError."""
    pending, running = hello.get("pending"), hello.get("running")
    said = [*(pending if isinstance(pending, list) else []), *([running] if running else [])]
    if len(said) > MAX_PENDING:
        raise protocol.ProtocolError(f"a hello with {len(said)} results, the limit is {MAX_PENDING}")
    return tuple(_ref(item) for item in said)


def _answer(header: dict[str, Any], body: bytes) -> Answer:
    status = header.get("status")
    reason = _REASONS.get(status) if isinstance(status, str) else None
    kind, file = header.get("kind", "json"), header.get("file")
    log_end, next_log = header.get("log_end"), header.get("next_log")
    known = reason is not None and kind in ("json", "text", "bytes") and _is_name(file)
    if reason is None or not known or not isinstance(log_end, int | None) or not _is_name(next_log):
        raise protocol.ProtocolError("a result with unknown status, kind, file, log_end or next_log")
    failure = None if reason is Reason.OK else _failure(header.get("error"))
    if failure is not None and reason is Reason.RESULT_INVALID:
        failure = msgspec.structs.replace(failure, hint=advice_on(failure.message))
    if failure is not None and _is_gpu_memory(failure):
        reason = Reason.OOM_GPU
    if reason not in (Reason.OK, Reason.RESULT_INVALID):  # what is refused for what it says is kept
        body, file = b"", None
    made = header.get("files") is True
    return Answer(_ref(header), reason, Kind(kind), body, file, failure, log_end, next_log, made)


def _failure(error: object) -> Failure:
    said = error if isinstance(error, dict) else {}
    message, kind, traceback = (said.get(name) for name in ("message", "type", "traceback"))
    return Failure(
        message=_text(message, protocol.MAX_MESSAGE) or "the handler failed and did not say why",
        type=_text(kind, 200),
        traceback=_text(traceback, protocol.MAX_TRACEBACK),
    )


def _text(value: object, limit: int) -> str | None:
    """JSON can spell halves of characters, which no other encoding takes."""
    return value[:limit].encode("utf-8", "replace").decode() if value and isinstance(value, str) else None


def _is_name(value: object) -> bool:
    """Of a file in out/, or none."""
    return value is None or (isinstance(value, str) and len(value) <= MAX_FILE_NAME)


def _is_gpu_memory(failure: Failure) -> bool:
    """PyTorch: torch.cuda.OutOfMemoryError; CuPy: OutOfMemoryError; JAX: RESOURCE_EXHAUSTED."""
    named = (failure.type or "").endswith("OutOfMemoryError")
    return named or "CUDA out of memory" in failure.message or "RESOURCE_EXHAUSTED" in failure.message
