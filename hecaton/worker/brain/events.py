"""What the worker's brain (`state`) hears and what it orders: events in, actions out. Carried by `agent`.

`now` is monotonic seconds. A container is named by the id that the brain gave it, a job by its `AttemptRef`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, Reason
from hecaton.wire.channel import Assignment, FromWorker, Outcome, Released, Started
from hecaton.worker.brain.failures.words import NEVER_ASKED, NO_START_HINT
from hecaton.worker.runtimes.port import Exit

M = TypeVar("M", bound=msgspec.Struct)


def row(kind: type[M], method: Callable[[M], None]) -> tuple[type[msgspec.Struct], Callable[[Any], None]]:
    """Of a table that says which method takes which event, or action: type checkers see that it takes this one."""
    return kind, method


class Event(msgspec.Struct, frozen=True):
    now: float


# -- from the server ---------------------------------------------------------------------------------


class Assigned(Event, frozen=True):
    jobs: tuple[Assignment, ...]


class Revoked(Event, frozen=True):
    refs: tuple[AttemptRef, ...]


class CancelAsked(Event, frozen=True):
    refs: tuple[AttemptRef, ...]


class ResultsAccepted(Event, frozen=True):
    """The server has these, or refuses them for good (`fenced`)."""

    refs: tuple[AttemptRef, ...]
    fenced: tuple[AttemptRef, ...] = ()


class Welcomed(Event, frozen=True):
    """The connection is up and the two sides have compared notes. `drop`: held here, owned no longer. `drained`: as
    `Drained`."""

    drop: tuple[AttemptRef, ...] = ()
    drained: bool = False


class Drained(Event, frozen=True):
    """Whether an admin has taken this worker out of service: then nothing stays warm."""

    active: bool


class Assured(Event, frozen=True):
    """The server has heard this worker: no-overlap jobs may run until then (monotonic seconds), and then have `grace`
    seconds to end."""

    until: float
    grace: float = 0.0


class Guarded(Event, frozen=True):
    """Whether a warden watches: no no-overlap job begins without one."""

    guarded: bool


class LinkLost(Event, frozen=True):
    pass


# -- from the containers -----------------------------------------------------------------------------


class ImageReady(Event, frozen=True):
    """The image is here; the engine is asked to start the container now. `image`: what of it runs, for people: its
    digest or the engine's id."""

    container: str
    image: str | None = None


class ImageMoved(Event, frozen=True):
    """The name of the container's image means another one on this machine now."""

    container: str


class ContainerStarted(Event, frozen=True):
    container: str


class ContainerNote(Event, frozen=True):
    """Progress of a container that is not up yet, for people: "pulling python:3.9-slim: 40 %"."""

    container: str
    text: str


class ContainerSaid(Event, frozen=True):
    """Before it asked for work, outside of its log: its last lines."""

    container: str
    text: str


class ContainerUnready(Event, frozen=True):
    """`hint`: what to do if it never asks for work; until this is said, what goes for an image's own command."""

    container: str
    hint: str


class ContainerFailed(Event, frozen=True):
    """It could not be prepared or started, and nothing of it is left. `no_room`: what goes along with its job does not
    fit on this machine's disk, which has room for others."""

    container: str
    reason: Reason
    message: str
    hint: str | None = None
    no_room: bool = False


class ContainerReady(Event, frozen=True):
    """It asks for work: for the first time, or again after its connection broke.

    `busy`: what it says that it works on or has a result of. `takes_ahead`: it can be given jobs ahead of their
    turn."""

    container: str
    busy: tuple[AttemptRef, ...] = ()
    takes_ahead: bool = False


class Withdrawn(Event, frozen=True):
    """Of the jobs that the container was given ahead it will not begin these. It has begun, or will begin, the rest."""

    container: str
    refs: tuple[AttemptRef, ...]


class ContainerExited(Event, frozen=True):
    """Its process ended; the container is still to be removed. `output`: the last lines that it wrote. `never_began`:
    what it had ahead. `how` and `hint`: of one that was never ready for work (`failures.startup_failure`).
    `unheard`: the warden ended it, since the server had not heard of this worker for too long."""

    container: str
    exit: Exit
    output: str = ""
    never_began: tuple[AttemptRef, ...] = ()
    how: str = NEVER_ASKED
    hint: str = NO_START_HINT
    unheard: bool = False


class ContainerMisbehaved(Event, frozen=True):
    """It runs, and cannot be gone on with for what was done in it. `reason` and `failure`: of the job that it works
    on, which is its user's."""

    container: str
    reason: Reason
    failure: Failure


class ContainerGone(Event, frozen=True):
    """Removed: nothing of it runs any more."""

    container: str


class JobAnswered(Event, frozen=True):
    container: str
    ref: AttemptRef
    reason: Reason
    body: Body | None = None
    failure: Failure | None = None


