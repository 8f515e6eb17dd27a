"""Until when this worker may run no-overlap jobs (`--no-overlap`): soon after, the server may give them to another one.

Counted by the monotonic clock from words of this worker that the server has answered; kept on disk for the worker's
next process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

SHARE = 0.75
"""Part of `lost_after` that a no-overlap job may run unheard of. The rest is for its end: at most half of that passes
between SIGTERM and SIGKILL."""


class _Kept(msgspec.Struct, array_like=True):
    boot: str
    until: float


class NoOverlapLease:
    """`until`: monotonic seconds; 0 where nothing is known, such as after a reboot. `grace`: seconds between SIGTERM
    and SIGKILL after that. Raises OSError.

    It never says more than the server grants. On the loop: what is written is not synced."""

    def __init__(self, folder: Path, boot: str) -> None:
        self.until = self.grace = 0.0
        self._boot = boot
        self._fd = os.open(folder / "lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(msgspec.DecodeError):
            kept = msgspec.json.decode(os.pread(self._fd, 200, 0), type=_Kept)
            if boot and kept.boot == boot:
                self.until = kept.until

    def renew(self, at: float, lost_after: float) -> None:
        """The server heard this worker not before `at`. On a full disk the next process knows of an earlier time."""
        self.until = at + SHARE * lost_after
        self.grace = (1 - SHARE) / 2 * lost_after
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, msgspec.json.encode(_Kept(self._boot, self.until)).ljust(100), 0)

    def close(self) -> None:
        os.close(self._fd)
