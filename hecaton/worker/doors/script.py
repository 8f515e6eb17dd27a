"""The door to a script: a fresh container is the job, its exit code the verdict, a JSON file its result.

Also here: by which command a script or handler file is run in an image that knows nothing of Hecaton.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from hecaton.core.model import AttemptRef, Kind, Reason
from hecaton.serverless.protocol import IN_NAME, OUT_NAME
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.doors.door import Answer, Visitor
from hecaton.worker.runtimes.port import CHANNEL_TARGET, PYTHON_TARGET, Exit, RuntimeFault
from hecaton.worker.runtimes.python_mount import LAUNCHER

RESULT_FILE = "result.json"

_TO_LOG = 'exec >>"$HECATON_DIR/log" 2>&1; exec {shell} "$0" "$@"'


class ScriptDoor:
    def __init__(self, job: Assignment, folder: ChannelFolder, visitor: Visitor) -> None:
        self._job = job
        self._folder = folder
        self._visitor = visitor

    async def open(self) -> None:
        """Nothing listens: a script does not ask for work."""

    def started(self) -> None:
        self._visitor.asks_for_work((), False)

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """It has been at work since its container started."""

    def give_ahead(self, jobs: object) -> None:
        """It takes none."""

    def take_back(self) -> tuple[AttemptRef, ...]:
        return ()

    def acknowledge(self, ref: object) -> None:
        """Nobody waits for it."""

    def ended(self, exit: Exit) -> Answer | None:
        if exit.code != 0 or exit.oom or exit.error:
            return None
        file = RESULT_FILE if self._folder.has_result(RESULT_FILE) else None
        return Answer(self._job.ref, Reason.OK, Kind.JSON, b"" if file else b"null", file)

    async def close(self) -> None:
        """Nothing to close."""


def environment(job: Assignment) -> dict[str, str]:
    """What a script finds in its environment beside its image's."""
    return {
        "HECATON_OUTPUT": f"{CHANNEL_TARGET}/{OUT_NAME}/{RESULT_FILE}",
        "HECATON_JOB_ID": job.ref.job,
        "HECATON_ATTEMPT": str(job.ref.attempt),
        "HECATON_IDEMPOTENCY_KEY": job.key,
        "PYTHONUNBUFFERED": "1",
    }


def safe_name(file: FileRef) -> str:
    """The file's name as it stands in in/; it comes from a user."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(file.name)).lstrip(".-")[-100:] or "script"


def handler_commands(file: FileRef) -> tuple[tuple[str, ...], ...]:
    target = f"{CHANNEL_TARGET}/{IN_NAME}/{safe_name(file)}"
    return ("python3", target), ("python", target)


def script_commands(file: FileRef, path: Path, args: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The commands that run the script, to be tried in turn. Raises RuntimeFault when the interpreter is unknown."""
    target = f"{CHANNEL_TARGET}/{IN_NAME}/{safe_name(file)}"
    with open(path, "rb") as script:
        first = script.readline(256)
    kind = _interpreter(first, PurePosixPath(file.name).suffix.lower())
    if kind == "python":
        return tuple((python, f"{PYTHON_TARGET}/{LAUNCHER}", target, *args) for python in ("python3", "python"))
    if kind == "shell":
        shells = ("sh", "bash") if re.match(rb"#!.*[/ ]sh\b", first) else ("bash", "sh")
        return tuple((shell, "-c", _TO_LOG.format(shell=shell), target, *args) for shell in shells)
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
