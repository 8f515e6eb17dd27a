"""The door to a running container: how it is given work and how it answers. One file for each way of speaking to a
container (`Mode`), and one row for each in `table`; nobody else knows which ways there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import msgspec

from hecaton.core.model import AttemptRef, Failure, Kind, Mode, Reason
from hecaton.wire.channel import Assignment, FileRef
from hecaton.worker.brain.failures.words import NEVER_ASKED, NO_START_HINT
from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.memory.peers import Peer
from hecaton.worker.runtimes.port import Commands, Exit


class Lies(NamedTuple):
    """Where a file that travelled with a job lies: on this host, and for what runs in the container."""

    here: Path
    inside: str


Kept = Callable[[FileRef], Lies]


class Answer(msgspec.Struct, frozen=True):
    """How a container answered a job. The result is `data`, or the file of that name in out/.

    `log_end`: size of the container's log file in bytes when all output of the job was in it; None: as it is now.
    `next_log`: name in out/ of the log file from now on, if that is another one. `made_files`: it has put some aside in
    the folder of outputs."""

    ref: AttemptRef
    reason: Reason
    kind: Kind = Kind.JSON
    data: bytes = b""
    file: str | None = None
    failure: Failure | None = None
    log_end: int | None = None
    next_log: str | None = None
    made_files: bool = False


class Unready(msgspec.Struct, frozen=True):
    """Why a container may have ended, or run too long, before it was ready for work. `how` completes "the container
    ended with exit code 1 ..."."""

    how: str = NEVER_ASKED
    hint: str = NO_START_HINT


class Visitor(Protocol):
    """Who stands on the worker's side of a door. Called on the worker's loop, and never blocks it."""

    def gets_ready(self, hint: str) -> None:
        """What it was started for runs. `hint`: what to do if it gets no further."""

    def waits(self, why: str) -> None:
        """It runs, and is not ready yet: for whoever watches the job that it was started for."""

    def asks_for_work(self, busy: tuple[AttemptRef, ...], takes_ahead: bool, log: str | None = None) -> None:
        """`busy`: what the container says it works on, or has the result of. `log`: name in out/ of the file that it
        prints into now; None: `log` itself."""

    def is_served_by(self, peer: Peer | None) -> None:
        """It works, and no other of the container's processes does; None: it cannot be seen."""

    def misbehaves(self, why: str) -> None:
        """It did what no container does that keeps to the protocol, and cannot be gone on with."""

    async def network(self, handle: str) -> int:
        """A descriptor of the network namespace of the running container, the door's to close. Raises RuntimeFault,
        OSError."""
        ...

    def answers(self, answer: Answer) -> None: ...
    def progresses(self, ref: AttemptRef, value: Any) -> None: ...


class Known(NamedTuple):
    """Of a container, when its door is made. `job`: that it is started for. `max_result`: bytes. `nonce`, `served`:
    what the earlier process of the worker had, and which process of the container it had given its jobs."""

    job: Assignment
    folder: ChannelFolder
    visitor: Visitor
    max_result: int
    nonce: str | None = None
    served: Peer | None = None


class Door(Protocol):
    """One for each container, made before it starts. All calls come on the worker's event loop and block it no longer
    than a small file takes to read.

    In this order: `commands` and `environment`; `open`; `started`, or in a later process of the worker `adopted`; jobs
    (`give` before anything else of a job); `ended`, if the container ended by itself. `close` comes in any case, also
    without `open`, and twice does no harm. What is said to a container that is not there is lost without an error: the
    visitor hears what it has when it comes."""

    mode: ClassVar[Mode]
    begins_at_start: ClassVar[bool]
    """Whether the job that the container is started for begins with it, without being given."""

    prints_elsewhere: ClassVar[bool]
    """Whether what its container prints comes by the engine for as long as it lives; else it goes into the log file of
    the channel folder once it asks for work."""

    nonce: str | None
    """What a door of a later process must have to go on with the same container; the journal keeps it."""

    @classmethod
    def of(cls, known: Known) -> Self: ...

    @classmethod
    def files(cls, job: Assignment) -> tuple[FileRef, ...]:
        """What must lie in in/ before the container starts, by `channel_folder.name_of`."""
        ...

    def commands(self, job: Assignment, kept: Kept) -> Commands | None:
        """By which it is run, to be tried in turn; None: the image's own. Raises RuntimeFault, OSError."""

    def environment(self, job: Assignment) -> dict[str, str]:
        """What the container finds beside what the image, the user and the runtime put there."""
        ...

    async def open(self) -> None:
        """Before the container starts, or before it is adopted. Raises OSError."""

    def started(self, handle: str) -> None:
        """The engine says that the container runs. `handle`: by which the runtime knows it."""

    def adopted(self, handle: str) -> None:
        """It was started by an earlier process of this worker, and the brain knows what it works on. It may have ended
        meanwhile."""

    def give(self, job: Assignment, payload: bytes, file: str | None) -> None:
        """`file`: name of the payload's file in in/, if it is too large for a frame."""

    def give_ahead(self, jobs: Sequence[Assignment]) -> None:
        """To a container at work that takes jobs ahead; their payloads are in them."""

    def withdraw(self) -> tuple[AttemptRef, ...]:
        """What it was given ahead and will not begin now."""
        ...

    def acknowledge(self, ref: AttemptRef) -> None:
        """The result is safe: the container need not keep it."""

    def unready(self, job: Assignment, entrypoint: Sequence[str]) -> Unready:
        """Asked when the container has started, and when it has ended. `job`: as in `Known`. `entrypoint`: of the
        image; empty also if unknown."""
        ...

    def ended(self, exit: Exit) -> Answer | None:
        """The container ended by itself: its last answer, if its end is one."""

    async def close(self) -> None: ...
