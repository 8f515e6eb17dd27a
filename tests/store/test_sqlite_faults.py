"""What happens when the process, the disk or the lock is taken away from the store: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.errors import Unavailable
from hecaton.core.model import Body, JobState, Kind, WorkerId
from hecaton.store.blobs import FolderBlobs
from hecaton.store.port import Store
from hecaton.store.sqlite.database import SqliteDatabase, open_database
from tests.contracts.store_scene import NOW, OTHER, WORKER, Scene
from tests.small_disk import fill, small_disk

REPOSITORY = Path(__file__).resolve().parents[2]


def child(script: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.store.{script}", str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


# -- kill -9 -----------------------------------------------------------------------------------------
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "server" / "hecaton.db"
    acknowledged: set[str] = set()
    for lines in (1, 40, 400):
        with child("acknowledging_writer", path) as process:
            assert process.stdout is not None
            acknowledged |= {process.stdout.readline().strip() for _ in range(lines)}
            process.send_signal(signal.SIGKILL)
            acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    assert len(acknowledged) > 400
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = {row[0] for row in connection.execute("SELECT id FROM job JOIN payload USING (seq)")}
    connection.close()
    assert acknowledged <= stored


# -- the disk ----------------------------------------------------------------------------------------
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


async def test_a_full_disk_is_an_error_until_there_is_room_again(disk: Path) -> None:
    path = disk / "server" / "hecaton.db"
    database = open_database(path)
    scene = await Scene.on(database)
    ids = [await scene.submit() for _ in range(20)]
    ballast = await asyncio.to_thread(fill, disk)

    async def submit_until_full() -> None:
        for _ in range(10_000):  # there is some room in the log's last pages
            ids.append(await scene.submit(payload=Body.inline(Kind.BYTES, b"x" * 4096)))

    with pytest.raises(Unavailable, match=f"disk is full.*{path}"):
        await submit_until_full()
    results = await asyncio.gather(*(scene.submit() for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {Unavailable}
    assert (await scene.job(ids[-1])).state is JobState.IN_QUEUE

    await asyncio.to_thread(ballast.unlink)
    ids.append(await scene.submit())
    assert [claimed.ref.job for claimed in await scene.claim(20_000)] == ids
    await database.close()


async def test_a_blob_that_does_not_fit_leaves_nothing(disk: Path) -> None:
    blobs = FolderBlobs(disk / "blobs")
    ballast = await asyncio.to_thread(fill, disk)
    writer = blobs.writer()
    with pytest.raises(Unavailable, match="disk is full"):
        writer.write(b"x" * 100_000)
    writer.abort()
    await asyncio.to_thread(ballast.unlink)
    writer = blobs.writer()
    writer.write(b"x" * 100_000)
    assert blobs.path(writer.commit()) is not None


def test_a_failed_fsync_is_never_acknowledged_and_nothing_is_taken_after_it(tmp_path: Path) -> None:
    path = tmp_path / "server" / "hecaton.db"
    with child("failing_fsync", path) as process:
        answers = dict(json.loads(line) for line in process.stdout or ())
    assert process.returncode == 0
    assert answers["before"] == "acknowledged"
    assert "SQLITE_IOERR_FSYNC" in answers["after"]
    assert "nothing more is accepted" in answers["later"]
    database = SqliteDatabase(path, inline=True)
    assert asyncio.run(database.read(lambda store: store.meta("colour"))) in ("before", "after")
    asyncio.run(database.close())


# -- others at the same file --------------------------------------------------------------------------
async def test_a_database_locked_by_another_process_is_read_and_then_written_again(tmp_path: Path) -> None:
    path = tmp_path / "server" / "hecaton.db"
    database = open_database(path)
    scene = await Scene.on(database)
    job = await scene.submit()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    late = asyncio.create_task(scene.submit())
    assert (await scene.job(job)).id == job
    with pytest.raises(Unavailable, match=f"is locked by another process: {path}"):
        await late
    other.execute("ROLLBACK")
    other.close()
    await scene.submit()
    await database.close()


async def test_a_reader_sees_one_moment_however_much_is_written_meanwhile(tmp_path: Path) -> None:
    database = open_database(tmp_path / "server" / "hecaton.db")
    scene = await Scene.on(database)
    await scene.submit()
    reading, written = threading.Event(), threading.Event()

    def read_twice(store: Store) -> tuple[int, int]:
        first = store.lanes(NOW)[0].count
        reading.set()
        assert written.wait(30)
        return first, store.lanes(NOW)[0].count

    reader = asyncio.create_task(database.read(read_twice))
    await asyncio.to_thread(reading.wait, 30)
    await scene.submit()  # is not blocked by the reader
    written.set()
    assert await reader == (1, 1)
    assert await database.read(lambda store: store.lanes(NOW)[0].count) == 2
    await database.close()


def test_twenty_threads_never_get_the_same_job(tmp_path: Path) -> None:
    database = open_database(tmp_path / "server" / "hecaton.db")

    async def prepare() -> tuple[Scene, list[str]]:
        scene = await Scene.on(database)
        return scene, [stored.id for stored in await scene.submit_all([scene.new_job() for _ in range(300)])]

    scene, ids = asyncio.run(prepare())
    given: list[str] = []

    async def claim_all(worker: WorkerId) -> None:
        while claimed := await scene.claim(3, worker=worker):
            given.extend(one.ref.job for one in claimed)

    threads = [threading.Thread(target=lambda n=n: asyncio.run(claim_all((WORKER, OTHER)[n % 2]))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == sorted(ids)
    asyncio.run(database.close())


async def test_closing_finishes_what_was_handed_in(tmp_path: Path) -> None:
    path = tmp_path / "server" / "hecaton.db"
    database = open_database(path)
    scene = await Scene.on(database)
    waiting = [asyncio.create_task(scene.submit()) for _ in range(50)]
    await asyncio.sleep(0)  # lets the tasks hand in their work
    await database.close()
    ids = await asyncio.gather(*waiting)
    database = open_database(path)
    page = await database.read(lambda store: store.jobs(owner_id=None, state=None, before=None, limit=100))
    assert [job.id for job in reversed(page.jobs)] == ids
    await database.close()


async def test_many_callers_share_one_commit(tmp_path: Path) -> None:
    """Seen from outside: each commit is one write in the log that the next reader can tell apart."""
    database = open_database(tmp_path / "server" / "hecaton.db")
    scene = await Scene.on(database)
    hold, ready = threading.Event(), threading.Event()

    def wait(store: Store) -> None:
        ready.set()
        assert hold.wait(30)

    first = asyncio.create_task(database.write(wait))
    await asyncio.to_thread(ready.wait, 30)
    connection = sqlite3.connect(tmp_path / "server" / "hecaton.db")
    jobs = [asyncio.create_task(scene.submit()) for _ in range(100)]
    await asyncio.sleep(0)
    seen = {connection.execute("PRAGMA data_version").fetchone()[0]}
    hold.set()
    while not all(job.done() for job in jobs):
        seen.add(connection.execute("PRAGMA data_version").fetchone()[0])
        await asyncio.sleep(0)
    await first
    connection.close()
    assert len(seen) <= 3
    await database.close()
