"""Mutants of the worker: what it keeps, what it hands over, what it clears away."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Worlds

_STATE = "tests/worker/test_state.py::"
_JOURNAL = "tests/worker/test_journal.py::"
_ADOPTION = "tests/worker/test_adoption.py::"
_KILLED = "tests/worker/test_agent.py::test_results_and_logs_outlive_a_worker_that_is_killed"
_SYNCED = "tests/worker/test_synced.py::"

MUTANTS = (
    Mutant(
        "container-told-too-early",
        "a container keeps its result until the worker has it safe",
        "worker/brain/holding.py",
        "        self.do(ev.Deliver(done.outcome, done.container, output))\n",
        "        self.do(ev.Deliver(done.outcome, done.container, output))\n        self.acknowledge(done)\n",
        (_STATE + "TestRunning::"
         "test_a_job_gets_a_container_is_given_to_it_when_it_asks_and_its_result_is_delivered",),
    ),
    Mutant(
        "results-not-sent-again",
        "what the server has not acknowledged goes again on the next connection",
        "worker/brain/state.py",
        "        for done in list(self.done.values()):\n            self.deliver_again(done, event.now)\n",
        "",
        (_STATE + "TestReconnect::"
         "test_without_a_connection_work_goes_on_and_results_are_sent_again_on_the_next",),
    ),
    Mutant(
        "drop-ignored",
        "a container whose attempt was fenced is stopped",
        "worker/brain/state.py",
        "        for ref in event.drop:\n            self._fence(ref, event.now)\n",
        "",
        (_STATE + "TestReconnect::test_what_was_fenced_is_stopped_and_forgotten",),
    ),
    Mutant(
        "run-twice-when-assigned-twice",
        "a job that is said twice runs once",
        "worker/brain/state.py",
        "if held is not None and held.ref.attempt >= ref.attempt:",
        "if held is not None and held.ref.attempt > ref.attempt:",
        (_STATE + "TestAssignedTwice::test_a_job_that_is_held_is_not_run_twice",),
    ),
    Mutant(
        "revoke-ignored",
        "a job that waits at a busy worker can be given to an idle one",
        "worker/brain/state.py",
        "            elif not self.may_have_started(job):\n                self.release(job)\n",
        "            elif False:\n                self.release(job)\n",
        (_STATE + "TestRevoke::"
         "test_a_waiting_job_is_released_a_running_one_is_said_to_run_an_unknown_one_is_released",),
    ),
    Mutant(
        "cancelled-before-gone",
        "a cancelled job ends when its container is gone, not before",
        "worker/brain/holding.py",
        "if self.may_have_started(job) and slot.container is not None:",
        "if ending is not Ending.CANCELLED and self.may_have_started(job) and slot.container is not None:",
        (_STATE + "TestCancel::test_a_running_job_is_cancelled_when_its_container_is_gone",),
    ),
    Mutant(
        "neighbour-lost-with-its-container",
        "a job that waits behind one whose container dies gets a container of its own",
        "worker/brain/state.py",
        "        self.clear(container, event.now)\n        self.advance(self.slots[container.slot], event.now)\n\n"
        "    # -- from this machine",
        "        self.clear(container, event.now)\n\n    # -- from this machine",
        Worlds((1,)),
    ),
    Mutant(
        "drain-takes-new-work",
        "a worker that stops hands back what has not begun",
        "worker/brain/state.py",
        "unfit = self.leaving is not None or self.disk_full\n",
        "unfit = self.disk_full\n",
        (_STATE + "TestStop::test_jobs_that_come_while_it_drains_are_handed_back",),
    ),
    Mutant(
        "timeout-off",
        "a job over its time-out is stopped",
        "worker/brain/state.py",
        "return job.started_at + job.assignment.options.timeout",
        "return None",
        (_STATE + "TestTimeout::test_a_job_is_stopped_after_its_timeout_and_ends_when_its_container_is_gone",),
    ),
    Mutant(
        "exit-0-is-a-success",
        "a container that ended without a result is no success",
        "worker/brain/failures.py",
        "return Reason.NO_RESULT, Failure(",
        "return Reason.OK, Failure(",
        (_STATE + "TestEndsOfContainers::test_a_container_that_ends_under_a_job_ends_it_with_the_right_reason",),
    ),
    Mutant(
        "journal-not-fsynced",
        "a result is on the worker's disk before its container may forget it",
        "worker/memory/journal.py",
        "                os.fdatasync(self._fd)\n",
        "                pass\n",
        (_SYNCED + "test_a_result_is_on_the_disk_before_it_counts_as_safe",),
    ),
    Mutant(
        "journal-folder-not-fsynced",
        "a journal that was written anew is there after a power cut",
        "worker/memory/journal.py",
        "            _sync_folder(self._path.parent)\n",
        "",
        (_SYNCED + "test_a_journal_that_is_written_anew_is_on_the_disk_before_it_counts",),
    ),
    Mutant(
        "tail-off",
        "results survive kill -9 of the worker before they are synced",
        "worker/memory/tail.py",
        "        if memory is None or end + FRAME.size > HALF:\n",
        "        if memory is not None:\n",
        (_JOURNAL + "test_what_is_not_written_yet_is_read_back_too",),
    ),
    Mutant(
        "spool-not-fsynced",
        "a large result is on the worker's disk before its container may forget it",
        "worker/memory/spool.py",
        "            os.fsync(target)\n",
        "",
        (_SYNCED + "test_a_large_result_is_on_the_disk_before_it_counts_as_kept",),
    ),
    Mutant(
        "spool-cleared-at-start",
        "a large result outlives a restart of the worker",
        "worker/memory/spool.py",
        "if path.name not in kept:",
        "if True:",
        (_KILLED,),
    ),
    Mutant(
        "spool-deleted-when-sent",
        "a large result stays until the server has acknowledged it",
        "worker/memory/outbox.py",
        "                self._stored.add(outcome.ref)\n",
        "                self._spool.forget(outcome.ref)\n",
        (_KILLED,),
    ),
    Mutant(
        "adoption-off",
        "a worker that was killed goes on with its containers",
        "worker/adoption.py",
        "wanted = self._event(placed, item) if item is not None and placed.slot not in taken else None",
        "wanted = None",
        (_ADOPTION + "TestAWorkerThatWasKilled::test_goes_on_with_the_job_that_runs[process]",),
    ),
    Mutant(
        "lost-attempts-not-reported",
        "what was lost with its container while the worker was away is said",
        "worker/adoption.py",
        "            if given.ref in adopted:\n",
        "            if True:\n",
        (_ADOPTION + "TestAWorkerThatWasKilled::test_says_what_is_lost_with_its_container[process]",),
    ),
    Mutant(
        "reboot-not-noticed",
        "attempts of before a reboot are released, not charged",
        "worker/adoption.py",
        "if placed is None or placed.boot != self._site.boot:",
        "if False:",
        (_ADOPTION + "TestAWorkerThatWasKilled::"
         "test_reports_jobs_of_before_a_reboot_as_released[process-nothing is left of its containers]",),
    ),
    Mutant(
        "label-sweep-off",
        "containers of this worker that belong to nothing are removed",
        "worker/adoption.py",
        "        if orphans:\n",
        "        if False:\n",
        (_ADOPTION + "TestWhatBelongsToNothing::test_containers_of_a_worker_that_lost_its_journal",),
    ),
    Mutant(
        "ahead-begins-unasked",
        "a job given ahead begins only if nobody has taken it back",
        "serverless/turns.py",
        "            except BlockingIOError:\n                return False\n",
        "            except BlockingIOError:\n                return True\n",
        ("tests/serverless/test_ahead.py::test_one_that_was_taken_back_is_left_out_and_may_be_given_again",),
    ),
    Mutant(
        "ahead-valid-for-ever",
        "with a connection all that was given ahead on it is void",
        "worker/doors/native.py",
        "        self._turns.void()\n",
        "",
        ("tests/worker/test_native.py::TestAhead::test_nothing_of_an_old_connection_is_valid_on_a_new_one",),
    ),
    Mutant(
        "ahead-handed-back-and-run",
        "a job is handed back only if its container will not begin it",
        "worker/brain/holding.py",
        "            elif job.ending is Ending.REVOKED:\n                job.ending = None\n",
        "            elif job.ending is Ending.REVOKED:\n                self._settle(job, event.now)\n",
        ("tests/worker/test_state_ahead.py::test_a_job_ahead_that_has_begun_is_not_handed_back",),
    ),
    Mutant(
        "ahead-blamed-for-a-crash",
        "a crash ends the job that had begun, and none behind it",
        "worker/brain/holding.py",
        "        return [job for job in given if job.ref not in waiting]\n",
        "        return given\n",
        ("tests/worker/test_state_ahead.py::test_a_crash_fails_what_had_begun_and_nothing_behind_it",),
    ),
    Mutant(
        "ahead-forgotten-over-a-restart",
        "a killed worker knows all jobs that its container has begun",
        "worker/doors/exchange.py",
        "            self._site.journal.give(record)\n        self.door.give_ahead(jobs)\n",
        "        self.door.give_ahead(jobs)\n",
        ("tests/worker/test_ahead.py::test_a_killed_worker_goes_on_with_one_that_had_begun_unseen[process]",),
    ),
)  # fmt: skip
