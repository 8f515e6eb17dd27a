"""A copy of a server's folder that is consistent while the server runs.

The copy has the layout of the folder itself, so that restoring is putting it in place. The order makes it consistent:

    1. link or copy every blob that is there        nothing that is deleted later can be missing
    2. copy the database, one snapshot of it        SQLite's own way; writers are not held up
    3. link or copy the blobs that came meanwhile   everything the snapshot names was complete before it was named
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec

from hecaton.core.errors import Conflict, Unavailable
from hecaton.store.blobs import blob_files
from hecaton.store.durable import sync_file, sync_folder
from hecaton.store.sqlite.file import open_existing, unavailable
from hecaton.store.sqlite.verbs.backups import COPIED_AT

DATABASE = "hecaton.db"
BLOBS = "blobs"
SECRET = "secret"


class Copied(msgspec.Struct, frozen=True):
    """`size`: bytes of the database and of all blobs."""

    jobs: int
    blobs: int
    size: int


def backup(folder: Path, target: Path) -> Copied:
    """Copy the server's `folder` to `target`, which appears when it is complete and fsynced.

    Blobs never change once they are there: on the same file system they are linked, and cost no space. Conflict if
    there is something at `target`; Unavailable if the folder has no database or a disk fails."""
    if target.exists():
        raise Conflict(f"there is something at {target} already", "Name a folder that does not exist yet.")
    with closing(open_existing(folder / DATABASE)) as source:
        building = target.with_name(target.name + ".incomplete")
        try:
            building.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise Conflict(
                f"{building} is left over from a backup that was cut off, or is being made", "Remove it."
            ) from None
        try:
            copied = _copy(folder, source, building)
            building.rename(target)
            sync_folder(target.parent)
        except BaseException as error:
            shutil.rmtree(building, ignore_errors=True)
            raise _in_words(error, target) or error from None
    return copied


def _copy(folder: Path, source: sqlite3.Connection, building: Path) -> Copied:
    _copy_blobs(folder / BLOBS, building / BLOBS)
    copy = building / DATABASE
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copied_at = time.time()
    with closing(sqlite3.connect(copy)) as connection:
        source.backup(connection)
        with connection:
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (COPIED_AT, str(copied_at)))
        connection.execute("PRAGMA journal_mode = DELETE")  # one file that is complete by itself
        jobs: int
        (jobs,) = connection.execute("SELECT count(*) FROM job").fetchone()
    sync_file(copy)
    _copy_blobs(folder / BLOBS, building / BLOBS)
    if (folder / SECRET).exists():
        _copy_file(folder / SECRET, building / SECRET)
    for path in sorted((path for path in building.rglob("*") if path.is_dir()), reverse=True):
        sync_folder(path)
    sync_folder(building)
    blobs = list(blob_files(building / BLOBS))
    return Copied(jobs, len(blobs), copy.stat().st_size + sum(path.stat().st_size for _, path in blobs))


def _copy_blobs(source: Path, target: Path) -> None:
    """Those that are not in `target` yet."""
    target.mkdir(mode=0o700, exist_ok=True)
    for sha256, path in blob_files(source):
        copy = target / sha256[:2] / sha256[2:]
        if not copy.exists():
            copy.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                _link_or_copy(path, copy)
            except FileNotFoundError:
                continue  # cleaned away in that moment: nothing names it any more


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        _copy_file(source, target)


def _copy_file(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o600)
    sync_file(target)


def _in_words(error: BaseException, target: Path) -> Unavailable | None:
    if isinstance(error, OSError):
        return Unavailable(
            f"the backup {target} could not be written: {error}", "Check the disk, its space and its owner."
        )
    return unavailable(error, target / DATABASE)
