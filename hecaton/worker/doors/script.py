"""The door to a script: a fresh container is the job, its exit code the verdict, a JSON file its result.

The image knows nothing of Hecaton: the kernel reads the script's first line, or its name says what runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from hecaton.core.doors import WAYS
from hecaton.core.model import AttemptRef, Kind, Mode, Reason
from hecaton.serverless.protocol import OUT_NAME
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors import launch
from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.doors.door import Answer, Door, Kept, Known, Unready, Visitor
from hecaton.worker.runtimes.port import CHANNEL_TARGET, Commands, Exit

RESULT_FILE = "result.json"


class ScriptDoor(Door):
    """A script does not ask for work, and has all of it when it starts. So its job begins when the launcher says that
    it runs: what the image's ENTRYPOINT does before is the start of the container."""

    mode = Mode.SCRIPT
    prints_elsewhere = False
    begins_at_start = True
    nonce = None

    def __init__(self, job: Assignment, folder: ChannelFolder, visitor: Visitor) -> None:
        self._job = job
        self._folder = folder
        self._visitor = visitor
        self._launched = launch.Launched(folder.launched_fd)

    @classmethod
    def of(cls, known: Known) -> Self:
        return cls(known.job, known.folder, known.visitor)

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return () if job.file is None else (job.file,)

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        """Raises RuntimeFault when no image could run it."""
        run_by = WAYS[self.mode].run_by
        return tuple(
            line
            for file in self.files(job)
            for line in launch.commands(file, kept, job.args, run_by=run_by, output=launch.LOG)
        )

    def environment(self, job: Assignment) -> dict[str, str]:
        return {
            "HECATON_OUTPUT": f"{CHANNEL_TARGET}/{OUT_NAME}/{RESULT_FILE}",
            "HECATON_JOB_ID": job.ref.job,
            "HECATON_ATTEMPT": str(job.ref.attempt),
            "HECATON_IDEMPOTENCY_KEY": job.key,
            "PYTHONUNBUFFERED": "1",
        }

    async def open(self) -> None:
        self._launched.listen(lambda: self._visitor.asks_for_work((), False))

    def started(self, handle: str) -> None:
        """Nothing to do: the launcher says when."""

    def adopted(self, handle: str) -> None:
        self._launched.assume()

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """It is at work."""

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """It takes none."""

    def withdraw(self) -> tuple[AttemptRef, ...]:
        return ()

    def acknowledge(self, ref: AttemptRef) -> None:
        """Nobody waits for it."""

    def unready(self, job: Assignment, entrypoint: Sequence[str]) -> Unready:
        return launch.unready(job, entrypoint, "script")

    def ended(self, exit: Exit) -> Answer | None:
        launched = self._launched.look()
        if exit.code != 0 or exit.oom or exit.error or not launched:
            return None
        file = RESULT_FILE if self._folder.has_result(RESULT_FILE) else None
        return Answer(self._job.ref, Reason.OK, Kind.JSON, b"" if file else b"null", file)

    async def close(self) -> None:
        self._launched.close()
