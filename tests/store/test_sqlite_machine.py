"""Made-up histories on SQLite, compared with a plain model after every step."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from hecaton.store.sqlite.database import SqliteDatabase
from hecaton.store.sqlite.file import MEMORY
from tests.contracts.store_machine import StoreMachine
from tests.faults.figures import figure
from tests.store.test_stored import counted, said

pytestmark = pytest.mark.full


class SqliteMachine(StoreMachine):
    empty = staticmethod(partial(SqliteDatabase, MEMORY, inline=True))

    @invariant()
    def what_is_stored_is_what_is_said_to_be_stored(self) -> None:
        assert isinstance(self.database, SqliteDatabase)
        assert said(self.database) == counted(self.database)


TestSqliteMachine = SqliteMachine.TestCase
TestSqliteMachine.settings = settings(
    max_examples=figure(60, 150), stateful_step_count=50, deadline=None, print_blob=True
)
