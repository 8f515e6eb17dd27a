"""Flags and environment of the server, read once into one frozen value."""

from __future__ import annotations

from pathlib import Path

import msgspec

from hecaton.wire.channel import LOST_AFTER
from hecaton.wire.reach.address import DEFAULT_PORT

BOTH_FAMILIES = "::"
"""The host at which IPv4 is heard as well as IPv6."""

MIB = 1024 * 1024
DAY = 86400.0

ANY, LISTED = "any", "listed"
"""Of images: all that there are anywhere, or the registered ones."""


class Settings(msgspec.Struct, frozen=True):
    """Sizes in bytes, times in seconds. `lost_after`, `suspect_after` and `heartbeat` are promised in
    docs/reliability.md, C3."""

    folder: Path  # <HECATON_HOME>/server
    host: str = "0.0.0.0"  # workers and clients come from other machines; start-up warns without TLS
    port: int = DEFAULT_PORT
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    root_path: str | None = None  # the path below which a proxy has the server, such as /hecaton
    metrics: str | None = None  # host:port where /metrics is
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-For is believed
    max_payload: int = 256 * MIB
    max_result: int = 256 * MIB
    heartbeat: float = 5.0
    suspect_after: float = 15.0
    lost_after: float = LOST_AFTER
    max_queued: int = 100_000  # waiting jobs of one user
    max_user_bytes: int | None = None  # stored for one user; None: `jobs.budget` says how many, by the disk
    disk_floor: int | None = None  # free bytes below which admins alone may write; None: as above
    max_running: int | None = None  # places that may work for one user at a time; None: all that there are
    images: str = ANY  # which ones people may use
    default_image: str = "python:3.12-slim"  # of jobs that name none; may be used whatever else may
    default_timeout: float | None = None  # of jobs that ask for none, and whose image has none; None: none
    pull_patience: float = 600.0  # an image that no machine can get is tried for so long
    keep_results: float = 30 * DAY  # after the job's end, as the next two
    keep_logs: float = 7 * DAY
    keep_jobs: float = 90 * DAY
    request_timeout: float = 30.0  # for the head of a request; bodies may take longer by their size
    token_life: float = 7 * 86400.0
    blob_grace: float = 86400.0  # an upload that no job refers to lives this long
