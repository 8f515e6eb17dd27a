"""The `Store` port over one SQLite connection, put together from its parts."""

from __future__ import annotations

from hecaton.store.sqlite.verbs.accounts import AccountVerbs
from hecaton.store.sqlite.verbs.backups import BackupVerbs
from hecaton.store.sqlite.verbs.batches import BatchVerbs
from hecaton.store.sqlite.verbs.logs import LogVerbs
from hecaton.store.sqlite.verbs.retention import RetentionVerbs
from hecaton.store.sqlite.verbs.returns import ReturnVerbs
from hecaton.store.sqlite.verbs.views import ViewVerbs


class SqliteStore(BatchVerbs, BackupVerbs, ViewVerbs, AccountVerbs, LogVerbs, RetentionVerbs, ReturnVerbs):
    """batches (over queue): what moves jobs · views: what shows them · accounts: users, images · logs, blobs ·
    retention: what is removed for its age · returns: what a lost worker gets back · backups: what a copy
    in place of its original has to forget."""
