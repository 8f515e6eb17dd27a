"""What follows when a backup was put in place of the database that it is a copy of.

Since the copy was made, workers may have been given attempts that it knows nothing of, and some may still work on them.
None of these numbers may be given out again: a result would be taken for that of another execution. Nor may numbers
of users: a token, or a warm container, would be taken for another user's. Tokens of before may have been ended since.
"""

from __future__ import annotations

import math

from hecaton.core.model import Reason
from hecaton.store.port import AttemptEnd
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.verbs.accounts import END_TOKENS
from hecaton.store.sqlite.verbs.queue import QueueVerbs
from hecaton.store.sqlite.verbs.views import ViewVerbs

COPIED_AT = "copied_at"
"""Key of `meta` in a copy: when it was made, by the wall clock."""

_LEAST = 1000
"""Attempts that are skipped at least, for clocks that do not agree."""

_MOST = 10_000_000
"""And at most: numbers of attempts have 31 bits, which are to last for two hundred copies, however old."""


class BackupVerbs:
    """After `adopt_copy` no number of an attempt, a user or an image is given out that the original may have given out,
    and no token holds that it knew."""

    def __init__(self, statements: Statements, queue: QueueVerbs, views: ViewVerbs) -> None:
        self._sql = statements.run
        self._first = statements.first
        self._queue = queue
        self._views = views

    def adopt_copy(self, now: float, last_known: float | None = None) -> float | None:
        (copied_at,) = self._first("SELECT value FROM meta WHERE key = ?", COPIED_AT) or (last_known,)
        if copied_at is None:
            return None
        age = max(0.0, now - float(copied_at))
        self._queue.end([AttemptEnd(ref, None, Reason.RELEASED, now) for _, _, ref, _ in self._views.assigned()])
        # No job gets an attempt a millisecond for long: so many have not been given out, by whichever server that was.
        skipped = min(_LEAST + math.ceil(age * 1000), _MOST)
        self._sql("UPDATE job SET attempt = attempt + ? WHERE state = 'IN_QUEUE'", (skipped,))
        self._sql("UPDATE sqlite_sequence SET seq = seq + ? WHERE name IN ('user', 'image')", (skipped,))
        self._sql(END_TOKENS)
        self._sql("DELETE FROM meta WHERE key = ?", (COPIED_AT,))
        return age
