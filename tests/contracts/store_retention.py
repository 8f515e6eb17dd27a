"""What the store promises about removing what is old. Part of the store's contract."""

from __future__ import annotations

from hecaton.core.model import Body, JobId, Kind, Reason
from hecaton.store.port import Database
from tests.contracts.store_scene import NOW, Scene

RESULT = Body.inline(Kind.JSON, b'{"y":2}')
BLOB = Body(Kind.BYTES, b"", "a" * 64, 9)


async def ended(scene: Scene, at: float, body: Body = RESULT, submitted: float = 0) -> JobId:
    """A job that was submitted and ended when told, with a result and a log of two pieces."""
    await scene.submit(submitted)
    [claimed] = await scene.claim(at=at)
    for offset in (0, 3):
        await scene.database.write(lambda store, offset=offset: store.append_log(claimed.ref, offset, b"log"))  # type: ignore[misc]
    await scene.end(claimed.ref, Reason.OK, at, body=body)
    return claimed.ref.job


class RetentionContract:
    async def test_results_go_by_the_end_of_their_job_and_the_job_stays(self, database: Database) -> None:
        scene = await Scene.on(database)
        late = await ended(scene, 50)
        old, large = await ended(scene, 9), await ended(scene, 9, BLOB)
        assert await database.write(lambda store: store.forget_results(NOW + 10, 100)) == 2
        assert await database.write(lambda store: store.forget_results(NOW + 10, 100)) == 0
        assert await database.read(lambda store: store.result(old)) is None
        assert await database.read(lambda store: store.result(large)) is None
        assert await database.read(lambda store: store.result(late)) == RESULT
        job = await scene.job(old)
        assert (job.result_kind, job.result_size, job.reason) == (Kind.JSON, 7, Reason.OK)
        assert (await scene.job(large)).result_blob is None

    async def test_logs_go_by_the_end_of_their_job(self, database: Database) -> None:
        scene = await Scene.on(database)
        late, old = await ended(scene, 50), await ended(scene, 9)
        running = await scene.submit_and_claim()
        await database.write(lambda store: store.append_log(running, 0, b"alive"))
        assert await database.write(lambda store: store.forget_logs(NOW + 10, 1)) == 1
        assert await database.write(lambda store: store.forget_logs(NOW + 10, 9)) == 1
        assert await database.write(lambda store: store.forget_logs(NOW + 10, 9)) == 0
        assert await database.read(lambda store: store.read_log(old, 1, 0, 99)) == b""
        assert await database.read(lambda store: store.read_log(late, 1, 0, 99)) == b"loglog"
        assert await database.read(lambda store: store.read_log(running.job, 1, 0, 99)) == b"alive"

    async def test_jobs_go_with_all_that_is_theirs_and_unfinished_ones_stay(self, database: Database) -> None:
        scene = await Scene.on(database)
        late, old = await ended(scene, 50), await ended(scene, 9)
        waiting = await scene.submit()
        assert await database.write(lambda store: store.forget_jobs(NOW + 10, 100)) == 1
        assert await database.write(lambda store: store.forget_jobs(NOW + 10, 100)) == 0
        assert await database.read(lambda store: store.job(old)) is None
        assert await database.read(lambda store: store.payload(old)) is None
        assert await database.read(lambda store: store.attempts(old)) == []
        for job in (late, waiting):
            assert (await scene.job(job)).id == job

    async def test_an_index_is_never_used_again(self, database: Database) -> None:
        scene = await Scene.on(database)
        last = (await scene.job(await ended(scene, 9))).index
        await database.write(lambda store: store.forget_jobs(NOW + 10, 100))
        assert (await scene.job(await scene.submit())).index > last

    async def test_jobs_submitted_later_are_not_even_looked_at(self, database: Database) -> None:
        scene = await Scene.on(database)
        assert await database.write(lambda store: store.forget_jobs(NOW + 10, 100)) == 0
        old = await ended(scene, 6, submitted=5)
        young = [await ended(scene, 30, submitted=20 + number) for number in range(5)]
        assert await database.write(lambda store: store.forget_jobs(NOW + 10, 100)) == 1
        assert await database.read(lambda store: store.job(old)) is None
        for job in young:
            await scene.job(job)
