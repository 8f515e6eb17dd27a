"""What all containers of a worker share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from hecaton.worker import events as ev
from hecaton.worker.bodies import Bodies
from hecaton.worker.journal import Journal
from hecaton.worker.outbox import Outbox
from hecaton.worker.runtime import Runtime
from hecaton.worker.spool import Spool


class Site(msgspec.Struct, frozen=True):
    worker_id: str
    folder: Path  # has a folder per container
    python: Path  # to appear at PYTHON_TARGET
    runtime: Runtime
    bodies: Bodies
    spool: Spool
    outbox: Outbox
    journal: Journal
    boot: str
    grace: Callable[[], float]
    max_result: Callable[[], int]
    disk_full: Callable[[], None]
    look_at_cards: Callable[[], Awaitable[None]]  # what was found, the brain knows when it returns
    post: Callable[[ev.Event], None]
    now: Callable[[], float]
