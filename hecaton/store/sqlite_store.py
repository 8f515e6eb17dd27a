"""The `Store` port over one SQLite connection, put together from its parts. Made by store.sqlite."""

from __future__ import annotations

from hecaton.store.sqlite_accounts import AccountVerbs
from hecaton.store.sqlite_logs import LogVerbs
from hecaton.store.sqlite_queue import QueueVerbs
from hecaton.store.sqlite_views import ViewVerbs


class SqliteStore(QueueVerbs, ViewVerbs, AccountVerbs, LogVerbs):
    """queue: what moves jobs · views: what shows them · accounts: users, images, workers, meta · logs: and blobs."""
