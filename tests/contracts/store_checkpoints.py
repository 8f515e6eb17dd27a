"""What every store does about the state of jobs that outlives their attempts."""

from __future__ import annotations

import pytest

from hecaton.core.errors import BadRequest, Fenced
from hecaton.core.files.kept import KeptFile, Piece
from hecaton.core.model import AttemptRef, Reason
from hecaton.store.port import Database, Store
from tests.contracts.store_scene import NOW, Scene


def _file(content: str) -> KeptFile:
    return KeptFile("model", 5, content * 64, pieces=(Piece(content * 64, 0, 5),))


async def _keep(scene: Scene, ref: AttemptRef, content: str) -> None:
    def keep(store: Store) -> None:
        store.add_blob(content * 64, scene.owner.id, 5, NOW)
        store.keep_checkpoint(ref, [_file(content)], NOW)

    await scene.database.write(keep)


class CheckpointContract:
    async def test_the_newest_checkpoint_is_for_the_next_attempt_and_its_bytes_stay(self, database: Database) -> None:
        scene = await Scene.on(database)
        job = await scene.submit(retries=1)
        (first,) = await scene.claim()
        assert not first.checkpoint
        for content in ("a", "b"):
            await _keep(scene, first.ref, content)
        found = await database.read(lambda store: store.checkpoint(job))
        assert found is not None
        assert (found.attempt, found.made_at, found.files) == (1, NOW, (_file("b"),))
        assert await database.read(lambda store: store.unused_blobs(1.0)) == ["a" * 64], "nobody has to wait for them"
        assert await database.read(lambda store: store.unused_blobs(NOW + 1)) == ["a" * 64]
        await scene.end(first.ref, Reason.HANDLER_ERROR, 1)
        (second,) = await scene.claim(at=100)
        assert second.checkpoint
        with pytest.raises(Fenced):
            await _keep(scene, first.ref, "c")
        with pytest.raises(BadRequest):
            await database.write(lambda store: store.keep_checkpoint(second.ref, [_file("d")], NOW))

    async def test_a_job_that_repeats_one_has_its_checkpoint_unless_it_had_finished(self, database: Database) -> None:
        scene = await Scene.on(database)
        for reason, goes_on in {Reason.HANDLER_ERROR: True, Reason.OK: False}.items():
            ref = await scene.submit_and_claim()
            await _keep(scene, ref, "a")
            await scene.end(ref, reason, 1)
            again = await scene.submit(retry_of=ref.job)
            found = await database.read(lambda store, again=again: store.checkpoint(again))  # type: ignore[misc]
            assert (found is not None) is goes_on
            (claimed,) = await scene.claim()
            assert claimed.checkpoint is goes_on
            assert await database.write(lambda store: store.forget_jobs(NOW + 2, 10)) == 1
            left = await database.read(lambda store: store.unused_blobs(NOW + 1))
            assert (left == []) is goes_on, "its bytes are its own, whatever becomes of the job that it repeats"
            await scene.end(claimed.ref, Reason.OK, 1)
            await database.write(lambda store: store.forget_jobs(NOW + 2, 10))

    async def test_checkpoints_go_when_their_jobs_have_finished_or_are_old(self, database: Database) -> None:
        scene = await Scene.on(database)
        failed = await scene.submit_and_claim()
        await _keep(scene, failed, "a")
        await scene.end(failed, Reason.HANDLER_ERROR, 1)
        finished = await scene.submit_and_claim()
        await _keep(scene, finished, "b")
        await scene.end(finished, Reason.OK, 1)
        assert await database.write(lambda store: store.forget_files(NOW, 10)) == 1
        assert await database.read(lambda store: store.checkpoint(finished.job)) is None
        assert await database.read(lambda store: store.checkpoint(failed.job)) is not None
        assert await database.write(lambda store: store.forget_files(NOW + 10, 10)) == 1
        assert await database.read(lambda store: store.unused_blobs(NOW + 1)) == ["a" * 64, "b" * 64]