# -- from this machine -------------------------------------------------------------------------------


class ContainerAdopted(Event, frozen=True):
    """An earlier process of this worker left it, and it still runs or ended meanwhile.

    `first`: the job that it was started for. `job`: the one that it has had since `started_at`, without its payload;
    `ahead`: those that it was given ahead, and has begun since."""

    container: str
    slot: int
    first: Assignment
    job: Assignment | None = None
    started_at: float = 0.0
    ahead: tuple[Assignment, ...] = ()
    image: str | None = None  # as in `ImageReady`


class AttemptLost(Event, frozen=True):
    """An earlier process of this worker gave this attempt to a container that is no more."""

    ref: AttemptRef
    slot: int
    reason: Reason
    failure: Failure | None = None


class DiskFull(Event, frozen=True):
    """Whether the worker's folder takes nothing at this time."""

    full: bool


class GpuLost(Event, frozen=True):
    """A card of this machine answers no more: it fell off the bus, or waits for a reset."""

    uuid: str
    message: str


class GpusCame(Event, frozen=True):
    """Cards that this machine did not have before: a driver was installed, or a card was put in."""

    gpus: tuple[Gpu, ...]


class Fetched(Event, frozen=True):
    """The payload of a job is on this machine."""

    ref: AttemptRef


class FetchFailed(Event, frozen=True):
    """`no_room`: it does not fit on this machine's disk, which has room for others."""

    ref: AttemptRef
    message: str
    no_room: bool = False


class ResultsSafe(Event, frozen=True):
    """These results survive a crash of this machine."""

    refs: tuple[AttemptRef, ...]


class Tick(Event, frozen=True):
    """Time has passed; due by `WorkerState.deadline()`, harmless at any other time."""


class StopAsked(Event, frozen=True):
    """First: let what runs finish, up to the drain timeout. Second, or `at_once`: stop it and hand it back."""

    at_once: bool = False


class LeaveAsked(Event, frozen=True):
    """A next process of this worker follows: leave it what runs, and everything that is warm."""


class PowerOffAsked(Event, frozen=True):
    """The machine goes down: stop what runs and hand it back, within `POWER_OFF_SECONDS`."""


class ShutdownAsked(Event, frozen=True):
    """The server wants nothing of this worker any more: stop everything, report nothing, exit."""

    code: int
    message: str


# -- actions -----------------------------------------------------------------------------------------


class Action(msgspec.Struct, frozen=True):
    pass


class Fetch(Action, frozen=True):
    """Bring the payload of this job, a blob, to this machine. Answered by `Fetched` or `FetchFailed`."""

    assignment: Assignment


class StartContainer(Action, frozen=True):
    """For this job first. Answered by `ImageReady`, `ContainerStarted`, `ContainerReady`, or by `ContainerFailed`."""

    container: str
    slot: int
    assignment: Assignment


class StopContainer(Action, frozen=True):
    """Wherever it is on its way; also removes one that ended by itself. Answered by `ContainerGone`. `grace`: seconds
    between SIGTERM and SIGKILL."""

    container: str
    grace: float


class GiveJob(Action, frozen=True):
    container: str
    assignment: Assignment


class GiveAhead(Action, frozen=True):
    """To a container that is at work, for when it has done what it was given before."""

    container: str
    assignments: tuple[Assignment, ...]


class Withdraw(Action, frozen=True):
    """All that the container was given ahead and has not begun. Answered by `Withdrawn` before anything else."""

    container: str


class Acknowledge(Action, frozen=True):
    """Tell the container that it may forget this result."""

    container: str
    ref: AttemptRef


class Report(Action, frozen=True):
    message: FromWorker


class Deliver(Action, frozen=True):
    """Make this result safe and send it, its log first. `again`: it was sent on an earlier connection.

    `output`: what stands in the log if the handler wrote nothing (a container that never came up)."""

    outcome: Outcome
    container: str | None = None
    output: str = ""
    again: bool = False


class Forget(Action, frozen=True):
    """Nothing of this attempt is needed any more: not its payload, its result, nor its log."""

    ref: AttemptRef


class Leave(Action, frozen=True):
    """Everything is stopped: end the process."""

    code: int
    message: str


class Orders:
    """What has been decided about the event that is handled, in this order.

    `actions`: emptied by `state` after each event. `connected`: whether anybody hears what is reported."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.connected = False

    def do(self, action: Action) -> None:
        self.actions.append(action)

    def report(self, message: FromWorker) -> None:
        """Said only while there is a connection: the next Hello says the same of everything that still matters."""
        if self.connected:
            self.actions.append(Report(message))

    def report_refs(self, kind: type[Released] | type[Started], refs: list[AttemptRef]) -> None:
        if refs:
            self.report(kind(tuple(refs)))
