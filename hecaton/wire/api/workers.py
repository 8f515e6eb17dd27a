"""HTTP bodies about workers."""

from __future__ import annotations

from hecaton.core.model import Gpu, WorkerStatus
from hecaton.wire.api.base import Reply, Request
from hecaton.wire.api.jobs import Holder


class NewWorker(Request, frozen=True):
    name: str


class WorkerCredentials(Reply, frozen=True):
    id: str
    name: str
    token: str  # 256 random bits; shown once


class SlotView(Reply, frozen=True):
    index: int
    gpu: Gpu | None
    state: str  # "idle", "busy"; "lost": it cannot be used, the worker's `note` says why
    image: str | None  # of the warm container on it, where the caller may see that image
    jobs: tuple[str, ...]


class WorkerView(Reply, frozen=True):
    id: str
    name: str
    status: WorkerStatus
    last_seen: float
    runtime: str | None
    version: str | None
    registered_by: str
    slots: tuple[SlotView, ...] = ()
    drained: bool = False  # by an admin: gets nothing new, also after it comes back
    note: str | None = None  # why it gets nothing, where that needs a sentence


class CardView(Reply, frozen=True):
    """A card as its machine saw it last. `used`: bytes of its memory, by all; `outside`: by what is no job; `holder`:
    the programs that use these. `lost`: why it can be used no more. `use` (percent of the time), `temperature` (degrees
    Celsius), `power` (watts): None: it does not tell. `jobs`: who works there."""

    gpu: Gpu
    used: int = 0
    outside: int = 0
    holder: str | None = None
    lost: str | None = None
    use: int | None = None
    temperature: int | None = None
    power: float | None = None
    jobs: tuple[Holder, ...] = ()


class MachineView(WorkerView, frozen=True):
    """A worker with its cards. `without_card`: who works there without one."""

    cards: tuple[CardView, ...] = ()
    without_card: tuple[Holder, ...] = ()
