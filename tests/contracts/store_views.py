"""What the store promises about showing jobs, lanes, logs and blobs. Part of tests.contracts.store_contract."""

from __future__ import annotations

import pytest

from hecaton.core.errors import Conflict, NotFound
from hecaton.core.model import AttemptRef, Body, JobId, JobSpec, JobState, Kind, Mode, Reason, Role
from hecaton.core.placement.matching import Lane
from hecaton.store.port import Database, Page
from tests.contracts.store_scene import NOW, OTHER, WORKER, Scene, new_id

A, B = "a" * 64, "b" * 64


class ViewContract:
    # -- finding -------------------------------------------------------------------------------
    async def test_a_job_is_found_by_id_by_unique_prefix_and_by_index(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [JobId("0198aaaa-bbbb-7000-8000-000000000001"), JobId("0198aaaa-cccc-7000-8000-000000000002")]
        stored = await scene.submit_all([scene.new_job(id=one) for one in ids])
        for name in (ids[0], ids[0].upper(), "0198aaaa-b", str(stored[0].index)):
            assert (await scene.job(name)).id == ids[0]
        for name in ("0198aaa", "", "999999", "0198aaaa-b%", "0198aaaa-d", "-1", "9" * 40, new_id()):
            assert await database.read(lambda store, name=name: store.job(name)) is None  # type: ignore[misc]
        with pytest.raises(Conflict, match="0198aaaa"):
            await database.read(lambda store: store.job("0198aaaa"))

    async def test_a_prefix_of_digits_is_found_where_no_index_is_meant(self, database: Database) -> None:
        scene = await Scene.on(database)
        job = await scene.submit(id=JobId("01981234-bbbb-7000-8000-000000000001"))
        assert (await scene.job("01981234")).id == job

    async def test_jobs_are_listed_newest_first_page_by_page(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit() for _ in range(5)]

        async def page(before: int | None) -> Page:
            return await database.read(lambda store: store.jobs(owner_id=None, state=None, before=before, limit=2))

        seen: list[JobId] = []
        before: int | None = None
        for _ in range(3):
            part = await page(before)
            seen += [job.id for job in part.jobs]
            before = part.next_index
        assert seen == ids[::-1]
        assert before is None

    async def test_a_list_shows_one_owner_or_one_state(self, database: Database) -> None:
        scene = await Scene.on(database)
        bob = await database.write(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
        failed = await scene.submit_and_claim()
        await scene.end(failed, Reason.HANDLER_ERROR)
        running = await scene.submit_and_claim()
        await scene.start(running)
        bobs = await scene.submit(owner_id=bob.id)

        async def listed(owner_id: int | None, state: JobState | None) -> list[JobId]:
            page = await database.read(lambda store: store.jobs(owner_id=owner_id, state=state, before=None, limit=9))
            return [job.id for job in page.jobs]

        assert await listed(bob.id, None) == [bobs]
        assert await listed(scene.owner.id, None) == [running.job, failed.job]
        assert await listed(None, JobState.FAILED) == [failed.job]
        assert await listed(None, JobState.IN_PROGRESS) == [running.job]
        assert await listed(scene.owner.id, JobState.IN_QUEUE) == []
        assert await listed(None, None) == [bobs, running.job, failed.job]

    async def test_jobs_are_found_by_name_and_tags_until_they_are_forgotten(self, database: Database) -> None:
        scene = await Scene.on(database)
        one = JobSpec(name="lr-0.1", tags=(("lr", "0.1"), ("team", "vision")))
        two = JobSpec(name="lr-0.2", tags=(("team", "vision"),))
        ended = await scene.submit_and_claim(spec=one)
        await scene.end(ended, Reason.OK)
        waits = await scene.submit(spec=two)
        await scene.submit()

        async def found(*labels: tuple[str, str], state: JobState | None = None) -> list[JobId]:
            page = await database.read(
                lambda store: store.jobs(owner_id=scene.owner.id, state=state, before=None, limit=9, labels=labels)
            )
            return [job.id for job in page.jobs]

        vision = ("team", "vision")
        assert await found(vision) == [waits, ended.job]
        assert await found(vision, ("", "lr-0.1")) == [ended.job]
        assert await found(("", "lr-0.2")) == [waits]
        assert await found(("team", "lr-0.2")) == []
        assert await found(vision, state=JobState.IN_QUEUE) == [waits]
        assert (await scene.job(waits)).spec == two
        while await database.write(lambda store: store.forget_jobs(NOW + 1e6, 10)):
            pass
        assert await found(vision) == [waits]

    async def test_what_is_unknown_is_none_or_empty(self, database: Database) -> None:
        unknown = new_id()
        assert await database.read(lambda store: store.job(unknown)) is None
        assert await database.read(lambda store: store.payload(unknown)) is None
        assert await database.read(lambda store: store.result(unknown)) is None
        assert await database.read(lambda store: store.attempts(unknown)) == []
        assert await database.read(lambda store: store.queue_position(unknown)) is None

    # -- leases --------------------------------------------------------------------------------
    async def test_what_workers_hold_is_known_after_a_restart(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit(payload=Body.inline(Kind.TEXT, b"t")) for _ in range(4)]
        claimed = await scene.claim(2)
        [other] = await scene.claim(1, worker=OTHER)
        await scene.start(claimed[1].ref)
        await scene.end(other.ref, Reason.OK, by=OTHER)
        held = await database.read(lambda store: store.held(WORKER))
        assert held == claimed
        assert await database.read(lambda store: store.held(OTHER)) == []
        assert await database.read(lambda store: store.assigned()) == [
            (WORKER, 0, AttemptRef(ids[0], 1), JobState.ASSIGNED),
            (WORKER, 0, AttemptRef(ids[1], 1), JobState.IN_PROGRESS),
        ]

    # -- lanes ---------------------------------------------------------------------------------
    async def test_lanes_tell_what_waits(self, database: Database) -> None:
        scene = await Scene.on(database)
        other = Lane(scene.owner.id, scene.image.id, Mode.HANDLER, A)
        await scene.submit(1)
        await scene.submit(2, priority=7)
        await scene.submit(3, lane=other, mode=Mode.HANDLER, file=A)
        lanes = {info.lane: info for info in await database.read(lambda store: store.lanes(NOW))}
        assert set(lanes) == {scene.lane, other}
        first, second = lanes[scene.lane], lanes[other]
        assert (first.key, first.count, first.priority, first.since) == (scene.lane.key(), 2, 7, NOW + 2)
        assert first.next_run_after is None
        assert (second.key, second.count, second.priority, second.since) == (other.key(), 1, 0, NOW + 3)

    async def test_lanes_count_delayed_jobs_when_their_time_has_come(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=1, priority=2)
        ended = await scene.end(ref, Reason.HANDLER_ERROR, 10)
        assert ended.verdict is not None
        due = NOW + 10 + ended.verdict.delay
        [before] = await database.read(lambda store: store.lanes(due - 0.1))
        assert (before.lane, before.count, before.next_run_after) == (scene.lane, 0, due)
        assert (before.priority, before.since) == (2, NOW)
        [after] = await database.read(lambda store: store.lanes(due))
        assert (after.count, after.priority, after.next_run_after) == (1, 2, None)
        await scene.submit(20)
        [both] = await database.read(lambda store: store.lanes(due))
        assert (both.count, both.priority, both.since) == (2, 2, NOW)
        await scene.claim(5, 1000)
        assert await database.read(lambda store: store.lanes(due)) == []

    async def test_a_waiting_job_knows_how_many_go_first(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit(priority=priority) for priority in (0, 1, 0)]
        await scene.submit(lane=Lane(scene.owner.id, scene.image.id, Mode.HANDLER, A))
        positions = [await database.read(lambda store, job=job: store.queue_position(job)) for job in ids]  # type: ignore[misc]
        assert positions == [1, 0, 2]
        await scene.claim()
        assert await database.read(lambda store: store.queue_position(ids[1])) is None
        assert await database.read(lambda store: store.queue_position(ids[2])) == 1

    # -- logs ----------------------------------------------------------------------------------
    async def test_a_log_is_read_back_from_anywhere(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        text = bytes(range(100))
        for offset in range(0, 100, 7):
            piece = text[offset : offset + 7]
            length = await database.write(lambda store, o=offset, p=piece: store.append_log(ref, o, p))  # type: ignore[misc]
            assert length == min(100, offset + 7)

        async def part(offset: int, limit: int) -> bytes:
            return await database.read(lambda store: store.read_log(ref.job, 1, offset, limit))

        for offset, limit in [(0, 1000), (0, 7), (3, 1), (6, 2), (50, 33), (99, 5), (100, 5), (500, 5), (10, 0)]:
            assert await part(offset, limit) == text[offset : offset + limit], (offset, limit)
        for limit in (0, 1, 7, 8, 55, 100, 1000):
            tail = await database.read(lambda store, limit=limit: store.log_tail(ref.job, 1, limit))  # type: ignore[misc]
            assert tail == text[max(0, 100 - limit) :]

    async def test_pieces_may_repeat_or_overlap_but_leave_no_gap(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        for offset, piece, length in [
            (0, b"hello", 5),
            (0, b"HELLO", 5),  # repeated: what is there stays
            (3, b"LO world", 11),  # overlaps: only the new part counts
            (20, b"too early", 11),  # would leave a gap: its sender learns where to go on
            (11, b"", 11),
            (2, b"x", 11),
        ]:
            assert await database.write(lambda store, o=offset, p=piece: store.append_log(ref, o, p)) == length  # type: ignore[misc]
        assert await database.read(lambda store: store.read_log(ref.job, 1, 0, 99)) == b"hello world"

    async def test_a_log_can_be_cut_anywhere(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref, other = await scene.submit_and_claim(), await scene.submit_and_claim()
        for one in (ref, other):
            for offset in (0, 10, 20):
                await database.write(
                    lambda store, one=one, offset=offset: store.append_log(one, offset, b"0123456789")  # type: ignore[misc]
                )
        for size in (30, 25, 20, 3, 0):
            await database.write(lambda store, size=size: store.cut_log(ref, size))  # type: ignore[misc]
            log = await database.read(lambda store: store.read_log(ref.job, 1, 0, 99))
            assert log == (b"0123456789" * 3)[:size]
        assert len(await database.read(lambda store: store.read_log(other.job, 1, 0, 99))) == 30

    async def test_each_attempt_has_its_own_log_and_only_attempts_have_one(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.WORKER_LOST, by=None)
        await scene.claim()
        await database.write(lambda store: store.append_log(AttemptRef(ref.job, 2), 0, b"second"))
        await database.write(lambda store: store.append_log(ref, 0, b"first, late"))
        assert await database.read(lambda store: store.read_log(ref.job, 1, 0, 99)) == b"first, late"
        assert await database.read(lambda store: store.log_tail(ref.job, 2, 99)) == b"second"
        assert await database.read(lambda store: store.read_log(ref.job, 3, 0, 99)) == b""
        for wrong in (AttemptRef(ref.job, 3), AttemptRef(ref.job, 0), AttemptRef(new_id(), 1)):
            with pytest.raises(NotFound):
                await database.write(lambda store, wrong=wrong: store.append_log(wrong, 0, b"x"))  # type: ignore[misc]

    # -- blobs ---------------------------------------------------------------------------------
    async def test_a_blob_is_there_for_those_who_brought_it(self, database: Database) -> None:
        scene = await Scene.on(database)
        bob = await database.write(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
        for at in (0, 1):
            await database.write(lambda store, at=at: store.add_blob(A, scene.owner.id, 5, NOW + at))  # type: ignore[misc]
        assert await database.read(lambda store: store.has_blob(A, scene.owner.id))
        assert not await database.read(lambda store: store.has_blob(A, bob.id))
        assert not await database.read(lambda store: store.has_blob(B, scene.owner.id))

    async def test_unused_blobs_are_those_that_no_job_needs_and_nobody_brought_lately(self, database: Database) -> None:
        scene = await Scene.on(database)
        payload, file, result, old, recent = (letter * 64 for letter in "abcde")
        for sha256 in (payload, file, result, old, recent):
            await database.write(lambda store, sha256=sha256: store.add_blob(sha256, scene.owner.id, 5, NOW))  # type: ignore[misc]
        lane = Lane(scene.owner.id, scene.image.id, Mode.SCRIPT)
        await scene.submit(payload=Body(Kind.BYTES, b"", payload, 5), lane=lane, mode=Mode.SCRIPT, file=file)
        [claimed] = await scene.claim(lane=lane)
        await scene.end(claimed.ref, Reason.OK, body=Body(Kind.BYTES, b"", result, 5))
        await database.write(lambda store: store.add_blob(recent, scene.owner.id, 5, NOW + 100))
        assert await database.read(lambda store: store.unused_blobs(NOW)) == []
        assert await database.read(lambda store: store.unused_blobs(NOW + 50)) == [old]
        await database.write(lambda store: store.forget_blobs([old]))
        assert await database.read(lambda store: store.unused_blobs(NOW + 50)) == []
        assert not await database.read(lambda store: store.has_blob(old, scene.owner.id))
