"""What all containers of a worker share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from hecaton.wire.channel import FromWorker, ImageRef
from hecaton.worker.brain import events as ev
from hecaton.worker.files.checkpoints import Checkpoints
from hecaton.worker.files.fetching import BroughtFolders
from hecaton.worker.files.folders import Folders
from hecaton.worker.files.made import MadeFiles
from hecaton.worker.files.workfolders import WorkFolders
from hecaton.worker.link.bodies import Bodies
from hecaton.worker.link.leftovers import Leftovers
from hecaton.worker.memory.disk import Disk
from hecaton.worker.memory.journal import Journal
from hecaton.worker.memory.outbox import Outbox
from hecaton.worker.memory.spool import Spool
from hecaton.worker.no_overlap import Guard
from hecaton.worker.runtimes.port import Runtime


class Site(msgspec.Struct, frozen=True):
    worker_id: str
    folder: Path  # has a folder per container
    python: Path  # to appear at PYTHON_TARGET
    checkpoints: Checkpoints
    folders: Folders  # that containers see beside that
    runtime: Runtime
    bodies: Bodies
    spool: Spool
    outbox: Outbox
    made: MadeFiles
    work: WorkFolders
    fetching: BroughtFolders
    leftovers: Leftovers
    journal: Journal
    boot: str
    guard: Guard
    max_result: Callable[[], int]
    disk: Disk
    memory: int  # bytes of RAM that a container may have whose job asks for none; 0: all
    look_at_cards: Callable[[], Awaitable[None]]  # what was found, the brain knows when it returns
    miss: Callable[[ImageRef], None]  # an image that could not be had
    say: Callable[[FromWorker], None]  # to a server that speaks of images
    post: Callable[[ev.Event], None]
    now: Callable[[], float]

    def finds_no_room(self) -> bool:
        """Whether the disk has none for the largest result. Then nothing new is taken until it has."""
        wanted = self.max_result()
        if not self.disk.is_full(wanted):
            return False
        self.disk.refused(wanted)
        return True
