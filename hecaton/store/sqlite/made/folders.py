"""Folders that users send along, in SQLite: which there are, and in which blobs their files are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from hecaton.core.files.kept import Piece
from hecaton.store.sqlite.statements import Statements

_WHERE = """
    SELECT wanted.value, coalesce(blob.sha256, bundled.blob), iif(blob.sha256 IS NULL, bundled.start, 0),
      coalesce(blob.size, bundled.size)
    FROM json_each(?1) AS wanted
    LEFT JOIN blob ON blob.sha256 = wanted.value AND blob.owner_id = ?2
    LEFT JOIN bundled ON bundled.sha256 = wanted.value AND bundled.owner_id = ?2
    WHERE blob.sha256 IS NOT NULL OR bundled.sha256 IS NOT NULL
"""
"""A file that came both ways is where it came by itself: one of the two is kept by each folder that has it."""

_UNUSED = """
    SELECT id FROM folder
    WHERE added_at < ? AND NOT EXISTS (SELECT 1 FROM job_folder WHERE job_folder.sha256 = folder.sha256) LIMIT ?
"""


class FolderVerbs:
    """Names only: bytes are counted where their blob was added."""

    def __init__(self, statements: Statements) -> None:
        self._sql = statements.run
        self._sql_many = statements.run_many
        self._first = statements.first

    def add_bundled(self, owner_id: int, files: Mapping[str, Piece]) -> None:
        self._sql_many(
            "INSERT OR IGNORE INTO bundled (sha256, owner_id, blob, start, size) VALUES (?, ?, ?, ?, ?)",
            [(sha256, owner_id, piece.blob, piece.start, piece.size) for sha256, piece in files.items()],
        )

    def find_files(self, owner_id: int, sha256s: Iterable[str]) -> Mapping[str, Piece]:
        rows = self._sql(_WHERE, (json.dumps([*sha256s]), owner_id))
        return {sha256: Piece(blob, start, size) for sha256, blob, start, size in rows}

    def add_folder(self, sha256: str, owner_id: int, blobs: Iterable[str], now: float) -> None:
        added = "ON CONFLICT (sha256, owner_id) DO UPDATE SET added_at = excluded.added_at RETURNING id"
        sql = f"INSERT INTO folder (sha256, owner_id, added_at) VALUES (?, ?, ?) {added}"  # noqa: S608
        (number,) = self._sql(sql, (sha256, owner_id, now)).fetchone()
        self._sql_many(
            "INSERT OR IGNORE INTO folder_blob (folder, sha256) VALUES (?, ?)", [(number, blob) for blob in blobs]
        )

    def has_folder(self, sha256: str, owner_id: int) -> bool:
        return self._first("SELECT 1 FROM folder WHERE sha256 = ? AND owner_id = ?", sha256, owner_id) is not None

    def forget_folders(self, before: float, limit: int = 1000) -> int:
        unused = self._sql(_UNUSED, (before, limit)).fetchall()
        self._sql_many("DELETE FROM folder WHERE id = ?", unused)
        return len(unused)
