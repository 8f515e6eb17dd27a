"""Tasks that are kept until they are over."""

from __future__ import annotations

import asyncio

from hecaton.server.tasks import Tasks


async def test_what_is_under_way_at_the_end_is_waited_for_and_no_longer() -> None:
    tasks, began, over, done = Tasks(), asyncio.Event(), asyncio.Event(), list[int]()

    async def work(number: int) -> None:
        began.set()
        await over.wait()
        done.append(number)

    tasks.hand(work(1))
    await began.wait()
    waiting = asyncio.create_task(tasks.wait(3600.0))
    await asyncio.sleep(0)
    assert not waiting.done()
    over.set()
    async with asyncio.timeout(20):
        await waiting
    tasks.hand(work(2))  # late, and by a task of its own
    async with asyncio.timeout(20):
        await tasks.wait(3600.0)
    assert done == [1, 2]
