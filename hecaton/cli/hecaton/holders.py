"""Who works on a machine, in one line: what everybody may know of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hecaton.cli.terminal import clock_time, duration

if TYPE_CHECKING:
    from hecaton.wire.api import Holder


def holder_line(holder: Holder, now: float) -> str:
    called = f", {holder.name}" if holder.name else ""
    ends = f", ends by {clock_time(holder.ends_by, now)} (its time limit)" if holder.ends_by is not None else ""
    return f"job {holder.index} of {holder.owner}{called}, for {duration(now - holder.since)}{ends}"
