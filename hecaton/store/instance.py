"""Tells a database from an older copy of it, put in its place by whichever means: both were used in one folder, and the
folder remembers which use of it was the last.

Each start and each orderly end of the server stamps the database, and a file beside it, with the same words: a random
number and the time. The file has the stamp before as well until the database has the new one, so that no crash makes a
database look like a copy. What cannot be told: a copy of the whole folder, file and all; and a copy that was made since
the last start, if the server was killed then.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hecaton.store.durable import sync_file, sync_folder
from hecaton.store.port import Database

_KEY = "instance"
"""Of `meta`."""


class Instance:
    """Of one folder, for the process that has its lock. On the loop; the files are tiny."""

    def __init__(self, path: Path, database: Database) -> None:
        self._path, self._database = path, database

    async def last_known(self) -> float | None:
        """None if the database is the one that the folder was last used with, or nobody knows. Else when it was last
        known to be (seconds since the epoch)."""
        stamp = await self._stamp()
        try:
            known = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return None
        return None if stamp is None or not known or stamp in known else float(stamp.partition(" ")[2])

    async def mark(self, now: float) -> None:
        """This use of it is the last one. Unavailable or OSError where the disk is full; it is as before then."""
        before, new = await self._stamp(), f"{secrets.token_hex(8)} {now}"
        self._write([*([before] if before is not None else []), new])
        await self._database.write(lambda store: store.set_meta(_KEY, new))
        self._write([new])

    async def _stamp(self) -> str | None:
        return await self._database.read(lambda store: store.meta(_KEY))

    def _write(self, stamps: list[str]) -> None:
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text("\n".join(stamps))
        sync_file(unfinished)
        os.replace(unfinished, self._path)
        sync_folder(self._path.parent)
