"""The part of the port about the logs of attempts."""

from __future__ import annotations

from typing import Protocol

from hecaton.core.model import AttemptRef, JobId


class Logs(Protocol):
    def append_log(self, ref: AttemptRef, offset: int, data: bytes) -> int:
        """Pieces may repeat or overlap: what is there stays; one that would leave a gap is not taken. Returns
        the length now (where to go on). NotFound for attempts that do not exist."""

    def cut_log(self, ref: AttemptRef, size: int) -> None:
        """Keep the first `size` bytes."""

    def read_log(self, job: JobId, attempt: int, offset: int, limit: int) -> bytes: ...
    def log_tail(self, job: JobId, attempt: int, limit: int) -> bytes: ...
