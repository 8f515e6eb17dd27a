"""Which door belongs to which way of speaking to a container: one row each."""

from __future__ import annotations

from collections.abc import Mapping

from hecaton.core.model import Mode
from hecaton.worker.doors.door import Door
from hecaton.worker.doors.handler import HandlerDoor
from hecaton.worker.doors.http.door import HttpDoor
from hecaton.worker.doors.native import NativeDoor
from hecaton.worker.doors.script import ScriptDoor

DOORS: Mapping[Mode, type[Door]] = {
    door.mode: door
    for door in (
        NativeDoor,
        HandlerDoor,
        ScriptDoor,
        HttpDoor,
    )
}
