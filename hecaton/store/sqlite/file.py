"""The SQLite file itself: made safely, refused when something is wrong with it, opened, its errors put into words."""

from __future__ import annotations

import _sqlite3
import ctypes
import os
import shutil
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

from hecaton.core.errors import Conflict, Unavailable
from hecaton.store.durable import sync_file, sync_folder
from hecaton.store.sqlite.migrate import migrate

MEMORY = Path(":memory:")

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process (a backup, a tool) that holds the database's lock."""

LOG_KEPT = 16 * 1024 * 1024
"""Bytes that the log beside the database keeps after a large transaction, to be written over."""

_REBUILD_ROOM = 1.5
"""Free bytes for each byte of a database that is rebuilt."""

QUICK_CHECK_LIMIT = 64 * 1024 * 1024
"""Files up to this size (bytes) are checked page by page when opened (about 0.2 s); larger ones only by their head."""

_GIVES_BACK = "PRAGMA auto_vacuum = INCREMENTAL"
"""The file has what it takes to be cut off where it is empty (`Retention.give_back`): only before its first table."""

# hot: benchmarks/instructions.py - for each value that is no number or text, for None and bytes too, sqlite3 looks for
# an adapter; to find none costs 2,000 instructions. These give the value as it is, in one call into C.
_NONE: dict[None, None] = {}
sqlite3.register_adapter(type(None), _NONE.get)
sqlite3.register_adapter(bytes, bytes)

_APPLICATION_ID = 0x48454341  # "HECA"
_RESTORE = "Restore it from a backup, or move it away to start with an empty database."


_MULTITHREAD, _MEMSTATUS = 2, 9
"""Of sqlite3_config."""


