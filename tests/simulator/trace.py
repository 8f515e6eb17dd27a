"""Messages and requests in the short words of the trace. Jobs go by their number: ids differ from run to run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import (
    Accepted,
    Assign,
    Cancel,
    FromWorker,
    Hello,
    Note,
    Released,
    Results,
    Revoke,
    Started,
    ToWorker,
    Warm,
    Welcome,
)
from tests.simulator.oracle import Oracle


def describe(oracle: Oracle, messages: Sequence[ToWorker] | Sequence[FromWorker]) -> str:
    return ", ".join(_one(oracle, message) for message in messages)


def _one(oracle: Oracle, message: ToWorker | FromWorker) -> str:
    match message:
        case Hello(held=held):
            return "hello " + " ".join(f"{oracle.name(item.ref)}:{item.phase}" for item in held)
        case Welcome(keep=keep, drop=drop):
            return f"welcome keep [{_names(oracle, keep)}] drop [{_names(oracle, drop)}]"
        case Assign(jobs):
            return "assign " + " ".join(f"{oracle.name(job.ref)}@{job.slot}" for job in jobs)
        case Results(outcomes):
            return "results " + " ".join(f"{oracle.name(item.ref)}:{item.reason}" for item in outcomes)
        case Accepted(refs, fenced):
            return f"accepted [{_names(oracle, refs)}] fenced [{_names(oracle, fenced)}]"
        case Started(refs) | Released(refs) | Revoke(refs) | Cancel(refs):
            return f"{type(message).__name__.lower()} {_names(oracle, refs)}"
        case Note(ref, text):
            return f"note {oracle.name(ref)} {text}"
        case Warm(slot, warm):
            return f"warm {slot} {warm}"
        case _:
            return type(message).__name__.lower()


def _names(oracle: Oracle, refs: Iterable[AttemptRef]) -> str:
    return " ".join(oracle.name(ref) for ref in refs)
