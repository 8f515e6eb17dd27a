"""What the store promises about starting and ending attempts: one accepted end. Part of the store's contract."""

from __future__ import annotations

import pytest

from hecaton.core.lifecycle import EXCUSED_LIMIT, INFRA_LIMIT, Event
from hecaton.core.model import AttemptRef, Body, Charged, Failure, JobState, Kind, Reason, WorkerId
from hecaton.store.port import AttemptEnd, Database
from tests.contracts.store_scene import NOW, OTHER, WORKER, Scene, new_id

RESULT = Body.inline(Kind.JSON, b'{"y":2}')


class AttemptContract:
    # -- start ---------------------------------------------------------------------------------
    async def test_an_assigned_job_starts(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.start(ref, 3)
        job = await scene.job(ref.job)
        assert (job.state, job.started_at) == (JobState.IN_PROGRESS, NOW + 3)

    async def test_what_a_start_says_of_its_image_stays_with_the_attempt(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()

        async def versions() -> list[str | None]:
            return [one.image_version for one in await database.read(lambda store: store.attempts(ref.job))]

        await database.write(lambda store: store.start([ref], NOW + 1, "an id"))
        assert await versions() == ["an id"]
        await scene.end(ref, Reason.WORKER_LOST, 2, by=None)
        await database.write(lambda store: store.return_leases(WORKER, {ref: 0}))
        assert await versions() == ["an id"]
        await scene.end(ref, Reason.WORKER_LOST, 3, by=None)
        [second] = await scene.claim(at=1000)
        assert await versions() == ["an id", None]
        await scene.start(second.ref, 1001)
        await scene.end(second.ref, Reason.OK, 1002, body=RESULT, image_version="another")
        assert await versions() == ["an id", "another"]

    async def test_the_last_attempt_keeps_what_its_start_said_of_its_image(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await database.write(lambda store: store.start([ref], NOW + 1, "an id"))
        await scene.end(ref, Reason.TIMEOUT, 2)
        [attempt] = await database.read(lambda store: store.attempts(ref.job))
        assert attempt.image_version == "an id"

    async def test_a_start_that_does_not_fit_changes_nothing(self, database: Database) -> None:
        scene = await Scene.on(database)
        waiting = await scene.submit(priority=-1)
        ref = await scene.submit_and_claim()
        await scene.start(ref, 3)
        misfits = [ref, AttemptRef(ref.job, 2), AttemptRef(waiting, 0), AttemptRef(new_id(), 1)]
        await database.write(lambda store: store.start(misfits, NOW + 9))
        assert (await scene.job(ref.job)).started_at == NOW + 3
        assert (await scene.job(waiting)).state is JobState.IN_QUEUE

    async def test_the_start_of_an_older_attempt_is_not_that_of_the_current_one(self, database: Database) -> None:
        scene = await Scene.on(database)
        old = await scene.submit_and_claim()
        await scene.end(old, Reason.RELEASED, 1)
        [new] = await scene.claim(at=2)
        await scene.start(old, 3)
        assert ((await scene.job(old.job)).state, new.ref.attempt) == (JobState.ASSIGNED, 2)

    # -- a good end ----------------------------------------------------------------------------
    async def test_a_result_finishes_the_job(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.start(ref, 1)
        ended = await scene.end(ref, Reason.OK, 4, body=RESULT, exit_code=0)
        assert (ended.ref, ended.accepted, ended.repeated, ended.state, ended.lane) == (
            ref,
            True,
            False,
            JobState.FINISHED,
            None,
        )
        assert ended.verdict is not None
        assert ended.verdict.event is Event.FINISH
        job = await scene.job(ref.job)
        assert (job.state, job.reason, job.ended_at, job.exit_code) == (JobState.FINISHED, Reason.OK, NOW + 4, 0)
        assert (job.result_kind, job.result_size, job.result_blob) == (Kind.JSON, len(RESULT.data), None)
        assert await database.read(lambda store: store.result(ref.job)) == RESULT

    async def test_the_news_of_the_start_may_come_with_the_result(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        ended = await scene.end(ref, Reason.OK, 4, body=RESULT, started_at=NOW + 2)
        assert ended.accepted
        assert (await scene.job(ref.job)).started_at == NOW + 2

    async def test_a_result_can_be_a_blob_or_empty(self, database: Database) -> None:
        scene = await Scene.on(database)
        for body in (Body(Kind.BYTES, b"", "b" * 64, 9_000_000), Body.inline(Kind.BYTES, b"")):
            ref = await scene.submit_and_claim()
            await scene.end(ref, Reason.OK, body=body)
            assert await database.read(lambda store, job=ref.job: store.result(job)) == body  # type: ignore[misc]

    # -- refused ends --------------------------------------------------------------------------
    async def test_a_repeated_end_is_recognised_and_changes_nothing(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.OK, 4, body=RESULT)
        before = await scene.job(ref.job)
        again = await scene.end(ref, Reason.OK, 5, body=Body.inline(Kind.JSON, b"0"))
        assert (again.accepted, again.repeated, again.state) == (False, True, JobState.FINISHED)
        assert await scene.job(ref.job) == before
        assert await database.read(lambda store: store.result(ref.job)) == RESULT

    async def test_another_end_of_an_ended_attempt_is_fenced(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.OK, body=RESULT)
        late = await scene.end(ref, Reason.HANDLER_ERROR, 5)
        assert (late.accepted, late.repeated, late.state) == (False, False, JobState.FINISHED)

    async def test_an_end_by_a_worker_that_does_not_hold_the_attempt_is_fenced(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        ended = await scene.end(ref, Reason.OK, by=OTHER, body=RESULT)
        assert (ended.accepted, ended.repeated, ended.state) == (False, False, JobState.ASSIGNED)
        await scene.end(ref, Reason.OK, body=RESULT)
        again = await scene.end(ref, Reason.OK, by=OTHER, body=RESULT)
        assert (again.accepted, again.repeated) == (False, False)

    async def test_an_end_of_nothing_is_fenced(self, database: Database) -> None:
        scene = await Scene.on(database)
        waiting = await scene.submit()
        unknown = await scene.end(AttemptRef(new_id(), 1), Reason.OK)
        assert (unknown.accepted, unknown.repeated, unknown.state) == (False, False, None)
        for attempt in (0, 1):
            never = await scene.end(AttemptRef(waiting, attempt), Reason.OK, by=None)
            assert (never.accepted, never.repeated, never.state) == (False, False, JobState.IN_QUEUE)

    async def test_a_late_result_of_a_lost_worker_is_fenced(self, database: Database) -> None:
        scene = await Scene.on(database)
        old = await scene.submit_and_claim()
        await scene.end(old, Reason.WORKER_LOST, 60, by=None)
        late = await scene.end(old, Reason.OK, 61, body=RESULT)
        assert (late.accepted, late.repeated, late.state) == (False, False, JobState.IN_QUEUE)
        [new] = await scene.claim(at=62, worker=OTHER)
        assert new.ref == AttemptRef(old.job, 2)
        late = await scene.end(old, Reason.OK, 63, body=RESULT)
        assert (late.accepted, late.repeated, late.state) == (False, False, JobState.ASSIGNED)
        assert (await scene.end(new.ref, Reason.OK, 64, by=OTHER, body=RESULT)).accepted

    @pytest.mark.parametrize("by", [WORKER, None])
    async def test_an_old_attempt_is_fenced_even_where_its_worker_holds_the_next_one(
        self, database: Database, by: WorkerId | None
    ) -> None:
        scene = await Scene.on(database)
        old = await scene.submit_and_claim()
        await scene.end(old, Reason.RELEASED)
        [new] = await scene.claim()
        await scene.start(old, 5)
        assert (await scene.job(old.job)).state is JobState.ASSIGNED
        late = await scene.end(old, Reason.OK, 6, by=by, body=RESULT)
        assert (late.accepted, late.repeated, late.state) == (False, False, JobState.ASSIGNED)
        assert await database.read(lambda store: store.result(old.job)) is None
        assert (await scene.end(new.ref, Reason.OK, 7, body=RESULT)).accepted

    async def test_several_ends_of_one_attempt_in_one_call_count_once(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        end = AttemptEnd(ref, WORKER, Reason.OK, NOW, body=RESULT)
        first, second = await database.write(lambda store: store.end([end, end]))
        assert (first.accepted, first.repeated) == (True, False)
        assert (second.accepted, second.repeated) == (False, True)

    # -- requeue -------------------------------------------------------------------------------
    async def test_a_failed_attempt_is_kept_and_the_job_waits_again(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=1)
        await scene.start(ref, 1)
        failure = Failure("boom", type="ValueError", traceback="line 1")
        ended = await scene.end(ref, Reason.HANDLER_ERROR, 2, failure=failure, exit_code=1)
        assert (ended.accepted, ended.state, ended.lane) == (True, JobState.IN_QUEUE, scene.lane.key())
        job = await scene.job(ref.job)
        assert (job.state, job.attempt, job.user_failures) == (JobState.IN_QUEUE, 1, 1)
        assert (job.worker_id, job.slot, job.assigned_at, job.started_at) == (None, None, None, None)
        [attempt] = await database.read(lambda store: store.attempts(ref.job))
        assert (attempt.number, attempt.worker, attempt.assigned_at) == (1, "gpu-1", NOW)
        assert (attempt.started_at, attempt.ended_at, attempt.exit_code) == (NOW + 1, NOW + 2, 1)
        assert (attempt.reason, attempt.charged, attempt.failure) == (Reason.HANDLER_ERROR, Charged.USER, failure)

    async def test_a_repeated_end_is_recognised_after_a_requeue_too(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=1)
        await scene.end(ref, Reason.HANDLER_ERROR, 2)
        assert (await scene.end(ref, Reason.HANDLER_ERROR, 3)).repeated
        assert not (await scene.end(ref, Reason.HANDLER_ERROR, 3, by=OTHER)).repeated
        await scene.claim(at=100, worker=OTHER)
        assert (await scene.end(ref, Reason.HANDLER_ERROR, 101)).repeated
        assert (await scene.job(ref.job)).attempt == 2

    async def test_retries_are_used_up_by_the_users_failures_only(self, database: Database) -> None:
        scene = await Scene.on(database)
        await scene.submit(retries=1)
        story = [
            (Reason.RELEASED, JobState.IN_QUEUE),
            (Reason.WORKER_LOST, JobState.IN_QUEUE),
            (Reason.HANDLER_ERROR, JobState.IN_QUEUE),
            (Reason.RELEASED, JobState.IN_QUEUE),
            (Reason.HANDLER_ERROR, JobState.FAILED),
        ]
        for number, (reason, state) in enumerate(story, start=1):
            [claimed] = await scene.claim(at=1000.0 * number)
            assert claimed.ref.attempt == number
            assert (await scene.end(claimed.ref, reason, 1000.0 * number)).state is state
        job = await scene.job(claimed.ref.job)
        assert (job.reason, job.user_failures, job.infra_failures) == (Reason.HANDLER_ERROR, 2, 1)
        attempts = await database.read(lambda store: store.attempts(claimed.ref.job))
        assert [(one.number, one.reason) for one in attempts] == [
            (number, reason) for number, (reason, _) in enumerate(story, start=1)
        ]

    async def test_a_job_that_loses_its_workers_is_stopped_as_poison(self, database: Database) -> None:
        scene = await Scene.on(database)
        await scene.submit()
        for number in range(1, INFRA_LIMIT + 1):
            [claimed] = await scene.claim(at=1000.0 * number)
            ended = await scene.end(claimed.ref, Reason.WORKER_LOST, 1000.0 * number, by=None)
        assert ended.state is JobState.FAILED
        assert (await scene.job(claimed.ref.job)).reason is Reason.POISON
        attempts = await database.read(lambda store: store.attempts(claimed.ref.job))
        assert [(one.reason, one.charged) for one in attempts] == [(Reason.WORKER_LOST, Charged.INFRA)] * INFRA_LIMIT
        assert (await scene.end(claimed.ref, Reason.WORKER_LOST, 9000, by=None)).repeated

    # -- a loss that was none ------------------------------------------------------------------
    @pytest.mark.parametrize("reason", [Reason.WORKER_LOST, Reason.RELEASED])
    @pytest.mark.parametrize("started", [True, False])
    async def test_a_worker_that_was_given_up_goes_on_with_the_same_attempt(
        self, database: Database, reason: Reason, started: bool
    ) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        if started:
            await scene.start(ref, 1)
        before = await scene.job(ref.job)
        await scene.end(ref, reason, 60, by=None)
        [resumed] = await database.write(lambda store: store.return_leases(WORKER, {ref: 0}))
        assert (resumed.ref, resumed.lane, resumed.started) == (ref, scene.lane.key(), started)
        assert resumed.charged is (Charged.INFRA if reason is Reason.WORKER_LOST else Charged.NONE)
        assert await scene.job(ref.job) == before
        assert await scene.claim(at=61, worker=OTHER) == []
        assert (await scene.end(ref, Reason.OK, 62, body=RESULT)).accepted
        [attempt] = await database.read(lambda store: store.attempts(ref.job))
        assert (attempt.number, attempt.reason, attempt.charged) == (1, Reason.OK, Charged.NONE)
        assert (await scene.job(ref.job)).infra_failures == 0

    async def test_what_another_worker_was_given_meanwhile_does_not_go_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.WORKER_LOST, 60, by=None)
        [new] = await scene.claim(at=61, worker=OTHER)
        assert await database.write(lambda store: store.return_leases(WORKER, {ref: 0})) == []
        assert (await scene.job(ref.job)).worker_id == OTHER
        assert (await scene.end(new.ref, Reason.OK, 62, by=OTHER, body=RESULT)).accepted

    async def test_only_the_current_attempt_can_go_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        old = await scene.submit_and_claim()
        await scene.end(old, Reason.WORKER_LOST, 60, by=None)
        [new] = await scene.claim(at=61)
        assert await database.write(lambda store: store.return_leases(WORKER, {old: 0})) == [], "it holds the next one"
        await scene.end(new.ref, Reason.WORKER_LOST, 120, by=None)
        before = await scene.job(old.job)
        assert await database.write(lambda store: store.return_leases(WORKER, {old: 0})) == [], "both are lost"
        assert await scene.job(old.job) == before
        assert len(await database.write(lambda store: store.return_leases(WORKER, {old: 0, new.ref: 0}))) == 1

    async def test_only_the_worker_that_had_it_can_go_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.WORKER_LOST, 60, by=None)
        strangers = {AttemptRef(ref.job, 2): 0, AttemptRef(ref.job, 0): 0, AttemptRef(new_id(), 1): 0}
        assert await database.write(lambda store: store.return_leases(OTHER, {ref: 0})) == []
        assert await database.write(lambda store: store.return_leases(WORKER, strangers)) == []
        assert (await scene.job(ref.job)).state is JobState.IN_QUEUE

    async def test_what_ended_by_itself_does_not_go_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        for reason in (Reason.HANDLER_ERROR, Reason.OK, Reason.WORKER_ERROR, Reason.CANCELLED):
            ref = await scene.submit_and_claim(retries=1)
            await scene.end(ref, reason, 2)
            before = await scene.job(ref.job)
            resumed = await database.write(lambda store, ref=ref: store.return_leases(WORKER, {ref: 0}))  # type: ignore[misc]
            assert resumed == []
            assert await scene.job(ref.job) == before
            if not before.state.terminal:
                await database.write(lambda store, job=ref.job: store.cancel(job, NOW))  # type: ignore[misc]

    async def test_a_job_cancelled_or_given_up_for_good_does_not_go_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await scene.end(ref, Reason.WORKER_LOST, 60, by=None)
        await database.write(lambda store: store.cancel(ref.job, NOW + 61))
        assert await database.write(lambda store: store.return_leases(WORKER, {ref: 0})) == []
        assert (await scene.job(ref.job)).state is JobState.CANCELLED

    async def test_what_a_worker_still_holds_is_said_again(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        for started in (False, True):
            before = await scene.job(ref.job)
            [resumed] = await database.write(lambda store: store.return_leases(WORKER, {ref: 0}))
            assert (resumed.started, resumed.charged) == (started, Charged.NONE)
            assert await database.write(lambda store: store.return_leases(OTHER, {ref: 0})) == []
            assert await scene.job(ref.job) == before
            await scene.start(ref, 1)

    async def test_a_no_overlap_job_that_was_given_up_does_not_go_on(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(no_overlap=True)
        assert len(await database.write(lambda store: store.return_leases(WORKER, {ref: 0}))) == 1
        await scene.end(ref, Reason.WORKER_LOST, 60, by=None)
        assert await database.write(lambda store: store.return_leases(WORKER, {ref: 0})) == []

    @pytest.mark.parametrize("no_overlap", [True, False])
    async def test_a_no_overlap_job_waits_until_its_container_must_be_gone(
        self, database: Database, no_overlap: bool
    ) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(no_overlap=no_overlap)
        ended = await scene.end(ref, Reason.RELEASED, 10, by=None, unseen=60.0)
        assert ended.verdict is not None
        assert ended.verdict.delay == (60.0 if no_overlap else 0.0)
        assert len(await scene.claim(at=69, worker=OTHER)) == (0 if no_overlap else 1)
        assert len(await scene.claim(at=70, worker=OTHER)) == (1 if no_overlap else 0)

    # -- cancel --------------------------------------------------------------------------------
    @pytest.mark.parametrize(
        "reason", [Reason.CANCELLED, Reason.RELEASED, Reason.HANDLER_ERROR, Reason.WORKER_LOST, Reason.TIMEOUT]
    )
    async def test_a_cancelled_job_never_waits_again(self, database: Database, reason: Reason) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=5)
        await database.write(lambda store: store.cancel(ref.job, NOW))
        ended = await scene.end(ref, reason, 1)
        assert (ended.accepted, ended.state) == (True, JobState.CANCELLED)
        job = await scene.job(ref.job)
        assert (job.state, job.reason) == (JobState.CANCELLED, Reason.CANCELLED)
        [attempt] = await database.read(lambda store: store.attempts(ref.job))
        assert attempt.reason is reason
        assert (await scene.end(ref, reason, 2)).repeated

    async def test_a_result_that_was_there_before_the_cancel_counts(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        await database.write(lambda store: store.cancel(ref.job, NOW))
        assert (await scene.end(ref, Reason.OK, 1, body=RESULT)).state is JobState.FINISHED
        assert await database.read(lambda store: store.result(ref.job)) == RESULT

    async def test_a_job_cancelled_between_two_attempts_keeps_its_history(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim(retries=1)
        await scene.end(ref, Reason.HANDLER_ERROR, 1)
        await database.write(lambda store: store.cancel(ref.job, NOW + 2))
        attempts = await database.read(lambda store: store.attempts(ref.job))
        assert [(one.number, one.reason) for one in attempts] == [(1, Reason.HANDLER_ERROR)]
        assert (await scene.job(ref.job)).reason is Reason.CANCELLED

    async def test_the_current_attempt_is_listed_while_it_runs(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        [attempt] = await database.read(lambda store: store.attempts(ref.job))
        assert (attempt.number, attempt.worker, attempt.ended_at, attempt.reason) == (1, "gpu-1", None, None)

    async def test_excused_losses_are_charged_to_nobody_but_end_at_last(self, database: Database) -> None:
        scene = await Scene.on(database)
        ref = await scene.submit_and_claim()
        ended = []
        for _ in range(EXCUSED_LIMIT + INFRA_LIMIT):
            end = await scene.end(ref, Reason.WORKER_LOST, by=None, excused=True)
            assert end.verdict is not None
            ended.append(end.verdict.charged)
            if end.state is JobState.FAILED:
                break
            [claimed] = await scene.claim()
            ref = claimed.ref
        assert ended == [Charged.NONE] * (EXCUSED_LIMIT - 1) + [Charged.INFRA] * INFRA_LIMIT
        assert (await scene.job(ref.job)).reason is Reason.POISON
