"""One connection of a container at the native door: what comes through it, at which rate, and what waits to go out.
What a container does here costs its own connection and its own turn, never that of others.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import structlog

from hecaton.serverless import protocol
from hecaton.worker.doors.channel_folder import blame

HELLO_SECONDS = 10.0
"""A connection that has not said a valid hello by then is closed."""

ACCEPT_SECONDS = 0.01
"""Between two connections that a container opens: one comes at its start, and after each break."""

MAX_WAITING = 8 << 20
"""Bytes that wait for a container to read them: more than all jobs that it may have at once."""

FRAMES_AT_ONCE = 256
"""Of one container; then others get their turn."""

MAX_FRAMES = 50_000
"""Of one container in a second, on average: short jobs come at a tenth of that."""

COMPLAINT_SECONDS = 60.0
"""Between two lines in the worker's log about the connections of one container."""

_BACKLOG = 100
_RETRY_SECONDS = 1.0

_from_json = msgspec.json.Decoder(dict[str, Any]).decode

_log = structlog.get_logger("hecaton.worker.doors.connection")


class Greeter(Protocol):
    """The door that a connection belongs to. Called on the worker's loop."""

    def admit(self, connection: ContainerConnection) -> bool:
        """Whether it may stay."""

    def take(self, connection: ContainerConnection, header: dict[str, Any], body: bytes) -> None:
        """Raises ProtocolError for what makes no sense."""

    def lost(self, connection: ContainerConnection) -> None:
        """Closed, from whichever side. More than once does no harm."""

    def does_not_read(self, connection: ContainerConnection) -> None:
        """MAX_WAITING bytes wait for it."""


class Complaints:
    """About one container, in the worker's log: the first at once, then one line a minute, with how many there were."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._unsaid = 0

    def say(self, text: str, **fields: object) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._silent_until:
            self._unsaid += 1
            return
        self._silent_until = now + COMPLAINT_SECONDS
        more = {"before": self._unsaid} if self._unsaid else {}
        self._unsaid = 0
        _log.warning(text, **fields, **more)


class ContainerConnection(asyncio.Protocol):
    """Frames count from now on; more than MAX_FRAMES a second wait, first here and then at the sender."""

    transport: asyncio.Transport

    def __init__(self, greeter: Greeter, complaints: Complaints) -> None:
        self._greeter = greeter
        self._complaints = complaints
        self._decoder = protocol.FrameDecoder(_parse)
        self._hello_timer: asyncio.TimerHandle | None = None
        self._late: list[protocol.Frame] = []
        self._late_timer: asyncio.TimerHandle | None = None
        self._counted = 0
        self._since = asyncio.get_running_loop().time()  # the counting began, or what was counted would have been due

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self.transport.set_write_buffer_limits(high=MAX_WAITING)
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_SECONDS, self.abort)
        if not self._greeter.admit(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        # hot: benchmarks/throughput.py
        try:
            frames = self._decoder.feed(data)
        except protocol.ProtocolError as error:
            self._broke_the_protocol(error)
        else:
            self._take(frames)

    def _take(self, frames: list[protocol.Frame]) -> None:
        # hot: benchmarks/throughput.py
        if len(frames) > FRAMES_AT_ONCE:
            frames, self._late = frames[:FRAMES_AT_ONCE], frames[FRAMES_AT_ONCE:]
        try:
            for header, body in frames:
                self._greeter.take(self, header, body)
        except protocol.ProtocolError as error:
            self._broke_the_protocol(error)
            return
        self._counted += len(frames)
        if self._counted >= FRAMES_AT_ONCE:
            self._slow_down()

    def _slow_down(self) -> None:
        if self.transport.is_closing():
            return
        now = asyncio.get_running_loop().time()
        due = self._since + self._counted / MAX_FRAMES
        self._counted, self._since = 0, max(now, due)
        if self._late or due > now:
            self.transport.pause_reading()
            self._late_timer = asyncio.get_running_loop().call_later(max(0.0, due - now), self._go_on)

    def _go_on(self) -> None:
        self._late_timer = None
        frames, self._late = self._late, []
        self._take(frames)
        if self._late_timer is None and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Not at once: whoever writes goes on with this connection."""
        asyncio.get_running_loop().call_soon(self._greeter.does_not_read, self)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
        self._greeter.lost(self)

    def greeted(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()

    def abort(self) -> None:
        self._stop()
        self._greeter.lost(self)
        self.transport.abort()

    def _stop(self) -> None:
        self.greeted()
        self._late = []
        if self._late_timer is not None:
            self._late_timer.cancel()

    def _broke_the_protocol(self, error: protocol.ProtocolError) -> None:
        self._complaints.say("Closed a connection of a container that broke the protocol", error=str(error)[:200])
        self.abort()


async def accept(listener: socket.socket, greeter: Greeter, complaints: Complaints) -> None:
    """Until it is cancelled, one connection after the other: who opens many waits, and nobody else."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = await loop.sock_accept(listener)
            await loop.connect_accepted_socket(lambda: ContainerConnection(greeter, complaints), accepted)
            await asyncio.sleep(ACCEPT_SECONDS)
        except OSError as error:  # no descriptor is left, say
            complaints.say("Cannot take a connection of a container: trying again", error=str(error))
            await asyncio.sleep(_RETRY_SECONDS)


def listen(folder: Path) -> socket.socket:
    """A socket that listens in `folder`, in the place of whatever is there. Raises OSError, Spoilt.

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
        _put(made, parent, inside)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(parent)
        if inside >= 0:
            os.close(inside)
    return listener


def _put(made: str, parent: int, inside: int) -> None:
    try:
        os.rename(made, protocol.SOCKET_NAME, src_dir_fd=parent, dst_dir_fd=inside)
    except OSError as error:
        os.unlink(made, dir_fd=parent)
        blame(error)
        raise


def _parse(data: bytes) -> dict[str, Any]:
    """As `protocol.parse_header`, at a fifth of the cost. That one judges what msgspec finds strange."""
    try:
        header = _from_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return protocol.parse_header(data)
    return header if isinstance(header.get("type"), str) else protocol.parse_header(data)
