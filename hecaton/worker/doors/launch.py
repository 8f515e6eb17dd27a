"""How a job's file is run: by a launcher of ours, which the image's ENTRYPOINT runs as it would any other command, and
which says in the channel folder that it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence

from hecaton.core.errors import BadRequest
from hecaton.core.model import Reason
from hecaton.core.scripts import LOOKED_AT, check, interpreters
from hecaton.serverless.protocol import LOG_NAME
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.doors.door import Kept, Unready
from hecaton.worker.runtimes.port import CHANNEL_TARGET, CommandLine, Commands, RuntimeFault
from hecaton.worker.runtimes.python_mount import PYTHON_LAUNCHER, SHELL_LAUNCHER

LOG = f"{CHANNEL_TARGET}/{LOG_NAME}"
"""Where a script's output goes. What a handler prints before `start` turns it there is the engine's to keep."""

_PYTHONS = ("python3", "python")


def commands(file: FileRef, kept: Kept, args: Sequence[str], *, run_by: tuple[str, ...], output: str = "") -> Commands:
    """`run_by`: interpreters for a file that names none; none: they go by its name. `output`: the file, as seen in the
    container, that takes what it prints; empty: none. Raises RuntimeFault for what no image could run, OSError."""
    lies = kept(file)
    with open(lies.here, "rb") as source:
        start = source.read(LOOKED_AT)
    try:
        check(file.name, start, run_by)
    except BadRequest as refused:
        raise RuntimeFault(Reason.STARTUP_EXIT, refused.message, refused.hint) from refused
    words = (output or "-", ",".join(run_by or interpreters(file.name)) or "-", lies.inside, *args)
    # Without a shell there is no entrypoint to speak of that runs what it is given, so ours takes its place.
    without_shell = (CommandLine((python, PYTHON_LAUNCHER, *words)) for python in _PYTHONS)
    return (CommandLine(("/bin/sh", SHELL_LAUNCHER, *words), by_entrypoint=True), *without_shell)


def unready(job: Assignment, entrypoint: Sequence[str], what: str) -> Unready:
    """Of a container in which the launcher has not run. `what`: the job's file, for people."""
    if entrypoint and job.options.entrypoint == "image":
        return Unready(
            f"before the {what} was run",
            f"The image's ENTRYPOINT ({entrypoint[0]}) did not run the command that it was given: --entrypoint none "
            f"runs the {what} without it.",
        )
    return Unready(f"before the {what} was run", f"Does a shell run in {job.image.name} (docker run IMAGE sh -c true)?")


class Launched:
    """The worker's end of the pipe into which the launcher says that it runs. On the worker's loop.

    `fd`: non-blocking. What comes out of it any process of the container may have put in: it decides about words, and
    one read is the last."""

    def __init__(self, fd: int) -> None:
        self.said = False
        self._fd = fd
        self._heard: Callable[[], None] | None = None

    def listen(self, heard: Callable[[], None]) -> None:
        """`heard`: called once, when it has been said. `close` comes in any case."""
        self._heard = heard
        asyncio.get_running_loop().add_reader(self._fd, self.look)

    def look(self) -> bool:
        """Whether it has been said."""
        if not self.said:
            with contextlib.suppress(BlockingIOError):
                self.said = bool(os.read(self._fd, 1))
            heard = self._heard
            if self.said and heard is not None:
                self.close()
                heard()
        return self.said

    def assume(self) -> None:
        """An earlier process of this worker may have heard it."""
        self.said = True
        self.close()

    def close(self) -> None:
        if self._heard is not None:
            self._heard = None
            asyncio.get_running_loop().remove_reader(self._fd)


__all__ = ["LOG", "Launched", "commands", "unready"]
