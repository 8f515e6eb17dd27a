"""What the store promises about submitting, claiming, cancelling and expiring. Part of the store's contract."""

from __future__ import annotations

import asyncio

import pytest

from hecaton.core.errors import Conflict, NotFound
from hecaton.core.model import AttemptRef, Body, JobId, JobSpec, JobState, Kind, Mode, Reason, Role
from hecaton.core.placement.matching import Lane
from hecaton.store.port import Claim, Database, Expired, Store
from tests.contracts.store_scene import NOW, OTHER, WORKER, Scene, new_id


class QueueContract:
    # -- submit --------------------------------------------------------------------------------
    async def test_a_submitted_job_is_stored_as_it_was_asked(self, database: Database) -> None:
        scene = await Scene.on(database)
        spec = JobSpec(
            mode=Mode.SCRIPT, file="f" * 64, file_name="train.py", args=("--n", "1"), timeout=1.5, retries=2, priority=3
        )
        lane = Lane(scene.owner.id, scene.image.id, Mode.SCRIPT, "f" * 64)
        earlier = new_id()
        new = scene.new_job(
            spec=spec, lane=lane, payload=Body.inline(Kind.BYTES, b"\x00\xff"), retry_of=earlier, queue_ttl=None
        )
        [stored] = await scene.submit_all([new])
        assert (stored.id, stored.duplicate) == (new.id, False)
        job = await scene.job(new.id)
        assert (job.state, job.spec, job.created_at, job.attempt) == (JobState.IN_QUEUE, new.spec, NOW, 0)
        assert (job.owner, job.owner_id, job.image, job.image_id) == (
            "ann",
            scene.owner.id,
            "python:3.9-slim",
            scene.image.id,
        )
        assert (job.index, job.lane, job.retry_of) == (stored.index, lane.key(), earlier)
        assert (job.payload_kind, job.payload_size, job.payload_blob) == (Kind.BYTES, 2, None)
        assert await database.read(lambda store: store.payload(new.id)) == new.payload
        assert await database.read(lambda store: store.result(new.id)) is None

    async def test_a_payload_can_be_a_blob(self, database: Database) -> None:
        scene = await Scene.on(database)
        payload = Body(Kind.JSON, b"", "a" * 64, 5_000_000)
        job = await scene.submit(payload=payload)
        assert await database.read(lambda store: store.payload(job)) == payload
        [claimed] = await scene.claim()
        assert claimed.payload == payload

    async def test_indexes_rise_by_one(self, database: Database) -> None:
        scene = await Scene.on(database)
        stored = await scene.submit_all([scene.new_job() for _ in range(5)])
        stored += await scene.submit_all([scene.new_job()])
        first = stored[0].index
        assert [one.index for one in stored] == list(range(first, first + 6))

    async def test_a_repeated_request_uses_up_no_index(self, database: Database) -> None:
        scene = await Scene.on(database)
        job = scene.new_job()
        [first] = await scene.submit_all([job])
        await scene.submit_all([job])
        [second] = await scene.submit_all([scene.new_job()])
        assert second.index == first.index + 1

    async def test_the_same_key_with_the_same_request_is_the_same_job(self, database: Database) -> None:
        scene = await Scene.on(database)
        [first] = await scene.submit_all([scene.new_job(key="k", key_digest=b"one")])
        await database.write(lambda store: store.cancel(first.id, NOW))
        [again] = await scene.submit_all([scene.new_job(key="k", key_digest=b"one")])
        assert (again.id, again.index, again.duplicate) == (first.id, first.index, True)
        page = await database.read(lambda store: store.jobs(owner_id=None, state=None, before=None, limit=10))
        assert [job.id for job in page.jobs] == [first.id]

    async def test_the_same_key_with_another_request_is_a_conflict_that_names_the_first_job(
        self, database: Database
    ) -> None:
        scene = await Scene.on(database)
        [first] = await scene.submit_all([scene.new_job(key="k", key_digest=b"one")])
        with pytest.raises(Conflict, match=first.id):
            await scene.submit_all([scene.new_job(key="k", key_digest=b"two")])

    async def test_keys_of_different_owners_have_nothing_to_do_with_each_other(self, database: Database) -> None:
        scene = await Scene.on(database)
        bob = await database.write(lambda store: store.create_user("bob", "hash", Role.USER, NOW))
        [one] = await scene.submit_all([scene.new_job(key="k", key_digest=b"one")])
        [two] = await scene.submit_all([scene.new_job(key="k", key_digest=b"two", owner_id=bob.id)])
        assert one.id != two.id
        assert not two.duplicate

    async def test_of_a_list_all_jobs_are_stored_or_none_even_if_the_caller_goes_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        await scene.submit(key="k", key_digest=b"one")
        jobs = [scene.new_job(), scene.new_job(key="k", key_digest=b"two"), scene.new_job()]

        def submit_and_go_on(store: Store) -> None:
            with pytest.raises(Conflict):
                store.submit(jobs)
            store.set_meta("went", "on")

        await database.write(submit_and_go_on)
        assert await database.read(lambda store: store.meta("went")) == "on"
        assert await database.read(lambda store: store.job(jobs[0].id)) is None
        assert await database.read(lambda store: store.job(jobs[2].id)) is None

    async def test_a_job_needs_an_owner_and_an_image_that_are_there(self, database: Database) -> None:
        scene = await Scene.on(database)
        with pytest.raises(NotFound, match="user"):
            await scene.submit(owner_id=999)
        with pytest.raises(NotFound, match="image"):
            await scene.submit(image_id=999)
        await database.write(lambda store: store.delete_image("python:3.9-slim"))
        with pytest.raises(NotFound, match="image"):
            await scene.submit()

    async def test_an_owner_and_an_image_that_were_there_a_moment_ago_are_no_longer(self, database: Database) -> None:
        scene = await Scene.on(database)
        await database.write(lambda store: store.create_user("second", "hash", Role.ADMIN, NOW))
        await scene.end(await scene.submit_and_claim(), Reason.OK, 1)

        def undone(store: Store) -> None:
            store.delete_image("python:3.9-slim")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await database.write(undone)
        await scene.end(await scene.submit_and_claim(), Reason.OK, 1)
        await database.write(lambda store: store.delete_image("python:3.9-slim"))
        with pytest.raises(NotFound, match="image"):
            await scene.submit()
        await database.write(lambda store: store.delete_user("ann"))
        with pytest.raises(NotFound, match="user"):
            await scene.submit()

    # -- claim ---------------------------------------------------------------------------------
    async def test_a_claim_gives_all_that_the_worker_needs(self, database: Database) -> None:
        scene = await Scene.on(database)
        new = scene.new_job(timeout=9.0, payload=Body.inline(Kind.TEXT, b"hello"))
        [stored] = await scene.submit_all([new])
        [claimed] = await database.write(lambda store: store.claim([Claim(scene.lane.key(), WORKER, 3, 1)], NOW + 5))
        assert claimed.ref == AttemptRef(new.id, 1)
        assert (claimed.index, claimed.owner, claimed.image_id) == (stored.index, "ann", scene.image.id)
        assert (claimed.spec, claimed.payload, claimed.key, claimed.claim) == (new.spec, new.payload, new.key, 0)
        job = await scene.job(new.id)
        assert (job.state, job.attempt, job.worker_id, job.worker) == (JobState.ASSIGNED, 1, WORKER, "gpu-1")
        assert (job.slot, job.assigned_at, job.started_at) == (3, NOW + 5, None)

    async def test_higher_priority_goes_first_then_the_older(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit(priority=priority) for priority in (0, 5, 0, 5, -1)]
        order = [claimed.ref.job for claimed in await scene.claim(10)]
        assert order == [ids[1], ids[3], ids[0], ids[2], ids[4]]

    async def test_a_removed_worker_claims_nothing_and_the_job_waits_for_another(self, database: Database) -> None:
        """Whatever it has claimed before."""
        scene = await Scene.on(database)
        first = await scene.submit_and_claim()
        await scene.end(first, Reason.OK, 1)
        job = await scene.submit()

        def undone(store: Store) -> None:
            store.remove_worker(WORKER)
            raise Conflict("removed, and then not")

        with pytest.raises(Conflict):
            await database.write(undone)
        key = scene.lane.key()
        claims = [Claim(key, WORKER, 0, 1), Claim(key, OTHER, 0, 1)]
        [claimed] = await scene.claim()
        await scene.end(claimed.ref, Reason.RELEASED, 1)
        await database.write(lambda store: store.remove_worker(WORKER))
        [claimed] = await database.write(lambda store: store.claim(claims, NOW + 1))
        assert (claimed.ref.job, claimed.claim) == (job, 1)

    async def test_several_claims_in_one_call_are_answered_one_after_the_other(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit() for _ in range(3)]
        key = scene.lane.key()
        claims = [Claim(key, WORKER, 0, 1), Claim(12345, WORKER, 1, 5), Claim(key, OTHER, 0, 5)]
        claimed = await database.write(lambda store: store.claim(claims, NOW))
        assert [(one.ref.job, one.claim) for one in claimed] == [(ids[0], 0), (ids[1], 2), (ids[2], 2)]
        assert await scene.claim(5) == []

    async def test_a_claim_takes_jobs_of_its_lane_only(self, database: Database) -> None:
        scene = await Scene.on(database)
        other = Lane(scene.owner.id, scene.image.id, Mode.HANDLER, "f" * 64)
        await scene.submit()
        there = await scene.submit(lane=other, mode=Mode.HANDLER, file="f" * 64)
        assert [one.ref.job for one in await scene.claim(5, lane=other)] == [there]

    async def test_no_job_is_ever_given_twice(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit() for _ in range(40)]
        answers = await asyncio.gather(*(scene.claim(3, worker=(WORKER, OTHER)[n % 2]) for n in range(20)))
        given = [claimed.ref.job for answer in answers for claimed in answer]
        assert sorted(given) == sorted(ids)

    async def test_a_delay_is_cut_where_the_clock_was_set_back(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=1)
        await scene.end(ref, Reason.HANDLER_ERROR, 3600)
        for longest in (30, 60):  # what is shorter stays
            await database.write(lambda store, longest=longest: store.cap_waits(NOW, longest))  # type: ignore[misc]
            assert (await scene.job(ref.job)).run_after == NOW + 30
        assert await scene.claim(1, 29.9) == []
        assert [one.ref.attempt for one in await scene.claim(1, 30)] == [2]

    async def test_the_time_in_the_queue_is_cut_where_the_clock_was_set_back(self, database: Database) -> None:
        scene = await Scene.on(database)
        late = await scene.submit(3600, queue_ttl=10.0)
        early = await scene.submit(-5, queue_ttl=10.0)
        await scene.submit(3600)
        await database.write(lambda store: store.cap_waits(NOW, 30))
        assert await database.write(lambda store: store.expire_queued(NOW + 4)) == []
        for at, job in ((5, early), (10, late)):
            before, then = NOW + at - 0.1, NOW + at
            assert await database.write(lambda store, now=before: store.expire_queued(now)) == []  # type: ignore[misc]
            assert await database.write(lambda store, now=then: store.expire_queued(now)) == [  # type: ignore[misc]
                Expired(job, scene.image.id)
            ]
        assert await database.write(lambda store: store.expire_queued(NOW + 9999)) == []

    async def test_a_delayed_job_waits_for_its_time_and_then_has_its_old_place(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=1)
        ended = await scene.end(ref, Reason.HANDLER_ERROR, 10)
        assert ended.verdict is not None
        delay = ended.verdict.delay
        assert delay > 0
        assert (await scene.job(ref.job)).run_after == NOW + 10 + delay
        younger = [await scene.submit(11) for _ in range(2)]
        assert [one.ref.job for one in await scene.claim(1, 10 + delay - 0.1)] == [younger[0]]
        assert [one.ref for one in await scene.claim(5, 10 + delay)] == [
            AttemptRef(ref.job, 2),
            AttemptRef(younger[1], 1),
        ]

    async def test_a_job_past_its_queue_ttl_is_not_given(self, database: Database) -> None:
        scene = await Scene.on(database)
        await scene.submit(queue_ttl=10.0)
        fresh = await scene.submit(queue_ttl=100.0)
        assert [one.ref.job for one in await scene.claim(5, 10)] == [fresh]

    # -- cancel --------------------------------------------------------------------------------
    async def test_cancelling_a_waiting_job_ends_it(self, database: Database) -> None:
        scene = await Scene.on(database)
        job = await scene.submit()
        result = await database.write(lambda store: store.cancel(job, NOW + 1))
        assert (result.id, result.state, result.ref, result.worker_id) == (
            job,
            JobState.CANCELLED,
            AttemptRef(job, 0),
            None,
        )
        shown = await scene.job(job)
        assert (shown.state, shown.reason, shown.ended_at) == (JobState.CANCELLED, Reason.CANCELLED, NOW + 1)
        assert await scene.claim(5) == []

    async def test_cancelling_a_held_job_asks_its_worker(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        result = await database.write(lambda store: store.cancel(ref.job, NOW))
        assert (result.state, result.ref, result.worker_id) == (JobState.ASSIGNED, ref, WORKER)
        job = await scene.job(ref.job)
        assert (job.state, job.cancel_requested) == (JobState.ASSIGNED, True)

    async def test_cancelling_an_ended_job_leaves_it_as_it_is(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.OK, 1)
        before = await scene.job(ref.job)
        result = await database.write(lambda store: store.cancel(ref.job, NOW + 2))
        assert result.state is JobState.FINISHED
        assert await scene.job(ref.job) == before

    async def test_cancelling_an_unknown_job_is_an_error(self, database: Database) -> None:
        with pytest.raises(NotFound, match="no-such-job"):
            await database.write(lambda store: store.cancel(JobId("no-such-job"), NOW))

    # -- expire --------------------------------------------------------------------------------
    async def test_a_job_that_waited_too_long_fails(self, database: Database) -> None:
        scene = await Scene.on(database)
        short = await scene.submit(queue_ttl=10.0)
        long = await scene.submit(queue_ttl=100.0)
        forever = await scene.submit()
        assert await database.write(lambda store: store.expire_queued(NOW + 9.9)) == []
        assert await database.write(lambda store: store.expire_queued(NOW + 10)) == [Expired(short, scene.image.id)]
        assert await database.write(lambda store: store.expire_queued(NOW + 10)) == []
        job = await scene.job(short)
        assert (job.state, job.reason, job.ended_at) == (JobState.FAILED, Reason.QUEUE_TTL, NOW + 10)
        assert job.failure is not None
        assert "10 s" in job.failure.message
        assert [(await scene.job(one)).state for one in (long, forever)] == [JobState.IN_QUEUE] * 2

    async def test_expiring_goes_in_steps_of_the_limit(self, database: Database) -> None:
        scene = await Scene.on(database)
        ids = [await scene.submit(queue_ttl=float(n)) for n in range(1, 6)]
        assert await database.write(lambda store: store.expire_queued(NOW + 50, limit=3)) == [
            Expired(job, scene.image.id) for job in ids[:3]
        ]
        assert await database.write(lambda store: store.expire_queued(NOW + 50, limit=3)) == [
            Expired(job, scene.image.id) for job in ids[3:]
        ]

    async def test_a_held_job_does_not_expire_and_a_started_one_counts_anew_when_it_waits_again(
        self, database: Database
    ) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(queue_ttl=10.0)
        assert await database.write(lambda store: store.expire_queued(NOW + 50)) == []
        await scene.start(ref, 5)
        await scene.end(ref, Reason.WORKER_LOST, 60, by=None)
        assert await database.write(lambda store: store.expire_queued(NOW + 69)) == []
        assert await database.write(lambda store: store.expire_queued(NOW + 70)) == [Expired(ref.job, scene.image.id)]

    async def test_a_job_handed_back_unstarted_has_been_waiting_all_the_time(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(queue_ttl=10.0)
        await scene.end(ref, Reason.RELEASED, 9)
        assert await database.write(lambda store: store.expire_queued(NOW + 10)) == [Expired(ref.job, scene.image.id)]
