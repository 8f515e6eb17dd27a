"""The `Store` port over one SQLite connection, put together from its parts. Made by store.sqlite."""

from __future__ import annotations

from hecaton.store.sqlite_accounts import AccountVerbs
from hecaton.store.sqlite_backups import BackupVerbs
from hecaton.store.sqlite_batches import BatchVerbs
from hecaton.store.sqlite_logs import LogVerbs
from hecaton.store.sqlite_retention import RetentionVerbs
from hecaton.store.sqlite_returns import ReturnVerbs
from hecaton.store.sqlite_views import ViewVerbs


class SqliteStore(BatchVerbs, BackupVerbs, ViewVerbs, AccountVerbs, LogVerbs, RetentionVerbs, ReturnVerbs):
    """batches (over queue): what moves jobs · views: what shows them · accounts: users, images · logs, blobs ·
    retention: what is removed for its age · returns: what a lost worker gets back · backups: what a copy
    in place of its original has to forget."""
