"""How a worker behaves."""

from __future__ import annotations

import msgspec


class WorkerSettings(msgspec.Struct, frozen=True):
    """Durations in seconds.

    `slots`: without a card; with cards there is one slot per card. `cpus` and `memory` (bytes): what all jobs together
    may have of the machine; 0: nobody has said. `new_cards`: cards that come while it runs are used, too.
    `idle_timeout`: a warm container without work is stopped after this. `startup_timeout`: a container that has not
    asked for work by then is given up. `grace`: between SIGTERM and SIGKILL, for what runs in a container to save its
    work."""

    slots: int = 1
    idle_timeout: float = 900.0
    drain_timeout: float = 30.0
    startup_timeout: float = 600.0
    grace: float = 30.0
    cpus: float = 0.0
    memory: int = 0
    new_cards: bool = False
