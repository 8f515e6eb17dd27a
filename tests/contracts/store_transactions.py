"""What the store promises about transactions. Part of tests.contracts.store_contract."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hecaton.core.errors import Unavailable
from hecaton.store.port import Database, Store
from tests.contracts.store_scene import Scene


class TransactionContract:
    async def test_a_work_returns_what_its_function_returns(self, database: Database) -> None:
        await database.write(lambda store: store.set_meta("colour", "red"))
        assert await database.write(lambda store: (store.meta("colour"), 7)) == ("red", 7)
        assert await database.read(lambda store: store.meta("colour")) == "red"

    async def test_a_work_that_raises_is_undone_and_its_error_reaches_the_caller(self, database: Database) -> None:
        def half_done(store: Store) -> None:
            store.set_meta("colour", "red")
            raise ZeroDivisionError("in the middle")

        with pytest.raises(ZeroDivisionError, match="in the middle"):
            await database.write(half_done)
        assert await database.read(lambda store: store.meta("colour")) is None

    async def test_a_work_that_raises_takes_no_other_of_its_batch_with_it(self, database: Database) -> None:
        def setter(number: int) -> Callable[[Store], int]:
            def work(store: Store) -> int:
                store.set_meta(f"key {number}", "set")
                if number % 3 == 0:
                    raise ValueError(f"number {number}")
                return number

            return work

        outcomes = await asyncio.gather(*(database.write(setter(n)) for n in range(30)), return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            kept = await database.read(lambda store, key=f"key {number}": store.meta(key))  # type: ignore[misc]
            if number % 3 == 0:
                assert isinstance(outcome, ValueError)
                assert kept is None
            else:
                assert outcome == number
                assert kept == "set"

    async def test_works_run_in_the_order_of_the_calls(self, database: Database) -> None:
        seen: list[int] = []
        await asyncio.gather(*(database.write(lambda store, n=n: seen.append(n)) for n in range(50)))  # type: ignore[misc]
        assert seen == list(range(50))

    async def test_a_read_sees_what_was_acknowledged_before_it(self, database: Database) -> None:
        for number in range(20):
            await database.write(lambda store, n=number: store.set_meta("n", str(n)))  # type: ignore[misc]
            assert await database.read(lambda store: store.meta("n")) == str(number)

    async def test_a_read_that_raises_harms_nobody(self, database: Database) -> None:
        def broken(store: Store) -> None:
            raise LookupError("reader's fault")

        await database.write(lambda store: store.set_meta("colour", "red"))
        outcomes = await asyncio.gather(
            database.read(broken), database.read(lambda store: store.meta("colour")), return_exceptions=True
        )
        assert isinstance(outcomes[0], LookupError)
        assert outcomes[1] == "red"

    async def test_closing_twice_is_fine_and_a_closed_store_says_so(self, database: Database) -> None:
        await Scene.on(database)
        await database.close()
        await database.close()
        with pytest.raises(Unavailable, match="closed"):
            await database.write(lambda store: store.set_meta("colour", "red"))
        with pytest.raises(Unavailable, match="closed"):
            await database.read(lambda store: store.meta("colour"))
