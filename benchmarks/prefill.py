"""State folders of servers that have a long life behind them or a long queue before them, written through the store.

A folder is made once per run of the benchmark, and copied for each measurement."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks import subject
from hecaton.core.model import Body, JobId, JobSpec, Kind, Reason, WorkerId
from hecaton.core.placement.matching import Lane
from hecaton.server.clock import Clock, uuid7
from hecaton.store.port import AttemptEnd, Claim, NewJob, Store
from hecaton.store.sqlite.database import open_database

ELSEWHERE = "elsewhere"
"""An image that no worker of the benchmark serves: its jobs stay in the queue."""

BATCH = 1000
PAYLOAD = Body.inline(Kind.JSON, b'{"prompt": "a cat on a mat", "steps": 30, "seed": 1234567}')


def waiting(folder: Path, count: int, made_in: Path) -> None:
    """A home in `folder` whose server has so many jobs in its queue."""
    _copy(made_in / f"waiting-{count}", folder, count, _submit)


def finished(folder: Path, count: int, made_in: Path) -> None:
    """A home in `folder` whose server has so many finished jobs behind it."""
    _copy(made_in / f"finished-{count}", folder, count, _finish)


Fill = Callable[[Store, list[NewJob], float], object]


def _copy(made: Path, folder: Path, count: int, fill: Fill) -> None:
    if not made.exists():
        with subject.running(made) as hecaton:
            hecaton.cluster.register(ELSEWHERE)
            hecaton.cluster.client().add_worker("prefill")
        asyncio.run(_fill(made / "server" / "hecaton.db", count, fill))
    shutil.copytree(made, folder)


async def _fill(path: Path, count: int, fill: Fill) -> None:
    database = open_database(path)
    clock = Clock()
    try:
        user = await database.read(lambda store: store.user_by_name("admin"))
        image = await database.read(lambda store: store.image_by_name(ELSEWHERE))
        assert user is not None
        assert image is not None
        lane = Lane(user.id, image.id)
        for done in range(0, count, BATCH):
            now = clock.now()
            ids = [JobId(uuid7(now)) for _ in range(min(BATCH, count - done))]
            jobs = [NewJob(job, user.id, image.id, lane, JobSpec(), PAYLOAD, now, job, b"") for job in ids]
            await database.write(lambda store, jobs=jobs, now=now: fill(store, jobs, now))  # type: ignore[misc]
    finally:
        await database.close()


def _submit(store: Store, jobs: list[NewJob], now: float) -> object:
    return store.submit(jobs)


def _finish(store: Store, jobs: list[NewJob], now: float) -> object:
    store.submit(jobs)
    worker = WorkerId(store.workers()[0].id)
    claimed = store.claim([Claim(jobs[0].lane.key(), worker, 0, len(jobs))], now)
    refs = [job.ref for job in claimed]
    store.start(refs, now)
    return store.end([AttemptEnd(ref, worker, Reason.OK, now, PAYLOAD, started_at=now) for ref in refs])
