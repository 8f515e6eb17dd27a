"""What messages between server and worker carry: assignments, places, cards, outcomes.

Fields are only ever appended, as those of messages (`channel`)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, Mode, Reason
from hecaton.core.options import NOTHING_ASKED, Options
from hecaton.core.placement.holds import Holds
from hecaton.wire.bounds import Index, Name, Number, Size, Text


class ImageRef(msgspec.Struct, frozen=True, array_like=True):
    name: str
    digest: str | None
    env: dict[str, str]
    env_revision: int


class FileRef(msgspec.Struct, frozen=True, array_like=True):
    sha256: str
    name: str


class Assignment(msgspec.Struct, frozen=True, array_like=True):
    """One job for one slot. `key`: the idempotency key that stays the same over all attempts. `options`: what the
    worker has said in `Hello` that it carries out; with `no_overlap` it stops the job before the server can give it to
    another worker (`Welcome.lost_after`). `holds`: of the place, which is opened for it if the worker has none of this
    number that holds the same; None: one that the worker has said in `Hello`. `uid`: as whom it may write into folders
    of the machine. `workdir`: the manifest of the folder that goes along (`core.files.manifest`). `checkpoint`: the
    server has one of the job, to begin with."""

    ref: AttemptRef
    slot: int
    image: ImageRef
    owner: str
    warm_key: str | None  # jobs with the same key may share a container; None: a fresh one
    mode: Mode
    payload: Body
    key: str
    file: FileRef | None = None
    args: tuple[str, ...] = ()
    options: Options = NOTHING_ASKED
    holds: Holds | None = None
    uid: int | None = None
    workdir: FileRef | None = None
    checkpoint: bool = False


class SlotInfo(msgspec.Struct, frozen=True, array_like=True):
    """`lost`: why its card can be used no more. `holds`: of a place that was opened by an assignment; None: the worker
    opened it itself, for the card `gpu`."""

    index: Index
    gpu: Gpu | None
    warm_key: Name | None
    image: Name | None
    lost: Text | None = None
    holds: Holds | None = None


class CardInfo(msgspec.Struct, frozen=True, array_like=True):
    """A card as it is now. `outside`: bytes of its memory that are used by what is not a job; `holder`: by whom, for
    people. `lost`: why it can be used no more. `used`: bytes of its memory, by all. `use` (percent of the time),
    `temperature` (degrees Celsius) and `power` (watts): None: it does not tell."""

    gpu: Gpu
    outside: Size = 0
    holder: Text | None = None
    lost: Text | None = None
    used: Size = 0
    use: Number | None = None
    temperature: Number | None = None
    power: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A job that the worker still has at connect: queued beside a slot, running, or done with a result to deliver."""

    ref: AttemptRef
    slot: Index
    phase: Name  # "queued" | "running" | "done"
    age: float = 0.0  # seconds since it started


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """How an attempt ended. `ran` and `age`: seconds that it ran, and seconds since it ended."""

    ref: AttemptRef
    reason: Reason
    body: Body | None = None
    failure: Failure | None = None
    exit_code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**32)] | None = None
    ran: float | None = None
    age: float = 0.0
    log_size: Size = 0
    image: Name | None = None  # what ran: the digest that was asked for, else the engine's id of the image
