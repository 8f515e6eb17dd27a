"""What the journal has a record of. Fields are only ever appended, with a default that says what an older release meant
without them (`journal.VERSION`).
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from hecaton.core.model import AttemptRef
from hecaton.core.options import NOTHING_ASKED, Options
from hecaton.wire.channel import Assignment, Outcome
from hecaton.worker.link.logs import FIRST
from hecaton.worker.memory.peers import Peer


class Placed(msgspec.Struct, frozen=True, array_like=True, tag="placed"):
    """A container that the engine was asked to start. `first`: the job that it was started for, without its payload.

    `boot`: of the machine; `at`: monotonic seconds, which hold within one boot. `layout`: of its channel folder.
    `served`: which of its processes gets the jobs, as far as it is known."""

    container: str
    slot: int
    gpu: str | None
    first: Assignment
    nonce: str | None
    boot: str
    at: float
    layout: int = 1
    served: Peer | None = None


class Given(msgspec.Struct, frozen=True, array_like=True, tag="given"):
    """An attempt that a container works on since `at` (monotonic seconds), or was given ahead. Of several the first
    runs, or the first that has not ended. `log_start`: where its log begins. `log`: name of the file that has it."""

    ref: AttemptRef
    container: str
    key: str
    at: float
    log_start: int = 0
    options: Options = NOTHING_ASKED
    log: str = FIRST


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """`at`: seconds since the epoch, since the record outlives the monotonic clock. Log: where it lies, in bytes."""

    outcome: Outcome
    at: float
    slot: int = 0
    container: str | None = None
    log_start: int = 0
    log_end: int = 0
    log: str = FIRST


class Forgotten(msgspec.Struct, frozen=True, array_like=True, tag="forgotten"):
    ref: AttemptRef


class Gone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    """The container was removed."""

    container: str


Record = Placed | Given | Ended | Forgotten | Gone


def subject_of(record: Record) -> Hashable:
    """Which container or attempt it is about."""
    return record.container if isinstance(record, Placed | Gone) else ref_of(record)


def ref_of(record: Given | Ended | Forgotten) -> AttemptRef:
    return record.outcome.ref if isinstance(record, Ended) else record.ref
