"""What the store promises about batches: created and appended durably, counted, paused, swept. Part of the contract."""

from __future__ import annotations

import pytest

from hecaton.core.batches import MAX_CAUSES, PAUSE_AFTER, Batch
from hecaton.core.errors import Conflict, NotFound
from hecaton.core.model import AttemptRef, Body, Failure, JobSpec, JobState, Kind, Reason, Role
from hecaton.store.port import AttemptEnd, Database, EndedItem, EndResult, NewBatch, Swept
from tests.contracts.store_scene import NOW, WORKER, Scene, new_id


class Batches(Scene):
    """The small world, with batches in it."""

    def new_batch(self, **changes: object) -> NewBatch:
        values: dict[str, object] = {
            "id": new_id(),
            "owner_id": self.owner.id,
            "image_id": self.image.id,
            "name": "pictures",
            "spec": JobSpec(),
            "created_at": NOW,
            "key": new_id(),
            "key_digest": b"digest",
        }
        return NewBatch(**(values | changes))  # type: ignore[arg-type]

    async def batch(self, count: int = 0, *, close: bool = True, **changes: object) -> str:
        new = self.new_batch(**changes)
        await self.database.write(lambda store: store.create_batch(new))
        await self.append(new.id, 0, count)
        if close:
            await self.database.write(lambda store: store.close_batch(new.id))
        return new.id

    async def append(self, batch: str, offset: int, count: int, payload: bytes = b"[%d]") -> int:
        jobs = [
            self.new_job(
                key=f"{batch}/{item}",
                key_digest=payload,
                payload=Body.inline(Kind.JSON, payload.replace(b"%d", b"%d" % item)),
            )
            for item in range(offset, offset + count)
        ]
        return (await self.database.write(lambda store: store.append(batch, offset, jobs))).waiting

    async def shown(self, batch: str) -> Batch:
        found = await self.database.read(lambda store: store.batch(batch))
        assert found is not None
        return found

    async def run(self, count: int, reason: Reason = Reason.OK, message: str = "", at: float = 1) -> list[EndResult]:
        claimed = await self.claim(count, at)
        assert len(claimed) == count
        failure = Failure(message, "ValueError") if message else None
        body = Body.inline(Kind.JSON, b'"done"') if reason is Reason.OK else None
        ends = [AttemptEnd(job.ref, WORKER, reason, NOW + at, body, failure) for job in claimed]
        return await self.database.write(lambda store: store.end(ends))

    async def ended(self, index: int) -> list[EndedItem]:
        return await self.database.read(
            lambda store: store.ended_items(index, 0, 1000, max_bytes=1 << 20, in_input_order=False)
        )

    async def sweep(self, limit: int = 1000) -> list[Swept]:
        steps = []
        while step := await self.database.write(lambda store: store.sweep(NOW + 5, limit)):
            steps.append(step)
        return steps


