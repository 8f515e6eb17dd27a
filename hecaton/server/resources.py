"""What everything in the server stands on."""

from __future__ import annotations

import msgspec

from hecaton.server.clock import Clock
from hecaton.server.metrics.statistics import Statistics
from hecaton.server.settings import Settings
from hecaton.store.port import Blobs, Database


class Resources(msgspec.Struct, frozen=True):
    """Made once, by `app` or a simulation, and handed to whatever `composition` builds. `server_id`: from
    `composition.identify`."""

    database: Database
    blobs: Blobs
    clock: Clock
    settings: Settings
    server_id: str
    statistics: Statistics = msgspec.field(default_factory=Statistics)
