"""Is everything there, and whole? Looks at a server's folder, or at a backup of one, and changes nothing. The server
may run meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from hecaton.store.blobs import blob_files
from hecaton.store.sqlite.backup import BLOBS, DATABASE
from hecaton.store.sqlite.file import open_existing, unavailable
from hecaton.store.sqlite.migrate import migrations, version_of

SHOWN = 20
"""Problems of one kind that are named; the rest is counted."""

_NAMED_BLOBS = """
    SELECT payload_blob, payload_size, 'payload', seq FROM job WHERE payload_blob IS NOT NULL
    UNION ALL SELECT result_blob, result_size, 'result', seq FROM job WHERE result_blob IS NOT NULL
    UNION ALL SELECT file, NULL, 'handler or script', seq FROM job WHERE file IS NOT NULL
    UNION ALL SELECT sha256, NULL, 'made file', seq FROM made_blob
    UNION ALL SELECT folder_blob.sha256, NULL, 'folder', job_folder.seq FROM job_folder
      JOIN folder ON folder.sha256 = job_folder.sha256 JOIN folder_blob ON folder_blob.folder = folder.id
"""

_KNOWN_BLOBS = "SELECT DISTINCT sha256 FROM blob"


class Findings(msgspec.Struct, frozen=True):
    """`problems`: what is damaged or missing, in words; none: all is well. `orphans`: blobs that the database does not
    name, with their bytes: left over from uploads that were cut off, or just being uploaded."""

    schema: int
    jobs: int
    blobs: int
    problems: tuple[str, ...]
    orphans: int
    orphaned_bytes: int


def inspect(folder: Path) -> Findings:
    """Reads every page of the database and the size of every blob. Unavailable if there is no database to look at."""
    path = folder / DATABASE
    with closing(open_existing(path)) as connection:
        try:
            return _inspect(folder, connection)
        except sqlite3.Error as error:
            raise unavailable(error, path) or error from error


def _inspect(folder: Path, connection: sqlite3.Connection) -> Findings:
    schema = version_of(connection)
    checked = connection.execute(f"PRAGMA integrity_check({SHOWN})")
    problems = [f"the database is damaged: {what}" for (what,) in checked]
    if problems == ["the database is damaged: ok"]:
        problems = _broken_references(connection)
    newest = migrations()[-1][0]
    if schema > newest:
        problems.append(f"the schema version is {schema}, this release of Hecaton knows versions up to {newest}")
    if problems:  # what such a database says about blobs means nothing
        return Findings(schema, 0, 0, tuple(problems), 0, 0)
    files = {sha256: path.stat().st_size for sha256, path in blob_files(folder / BLOBS)}
    connection.execute("BEGIN")  # from here on one snapshot, taken after the files were listed
    problems += _shortened(_missing(connection, files, folder / BLOBS))
    known = {sha256 for (sha256,) in connection.execute(_KNOWN_BLOBS)}
    named = {sha256 for sha256, *_ in connection.execute(_NAMED_BLOBS)}
    orphans = files.keys() - known - named
    jobs: int
    (jobs,) = connection.execute("SELECT count(*) FROM job").fetchone()
    return Findings(schema, jobs, len(files), tuple(problems), len(orphans), sum(files[sha256] for sha256 in orphans))


def _broken_references(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("PRAGMA foreign_key_check").fetchall()
    return _shortened(
        f"row {row} of table {table} refers to a row of {other} that is not there" for table, row, other, _ in rows
    )


def _missing(connection: sqlite3.Connection, files: dict[str, int], blobs: Path) -> Iterator[str]:
    for sha256, size, what, index in connection.execute(_NAMED_BLOBS):
        there = files.get(sha256)
        if there is None:  # it may have come after the files were listed
            file = blobs / sha256[:2] / sha256[2:]
            there = file.stat().st_size if file.is_file() else None
        if there is None:
            yield f"the {what} of job {index} is missing: blob {sha256}"
        elif size is not None and there != size:
            yield f"the {what} of job {index} has {there} bytes instead of {size}: blob {sha256}"


def _shortened(problems: Iterator[str]) -> list[str]:
    every = list(problems)
    rest = len(every) - SHOWN
    return every if rest <= 0 else [*every[:SHOWN], f"... and {rest} more like these"]
