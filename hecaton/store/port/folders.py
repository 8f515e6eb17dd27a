"""The part of the port about folders that users send along: which there are, and in which blobs their files are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from hecaton.core.files.kept import Piece


class SentFolders(Protocol):
    """A folder is named by the sha256 of its manifest, which is a blob, too. What it needs of blobs is kept as long as
    there is a folder that needs it, and a folder as long as there is a job that has it."""

    def add_bundled(self, owner_id: int, files: Mapping[str, Piece]) -> None:
        """Small files, by their sha256, that came together in a blob of the owner. One that he has already stays where
        it is."""

    def find_files(self, owner_id: int, sha256s: Iterable[str]) -> Mapping[str, Piece]:
        """Where these are, as far as the owner has sent them."""
        ...

    def add_folder(self, sha256: str, owner_id: int, blobs: Iterable[str], now: float) -> None:
        """Repeatable. `blobs`: that hold the manifest and all of its files."""

    def has_folder(self, sha256: str, owner_id: int) -> bool: ...
    def forget_folders(self, before: float, limit: int = 1000) -> int:
        """Those that no job has, and that nobody has sent since `before`: at most so many; how many these were."""
        ...
