"""The door to a handler file: it calls `hecaton.serverless.start` as a native image does, but the image's Python runs
it.
"""

from __future__ import annotations

from hecaton.core.model import Mode
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.channel_folder import seen_inside
from hecaton.worker.doors.door import Kept
from hecaton.worker.doors.native import NativeDoor
from hecaton.worker.runtimes.port import Commands


class HandlerDoor(NativeDoor):
    """As the native one: another file lies in the container, and another command runs there."""

    mode = Mode.HANDLER

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return () if job.file is None else (job.file,)

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        return tuple((python, seen_inside(file)) for python in ("python3", "python") for file in self.files(job))
