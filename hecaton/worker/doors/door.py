"""The door to a running container: how it is given work and how it answers. One door per kind of image.

`native`: the container calls `hecaton.serverless.start`. `script`: a fresh container is the job. Others (RunPod, Cog,
plain HTTP) come through the same door.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from hecaton.core.model import AttemptRef, Failure, Kind, Reason
from hecaton.wire.channel import Assignment
from hecaton.worker.runtimes.port import Exit


class Answer(msgspec.Struct, frozen=True):
    """How a container answered a job. The result is `data`, or the file of that name in out/.

    `log_end`: size of the container's log in bytes when all output of the job was in it; None: as it is now."""

    ref: AttemptRef
    reason: Reason
    kind: Kind = Kind.JSON
    data: bytes = b""
    file: str | None = None
    failure: Failure | None = None
    log_end: int | None = None


class Visitor(Protocol):
    """Who stands on the worker's side of a door."""

    def asks_for_work(self, busy: tuple[AttemptRef, ...], takes_ahead: bool) -> None:
        """`busy`: what the container says it works on, or has the result of."""

    def answers(self, answer: Answer) -> None: ...
    def progresses(self, ref: AttemptRef, value: Any) -> None: ...


class Door(Protocol):
    async def open(self) -> None:
        """Before the container starts."""

    def started(self) -> None:
        """The engine says that the container runs."""

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """`file`: name of the payload's file in in/, if it is too large for a frame."""

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """To a container at work that takes jobs ahead; their payloads are in them."""

    def take_back(self) -> tuple[AttemptRef, ...]:
        """What it was given ahead and will not begin now."""

    def acknowledge(self, ref: AttemptRef) -> None: ...
    def ended(self, exit: Exit) -> Answer | None:
        """The container ended by itself: its last answer, if its end is one."""

    async def close(self) -> None: ...
