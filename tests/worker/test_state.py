"""The worker's brain, told as stories. `Brain` checks the invariants after every event."""

from __future__ import annotations

import msgspec
import pytest

from hecaton.core.model import Body, Failure, Gpu, Kind, Reason
from hecaton.core.options import Options
from hecaton.wire.channel import Draining, Held, Note, Outcome, Released, SlotInfo, Started, Warm
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.brain.slots import Done
from hecaton.worker.runtimes.port import Exit
from tests.worker.brain import NOW, SETTINGS, Brain, assignment, ref


@pytest.fixture
def brain() -> Brain:
    return Brain()


A, B, C = ref("a"), ref("b"), ref("c")


class TestRunning:
    def test_a_job_gets_a_container_is_given_to_it_when_it_asks_and_its_result_is_delivered(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        assert brain.started() == ["c-1"]
        assert brain.given() == []
        brain.boot("c-1")
        assert brain.given() == [("c-1", A)]
        assert brain.said(Started) == [Started((A,))]
        brain.now += 2
        brain.answer("c-1", A)
        assert brain.results() == [(A, Reason.OK)]
        assert brain.did(ev.Deliver)[0].outcome.ran == 2
        brain.accept(A)
        assert brain.did(ev.Acknowledge) == [ev.Acknowledge("c-1", A)]
        assert brain.did(ev.Forget) == [ev.Forget(A)]

    def test_the_next_job_of_the_same_key_goes_out_before_the_result_is_delivered(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.answer("c-1", A)
        kinds = [type(action) for action in brain.last]
        assert brain.given() == [("c-1", B)]
        assert kinds.index(ev.GiveJob) < kinds.index(ev.Deliver)

    def test_a_container_with_another_key_is_gone_before_the_new_one_starts(self, brain: Brain) -> None:
        brain.running(assignment("a", warm_key="w1"), assignment("b", warm_key="w2"))
        brain.answer("c-1", A)
        assert brain.stopped() == ["c-1"]
        assert brain.started() == []
        brain.gone("c-1")
        assert brain.started() == ["c-2"]
        brain.boot("c-2")
        assert brain.given() == [("c-2", B)]

    def test_a_script_gets_a_fresh_container_each_time(self, brain: Brain) -> None:
        brain.running(assignment("a", warm_key=None), assignment("b", warm_key=None))
        brain.answer("c-1", A)
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.started() == ["c-2"]

    def test_each_slot_has_a_container_of_its_own(self) -> None:
        brain = Brain(gpus=(Gpu("GPU-1", "H", 1), Gpu("GPU-2", "H", 1)))
        brain.connect()
        brain.assign(assignment("a", slot=0), assignment("b", slot=1))
        assert brain.started() == ["c-1", "c-2"]

    def test_a_payload_that_is_a_blob_is_fetched_while_the_container_starts(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", blob=True))
        assert brain.did(ev.Fetch)
        assert brain.started() == ["c-1"]
        brain.boot("c-1")
        assert brain.given() == []
        brain.hear(ev.Fetched(brain.now, A))
        assert brain.given() == [("c-1", A)]

    def test_a_payload_that_cannot_be_fetched_is_the_workers_fault(self, brain: Brain) -> None:
        brain.running(assignment("a", blob=True), assignment("b"))
        brain.hear(ev.FetchFailed(brain.now, A, "disk full"))
        assert brain.results() == [(A, Reason.WORKER_ERROR)]
        assert brain.given() == [("c-1", B)]

    def test_a_job_for_a_slot_that_is_not_there_is_handed_back(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", slot=7))
        assert brain.said(Released) == [Released((A,))]

    def test_a_warm_container_without_work_is_stopped_after_the_idle_time_and_not_before(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.wait(SETTINGS.idle_timeout - 1)
        assert brain.stopped() == []
        brain.wait(1)
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.said(Warm) == [Warm(0, None, None)]

    def test_a_job_that_comes_while_its_warm_container_is_being_stopped_gets_a_new_one(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.wait(SETTINGS.idle_timeout)
        brain.assign(assignment("b"))
        assert brain.given() == []
        brain.gone("c-1")
        assert brain.started() == ["c-2"]

    def test_the_server_hears_what_is_warm(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        assert Warm(0, "w1", "python:3.9-slim") in [m.message for m in brain.ever(ev.Report)]
        assert brain.state.holdings.slot_infos() == (SlotInfo(0, None, "w1", "python:3.9-slim"),)

    def test_progress_of_a_pull_is_told_for_the_job_that_waits(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.hear(ev.ContainerNote(brain.now, "c-1", "pulling python:3.9-slim: 40 %"))
        assert brain.said(Note) == [Note(A, "pulling python:3.9-slim: 40 %")]


class TestEndsOfContainers:
    @pytest.mark.parametrize("code", [137, -9])
    def test_a_kill_that_the_engine_knows_no_reason_of_names_memory(self, brain: Brain, code: int) -> None:
        brain.running(assignment("a"))
        brain.exit("c-1", code)
        [delivered] = brain.did(ev.Deliver)
        assert delivered.outcome.failure is not None
        assert "(SIGKILL: killed, most likely for memory)" in delivered.outcome.failure.message

    @pytest.mark.parametrize(
        ("code", "oom", "error", "reason"),
        [
            (0, False, "", Reason.NO_RESULT),
            (0, False, "the engine was restarted", Reason.WORKER_ERROR),
            (1, False, "", Reason.HANDLER_EXIT),
            (137, True, "", Reason.OOM_HOST),
            (-11, False, "", Reason.HANDLER_EXIT),
        ],
    )
    def test_a_container_that_ends_under_a_job_ends_it_with_the_right_reason(
        self, brain: Brain, code: int, oom: bool, error: str, reason: Reason
    ) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.exit("c-1", code, oom=oom, error=error, output="boom")
        assert brain.results() == [(A, reason)]
        assert brain.did(ev.Deliver)[0].outcome.exit_code == code
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.started() == ["c-2"]

    def test_a_signal_is_named(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.exit("c-1", 139, output="last words")
        failure = brain.did(ev.Deliver)[0].outcome.failure
        assert failure is not None
        assert failure.message == (
            "the container ended with exit code 139 (SIGSEGV) during the job. Its last lines:\nlast words"
        )

    def test_a_container_that_never_asks_for_work_fails_its_job_at_once_with_its_output(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.hear(ev.ImageReady(brain.now, "c-1"))
        brain.hear(ev.ContainerStarted(brain.now, "c-1"))
        brain.exit("c-1", 0, output="hello world")
        assert brain.results() == [(A, Reason.STARTUP_EXIT)]
        deliver = brain.did(ev.Deliver)[0]
        assert deliver.output == "hello world"
        assert deliver.outcome.failure is not None
        assert "hello world" in deliver.outcome.failure.message
        assert "--script" in str(deliver.outcome.failure.hint)

    def test_a_container_that_is_killed_before_it_asks_for_work_may_be_tried_again(self, brain: Brain) -> None:
        """Its image did not do that, so it is no reason to give the job up."""
        brain.connect()
        brain.assign(assignment("a"))
        brain.hear(ev.ImageReady(brain.now, "c-1"))
        brain.hear(ev.ContainerStarted(brain.now, "c-1"))
        brain.exit("c-1", 137)
        assert brain.results() == [(A, Reason.HANDLER_EXIT)]

    def test_a_start_that_fails_fails_one_job_and_each_other_job_gets_a_start_of_its_own(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"), assignment("b"), assignment("c"))
        ended = []
        for number in (1, 2, 3):
            brain.exit(f"c-{number}", 3)
            ended += brain.results()
            brain.gone(f"c-{number}")
        assert ended == [(A, Reason.STARTUP_EXIT), (B, Reason.STARTUP_EXIT), (C, Reason.STARTUP_EXIT)]
        assert brain.started() == []
        assert len(brain.ever(ev.StartContainer)) == 3

    def test_an_image_that_cannot_be_had_fails_its_job_with_that_reason_and_leaves_the_slot_free(
        self, brain: Brain
    ) -> None:
        brain.connect()
        brain.assign(assignment("a"), assignment("b", warm_key="w2"))
        brain.hear(ev.ContainerFailed(brain.now, "c-1", Reason.IMAGE_DENIED, "no such image", "check the name"))
        assert brain.results() == [(A, Reason.IMAGE_DENIED)]
        assert brain.started() == ["c-2"]

    def test_a_container_that_runs_and_never_asks_for_work_is_given_up(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.hear(ev.ContainerStarted(brain.now, "c-1"))
        brain.hear(ev.ContainerUnready(brain.now, "c-1", "leave its ENTRYPOINT out"))
        brain.wait(SETTINGS.startup_timeout)
        assert brain.results() == [(A, Reason.STARTUP_EXIT)]
        failure = brain.did(ev.Deliver)[0].outcome.failure
        assert failure is not None
        assert failure.hint == "leave its ENTRYPOINT out"
        assert brain.stopped() == ["c-1"]

    def test_a_job_may_allow_its_container_more_or_less_time_than_the_worker_does(self, brain: Brain) -> None:
        brain.connect()
        job = assignment("a")
        brain.assign(msgspec.structs.replace(job, options=Options(startup_timeout=2 * SETTINGS.startup_timeout)))
        brain.hear(ev.ContainerStarted(brain.now, "c-1"))
        brain.hear(ev.ContainerSaid(brain.now, "c-1", "layer 7 of 9"))
        brain.wait(2 * SETTINGS.startup_timeout - 1)
        assert brain.ever(ev.Deliver) == []
        brain.wait(1)
        failure = brain.did(ev.Deliver)[0].outcome.failure
        assert failure is not None
        assert "ran for 1200 s (--startup-timeout) without asking for work" in failure.message
        assert "layer 7 of 9" in failure.message

    @pytest.mark.parametrize(
        ("output", "hint"),
        [
            ("s6-overlay-suexec: fatal: can only run as pid 1", "wants to be process 1"),
            ("listening on port 1, pid 17", "must call hecaton.serverless.start"),
        ],
    )
    def test_an_entrypoint_that_has_to_be_process_1_is_told_apart(self, brain: Brain, output: str, hint: str) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.hear(ev.ContainerStarted(brain.now, "c-1"))
        brain.exit("c-1", 100, output=output)
        failure = brain.did(ev.Deliver)[0].outcome.failure
        assert failure is not None
        assert hint in str(failure.hint)

    def test_an_idle_container_that_ends_harms_nobody(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.exit("c-1", 1)
        assert brain.results() == []
        brain.assign(assignment("b"))
        brain.gone("c-1")
        assert brain.started() == ["c-2"]

    def test_a_container_that_reconnects_without_the_job_gets_it_again(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.hear(ev.ContainerReady(brain.now, "c-1", busy=(A,)))
        assert brain.given() == []
        brain.hear(ev.ContainerReady(brain.now, "c-1", busy=()))
        assert brain.given() == [("c-1", A)]

    def test_a_repeated_result_is_acknowledged_again_and_counts_once(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.answer("c-1", A)
        assert brain.results() == []
        assert brain.did(ev.Acknowledge) == []  # not safe yet
        brain.hear(ev.ResultsSafe(brain.now, (A,)))
        assert brain.did(ev.Acknowledge) == [ev.Acknowledge("c-1", A)]
        brain.accept(A)
        assert brain.did(ev.Acknowledge) == []
        brain.answer("c-1", A)
        assert brain.did(ev.Acknowledge) == [ev.Acknowledge("c-1", A)]

    def test_a_result_for_a_job_that_the_container_was_not_given_is_no_result(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.answer("c-1", B)
        assert brain.results() == []
        assert brain.state.holdings.has(B)


class TestMisbehaviour:
    WHY = Failure("it does not read")

    def misbehaves(self, brain: Brain) -> None:
        brain.hear(ev.ContainerMisbehaved(brain.now, "c-1", Reason.HANDLER_ERROR, self.WHY))

    def test_the_job_that_runs_fails_when_its_container_is_gone_and_the_next_gets_a_new_one(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        self.misbehaves(brain)
        assert (brain.stopped(), brain.results()) == (["c-1"], [])
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.HANDLER_ERROR)]
        assert brain.started() == ["c-2"]

    def test_a_start_is_its_first_job_s(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"), assignment("b"))
        self.misbehaves(brain)
        assert brain.results() == [(A, Reason.HANDLER_ERROR)]
        assert brain.stopped() == ["c-1"]

    def test_nobody_pays_for_one_without_a_job(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        self.misbehaves(brain)
        assert (brain.stopped(), brain.results()) == (["c-1"], [])
        self.misbehaves(brain)
        assert brain.stopped() == []


class TestTimeout:
    def test_a_job_is_stopped_after_its_timeout_and_ends_when_its_container_is_gone(self, brain: Brain) -> None:
        brain.running(assignment("a", timeout=10), assignment("b"))
        brain.wait(9.9)
        assert brain.stopped() == []
        brain.wait(0.1)
        assert brain.stopped() == ["c-1"]
        assert brain.results() == []
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.TIMEOUT)]
        assert brain.started() == ["c-2"]

    def test_on_a_full_disk_it_is_handed_back_instead(self, brain: Brain) -> None:
        brain.running(assignment("a", timeout=10))
        brain.hear(ev.DiskFull(brain.now, True))
        brain.wait(10)
        brain.gone("c-1")
        assert brain.results() == []
        assert brain.said(Released) == [Released((A,))]

    def test_a_result_after_the_timeout_is_too_late(self, brain: Brain) -> None:
        brain.running(assignment("a", timeout=10))
        brain.wait(10)
        brain.answer("c-1", A)
        assert brain.results() == []
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.TIMEOUT)]

    def test_the_time_that_an_image_takes_to_pull_does_not_count(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", timeout=10))
        brain.wait(100)
        assert brain.stopped() == []


class TestCancel:
    def test_a_running_job_is_cancelled_when_its_container_is_gone(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.cancel(A)
        assert brain.stopped() == ["c-1"]
        assert brain.results() == []
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.CANCELLED)]

    def test_a_waiting_job_is_cancelled_at_once_and_the_running_one_goes_on(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.cancel(B)
        assert brain.results() == [(B, Reason.CANCELLED)]
        assert brain.stopped() == []

    def test_cancel_during_a_pull_stops_the_pull(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.cancel(A)
        assert brain.results() == [(A, Reason.CANCELLED)]
        assert brain.stopped() == ["c-1"]

    def test_cancel_of_the_first_leaves_the_start_to_the_second(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"), assignment("b"))
        brain.cancel(A)
        assert brain.stopped() == []
        brain.boot("c-1")
        assert brain.given() == [("c-1", B)]

    def test_a_script_that_is_being_started_is_cancelled_when_its_container_is_gone(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", warm_key=None))
        brain.hear(ev.ImageReady(brain.now, "c-1"))
        brain.cancel(A)
        assert brain.results() == []
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.CANCELLED)]

    def test_cancel_of_an_unknown_job_is_answered(self, brain: Brain) -> None:
        brain.connect()
        brain.cancel(A)
        assert brain.said(Released) == [Released((A,))]

    def test_cancel_of_a_finished_job_repeats_its_result(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.cancel(A)
        assert brain.results() == [(A, Reason.OK)]


class TestRevoke:
    def test_a_waiting_job_is_released_a_running_one_is_said_to_run_an_unknown_one_is_released(
        self, brain: Brain
    ) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.revoke(A, B, C)
        assert brain.said(Released) == [Released((B, C))]
        assert brain.said(Started) == [Started((A,))]

    def test_a_job_whose_container_still_starts_is_released_and_the_start_is_stopped(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a"))
        brain.revoke(A)
        assert brain.said(Released) == [Released((A,))]
        assert brain.stopped() == ["c-1"]

    def test_a_script_that_may_run_already_is_not_released(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", warm_key=None))
        brain.hear(ev.ImageReady(brain.now, "c-1"))
        brain.revoke(A)
        assert brain.said(Released) == []
        assert brain.state.holdings.has(A)


class TestAssignedTwice:
    def test_a_job_that_is_held_is_not_run_twice(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.assign(assignment("a"))
        assert brain.last == []

    def test_a_job_that_is_done_has_its_result_repeated(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.now += 3
        brain.assign(assignment("a"))
        assert brain.results() == [(A, Reason.OK)]
        assert brain.did(ev.Deliver)[0].outcome.age == 3
        assert brain.given() == []

    def test_a_newer_attempt_fences_the_older_one(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.assign(assignment("b", attempt=2))
        assert not brain.state.holdings.has(B)
        assert brain.state.holdings.has(ref("b", 2))

    def test_an_older_attempt_that_comes_late_is_ignored(self, brain: Brain) -> None:
        brain.running(assignment("a", attempt=2))
        brain.assign(assignment("a", attempt=1))
        assert brain.last == []


class TestReconnect:
    def test_hello_lists_all_that_is_held(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"), assignment("c"))
        brain.now += 1
        brain.answer("c-1", A)
        brain.disconnect()
        brain.now += 4
        held = {item.ref: item for item in brain.state.holdings.held(brain.now)}
        assert held[A] == Held(A, 0, "done", 1)
        assert held[B] == Held(B, 0, "running", 4)
        assert held[C] == Held(C, 0, "queued")

    def test_without_a_connection_work_goes_on_and_results_are_sent_again_on_the_next(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.disconnect()
        brain.answer("c-1", A)
        assert brain.given() == [("c-1", B)]
        assert brain.messages() == []
        brain.now += 60
        brain.connect()
        assert brain.results() == [(A, Reason.OK)]
        assert brain.did(ev.Deliver)[0].outcome.age == 60
        assert brain.said(Started) == [Started((B,))]

    def test_what_was_fenced_is_stopped_and_forgotten(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"), assignment("c"))
        brain.answer("c-1", A)
        brain.disconnect()
        brain.connect(drop=(A, B, C))
        assert brain.stopped() == ["c-1"]
        assert {action.ref for action in brain.did(ev.Forget)} == {A, C}
        assert brain.results() == []
        brain.gone("c-1")
        assert brain.results() == []
        assert brain.did(ev.Forget) == [ev.Forget(B)]
        assert brain.state.holdings.held(brain.now) == ()

    def test_results_of_an_earlier_process_are_delivered(self) -> None:
        done = Done(Outcome(A, Reason.OK, Body.inline(Kind.JSON, b"1"), ran=2.0), 0, ended_at=900.0)
        brain = Brain(done=(done,))
        assert brain.state.holdings.held(brain.now) == (Held(A, 0, "done", 2.0),)
        brain.connect()
        assert brain.did(ev.Deliver)[0].outcome.age == 100
        brain.accept(A)
        assert brain.did(ev.Forget) == [ev.Forget(A)]

    def test_a_result_that_the_server_refuses_for_good_is_forgotten(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.hear(ev.ResultsAccepted(brain.now, (), fenced=(A,)))
        assert brain.did(ev.Forget) == [ev.Forget(A)]


class TestStop:
    def test_waiting_jobs_are_handed_back_running_ones_finish_then_all_is_stopped(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.stop()
        assert brain.said(Draining) == [Draining()]
        assert brain.said(Released) == [Released((B,))]
        assert brain.stopped() == []
        brain.answer("c-1", A)
        assert brain.results() == [(A, Reason.OK)]
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.did(ev.Leave) == []  # the result is not with the server yet
        brain.accept(A)
        assert brain.did(ev.Leave) == [ev.Leave(0, "stopped")]

    def test_after_the_drain_timeout_what_runs_is_stopped_and_handed_back(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.stop()
        brain.wait(SETTINGS.drain_timeout)
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.said(Released) == [Released((A,))]
        assert brain.did(ev.Leave) == [ev.Leave(0, "stopped")]

    def test_a_second_signal_hands_back_at_once(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.stop()
        brain.stop()
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.said(Released) == [Released((A,))]

    def test_a_result_that_comes_while_a_job_is_being_handed_back_counts(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.stop(at_once=True)
        brain.answer("c-1", A)
        assert brain.results() == [(A, Reason.OK)]
        brain.gone("c-1")
        assert brain.said(Released) == []

    def test_a_worker_without_work_leaves_at_once(self, brain: Brain) -> None:
        brain.stop()
        assert brain.did(ev.Leave) == [ev.Leave(0, "stopped")]

    def test_an_idle_container_is_stopped_first(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.accept(A)
        brain.stop()
        assert brain.stopped() == ["c-1"]
        assert brain.did(ev.Leave) == []
        brain.gone("c-1")
        assert brain.did(ev.Leave)

    def test_jobs_that_come_while_it_drains_are_handed_back(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.stop()
        brain.assign(assignment("b"))
        assert brain.said(Released) == [Released((B,))]

    def test_a_script_that_is_being_started_may_finish(self, brain: Brain) -> None:
        brain.connect()
        brain.assign(assignment("a", warm_key=None))
        brain.hear(ev.ImageReady(brain.now, "c-1"))
        brain.stop()
        brain.boot("c-1")
        assert brain.given() == [("c-1", A)]

    def test_a_server_that_never_accepts_does_not_hold_the_worker_back(self, brain: Brain) -> None:
        brain.running(assignment("a"))
        brain.answer("c-1", A)
        brain.stop()
        brain.gone("c-1")
        assert brain.did(ev.Leave) == []
        brain.wait(5)
        assert brain.ever(ev.Leave) == [ev.Leave(0, "stopped")]

    def test_a_removed_worker_stops_everything_and_reports_nothing(self, brain: Brain) -> None:
        brain.running(assignment("a"), assignment("b"))
        brain.hear(ev.ShutdownAsked(brain.now, 0, "removed by root"))
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.messages() == [Warm(0, None, None)]
        assert brain.did(ev.Leave) == [ev.Leave(0, "removed by root")]


class TestNoOverlapJobs:
    """They stop before the server may give them to another worker; all others go on, however long it is away."""

    @pytest.fixture
    def brain(self) -> Brain:
        brain = Brain(WorkerSettings(slots=2))
        brain.connect()
        brain.hear(ev.Assured(brain.now, until=brain.now + 45))
        return brain

    def test_one_that_runs_is_stopped_in_time_and_the_others_go_on(self, brain: Brain) -> None:
        brain.assign(assignment("a", no_overlap=True), assignment("b", slot=1))
        brain.boot("c-1")
        brain.boot("c-2")
        brain.disconnect()
        brain.wait(44)
        assert brain.stopped() == []
        brain.wait(1)
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.RELEASED)]  # charged to nobody
        brain.wait(1000)
        assert brain.stopped() == []

    def test_each_word_of_the_server_gives_it_more_time(self, brain: Brain) -> None:
        brain.assign(assignment("a", no_overlap=True))
        brain.boot("c-1")
        brain.wait(40)
        brain.hear(ev.Assured(brain.now, until=brain.now + 45))
        brain.wait(44)
        assert brain.stopped() == []
        brain.wait(1)
        assert brain.stopped() == ["c-1"]

    def test_one_that_waits_is_not_begun_any_more(self, brain: Brain) -> None:
        brain.assign(assignment("a"), assignment("b", no_overlap=True))
        brain.boot("c-1")
        brain.disconnect()
        brain.wait(45)
        assert brain.results() == [(B, Reason.RELEASED)]
        assert brain.stopped() == []

    def test_a_result_that_it_has_by_then_is_kept(self, brain: Brain) -> None:
        brain.assign(assignment("a", no_overlap=True))
        brain.boot("c-1")
        brain.disconnect()
        brain.answer("c-1", A)
        brain.wait(1000)
        brain.connect()
        assert brain.results() == [(A, Reason.OK)]

    def test_none_begins_without_a_warden(self, brain: Brain) -> None:
        brain.hear(ev.Guarded(brain.now, False))
        brain.assign(assignment("a", no_overlap=True), assignment("b", slot=1))
        assert brain.started() == ["c-1"]
        brain.hear(ev.Guarded(brain.now, True))
        assert brain.started() == ["c-2"]
        brain.boot("c-2")
        assert brain.given() == [("c-2", A)]

    def test_one_that_runs_goes_on_while_a_warden_is_replaced(self, brain: Brain) -> None:
        brain.assign(assignment("a", no_overlap=True), assignment("b", no_overlap=True))
        brain.boot("c-1")
        brain.hear(ev.Guarded(brain.now, False))
        brain.answer("c-1", A)
        assert brain.given() == []
        brain.hear(ev.Guarded(brain.now, True))
        assert brain.given() == [("c-1", B)]

    def test_an_answer_that_comes_as_it_is_stopped_counts(self, brain: Brain) -> None:
        brain.assign(assignment("a", no_overlap=True))
        brain.boot("c-1")
        brain.wait(45)
        brain.answer("c-1", A)
        assert brain.results() == [(A, Reason.OK)]
        brain.gone("c-1")
        assert brain.results() == []

    def test_what_its_warden_ended_is_nobodys_fault(self, brain: Brain) -> None:
        brain.assign(assignment("a", no_overlap=True))
        brain.boot("c-1")
        brain.hear(ev.ContainerExited(brain.now, "c-1", Exit(137), unheard=True))
        assert brain.results() == [(A, Reason.RELEASED)]

    def test_it_has_the_rest_of_its_lease_to_end_and_others_have_their_grace(self, brain: Brain) -> None:
        brain.hear(ev.Assured(brain.now, until=brain.now + 45, grace=7.5))
        brain.assign(assignment("a", no_overlap=True), assignment("b", slot=1))
        brain.boot("c-1")
        brain.boot("c-2")
        brain.cancel(B)
        assert brain.did(ev.StopContainer) == [ev.StopContainer("c-2", 30.0)]
        brain.wait(45)
        assert brain.did(ev.StopContainer) == [ev.StopContainer("c-1", 7.5)]

    def test_one_that_was_adopted_has_the_time_that_the_earlier_process_knew(self) -> None:
        brain = Brain(no_overlap_until=NOW + 10)
        job = assignment("a", no_overlap=True)
        brain.hear(ev.ContainerAdopted(brain.now, "x-1", 0, job, job, brain.now - 5))
        brain.wait(9)
        assert brain.stopped() == []
        brain.wait(1)
        assert brain.stopped() == ["x-1"]


def test_a_worker_without_cards_has_the_slots_that_it_was_told() -> None:
    brain = Brain(WorkerSettings(slots=3))
    assert [slot.index for slot in brain.state.holdings.slot_infos()] == [0, 1, 2]
