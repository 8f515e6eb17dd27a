"""The worker's end of the protocol, played by a test: a real socket, and a real child process as the container."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from hecaton.serverless.protocol import Frame, Header, encode, parse_header, socket_address
from tests.serverless.interpreters import REPOSITORY

NONCE = "5ec4e7"
PATIENCE = 20.0  # seconds until a test gives up waiting for a frame or for the end of a process
PRELUDE = "import os, sys\nfrom hecaton.serverless import ServerLessInput, progress, start\n"


class WorkerSide:
    """One container and the folder that it shares with its worker.

    `connect()` accepts the container's connection; afterwards `job` sends a job, `result` waits for one, and so on.
    """

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.python = python
        self.hello: Header = {}
        self.progress: list[Header] = []
        self.protocol = 1  # that of the release before: one file for all that is printed
        self._log: str | None = None
        self._logs: dict[str, str | None] = {}
        for name in ("in", "out"):
            (folder / name).mkdir(parents=True)
        (folder / "log").touch()
        self._listener: socket.socket | None = None
        self._sock: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WorkerSide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.hang_up()
        self.stop_listening()
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()

    # The container's life

    def start(self, source: str, *wrapper: str) -> None:
        """Start a handler file in the container's place, `wrapper` in front of the command."""
        handler = self.folder.parent / "handler.py"
        handler.write_text(PRELUDE + textwrap.dedent(source), encoding="utf-8")
        self.process = subprocess.Popen(
            [*wrapper, self.python, str(handler)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(REPOSITORY),
                "HECATON_DIR": str(self.folder),
                "HECATON_NONCE": NONCE,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def serve(self, source: str, max_result: int = 256 << 20) -> None:
        """Start a handler file, accept its connection and welcome it."""
        self.listen()
        self.start(source)
        self.connect(max_result)

    def exit_code(self) -> int:
        """Wait for the container's process to end."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def start_up_output(self) -> str:
        """What the process printed before the log took over; waits for its end."""
        assert self.process is not None
        out, err = self.process.communicate(timeout=PATIENCE)
        return (out + err).decode()

    def log(self, end: int | None = None) -> str:
        return (self.folder / "log").read_bytes()[:end].decode("utf-8", "replace")

    def log_of(self, job: str) -> str | None:
        """Name of the file that has what this job printed; None: the first one."""
        return self._logs[job]

    def output(self, name: str | None) -> str:
        return (self.folder / "log" if name is None else self.folder / "out" / name).read_text()

    # The connection

    def listen(self) -> None:
        self.stop_listening()
        (self.folder / "socket").unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(socket_address(str(self.folder), folder_fd))
        finally:
            os.close(folder_fd)
        listener.listen()
        listener.settimeout(PATIENCE)
        self._listener = listener

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def accept(self) -> Header:
        """Accept a connection; its `hello`."""
        assert self._listener is not None
        self.hang_up()
        self._sock = self._listener.accept()[0]
        self._sock.settimeout(PATIENCE)
        self.hello, _ = self.read()
        assert self.hello["type"] == "hello"
        return self.hello

    def connect(self, max_result: int = 256 << 20) -> Header:
        """Accept a connection and welcome it; its `hello`."""
        hello = self.accept()
        self.send({"type": "welcome", "protocol": self.protocol, "max_result": max_result})
        return hello

    def hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    # Frames

    def send(self, header: Header, body: bytes = b"") -> None:
        self.send_raw(encode(header, body))

    def send_raw(self, data: bytes) -> None:
        assert self._sock is not None
        self._sock.sendall(data)

    def read(self) -> Frame:
        """Of the socket exactly one frame, so that `read_some` finds the next where it is."""
        head, body = struct.unpack("!II", self._exactly(8))
        return parse_header(self._exactly(head)), self._exactly(body)

    def _exactly(self, count: int) -> bytes:
        assert self._sock is not None
        data = b""
        while len(data) < count:
            piece = self._sock.recv(count - len(data))
            if not piece:
                raise ConnectionError("the container closed the connection")
            data += piece
        return data

    def read_some(self, count: int) -> None:
        """Read a part of a frame, to break the connection in its middle."""
        assert self._sock is not None
        assert self._sock.recv(count)

    def job(self, payload: Any = None, name: str = "job-1", attempt: int = 1) -> None:
        """Send a job with a JSON payload."""
        self.job_of("json", json.dumps(payload).encode(), name, attempt)

    def job_of(self, kind: str, body: bytes, name: str = "job-1", attempt: int = 1, **fields: str) -> None:
        header = {"type": "job", "job": name, "attempt": attempt, "key": f"key-of-{name}", "kind": kind, **fields}
        self.send(header, body)

    def result(self) -> Frame:
        """Wait for the next result; progress that comes first is kept in `progress`."""
        while True:
            header, body = self.read()
            if header["type"] == "result":
                self._logs[header["job"]], self._log = self._log, header.get("next_log", self._log)
                return header, body
            assert header["type"] == "progress", header
            self.progress.append(header)

    def ack(self, result: Header) -> None:
        self.send({"type": "ack", "job": result["job"], "attempt": result["attempt"]})

    def run(self, payload: Any = None, name: str = "job-1") -> Frame:
        """A job from the payload to the acknowledgement."""
        self.job(payload, name)
        header, body = self.result()
        assert (header["job"], header["attempt"]) == (name, 1)
        self.ack(header)
        return header, body

    def value(self, payload: Any = None, name: str = "job-1") -> Any:
        """Run a job that must succeed; the JSON value that the handler returned."""
        header, body = self.run(payload, name)
        assert header["status"] == "ok", header
        assert header["kind"] == "json"
        return json.loads(body)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition outside of the connection holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def opens_for_writing(fifo: Path) -> bool:
    """Whether somebody reads from a FIFO at this moment; opening and closing it ends the reader's wait."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


def unshare() -> list[str]:
    """The command that gives a process a PID namespace of its own, in which it is process 1."""
    path = shutil.which("unshare")
    assert path is not None, "unshare is missing: it belongs to util-linux"
    return [path, *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--pid", "--fork"]
