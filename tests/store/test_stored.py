"""How many bytes everybody has stored is known without counting, and what is removed leaves room."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hecaton.core.errors import Conflict
from hecaton.core.lifecycle import RETRY_DELAY
from hecaton.core.model import Body, Failure, JobSpec, Kind, Reason, Role
from hecaton.store.port import NewBatch, Store
from hecaton.store.sqlite.database import SqliteDatabase, open_database
from hecaton.store.sqlite.file import MEMORY, connect
from hecaton.store.sqlite.migrate import apply, migrations
from hecaton.store.sqlite.store import SqliteStore
from tests.contracts.store_scene import NOW, WORKER, Scene

COUNTING = "0006"
FAILURE = Failure("it went wrong", "do better")
BLOB = "b" * 64


def counted(database: SqliteDatabase) -> dict[int, tuple[int, ...]]:
    """Of each owner, from the contents of all tables: as the migration does it."""
    [sql] = [sql for version, sql in migrations() if version == int(COUNTING)]
    rows = database._connections[0].execute(sql[sql.index("WITH\n") :])
    return {owner: tuple(sizes) for owner, *sizes in rows}


def said(database: SqliteDatabase) -> dict[int, tuple[int, ...]]:
    store = SqliteStore(database._connections[0])
    return {one.owner_id: (one.payloads, one.results, one.logs, one.files) for one in store.stored()}


@pytest.fixture
async def database() -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(MEMORY, inline=True)
    yield database
    await database.close()


class History:
    """What happens to a store, with a look at the sums after each step."""

    def __init__(self, database: SqliteDatabase, scene: Scene) -> None:
        self.database, self.scene = database, scene

    async def do(self, work: Callable[[Store], Any]) -> Any:
        value = await self.database.write(work)
        assert said(self.database) == counted(self.database)
        return value

    @property
    def mine(self) -> tuple[int, ...]:
        return said(self.database)[self.scene.owner.id]


@pytest.fixture
async def history(database: SqliteDatabase) -> History:
    return History(database, await Scene.on(database))


async def test_submissions_count_once(history: History) -> None:
    scene = history.scene
    jobs = [scene.new_job(args=("x" * 100,)), scene.new_job(payload=Body(Kind.BYTES, b"", BLOB, 10**9))]
    other = await history.do(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
    jobs.append(scene.new_job(owner_id=other.id, payload=Body.inline(Kind.TEXT, b"y" * 5000)))
    for _ in range(2):
        await history.do(lambda store: store.submit(jobs))
        await history.do(lambda store: store.submit(jobs[:1]))
    assert 5000 < said(history.database)[other.id][0] < 8000
    assert 100 < history.mine[0] < 5000, "a file is counted where it is uploaded"
    clash = [scene.new_job(), msgspec.structs.replace(jobs[0], key_digest=b"another")]
    with pytest.raises(Conflict):
        await history.do(lambda store: store.submit(clash))
    assert said(history.database) == counted(history.database)


async def test_batches_count_once(history: History) -> None:
    scene = history.scene
    batch = NewBatch("batch", scene.owner.id, scene.image.id, "", JobSpec(args=("x" * 100,)), NOW, "key", b"digest")
    for _ in range(2):
        await history.do(lambda store: store.create_batch(batch))
    items = [scene.new_job(key=f"batch/{position}") for position in range(3)]
    for last in (2, 2, 3):
        await history.do(lambda store, last=last: store.append("batch", 0, items[:last]))  # type: ignore[misc]
    await history.do(lambda store: store.cancel_batch(1))
    await history.do(lambda store: store.sweep(NOW))
    assert (await history.do(lambda store: store.forget_jobs(NOW + 1, 9))) == 3
    assert history.mine == (0, 0, 0, 0)


async def test_what_attempts_leave_counts(history: History) -> None:
    scene = history.scene
    ref = await scene.submit_and_claim(retries=2)
    for offset, data in ((0, b"abc"), (1, b"bcde"), (9, b"a gap"), (0, b"abc")):
        await history.do(lambda store, offset=offset, data=data: store.append_log(ref, offset, data))  # type: ignore[misc]
    assert history.mine[2] == 5
    await history.do(lambda store: store.cut_log(ref, 9))
    await history.do(lambda store: store.cut_log(ref, 2))
    assert history.mine[2] == 2
    await scene.end(ref, Reason.HANDLER_ERROR, failure=FAILURE)
    assert said(history.database) == counted(history.database)
    [claimed] = await scene.claim(at=RETRY_DELAY[-1])
    await scene.end(claimed.ref, Reason.WORKER_LOST, at=RETRY_DELAY[-1], by=None, failure=FAILURE)
    kept = history.mine
    await history.do(lambda store: store.return_leases(WORKER, {claimed.ref: 0}))
    assert history.mine[1] < kept[1]
    await scene.end(claimed.ref, Reason.OK, at=9, body=Body.inline(Kind.BYTES, b"z" * 1000))
    assert said(history.database) == counted(history.database)
    assert history.mine[1] > 1000
    await scene.submit(queue_ttl=1.0)
    await history.do(lambda store: store.expire_queued(NOW + 99))


async def test_what_is_removed_counts_no_more(history: History) -> None:
    scene = history.scene
    for _ in range(3):
        ref = await scene.submit_and_claim()
        await history.do(lambda store, ref=ref: store.append_log(ref, 0, b"log"))  # type: ignore[misc]
        await scene.end(ref, Reason.OK, at=1, body=Body.inline(Kind.JSON, b"[1]"))
    waiting = await scene.submit()
    await history.do(lambda store: store.add_blob(BLOB, scene.owner.id, 700, NOW))
    await history.do(lambda store: store.add_blob(BLOB, scene.owner.id, 700, NOW))
    assert history.mine[1:] == (9, 9, 700)
    await history.do(lambda store: store.forget_results(NOW + 2, 1))
    await history.do(lambda store: store.forget_logs(NOW + 2, 1))
    assert history.mine[1:] == (6, 6, 700)
    await history.do(lambda store: store.forget_blobs([BLOB]))
    assert (await history.do(lambda store: store.forget_jobs(NOW + 2, 1))) == 1
    gone = await history.do(lambda store: store.forget_ended(scene.owner.id, NOW + 2, 0, 99))
    assert (gone.count, (await scene.job(waiting)).index) == (2, gone.next)
    assert (await history.do(lambda store: store.forget_ended(scene.owner.id, NOW + 2, gone.next, 99))).next is None
    assert history.mine[1:] == (0, 0, 0)
    await history.do(lambda store: store.cancel(waiting, NOW))
    assert (await history.do(lambda store: store.forget_ended(scene.owner.id, NOW - 1, 0, 99))).count == 0
    assert (await history.do(lambda store: store.forget_ended(scene.owner.id + 1, NOW + 1, 0, 99))).count == 0
    assert (await history.do(lambda store: store.forget_ended(scene.owner.id, NOW + 1, 0, 99))).count == 1
    assert history.mine == (0, 0, 0, 0)


async def test_items_of_a_batch_that_goes_on_stay(history: History) -> None:
    scene = history.scene
    batch = NewBatch("batch", scene.owner.id, scene.image.id, "", JobSpec(), NOW, "key", b"digest")
    await history.do(lambda store: store.create_batch(batch))
    items = [scene.new_job(key=f"batch/{position}") for position in range(2)]
    await history.do(lambda store: store.append("batch", 0, items))
    await history.do(lambda store: store.close_batch("batch"))

    async def forgotten() -> int:
        return int((await history.do(lambda store: store.forget_ended(scene.owner.id, NOW + 9, 0, 99))).count)

    for left in (1, 0):
        [claimed] = await scene.claim()
        await scene.end(claimed.ref, Reason.OK, body=Body.inline(Kind.JSON, b"1"))
        assert await forgotten() == (0 if left else 2)
    await history.do(lambda store: store.forget_ended(scene.owner.id, NOW + 9, 99, 99))
    assert await history.do(lambda store: store.batch("batch")) is None
    assert history.mine == (0, 0, 0, 0)


# -- the file --------------------------------------------------------------------------------------


def _fill(store: Store) -> None:
    for number in range(20):
        store.set_meta(f"key {number}", "x" * 100_000)


def _empty(store: Store) -> None:
    for number in range(20):
        store.set_meta(f"key {number}", "")


async def test_the_file_shrinks_step_by_step(tmp_path: Path) -> None:
    path = tmp_path / "server" / "hecaton.db"
    database = open_database(path)
    await database.write(_fill)
    await database.write(_empty)
    left = await database.write(lambda store: store.give_back(50))
    assert left > 400
    assert await database.write(lambda store: store.give_back(50)) == left - 50
    assert await database.write(lambda store: store.give_back(10_000)) == 0
    await database.close()
    assert path.stat().st_size < 500_000


async def test_a_database_of_an_earlier_release_is_made_able_to_shrink(tmp_path: Path) -> None:
    path = _older(tmp_path)
    connection = connect(path)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    connection.close()
    database = open_database(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert await database.read(lambda store: store.meta("key 3")) == "x" * 100_000
    assert said(database) == counted(database)
    await database.write(_empty)
    assert await database.write(lambda store: store.give_back(10_000)) == 0
    await database.close()
    assert path.stat().st_size < 500_000
    assert [one.name for one in path.parent.iterdir()] == [path.name]


async def test_it_stays_as_it_is_while_somebody_else_reads_it_or_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _older(tmp_path)
    reader = connect(path, read_only=True)
    reader.execute("SELECT count(*) FROM meta").fetchone()
    database = open_database(path)
    assert await database.read(lambda store: store.meta("key 3")) == "x" * 100_000
    await database.close()
    reader.close()
    monkeypatch.setattr("hecaton.store.sqlite.file._REBUILD_ROOM", 1e12)
    await open_database(path).close()
    connection = connect(path)
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    connection.close()
    assert list(path.parent.glob("*.rebuilt*")) == []


def _older(tmp_path: Path) -> Path:
    """Of the release before what everybody has stored was known."""
    path = tmp_path / "hecaton.db"
    path.touch(0o600)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {0x48454341}")
    apply(connection, str(path), [one for one in migrations() if one[0] < int(COUNTING)])
    connection.execute(
        "INSERT INTO user (id, name, name_key, role, password_hash, created_at) VALUES (1, 'a', 'a', 'user', '', 0)"
    )
    connection.execute("INSERT INTO blob VALUES (?, 1, 700, 0)", (BLOB,))
    _fill(SqliteStore(connection))
    connection.close()
    return path
