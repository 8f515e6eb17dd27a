"""The door to a handler file: it calls `hecaton.serverless.start` as a native image does, but it comes with the job,
and the image's Python, or what its first line names, runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from hecaton.core.doors import WAYS
from hecaton.core.model import Mode
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors import launch
from hecaton.worker.doors.door import Kept, Known, Unready
from hecaton.worker.doors.native import NativeDoor
from hecaton.worker.runtimes.port import Commands

_HINT = "The handler file must call hecaton.serverless.start(handler)."


class HandlerDoor(NativeDoor):
    """As the native one: another file lies in the container, and another command runs there."""

    mode = Mode.HANDLER
    _launched: launch.Launched

    @classmethod
    def of(cls, known: Known) -> Self:
        door = super().of(known)
        door._launched = launch.Launched(known.folder.launched_fd)
        return door

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return () if job.file is None else (job.file,)

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        run_by = WAYS[self.mode].run_by
        return tuple(line for file in self.files(job) for line in launch.commands(file, kept, (), run_by=run_by))

    def environment(self, job: Assignment) -> dict[str, str]:
        """The launcher hands the nonce to the file, so that nothing else in the image gets the file's jobs."""
        return {"HECATON_FILE_NONCE": self.nonce}

    async def open(self) -> None:
        await super().open()
        self._launched.listen(lambda: self._visitor.gets_ready(_HINT))

    def adopted(self, handle: str) -> None:
        self._launched.assume()

    async def close(self) -> None:
        self._launched.close()
        await super().close()

    def unready(self, job: Assignment, entrypoint: Sequence[str]) -> Unready:
        if not self._launched.look():
            return launch.unready(job, entrypoint, "handler file")
        return Unready(hint=_HINT)
