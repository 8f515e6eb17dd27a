"""What may happen to a job: ONE table of moves, and the rule that says where a job goes when an attempt ends.

The store applies these inside its transactions; nothing else changes a state. Drawn in docs/lifecycle.md (a test
compares).
"""

from __future__ import annotations

import enum

import msgspec

from hecaton.core.model import Charged, Failure, JobState, Reason

INFRA_LIMIT = 3
"""Attempts lost to infrastructure before a job is stopped; as poison, if a worker was lost each time
(docs/reliability.md, C5)."""

EXCUSED_LIMIT = 10
"""Losses of a worker, counting those that were not its job's fault, after which no excuse holds any more: jobs that
bring down several machines together must end too."""

RETRY_DELAY = (1.0, 5.0, 30.0)
"""Seconds before the next attempt, by how many were charged so far; the last one repeats."""


class Event(enum.StrEnum):
    ASSIGN = "assign"
    START = "start"
    FINISH = "finish"
    FAIL = "fail"
    REQUEUE = "requeue"
    CANCEL = "cancel"
    RETURN = "return"


_S = JobState
TRANSITIONS: dict[tuple[JobState, Event], JobState] = {
    (_S.IN_QUEUE, Event.ASSIGN): _S.ASSIGNED,
    (_S.IN_QUEUE, Event.FAIL): _S.FAILED,  # queue_ttl
    (_S.IN_QUEUE, Event.CANCEL): _S.CANCELLED,
    (_S.IN_QUEUE, Event.RETURN): _S.ASSIGNED,  # its worker was lost and is back, before anybody else got the job
    (_S.ASSIGNED, Event.START): _S.IN_PROGRESS,
    (_S.ASSIGNED, Event.FINISH): _S.FINISHED,  # the news of its start came with the result
    (_S.ASSIGNED, Event.FAIL): _S.FAILED,
    (_S.ASSIGNED, Event.REQUEUE): _S.IN_QUEUE,
    (_S.ASSIGNED, Event.CANCEL): _S.CANCELLED,
    (_S.IN_PROGRESS, Event.FINISH): _S.FINISHED,
    (_S.IN_PROGRESS, Event.FAIL): _S.FAILED,
    (_S.IN_PROGRESS, Event.REQUEUE): _S.IN_QUEUE,
    (_S.IN_PROGRESS, Event.CANCEL): _S.CANCELLED,
}


def sources(event: Event) -> tuple[JobState, ...]:
    """The states from which `event` is legal: the guard of the store's UPDATE."""
    return tuple(state for (state, e) in TRANSITIONS if e is event)


INFRA = frozenset({Reason.WORKER_LOST, Reason.WORKER_ERROR, Reason.GPU_LOST})
_FREE = frozenset({Reason.OK, Reason.RELEASED, Reason.CANCELLED, Reason.IMAGE_PULL, Reason.NO_ROOM})
NO_IMAGE = frozenset({Reason.IMAGE_PULL, Reason.IMAGE_DENIED})
_HOPELESS = frozenset({Reason.IMAGE_PULL, Reason.IMAGE_DENIED, Reason.STARTUP_EXIT, Reason.NO_ROOM})
"""Another attempt would end the same way: never retried."""


def charge(reason: Reason) -> Charged:
    """Who pays for an attempt that ended with `reason`."""
    if reason in INFRA:
        return Charged.INFRA
    return Charged.NONE if reason in _FREE else Charged.USER


RETURNABLE = frozenset({Reason.WORKER_LOST, Reason.RELEASED})
"""Ends that a server declares for a worker it cannot hear: the attempt may go on if the worker proves it wrong."""


class History(msgspec.Struct, frozen=True):
    """What a job has behind it when one of its attempts ends (the ending attempt not counted)."""

    retries: int
    user_failures: int
    infra_failures: int
    cancel_requested: bool
    losses: int = 0  # attempts that ended with a lost worker; looked up where one is lost again
    charged_losses: int = 0  # those of them that counted


class Verdict(msgspec.Struct, frozen=True):
    event: Event
    reason: Reason
    charged: Charged
    delay: float = 0.0  # seconds until the next attempt may be assigned


_GOOD = Verdict(Event.FINISH, Reason.OK, charge(Reason.OK))


def judge(history: History, reason: Reason, excused: bool = False, hope: bool = False) -> Verdict:
    """Where a job goes when its current attempt ended with `reason`. `excused`: its worker was lost by something that
    no job of it can have caused, such as a power cut that took others too. `hope`: its image could not be had there and
    then, or its payload had no room, but may elsewhere or later; the scheduler knows where not to try it."""
    if reason is Reason.OK:
        return _GOOD
    charged = charge(reason)
    if history.cancel_requested or reason is Reason.CANCELLED:
        return Verdict(Event.CANCEL, Reason.CANCELLED, Charged.NONE)
    if reason in NO_IMAGE and hope:
        return Verdict(Event.REQUEUE, reason, Charged.NONE)
    if reason is Reason.NO_ROOM and hope:  # only tried elsewhere first: the same machine may get it once more
        return Verdict(Event.REQUEUE, reason, Charged.NONE, RETRY_DELAY[1])
    if reason is Reason.RELEASED:
        return Verdict(Event.REQUEUE, reason, charged)
    if excused and history.losses < EXCUSED_LIMIT - 1:
        return Verdict(Event.REQUEUE, reason, Charged.NONE)
    if charged is Charged.INFRA:
        losses = history.infra_failures + 1
        if losses >= INFRA_LIMIT:
            alone = reason is Reason.WORKER_LOST and history.charged_losses + 1 >= INFRA_LIMIT
            return Verdict(Event.FAIL, Reason.POISON if alone else reason, charged)
        # A lost worker has cost `lost_after` already; an engine in trouble needs time to recover.
        delay = 0.0 if reason is Reason.WORKER_LOST else _delay(losses)
        return Verdict(Event.REQUEUE, reason, charged, delay)
    failures = history.user_failures + 1
    if reason in _HOPELESS or failures > history.retries:
        return Verdict(Event.FAIL, reason, charged)
    return Verdict(Event.REQUEUE, reason, charged, _delay(failures))


def _delay(nth: int) -> float:
    return RETRY_DELAY[min(nth, len(RETRY_DELAY)) - 1]


def last_words(verdict: Verdict) -> Failure | None:
    """For a job that failed and whose worker, which was lost, could say nothing."""
    if verdict.event is not Event.FAIL or verdict.reason not in (Reason.POISON, Reason.WORKER_LOST):
        return None
    if verdict.reason is Reason.POISON:
        return Failure(
            "three workers were lost while they ran this job: it is stopped before it takes more of them down",
            hint="What does it do to the machine's memory, disk or cards? hecaton job show lists the workers.",
        )
    return Failure(
        "three attempts at this job were ended by the machines, the last one by the loss of its worker",
        hint="hecaton job show lists them with their reasons; hecaton job retry runs the job again.",
    )
