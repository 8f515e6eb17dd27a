"""The container's connection to its worker: opened anew whenever it breaks; keeps results until acknowledged."""

from __future__ import annotations

import _thread
import os
import sys
import time

from hecaton import __version__
from hecaton.serverless.protocol import (
    DEFAULT_MAX_RESULT,
    MAX_PROGRESS,
    OLDEST_VERSION,
    OUT_NAME,
    PROTOCOL_VERSION,
    FrameReader,
    ProtocolError,
    answered_name,
    encode,
    socket_address,
)
from hecaton.serverless.turns import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn, Tuple

    from hecaton.serverless.protocol import Frame, Header

    Key = Tuple[str, int]
else:
    import _socket as socket  # `socket` adds nothing that is needed here, and takes 2 ms of every start

FIRST_DELAY = 0.05
LAST_DELAY = 1.0


class Link:
    """Blocking; one thread serves jobs, others may report progress.

    Blocking, because a thread that the kernel wakes is the fastest way over a Unix socket, and because a handler has
    the process to itself while it runs: there is nothing else to do meanwhile.
    """

    def __init__(self, folder: str, nonce: str) -> None:
        self.max_result = DEFAULT_MAX_RESULT
        self.protocol = OLDEST_VERSION  # as the worker has said
        self.log: str | None = None  # name in out/ of the file that takes what is printed; None: `log` itself
        self._folder = folder
        self._nonce = nonce
        self._turns = Turns(folder)
        self._pid = os.getpid()
        self._lock = _thread.allocate_lock()  # guards the socket for writing, and what is running and pending
        self._socket: socket.socket | None = None
        self._reader: FrameReader | None = None  # of this socket
        self._identity: tuple[int, int] | None = None
        self._running: Key | None = None
        # Results that the worker has not acknowledged, as frames. It acknowledges each one once that is on its disk,
        # which may be after it gave the next job; it gives the jobs, so it decides how many there can be.
        self._pending: dict[Key, bytes] = {}
        self._delay = 0.0

    def next_job(self) -> Frame:
        """Wait for a job that is not done yet, through any number of broken connections."""
        while True:
            header, body = self._receive()
            try:
                with self._lock:
                    if self._take(header):
                        return header, body
            except (KeyError, TypeError, ValueError) as error:
                self._give_up_on("a bad {} frame: {} {}".format(header["type"], type(error).__name__, error))

    def send_result(self, header: Header, body: bytes) -> None:
        """Hand over the result of the job that runs; it is kept, and sent again if need be, until acknowledged."""
        # One buffer and one send: a second one would cost a system call here and a second wake-up of the worker,
        # which is more than copying at most 1 MiB.
        frame = encode(header, body)
        with self._lock:
            self._running = None
            self._pending[_key(header)] = frame
            if not self._send(frame):
                self._leave_word()

    def send_progress(self, value: Any, size: int, index: int | None = None) -> bool:
        """Report `value` (`size` bytes as JSON) on the running job; False if nothing runs here, or it is too large.

        A report that does not get through is lost: it says what is now, and the result is what counts.
        """
        if os.getpid() != self._pid or size > MAX_PROGRESS:  # the connection is that of the parent process
            return False
        with self._lock:
            if self._running is None:
                return False
            job, attempt = self._running
            header = {"type": "progress", "job": job, "attempt": attempt, "value": value}
            if index is not None:
                header["yielded"] = index
            frame = encode(header)
            # A worker that was restarted learns in this way that the job still runs: `hello` says so.
            if not self._send(frame) and self._connect():
                self._send(frame)
        return True

    def _take(self, header: Header) -> bool:
        """Deal with one frame; whether it is a job to run. Frames of a kind unknown here are for later versions."""
        kind = header["type"]
        if kind == "job":
            key = _key(header)
            if key in self._pending:
                self._send(self._pending[key])
            elif "turn" not in header or self._is_its_turn(header["turn"]):
                self._running = key
                return True
        elif kind == "ack":
            self._pending.pop(_key(header), None)
        elif kind == "welcome":
            self._welcomed(header)
        elif kind == "refused":
            self._refused(header)
        return False

    def _is_its_turn(self, turn: int) -> bool:
        try:
            if self._turns.take(turn):
                return True
        except OSError as error:
            self._turns.open()
            raise ValueError(f"turns cannot be read: {error}") from None  # on a new connection all is given anew
        self._send(encode({"type": "skipped", "turn": turn}))
        return False

    def _welcomed(self, header: Header) -> None:
        if header["protocol"] not in range(OLDEST_VERSION, PROTOCOL_VERSION + 1):
            sys.exit(
                f"hecaton.serverless {__version__} speaks protocol {PROTOCOL_VERSION}, "
                f"the worker answers with {header['protocol']!r}: update hecaton in the image, or the worker"
            )
        self.protocol = header["protocol"]
        self.max_result = int(header["max_result"])
        self._delay = 0.0  # only now: a worker that accepts and closes again must not be asked in a tight loop

    def _refused(self, header: Header) -> NoReturn:
        """Exit code 0: what started both, such as torchrun, would end the one that works for a failure of this one."""
        sys.stderr.write(
            "hecaton.serverless: another process of this container ({}) runs its jobs already, so this one ({}) ends: "
            "call start() in one process only, with torchrun where RANK is 0\n".format(header["pid"], self._pid)
        )
        sys.exit(0)

    def _receive(self) -> Frame:
        while True:
            reader = self._reader
            if reader is None:
                self._wait_and_connect()
                continue
            try:
                return reader.read()
            except OSError:
                self._drop()
            except ProtocolError as error:
                self._give_up_on(str(error))

    def _give_up_on(self, reason: str) -> None:
        sys.stderr.write(f"hecaton.serverless: connecting to the worker again after {reason}\n")
        self._drop()
        self._delay = LAST_DELAY

    def _wait_and_connect(self) -> None:
        time.sleep(self._delay)
        self._delay = min(LAST_DELAY, max(FIRST_DELAY, 2 * self._delay))
        with self._lock:
            self._connect()

    def _connect(self) -> bool:
        """Try once. `hello` and everything pending go out together: the worker's answer is read when it comes."""
        try:
            sock = _dial(self._folder)
        except OSError:
            self._leave_word()
            return False
        self._socket, self._reader = sock, FrameReader(sock)
        status = os.fstat(sock.fileno())
        self._identity = (status.st_dev, status.st_ino)
        return self._send(b"".join([self._hello(), *self._pending.values()]))

    def _leave_word(self) -> None:
        """That jobs are done: no worker is there to be told."""
        for job, attempt in self._pending:
            path = os.path.join(self._folder, OUT_NAME, answered_name(job, attempt))
            try:  # noqa: SIM105
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            except OSError:
                pass  # it is told later

    def _hello(self) -> bytes:
        return encode(
            {
                "type": "hello",
                "protocol": PROTOCOL_VERSION,
                "nonce": self._nonce,
                "sdk": __version__,
                "python": ".".join(map(str, sys.version_info[:3])),
                "pid": self._pid,
                "ahead": self._turns.usable,
                "log": self.log,
                "pending": [_named(key) for key in self._pending],
                "running": None if self._running is None else _named(self._running),
            }
        )

    def _send(self, data: bytes) -> bool:
        """Whether all of it went out. If not, the connection is dropped, and what is pending goes with the next one."""
        sock = self._socket
        if sock is None:
            return False
        if self._is_own(sock):
            try:
                sock.sendall(data)
                return True
            except OSError:
                pass
        self._drop()
        return False

    def _drop(self) -> None:
        sock, self._socket, self._reader = self._socket, None, None
        if sock is None:
            return
        if not self._is_own(sock):
            sock.detach()
            return
        try:  # noqa: SIM105  (contextlib takes longer to import than this whole module)
            sock.shutdown(socket.SHUT_RDWR)  # a child process may hold a copy: closing ours alone would not end it
        except OSError:
            pass  # the worker was faster
        sock.close()

    def _is_own(self, sock: socket.socket) -> bool:
        """Whether the descriptor is still our socket: a handler may have closed all, and reused the number."""
        try:
            status = os.fstat(sock.fileno())
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity


def _key(header: Header) -> Key:
    return header["job"], header["attempt"]


def _named(key: Key) -> dict[str, Any]:
    return {"job": key[0], "attempt": key[1]}


def _dial(folder: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            sock.connect(socket_address(folder, folder_fd))
        finally:
            os.close(folder_fd)
    except OSError:
        sock.close()
        raise
    return sock
