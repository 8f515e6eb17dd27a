"""Machines that run jobs."""

from __future__ import annotations

from hecaton.client.nouns.calls import Calls, path_in
from hecaton.wire import api
from hecaton.wire.api import API


class WorkerCalls(Calls):
    """Part of `Client`."""

    def add_worker(self, name: str) -> api.WorkerCredentials:
        """Register a worker; its token is shown this once. `hecaton-gpu` does this by itself."""
        return self._transport.call("POST", f"{API}/workers", api.WorkerCredentials, api.NewWorker(name))

    def drain_worker(self, name: str) -> api.WorkerView:
        """It finishes what it runs and gets nothing new, until undrained."""
        return self._transport.call("POST", path_in("workers", name) + "/drain", api.WorkerView)

    def undrain_worker(self, name: str) -> api.WorkerView:
        """Ends a drain or a quarantine, and lets it use all slots that it has now."""
        return self._transport.call("POST", path_in("workers", name) + "/undrain", api.WorkerView)

    def workers(self) -> list[api.WorkerView]:
        return self._transport.call("GET", f"{API}/workers", list[api.WorkerView])

    def worker(self, name: str) -> api.MachineView:
        """With its cards: what they do, and who works there. `name`: of the worker, or its id."""
        return self._transport.call("GET", path_in("workers", name), api.MachineView)

    def remove_worker(self, name: str) -> None:
        """`name`: of the worker, or its id."""
        self._transport.command("DELETE", path_in("workers", name))
