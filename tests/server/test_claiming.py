"""A claim is taken from its plan to its end, whatever becomes of the transaction that it is part of; and what hands out
jobs in the background minds a store that fails."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from hecaton.core.errors import Conflict
from hecaton.core.model import Image, WorkerId
from hecaton.core.placement.matching import Lane
from hecaton.server.clock import Clock
from hecaton.server.fleet.dispatcher import Dispatcher
from hecaton.server.fleet.images.pulls import Pulls
from hecaton.server.fleet.lanes import LANE_KEPT
from hecaton.server.fleet.members import Fleet
from hecaton.server.fleet.scheduler import Scheduler
from hecaton.store.port import Store
from hecaton.store.sqlite.database import SqliteDatabase, open_database
from hecaton.wire.channel import PROTOCOL, Hello, SlotInfo, ToWorker

LANE = Lane(1, 1)
WORKER = WorkerId("w")


class NoLink:
    def send(self, message: ToWorker) -> None: ...
    def send_along(self, message: ToWorker) -> None: ...
    def close(self, code: int, reason: str) -> None: ...


class Server:
    """One worker with one slot, one waiting job in memory, and an empty store."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.now = 1000.0
        self.database = database
        self.fleet = Fleet()
        self.fleet.join(
            WORKER, "w", NoLink(), Hello(PROTOCOL, "1", "x", (SlotInfo(0, None, None, None),), ()), self.now
        )
        image = Image(1, "app", None, "", {}, 1, 0.0, 0.0)
        self.scheduler = Scheduler(self.fleet, lambda _: image, lambda: self.now, Pulls(lambda: self.now, 600.0))
        self.scheduler.add(LANE, 0, self.now)

    @property
    def reserved(self) -> int:
        return self.fleet.members[WORKER].slots[0].reserved

    async def claiming(self, work: Callable[[Store], None]) -> None:
        await self.scheduler.claiming(self.database, self.now, work)

    async def slow_claiming(self) -> tuple[asyncio.Future[None], threading.Event]:
        """One whose transaction has begun, and ends when the event is set."""
        begun, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(store: Store) -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait()

        claiming = asyncio.ensure_future(self.claiming(slow))
        await begun.wait()
        return claiming, go_on


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    database = open_database(Path(":memory:"))
    yield Server(database)
    await database.close()


async def test_work_that_fails_gives_back_the_room_and_the_job(server: Server) -> None:
    """Whoever counted it takes it back first: what waits for the room is looked at after that."""
    looked = asyncio.Event()
    server.scheduler.miscounted = looked.set

    def refuse(store: Store) -> None:
        assert (server.reserved, server.scheduler.queued(LANE.owner_id)) == (1, 0)
        raise Conflict("no")

    with pytest.raises(Conflict):
        await server.claiming(refuse)
    assert (server.reserved, server.scheduler.queued(LANE.owner_id), looked.is_set()) == (0, 1, True)


async def test_work_that_is_given_up_gives_back_the_room_and_the_job(server: Server) -> None:
    claiming, go_on = await server.slow_claiming()
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    go_on.set()
    assert (server.reserved, server.scheduler.queued(LANE.owner_id)) == (0, 1)


async def test_room_that_nobody_needed_after_all_goes_to_who_came_meanwhile(server: Server) -> None:
    """A job that has been cancelled is still counted, and room reserved for it."""
    claiming, go_on = await server.slow_claiming()
    other = Lane(2, 1)
    server.scheduler.add(other, 0, server.now)
    assert await server.scheduler.claim(server.database, server.now) == 0
    assert server.scheduler.queued(other.owner_id) == 1  # there is no room
    looked = asyncio.Event()
    server.scheduler.miscounted = looked.set
    go_on.set()
    await claiming
    assert looked.is_set()


async def test_what_was_counted_wrong_is_read_anew(server: Server) -> None:
    """Of a batch that was cancelled thousands may be counted, before what is really there."""
    server.scheduler.add(LANE, 0, server.now, 5000)
    Dispatcher(server.database, Clock(), server.scheduler)
    await server.scheduler.claim(server.database, server.now)
    async with asyncio.timeout(20):
        while server.scheduler.queued(LANE.owner_id):  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.01)


async def test_a_lane_is_known_until_the_claims_of_it_are_over_however_long_they_take(server: Server) -> None:
    claiming, go_on = await server.slow_claiming()
    server.now += LANE_KEPT + 1
    server.scheduler.recount()
    server.scheduler.load([])  # nothing waits: the one job is on its way to the worker
    known = server.scheduler.knows(LANE.key())
    go_on.set()
    await claiming
    assert known
    server.now += LANE_KEPT + 1
    server.scheduler.load([])
    assert not server.scheduler.knows(LANE.key())


async def test_a_store_that_fails_while_it_is_asked_what_waits_is_said_in_the_log(server: Server) -> None:
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    dispatcher = Dispatcher(server.database, Clock(), server.scheduler)
    await server.database.close()
    with capture_logs() as lines:
        dispatcher.wait_again(LANE.key() + 1, 0.0)  # of a lane that memory does not know
        dispatcher.kick()
        await asyncio.wait([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
    gc.collect()  # an error that nobody asked for is reported when its task goes
    assert [line["event"] for line in lines] == ["Could not hand out jobs"] * 2
    assert unheard == []
