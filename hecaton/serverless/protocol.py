"""The frames between a worker and a container, protocol version 2; both ends use this module, of different releases.

The worker mounts a folder into the container; `HECATON_DIR` names it there (by default `/run/hecaton`):

    socket   Unix stream socket on which the worker listens; one container per socket
    log      append-only file that takes what the handler prints (file descriptors 1 and 2), until something is in it
    in/      payloads over `MAX_INLINE` bytes; the container only reads
    out/     results over `MAX_INLINE` bytes; a file belongs to the worker from the `result` frame on
    turns    named pipe with the numbers of jobs that were given ahead and have not begun; unsigned 64-bit big-endian

A container may change `log` and what is in out/; where its runtime can see to that, the rest is read-only for it.
`HECATON_NONCE` holds a secret (hex) that the worker made for this container and expects back in `hello`.

A frame is two unsigned 32-bit big-endian lengths (bytes), a header (a UTF-8 JSON object), a body (raw bytes).
A receiver ignores types and fields that it does not know: images live for years, so nothing is ever taken away. What is
appended raises the version; both sides speak the lower of the two that `hello` and `welcome` name. 1 has no `refused`,
`log` and `next_log`.

    field          type         in                 meaning
    type           str          every frame        from the container: hello, result, progress, skipped;
                                                   from the worker: welcome, refused, job, ack
    job            str          job, result, ...   the job's id; safe as a part of a file name
    attempt        int          with `job`         number of the assignment; (job, attempt) names one execution
    protocol       int          hello, welcome     highest version that the container speaks; the one to speak
    nonce          str          hello              the value of HECATON_NONCE
    sdk            str          hello              version of the hecaton package in the container
    python         str          hello              Python version in the container, such as 3.9.18
    pid            int          hello, refused     process id inside the container; of the one that works there
    pending        list         hello              [{job, attempt}, ...]: results not acknowledged; they follow at once
    running        object|null  hello              {job, attempt} that the handler works on at this moment
    ahead          bool         hello              optional: true if jobs may be given ahead (`turns` can be read)
    turn           int          job, skipped       optional in `job`: this one is given ahead, under this number
    max_result     int          welcome            largest result that the worker takes, in bytes
    key            str          job                idempotency key: the same for every attempt of a job
    kind           str          job, result        what the body or file is: json, text or bytes (a result: json, bytes)
    file           str          job, result        optional: name in in/ (job) or out/ (result); then the body is empty
    status         str          result             ok, handler_error, result_invalid or result_too_large
    error          object       result, not ok     {type, message, traceback}, all str, at most `MAX_TRACEBACK` long
    log_end        int          result             size of its log file in bytes when all output of this attempt was in
    next_log       str          result             optional: name in out/ of the log file from now on, a new one
    log            str|null     hello              name in out/ of the log file at this moment; null: `log`
    files          bool         result             optional: true if files of this attempt are in the folder of outputs,
                                                   under .hecaton/JOB.ATTEMPT/
    value          JSON         progress           what the handler reported or yielded
    yielded        int          progress           optional: index of the item that a generator handler yielded

The order of a connection: the container sends `hello` and, right behind it, the results that are pending; the worker
answers `welcome`, or `refused` if another process of the container, which still lives, said hello before: two would run
every job twice. Then it closes the connection, and the process ends. After `welcome` it sends `job` and `ack` frames in
any order. The container works on one job at a time; the worker may send the next `job` before it acknowledges the last
`result`, but keeps few of them waiting: the container holds each in memory. An `ack` says that the result is safe and
may be forgotten. A `job` whose result is still pending is not run again: its result is sent again. When a connection
breaks the container opens a new one, at once and then with pauses of 0.05 s to 1 s. It cannot see the break while a
handler runs: then the new connection comes with the next progress report or with the result. A `job` that is neither
running nor pending in a `hello` never reached the handler.

What a child process of a handler prints stays with the job that started it, also when that has ended: after a job that
printed or started a process the container opens a new log file in out/, `log.1` and so on, for its next job. Jobs that
did neither share a file, in which they leave nothing. Who cannot make a file goes on in the same one, as everybody does
in version 1: each job's output then begins where that of the one before ended.

Short jobs cost more on their way than they take. So a worker may send further jobs to a container that is at work, each
with a `turn` that is higher than all before, whose number it writes into `turns` first. Before the container begins
such a job it reads numbers until it has this one; if there is none the worker has read it, and the job is not the
container's any more: it says `skipped`. In this way a job that waits behind a long one can be withdrawn at any moment,
and no job can begin twice. With the connection everything that was given ahead and has not begun is void.
"""

from __future__ import annotations

import json
import os
import struct

TYPE_CHECKING = False  # `typing` takes longer to import than this module; only type checkers need it
if TYPE_CHECKING:
    import socket
    from typing import Any, Callable, Dict, Tuple

    Header = Dict[str, Any]
    Frame = Tuple[Header, bytes]
else:
    Header, Frame = dict, tuple

PROTOCOL_VERSION = 2
OLDEST_VERSION = 1
SOCKET_NAME = "socket"
LOG_NAME = "log"
IN_NAME = "in"
OUT_NAME = "out"
TURNS_NAME = "turns"

