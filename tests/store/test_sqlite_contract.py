"""The store's contract on SQLite: a file with threads, as the server uses it, and memory inline, as simulation does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.store.port import Database
from hecaton.store.sqlite.database import SqliteDatabase, open_database
from hecaton.store.sqlite.file import MEMORY
from tests.contracts.store_contract import StoreContract


class TestSqliteFile(StoreContract):
    @pytest.fixture
    async def database(self, tmp_path: Path) -> AsyncIterator[Database]:
        database = open_database(tmp_path / "server" / "hecaton.db")
        yield database
        await database.close()


class TestSqliteInline(StoreContract):
    @pytest.fixture
    async def database(self) -> AsyncIterator[Database]:
        database = SqliteDatabase(MEMORY, inline=True)
        yield database
        await database.close()


class TestSqliteMemoryWithThreads(StoreContract):
    @pytest.fixture
    async def database(self) -> AsyncIterator[Database]:
        database = SqliteDatabase(MEMORY)
        yield database
        await database.close()