def without_locks() -> None:
    """From now on SQLite locks no connection of this process, and counts no memory: each is used by one thread at a
    time, as `connect` has it anyway. Before the first one is opened. Where its library cannot be reached it goes on
    locking."""
    # hot: benchmarks/instructions.py - a job takes 1,300 locks that nobody else wants: 3 % of all that it costs
    if sys.platform != "linux":  # elsewhere C passes the arguments of such a function in a way that ctypes does not
        return
    try:
        library = ctypes.CDLL(_sqlite3.__file__)  # which brings SQLite along, or has it in itself
        configure = library.sqlite3_config
    except (AttributeError, OSError):
        return
    library.sqlite3_shutdown()
    configure(_MULTITHREAD)
    configure(_MEMSTATUS, 0)
    library.sqlite3_initialize()


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the settings all of ours share. The file must exist. Any thread may use it, one at a time."""
    if path == MEMORY:
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    else:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    try:
        connection.execute("PRAGMA synchronous = FULL")  # an acknowledged commit survives a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")  # savepoints cost a copy in memory, not a write
        connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT}")
        connection.execute("PRAGMA cache_size = -32768")  # KiB
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path) -> sqlite3.Connection:
    """The writing connection to the database at `path`, created if absent, migrated. Unavailable if it is unfit."""
    if path == MEMORY:
        connection = connect(path)
        connection.execute(_GIVES_BACK)
        migrate(connection, ":memory:")
        return connection
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        _refuse_unfit(path)
    except OSError as error:
        raise Unavailable(
            f"the database {path} cannot be opened: {error}", "Check the folder's owner and disk."
        ) from error
    try:
        _rebuild(path)
        connection = connect(path)
        try:
            _check(connection, path)
            migrate(connection, str(path))
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unavailable(error, path) or Unavailable(
            f"the database {path} cannot be used: {error}", _RESTORE
        ) from error
    return connection


def open_existing(path: Path) -> sqlite3.Connection:
    """A connection that only reads, to a database of any schema that a server may be using. Unavailable if there is
    none, or if it is unfit: reading as another user would leave files beside it that the server cannot open."""
    if not path.exists():
        raise Unavailable(
            f"there is no database {path}",
            "HECATON_HOME names the folder of another server; that of the service is HECATON_HOME=/var/lib/hecaton.",
        )
    _refuse_unfit(path)
    try:
        connection = connect(path, read_only=True)
        try:
            _require_ours(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unavailable(error, path) or Unavailable(
            f"the database {path} cannot be used: {error}", _RESTORE
        ) from error
    return connection


def move_log(path: Path) -> None:
    """From beside the database into it, as far as no reader needs what is there. Unavailable if the disk fails."""
    try:
        with closing(connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        raise unavailable(error, path) or error from error


def _create(path: Path) -> None:
    """Build the new database under another name and move it in place complete: an empty or half-made file at `path`
    is then always a damaged one, never a first start that was cut off."""
    for suffix in ("-wal", "-shm", "-journal"):
        if (rest := path.with_name(path.name + suffix)).exists():
            raise Unavailable(f"the database {path} is missing, but {rest.name} beside it is not", _RESTORE)
    building = path.with_name(path.name + ".new")
    for leftover in path.parent.glob(building.name + "*"):
        leftover.unlink()
    os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        connection = connect(building)
        try:
            connection.execute(_GIVES_BACK)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            migrate(connection, str(building))
        finally:
            connection.close()  # the last connection moves the log into the file, fsyncs it and removes the log
    except sqlite3.Error as error:
        raise unavailable(error, path) or error from error
    building.rename(path)
    sync_folder(path.parent)


def _rebuild(path: Path) -> None:
    """A database that an earlier release made is copied once into one that can give space back, if there is room for
    both; it takes its place complete and fsynced. Without room, or while another process reads it, it stays as it is
    until the next start."""
    rebuilt = path.with_name(path.name + ".rebuilt")
    for leftover in path.parent.glob(rebuilt.name + "*"):
        leftover.unlink()
    with closing(connect(path)) as connection:
        (known,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        if known or shutil.disk_usage(path.parent).free < _REBUILD_ROOM * path.stat().st_size:
            return
        _require_ours(connection, path)
        os.close(os.open(rebuilt, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection.execute(_GIVES_BACK)
        connection.execute("VACUUM INTO ?", (str(rebuilt),))
    if path.with_name(path.name + "-wal").exists():  # it was not the last connection
        rebuilt.unlink()
        return
    sync_file(rebuilt)
    rebuilt.replace(path)
    sync_folder(path.parent)


def _refuse_unfit(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Unavailable(f"the database {path} is not a file", _RESTORE)
    if status.st_uid != os.geteuid():
        raise Unavailable(
            f"the database {path} belongs to user id {status.st_uid}, this server runs as {os.geteuid()}",
            f"Run the server as its owner, or: chown {os.geteuid()} {path}*",
        )
    if status.st_mode & 0o077 or status.st_mode & 0o600 != 0o600:
        mode = stat.S_IMODE(status.st_mode)
        raise Unavailable(
            f"the database {path} has mode {mode:04o}; it holds password hashes and must be 0600",
            f"Run: chmod 600 {path}",
        )
    if status.st_size == 0:
        raise Unavailable(f"the database {path} is empty: it was cut off or overwritten", _RESTORE)


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != _APPLICATION_ID:
        raise Unavailable(f"{path} is not a database of Hecaton", _RESTORE)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    _require_ours(connection, path)
    if path.stat().st_size <= QUICK_CHECK_LIMIT:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise Unavailable(f"the database {path} is damaged: {found}", _RESTORE)
    connection.execute("PRAGMA journal_mode = WAL")


def unavailable(error: BaseException, path: Path) -> Unavailable | None:
    """The error in words, if it is the disk's, the file's or the engine's; None if the statement itself is at fault."""
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return Unavailable(
            "the server's disk is full: nothing can be written to its database",
            "Free some space; the server goes on by itself.",
            path,
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            "the server's database is locked by another process", "Wait for it to end, then try again.", path
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Unavailable(f"the server's database is damaged: {error}", _RESTORE, path)
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return Unavailable(
            f"the server's database cannot be opened for writing: {error}", "Check its owner and its disk.", path
        )
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL):
        name = getattr(error, "sqlite_errorname", "")
        return Unavailable(
            f"the server's database could not be read or written: {error} ({name})", "Check its disk.", path
        )
    return None


def translated(error: BaseException, path: Path) -> BaseException:
    """What a caller gets to see in place of `error`: one of core.errors, unless its own work is at fault."""
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(f"this clashes with what is stored: {error}")
    return unavailable(error, path) or error


def is_sync_failure(error: BaseException) -> bool:
    """Did an fsync fail? The kernel may then have dropped what it was given: nothing after it can be trusted."""
    return getattr(error, "sqlite_errorcode", None) in (
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
    )