#: Where a job keeps what its next attempt goes on with, and the file in there, or in a folder of it, that says that all
#: beside it is complete.
CHECKPOINTS_VARIABLE = "HECATON_CHECKPOINTS"
COMPLETE_NAME = ".complete"

#: In the environment: the folder of outputs, whose files are kept when a job ends.
OUTPUTS_VARIABLE = "HECATON_OUTPUTS"
#: In that folder: has a folder for each attempt that has left something there, named `JOB.ATTEMPT`.
ASIDE_NAME = ".hecaton"

#: Payloads and results up to this many bytes travel as a frame's body, larger ones as files.
MAX_INLINE = 1 << 20
#: Longest header in bytes.
MAX_HEADER = 1 << 20
#: Longest body in bytes: `MAX_INLINE` and slack, so that a limit checked on one side never fails by one on the other.
MAX_BODY = MAX_INLINE + (64 << 10)
#: Longest `value` of a progress frame, as bytes of JSON: what is shown while a job runs.
MAX_PROGRESS = 64 << 10
#: Longest `error.message` and `error.traceback`, in characters.
MAX_MESSAGE = 8 << 10
MAX_TRACEBACK = 64 << 10
#: Largest result in bytes until `welcome` says otherwise.
DEFAULT_MAX_RESULT = 256 << 20

TURN_NUMBER = struct.Struct("!Q")
_LENGTHS = struct.Struct("!II")
_PIECE = 64 << 10


class ProtocolError(Exception):
    """What came, or was about to be sent, is not a frame of this protocol: close the connection."""


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_loads = json.JSONDecoder(parse_constant=_refuse_constant).decode


def encode(header: Header, body: bytes = b"") -> bytes:
    """One frame as one buffer. Raises ProtocolError when it is over the limits or the header is not JSON."""
    try:
        head = _dumps(header).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"the frame's header is not JSON: {error}") from None
    return frame(head, body)


def frame(head: bytes, body: bytes) -> bytes:
    """One frame whose header is JSON already. Raises ProtocolError when it is over the limits."""
    _check_lengths(len(head), len(body))
    return b"".join((_LENGTHS.pack(len(head), len(body)), head, body))


def parse_header(data: bytes) -> Header:
    """Raises ProtocolError for what is no JSON object with a type."""
    try:
        header = _loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame's header is not JSON: {error}") from None
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise ProtocolError('a frame\'s header is not a JSON object with a "type"')
    return header


class FrameDecoder:
    """Frames out of pieces of any size, for a side that is handed bytes as they come. Useless after a ProtocolError."""

    def __init__(self, parse: Callable[[bytes], Header] = parse_header) -> None:
        """`parse`: does what `parse_header` does, for a side that has a faster one."""
        self._parse = parse
        self._buffer = bytearray()  # of a frame that is not complete yet: most come in one piece

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with `data`, in order. Raises ProtocolError for junk."""
        # hot: benchmarks/throughput.py
        source: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            source = self._buffer
        frames = []
        start, size = 0, len(source)
        while size - start >= _LENGTHS.size:
            head_length, body_length = _LENGTHS.unpack_from(source, start)
            _check_lengths(head_length, body_length)
            body_start = start + _LENGTHS.size + head_length
            end = body_start + body_length
            if end > size:
                break
            header = self._parse(bytes(source[start + _LENGTHS.size : body_start]))
            frames.append((header, bytes(source[body_start:end])))
            start = end
        if source is self._buffer:
            del self._buffer[:start]
        else:
            self._buffer += data[start:]
        return frames


class FrameReader:
    """Frames from a blocking socket. What has come with a frame waits here, and is gone with the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    def read(self) -> Frame:
        """Wait for the next frame.

        Raises ConnectionError when the other side has closed, other OSErrors as they come, ProtocolError for junk.
        """
        while not self._frames:
            data = self._sock.recv(_PIECE)
            if not data:
                raise ConnectionError("the other side closed the connection")
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)


def answered_name(job: str, attempt: int) -> str:
    """Of the empty file in out/ by which a container says, while no worker listens, that it has done a job and keeps
    the result: it need not be stopped, though the worker may be lost."""
    return f"{job}.{attempt}.answered"


def socket_address(folder: str, folder_fd: int) -> str:
    """The address to bind or connect to for the socket in `folder`, which is open as `folder_fd`.

    A Unix socket's address is at most 108 bytes long and a state folder's path may be longer, so the address goes
    through the open folder; without a mounted /proc it is the plain path.
    """
    through_proc = f"/proc/self/fd/{folder_fd}"
    return os.path.join(through_proc if os.path.isdir(through_proc) else folder, SOCKET_NAME)


def _check_lengths(head: int, body: int) -> None:
    if head > MAX_HEADER:
        raise ProtocolError(f"a frame's header has {head} bytes, the limit is {MAX_HEADER}")
    if body > MAX_BODY:
        raise ProtocolError(f"a frame's body has {body} bytes, the limit is {MAX_BODY}")
