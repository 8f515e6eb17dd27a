"""The door to a script: a fresh container is the job, its exit code the verdict, a JSON file its result.

The image knows nothing of Hecaton: the file's name and first line say which of its interpreters runs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Self

from hecaton.core.model import AttemptRef, Kind, Mode, Reason
from hecaton.serverless.protocol import OUT_NAME
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.channel_folder import ChannelFolder, seen_inside
from hecaton.worker.doors.door import Answer, Door, Kept, Visitor
from hecaton.worker.memory.peers import Peer
from hecaton.worker.runtimes.port import CHANNEL_TARGET, PYTHON_TARGET, Commands, Exit, RuntimeFault
from hecaton.worker.runtimes.python_mount import LAUNCHER

RESULT_FILE = "result.json"

_TO_LOG = 'exec >>"$HECATON_DIR/log" 2>&1; exec {shell} "$0" "$@"'


class ScriptDoor(Door):
    """Nothing listens and nothing is said: a script does not ask for work, and has all of it when it starts. So its job
    begins with the container, and the door has no state of its own."""

    mode = Mode.SCRIPT
    begins_at_start = True
    nonce = None

    def __init__(self, job: Assignment, folder: ChannelFolder, visitor: Visitor) -> None:
        self._job = job
        self._folder = folder
        self._visitor = visitor

    @classmethod
    def of(
        cls,
        job: Assignment,
        folder: ChannelFolder,
        visitor: Visitor,
        max_result: int,
        nonce: str | None = None,
        served: Peer | None = None,
    ) -> Self:
        return cls(job, folder, visitor)

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        return () if job.file is None else (job.file,)

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        """Raises RuntimeFault when the interpreter is unknown."""
        return tuple(command for file in self.files(job) for command in _commands(file, kept(file), job.args))

    def environment(self, job: Assignment) -> dict[str, str]:
        return {
            "HECATON_OUTPUT": f"{CHANNEL_TARGET}/{OUT_NAME}/{RESULT_FILE}",
            "HECATON_JOB_ID": job.ref.job,
            "HECATON_ATTEMPT": str(job.ref.attempt),
            "HECATON_IDEMPOTENCY_KEY": job.key,
            "PYTHONUNBUFFERED": "1",
        }

    async def open(self) -> None:
        """Nothing listens."""

    def started(self, handle: str) -> None:
        self._visitor.asks_for_work((), False)

    def adopted(self, handle: str) -> None:
        """Nothing to do: it goes on."""

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """It has been at work since its container started."""

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """It takes none."""

    def withdraw(self) -> tuple[AttemptRef, ...]:
        return ()

    def acknowledge(self, ref: AttemptRef) -> None:
        """Nobody waits for it."""

    def ended(self, exit: Exit) -> Answer | None:
        if exit.code != 0 or exit.oom or exit.error:
            return None
        file = RESULT_FILE if self._folder.has_result(RESULT_FILE) else None
        return Answer(self._job.ref, Reason.OK, Kind.JSON, b"" if file else b"null", file)

    async def close(self) -> None:
        """Nothing to close."""


def _commands(file: FileRef, path: Path, args: tuple[str, ...]) -> Commands:
    with open(path, "rb") as script:
        first = script.readline(256)
    kind = _interpreter(first, PurePosixPath(file.name).suffix.lower())
    if kind == "python":
        launcher = f"{PYTHON_TARGET}/{LAUNCHER}"
        return tuple((python, launcher, seen_inside(file), *args) for python in ("python3", "python"))
    if kind == "shell":
        shells = ("sh", "bash") if re.match(rb"#!.*[/ ]sh\b", first) else ("bash", "sh")
        return tuple((shell, "-c", _TO_LOG.format(shell=shell), seen_inside(file), *args) for shell in shells)
    raise RuntimeFault(
        Reason.STARTUP_EXIT,
        f"it is not clear which interpreter runs {file.name!r}",
        "Name it .py or .sh, or begin it with #!/usr/bin/env python3 or #!/bin/sh.",
    )


def _interpreter(first_line: bytes, suffix: str) -> str | None:
    if first_line.startswith(b"#!"):
        if b"python" in first_line:
            return "python"
        if re.search(rb"\b(ba|da|)sh\b", first_line):
            return "shell"
    return {".py": "python", ".sh": "shell", ".bash": "shell"}.get(suffix)
