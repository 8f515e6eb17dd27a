"""The whole protocol between server and worker.

One WebSocket (GET /v1/worker/channel, `Authorization: Bearer <worker token>`). A frame is a MessagePack list of
messages: many jobs, results or acknowledgements share one frame, one wake-up and one fsync. The worker speaks first
(`Hello`), the server answers `Welcome`; then both send what they have, in frames of at most 4 MiB (`wire.frames`).
Results over 64 KiB and payloads over 1 MiB do not travel here but beside it, over HTTP with the same token (GET and PUT
/v1/worker/jobs/{job}/blobs/{sha256}).

Rules: an assignment carries its attempt number, the fence; whatever is said about a job names both. A result is sent
until `Accepted` names it (also as refused: `fenced`). Times here are ages in seconds: the two clocks never meet.

Versions: both sides speak the lower `PROTOCOL` of the two, and each also the one of the release before. So fields are
only ever appended, with a default that says what it means to be without; a receiver leaves out what it does not know at
the end. A new kind of message goes only to a side that speaks its version.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from hecaton.core.model import AttemptRef, Body, Kind
from hecaton.wire.bounds import MAX_MESSAGES, MAX_REFS, MAX_SLOTS, Index, Name, Names, Number, Piece, Size, Text
from hecaton.wire.carried import Assignment, CardInfo, FileRef, Held, ImageRef, Outcome, SlotInfo
from hecaton.wire.decoding import decoded

PROTOCOL = 4
"""Goes up with every field or message that is appended. 3 knows no places but those of whole cards and no mounts, and
says nothing of cards, CPUs and memory."""

OLDEST = 3
"""Still spoken: that of the release before."""

PATH = "/v1/worker/channel"

CLOSE_UNAUTHENTICATED = 4401
CLOSE_SUPERSEDED = 4409
"""Another process with the same worker token took over: this one must not come back by itself."""
CLOSE_REPLACED = 4410
"""The same process has a newer connection: this one is over, and nothing is wrong."""
CLOSE_PROTOCOL = 4400

DIRECT_LIMIT = 64 * 1024
"""Results up to this size travel inside frames."""

LOST_AFTER = 60.0
"""Seconds of silence after which a worker's jobs go to others, where the server's flags say nothing else."""


Refs = Annotated[tuple[AttemptRef, ...], msgspec.Meta(max_length=MAX_REFS)]


class _Message(msgspec.Struct, frozen=True, array_like=True, tag_field="t"):
    pass


# -- server to worker ------------------------------------------------------------------------------


class Welcome(_Message, frozen=True, tag="welcome"):
    """`protocol`: what both speak. `keep`: what the worker holds and still owns. `drop`: what it holds but no longer
    owns (fenced): stop, forget. `drained`: as `Drain`."""

    protocol: int
    server_id: str
    heartbeat: float  # seconds; the worker sends a `WorkerBeat` twice in this time, whatever else it sends
    max_result: int
    keep: tuple[AttemptRef, ...]
    drop: tuple[AttemptRef, ...]
    lost_after: float = LOST_AFTER  # seconds of silence after which the worker's jobs go to others
    drained: bool = False


class Assign(_Message, frozen=True, tag="assign"):
    jobs: tuple[Assignment, ...]


class Revoke(_Message, frozen=True, tag="revoke"):
    """Give these back if they have not started. Answered by `Released` or by what they are doing anyway."""

    refs: tuple[AttemptRef, ...]


class Cancel(_Message, frozen=True, tag="cancel"):
    """Stop these; an outcome in `Results` with reason `cancelled` says when the slot is really free."""

    refs: tuple[AttemptRef, ...]


class Accepted(_Message, frozen=True, tag="accepted"):
    """The results are durable, or refused for good: forget them."""

    refs: tuple[AttemptRef, ...]
    fenced: tuple[AttemptRef, ...] = ()


class Retire(_Message, frozen=True, tag="retire"):
    """The worker was removed by an admin: stop everything and exit."""

    message: str


class ServerBeat(_Message, frozen=True, tag="beat"):
    pass


class Resolve(_Message, frozen=True, tag="resolve"):
    """What does the name of this image mean on the worker's machine and, if `at_registry`, what does its registry say
    to the logins of that machine? Answered by `Resolved` with the same number."""

    number: int
    name: str
    at_registry: bool


class Drain(_Message, frozen=True, tag="drain"):
    """An admin has taken the worker out of service: containers that have no job go, and leave their cards to others.
    `active` False: it is in service again."""

    active: bool = True


ToWorker = Welcome | Assign | Revoke | Cancel | Accepted | Retire | ServerBeat | Resolve | Drain


# -- worker to server ------------------------------------------------------------------------------


class Hello(_Message, frozen=True, tag="hello"):
    """`serves`: the images that the process runtime has handlers for; None: any. `boot_id` changes with a reboot.
    `doors`, `options`: the modes and the options of a job that the worker, with this runtime, carries out; None: it is
    older than this field. `cards`: all of this machine; None: it does not look. `cpus` and `memory` (bytes of RAM):
    what its jobs may have of the machine, all together; 0: it does not say. `mounts`: names of the folders of its
    machine that jobs may ask for.

    `started` (monotonic seconds of the machine, which order the processes of one boot) and `connection` (counted by the
    process) tell the newer of two."""

    protocol: Number
    version: Name
    runtime: Name
    slots: Annotated[tuple[SlotInfo, ...], msgspec.Meta(max_length=MAX_SLOTS)]
    held: Annotated[tuple[Held, ...], msgspec.Meta(max_length=MAX_REFS)]
    serves: Names | None = None
    boot_id: Name = ""
    started: float = 0.0
    connection: Number = 0
    doors: Names | None = None
    options: Names | None = None
    cards: Annotated[tuple[CardInfo, ...], msgspec.Meta(max_length=MAX_SLOTS)] | None = None
    cpus: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    memory: Size = 0
    mounts: Names = ()


class Started(_Message, frozen=True, tag="started"):
    refs: Refs


class Released(_Message, frozen=True, tag="released"):
    """Handed back, never started: costs no attempt."""

    refs: Refs


class Results(_Message, frozen=True, tag="results"):
    outcomes: Annotated[tuple[Outcome, ...], msgspec.Meta(max_length=MAX_REFS)]


class Progress(_Message, frozen=True, tag="progress"):
    """`value`: MessagePack, read once it is known to be short."""

    ref: AttemptRef
    value: msgspec.Raw


class Log(_Message, frozen=True, tag="log"):
    """A piece of an attempt's log; `offset` counts bytes from the attempt's first."""

    ref: AttemptRef
    offset: Size
    data: Piece


class Note(_Message, frozen=True, tag="note"):
    """What the worker is doing for a job that has not started: pulling, starting."""

    ref: AttemptRef
    text: Text


class Warm(_Message, frozen=True, tag="warm"):
    """The container on a slot comes, is warm, or went. `version`: what of its image runs: the digest that was asked
    for, else the engine's id; said before its first job starts."""

    slot: Index
    warm_key: Name | None
    image: Name | None
    version: Name | None = None


