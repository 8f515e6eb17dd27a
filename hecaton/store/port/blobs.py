"""Large payloads, results and files: who may use which (a part of the port), and the bytes themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class BlobRegister(Protocol):
    """Which blobs there are and who added them. The bytes are in `Blobs`."""

    def add_blob(self, sha256: str, owner_id: int, size: int, now: float) -> None:
        """Repeatable."""

    def has_blob(self, sha256: str, owner_id: int) -> bool: ...
    def unused_blobs(self, before: float, limit: int = 1000) -> list[str]:
        """Blobs that no job refers to and that nobody added since `before`."""

    def forget_blobs(self, sha256s: Sequence[str]) -> None: ...


class Blobs(Protocol):
    """Files named by the SHA-256 of their content. A blob is complete or absent, and fsynced when there."""

    def path(self, sha256: str) -> str | None:
        """A local file to read, or None if there is no such blob."""

    def writer(self) -> BlobWriter: ...
    def delete(self, sha256: str) -> None: ...


class BlobWriter(Protocol):
    """Blocking: call from a thread for big bodies. Exactly one of `commit` or `abort` ends it."""

    def write(self, data: bytes) -> None: ...
    def commit(self, expected_sha256: str | None = None) -> str:
        """Fsync, move in place, return the hash. BadRequest if it is not the expected one."""

    def abort(self) -> None: ...