class BatchContract:
    async def test_a_batch_is_stored_with_its_items_in_order(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(3)
        shown = await scene.shown(batch)
        assert (shown.id, shown.name, shown.owner, shown.image) == (batch, "pictures", "ann", "python:3.9-slim")
        assert (shown.size, shown.closed, shown.ended, shown.complete) == (3, True, 0, False)
        claimed = await scene.claim(5)
        assert [job.payload.data for job in claimed] == [b"[0]", b"[1]", b"[2]"]
        job = await scene.job(claimed[1].ref.job)
        assert (job.batch, job.item) == (batch, 1)

    async def test_batches_are_found_by_id_and_index_and_listed_newest_first(self, database: Database) -> None:
        scene = await Batches.on(database)
        first, second = await scene.batch(1), await scene.batch(1)
        index = (await scene.shown(first)).index
        assert (await scene.shown(str(index))).id == first
        assert await database.read(lambda store: store.batch("99")) is None
        other = await database.write(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
        for owner, expected in ((None, [second, first]), (scene.owner.id, [second, first]), (other.id, [])):
            found = await database.read(lambda store, o=owner: store.batches(owner_id=o, before=None, limit=10))  # type: ignore[misc]
            assert [batch.id for batch in found] == expected
        found = await database.read(lambda store: store.batches(owner_id=None, before=index + 1, limit=10))
        assert [batch.id for batch in found] == [first]

    async def test_a_batch_created_again_is_the_first_one(self, database: Database) -> None:
        scene = await Batches.on(database)
        new = scene.new_batch(key="mine")
        first, known = await database.write(lambda store: store.create_batch(new))
        assert not known
        again = scene.new_batch(key="mine")
        assert await database.write(lambda store: store.create_batch(again)) == (first, True)
        other = scene.new_batch(key="mine", key_digest=b"other")
        with pytest.raises(Conflict, match="used before"):
            await database.write(lambda store: store.create_batch(other))

    async def test_items_come_in_chunks_that_may_be_repeated(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(close=False)
        assert await scene.append(batch, 0, 3) == 3
        assert await scene.append(batch, 0, 3) == 0
        assert await scene.append(batch, 1, 4) == 2
        assert (await scene.shown(batch)).size == 5
        assert len(await scene.claim(10)) == 5

    async def test_a_chunk_is_taken_whole_or_not_at_all(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(3, close=False)
        with pytest.raises(Conflict, match="missing"):
            await scene.append(batch, 4, 1)
        with pytest.raises(Conflict, match="used before"):
            await scene.append(batch, 2, 3, b"[-%d]")
        assert (await scene.shown(batch)).size == 3
        assert len(await scene.claim(10)) == 3

    async def test_a_closed_batch_takes_nothing_new_but_repeats_answers(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(2)
        assert await scene.append(batch, 0, 2) == 0
        with pytest.raises(Conflict, match="closed"):
            await scene.append(batch, 2, 1)
        with pytest.raises(NotFound):
            await scene.append(new_id(), 0, 1)

    async def test_ends_are_counted_and_come_in_the_order_in_which_they_ended(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(4)
        first, second, third = await scene.claim(3)
        index = (await scene.shown(batch)).index
        assert await database.read(lambda store: store.batch_running(index)) == 3
        body = Body.inline(Kind.JSON, b'"two"')
        ended = await scene.end(second.ref, Reason.OK, 1, body=body)
        assert (ended.batch, ended.paused) == (index, False)
        await scene.end(first.ref, Reason.HANDLER_ERROR, 2, failure=Failure("no such row\nat all", "ValueError"))
        await scene.end(third.ref, Reason.OK, 3, body=body)
        shown = await scene.shown(batch)
        assert (shown.finished, shown.failed, shown.cancelled, shown.complete) == (2, 1, 0, False)
        ended_items = await database.read(
            lambda store: store.ended_items(index, 0, 10, max_bytes=1000, in_input_order=False)
        )
        assert [(one.item, one.ended_as, one.state) for one in ended_items] == [
            (1, 1, JobState.FINISHED),
            (0, 2, JobState.FAILED),
            (2, 3, JobState.FINISHED),
        ]
        assert (ended_items[0].result, ended_items[1].result) == (body, None)
        assert ended_items[1].failure == Failure("no such row\nat all", "ValueError")
        later = await database.read(lambda store: store.ended_items(index, 2, 10, max_bytes=1000, in_input_order=False))
        assert [one.item for one in later] == [2]

    async def test_results_in_input_order_stop_at_the_first_that_is_not_there(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(4)
        index = (await scene.shown(batch)).index
        refs = [job.ref for job in await scene.claim(4)]
        for position in (3, 0, 1):
            await scene.end(refs[position], Reason.OK, body=Body.inline(Kind.JSON, b"x" * 50))

        async def items(start: int, max_bytes: int = 1000) -> list[int]:
            found = await database.read(
                lambda store: store.ended_items(index, start, 10, max_bytes=max_bytes, in_input_order=True)
            )
            return [one.item for one in found]

        assert await items(0) == [0, 1]
        assert await items(2) == []
        await scene.end(refs[2], Reason.OK)
        assert await items(0) == [0, 1, 2, 3]
        assert await items(0, max_bytes=10) == [0]
        assert await items(1) == [1, 2, 3]

    async def test_failures_are_grouped_by_reason_and_first_line(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(6 + MAX_CAUSES + 5, may_pause=False)
        index = (await scene.shown(batch)).index
        first = (await scene.run(1, Reason.HANDLER_ERROR, "no such row\nfirst"))[0].ref.job
        await scene.run(3, Reason.HANDLER_ERROR, "no such row\nother")
        await scene.run(2, Reason.TIMEOUT)
        groups = await database.read(lambda store: store.batch_failures(index))
        assert [(group.reason, group.message, group.count) for group in groups] == [
            (Reason.HANDLER_ERROR, "ValueError: no such row", 4),
            (Reason.TIMEOUT, "", 2),
        ]
        assert groups[0].example == first
        for number in range(MAX_CAUSES + 5):
            await scene.run(1, Reason.HANDLER_ERROR, f"row {number}")
        groups = await database.read(lambda store: store.batch_failures(index))
        assert len(groups) <= MAX_CAUSES + 1
        assert sum(group.count for group in groups) == 6 + MAX_CAUSES + 5

    async def test_it_pauses_when_the_first_jobs_all_fail_alike(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(PAUSE_AFTER + 30)
        single = await scene.submit()
        ended = await scene.run(PAUSE_AFTER, Reason.HANDLER_ERROR, "no model\nhere")
        assert [end.paused for end in ended] == [False] * (PAUSE_AFTER - 1) + [True]
        assert "ValueError: no model" in str((await scene.shown(batch)).paused)
        [first, *others] = await scene.sweep(limit=40)
        assert (first.batch.id, first.withheld + sum(step.withheld for step in others)) == (batch, 30)
        assert [job.ref.job for job in await scene.claim(50)] == [single]
        assert [lane.count for lane in await database.read(lambda store: store.lanes(NOW))] == []

    @pytest.mark.parametrize("different", ["another message", "a success", "not allowed"])
    async def test_it_does_not_pause_otherwise(self, database: Database, different: str) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(PAUSE_AFTER + 30, may_pause=different != "not allowed")
        if different == "a success":
            await scene.run(1)
        await scene.run(PAUSE_AFTER - 1, Reason.HANDLER_ERROR, "no model")
        await scene.run(2, Reason.HANDLER_ERROR, "no disk" if different == "another message" else "no model")
        assert (await scene.shown(batch)).paused is None
        assert await scene.sweep() == []

    async def test_what_is_paused_goes_on_when_it_is_resumed(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(10, close=False)
        index = (await scene.shown(batch)).index
        running = (await scene.claim())[0]
        await database.write(lambda store: store.set_paused(index, "because"))
        assert sum(step.withheld for step in await scene.sweep(limit=4)) == 9
        await scene.end(running.ref, Reason.RELEASED)
        assert await scene.append(batch, 10, 2) == 0
        assert await scene.claim(20) == []
        with pytest.raises(Conflict):
            await database.write(lambda store: store.delete_image("python:3.9-slim"))
        await database.write(lambda store: store.set_paused(index, None))
        assert sum(step.released for step in await scene.sweep(limit=4)) == 12
        claimed = await scene.claim(20)
        assert [job.payload.data for job in claimed] == [b"[%d]" % item for item in range(12)]
        assert claimed[0].ref == AttemptRef(running.ref.job, 2)

    async def test_a_cancelled_batch_ends_what_waits_and_asks_what_runs(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(7, close=False)
        index = (await scene.shown(batch)).index
        await scene.run(1)
        running = (await scene.claim())[0]
        await database.write(lambda store: store.cancel_batch(index))
        told = [result for step in await scene.sweep(limit=2) for result in step.cancelled]
        assert [result.ref for result in told if result.worker_id] == [running.ref]
        assert len(told) == 6
        with pytest.raises(Conflict, match="cancelled"):
            await scene.append(batch, 7, 1)
        await scene.end(running.ref, Reason.CANCELLED)
        shown = await scene.shown(batch)
        assert (shown.finished, shown.cancelled, shown.complete) == (1, 6, True)

    async def test_failed_items_come_with_their_payloads(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(4)
        index = (await scene.shown(batch)).index
        await scene.run(1)
        await scene.run(2, Reason.HANDLER_ERROR, "no")
        failed = await database.read(lambda store: store.failed_items(index, 0, 10))
        assert [(one.item, one.payload.data) for one in failed] == [(1, b"[1]"), (2, b"[2]")]
        assert [one.item for one in await database.read(lambda store: store.failed_items(index, 2, 10))] == [2]
        again = scene.new_batch(retry_of=batch)
        await database.write(lambda store: store.create_batch(again))
        made, _ = await database.write(lambda store: store.create_batch(again))
        assert await database.read(lambda store: store.last_retried(made.index)) is None
        repeat = scene.new_job(retry_of=failed[0].job)
        await database.write(lambda store: store.append(again.id, 0, [repeat]))
        assert await database.read(lambda store: store.last_retried(made.index)) == 1

    async def test_the_pace_is_that_of_the_last_ends(self, database: Database) -> None:
        scene = await Batches.on(database)
        batch = await scene.batch(20)
        index = (await scene.shown(batch)).index
        assert await database.read(lambda store: store.batch_pace(index, NOW)) is None
        for second in range(11):
            await scene.run(1, at=second)
        assert await database.read(lambda store: store.batch_pace(index, NOW + 10)) == pytest.approx(1.0)
        assert await database.read(lambda store: store.batch_pace(index, NOW + 100)) == pytest.approx(0.1)

    async def test_jobs_of_a_batch_that_expire_in_the_queue_are_counted(self, database: Database) -> None:
        scene = await Batches.on(database)
        new = scene.new_batch()
        await database.write(lambda store: store.create_batch(new))
        jobs = [scene.new_job(queue_ttl=5.0) for _ in range(PAUSE_AFTER)]
        await database.write(lambda store: store.append(new.id, 0, jobs))
        index = (await scene.shown(new.id)).index
        expired = await database.write(lambda store: store.expire_queued(NOW + 10))
        assert [(one.id, one.batch) for one in expired] == [(job.id, index) for job in jobs]
        assert [one.paused for one in expired] == [False] * (PAUSE_AFTER - 1) + [True]
        shown = await scene.shown(new.id)
        assert (shown.failed, "queue_ttl" in (shown.paused or "")) == (PAUSE_AFTER, True)

    async def test_what_ends_in_one_call_is_counted_in_its_order(self, database: Database) -> None:
        """Good and bad ends, of two batches and of none, more than any statement takes at once, one of them twice."""
        scene = await Batches.on(database)
        one, two = await scene.batch(80), await scene.batch(2)
        alone = await scene.submit()
        claimed = await scene.claim(83)
        refs = [job.ref for job in claimed]
        order = [refs[82], *reversed(refs[:82]), refs[5]]
        bad = {refs[1], refs[40], refs[81]}
        ends = [
            AttemptEnd(
                ref, WORKER, Reason.HANDLER_ERROR if ref in bad else Reason.OK, NOW, Body.inline(Kind.JSON, b"1")
            )
            for ref in order
        ]
        ended = await database.write(lambda store: store.end(ends))
        assert [end.ref for end in ended] == order
        assert [(end.accepted, end.repeated) for end in ended] == [(True, False)] * 83 + [(False, True)]
        assert (await scene.job(alone)).state is JobState.FINISHED
        for batch, size, failed in ((one, 80, [1, 40]), (two, 2, [1])):
            shown = await scene.shown(batch)
            assert (shown.finished, shown.failed, shown.complete) == (size - len(failed), len(failed), True)
            items = await scene.ended(shown.index)
            assert [item.item for item in items] == list(reversed(range(size)))
            assert [item.ended_as for item in items] == list(range(1, size + 1))
            assert [item.item for item in items if item.state is JobState.FAILED] == failed[::-1]