class Lost(_Message, frozen=True, tag="lost"):
    """The card of a slot can be used no more, and says why: nothing can run there until the worker starts anew."""

    slot: Index
    why: Text


class Draining(_Message, frozen=True, tag="draining"):
    """The worker is stopping, or its disk is full: give it nothing more. `active` False: it takes work again."""

    active: bool = True


class WorkerBeat(_Message, frozen=True, tag="beat"):
    pass


class Resolved(_Message, frozen=True, tag="resolved"):
    """`here`: the engine's id of what the name means on this machine, made `age` seconds ago; None: nothing. `digest`:
    what it means at the registry; `why`: why that is not known."""

    number: Number
    here: Name | None
    age: float | None
    digest: Name | None
    why: Text | None


class Pulled(_Message, frozen=True, tag="pulled"):
    """What a tag meant of which the server knew no digest."""

    name: Name
    digest: Name


class Have(_Message, frozen=True, tag="have"):
    """These images could not be had on this machine, and are there now."""

    names: Names


class CardsNow(_Message, frozen=True, tag="cards"):
    """All cards of the machine, as they are now: one was lost, somebody else uses one, or time has passed."""

    cards: Annotated[tuple[CardInfo, ...], msgspec.Meta(max_length=MAX_SLOTS)]


class Broken(_Message, frozen=True, tag="broken"):
    """This machine starts no container at all, and says why."""

    why: Text


FromWorker = (
    Hello
    | Started
    | Released
    | Results
    | Progress
    | Log
    | Note
    | Warm
    | Lost
    | Draining
    | WorkerBeat
    | Resolved
    | Pulled
    | Have
    | Broken
    | CardsNow
)


def common(protocol: int) -> int | None:
    """The version to speak with a side that offers this one, in `Hello` or `Welcome`; None: the two share none."""
    return min(protocol, PROTOCOL) if protocol >= OLDEST else None


_encoder = msgspec.msgpack.Encoder()
_to_worker = msgspec.msgpack.Decoder(list[ToWorker])
_from_worker = msgspec.msgpack.Decoder(Annotated[list[FromWorker], msgspec.Meta(max_length=MAX_MESSAGES)])


def encode(messages: list[ToWorker] | list[FromWorker]) -> bytes:
    return _encoder.encode(messages)


def decode_for_worker(frame: bytes) -> list[ToWorker]:
    """Raises msgspec.DecodeError (or ValidationError, its subclass) for anything else."""
    return decoded(_to_worker, frame)


def decode_for_server(frame: bytes) -> list[FromWorker]:
    """Raises msgspec.DecodeError (or ValidationError, its subclass) for anything else."""
    return decoded(_from_worker, frame)


__all__ = [
    "CLOSE_PROTOCOL",
    "CLOSE_REPLACED",
    "CLOSE_SUPERSEDED",
    "CLOSE_UNAUTHENTICATED",
    "DIRECT_LIMIT",
    "OLDEST",
    "PATH",
    "PROTOCOL",
    "Accepted",
    "Assign",
    "Assignment",
    "AttemptRef",
    "Body",
    "Broken",
    "Cancel",
    "CardInfo",
    "CardsNow",
    "Drain",
    "Draining",
    "FileRef",
    "FromWorker",
    "Have",
    "Held",
    "Hello",
    "ImageRef",
    "Kind",
    "Log",
    "Lost",
    "Note",
    "Outcome",
    "Progress",
    "Pulled",
    "Released",
    "Resolve",
    "Resolved",
    "Results",
    "Retire",
    "Revoke",
    "ServerBeat",
    "SlotInfo",
    "Started",
    "ToWorker",
    "Warm",
    "Welcome",
    "WorkerBeat",
    "common",
    "decode_for_server",
    "decode_for_worker",
    "encode",
]
