"""What the worker's brain has decided about the event that it handles, in this order."""

from __future__ import annotations

from hecaton.core.model import AttemptRef
from hecaton.wire.channel import FromWorker, Released, Started
from hecaton.worker.brain import events as ev


class Orders:
    """`actions`: emptied by `state` after each event. `connected`: whether anybody hears what is reported."""

    def __init__(self) -> None:
        self.actions: list[ev.Action] = []
        self.connected = False

    def do(self, action: ev.Action) -> None:
        self.actions.append(action)

    def report(self, message: FromWorker) -> None:
        """Said only while there is a connection: the next Hello says the same of everything that still matters."""
        if self.connected:
            self.actions.append(ev.Report(message))

    def report_refs(self, kind: type[Released] | type[Started], refs: list[AttemptRef]) -> None:
        if refs:
            self.report(kind(tuple(refs)))
