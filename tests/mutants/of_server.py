"""Mutants of the server's rules and memory: acknowledgement, leases, who pays, who gets nothing new."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Worlds

_LIFECYCLE = "tests/core/test_lifecycle.py::"
_LEASES = "tests/server/test_leases.py::"
_HOLDS = "tests/server/test_holds.py::"
_JOBS = "tests/server/test_jobs.py::"
_CONTENT = "tests/server/test_content.py::"

MUTANTS = (
    Mutant(
        "submission-acknowledged-at-once",
        "a submission is durable before it is acknowledged",
        "server/jobs/intake.py",
        "            stored, claimed = await self._database.write(write)\n",
        "            self._writing = asyncio.ensure_future(self._database.write(write))\n"
        "            stored, claimed = [Stored(job.id, 0, False) for job in jobs], []\n",
        Worlds((1, 2)),
    ),
    Mutant(
        "result-acknowledged-at-once",
        "a result is durable before its worker may forget it",
        "server/fleet/attempts.py",
        "            ended, claimed = await self._database.write(write)\n",
        "            for worker, ends in said:\n"
        "                if (member := self._fleet.members.get(worker)) and member.link:\n"
        "                    member.link.send(Accepted(tuple(end.ref for end in ends), ()))\n"
        "            ended, claimed = await self._database.write(write)\n",
        Worlds((4, 6)),
    ),
    Mutant(
        "one-refused-result-refuses-all",
        "a result that cannot be stored takes no other with it",
        "server/fleet/channel.py",
        "            for one in arrived:\n                await self._store([one])\n",
        "            for link, _, _ in arrived:\n                link.close(1013, '')\n",
        ("tests/server/test_results_together.py::test_a_result_that_cannot_be_stored_takes_no_other_with_it",),
    ),
    Mutant(
        "refused-result-dropped",
        "a worker keeps its result until the store has it, however full the disk is",
        "server/fleet/members.py",
        "                keep.append(held.ref)  # to be forgotten once",
        "                drop.append(held.ref)  # to be forgotten once",
        Worlds((57, 62, 18, 34, 41, 6, 13)),
    ),
    Mutant(
        "idempotency-off",
        "a repeated submission makes no second job",
        "server/jobs/jobs.py",
        "payload, now, key or job_id, digest)",
        "payload, now, job_id, digest)",
        (_JOBS + "test_the_same_key_with_the_same_request_gives_the_first_job",),
    ),
    Mutant(
        "client-sends-no-key",
        "client and command line send an idempotency key by themselves",
        "client/submission.py",
        "return key or new_key()",
        'return key or ""',
        ("tests/client/test_http.py::test_a_submit_is_tried_again_with_the_same_key_and_body",),
    ),
    Mutant(
        "fence-of-logs-off",
        "a worker writes only into logs of attempts that it holds",
        "server/fleet/attempts.py",
        "if self._live(worker, message.ref) is not None and 0 <= message.offset",
        "if 0 <= message.offset",
        (_CONTENT + "test_a_worker_writes_only_into_logs_of_jobs_that_it_holds",),
    ),
    Mutant(
        "fence-of-progress-off",
        "progress and notes count only from the attempt's holder",
        "server/fleet/attempts.py",
        "if member is None or member.lease(ref) is None:",
        "if member is None:",
        (_CONTENT + "test_a_worker_reports_only_about_jobs_that_it_holds",),
    ),
    Mutant(
        "welcome-without-drop",
        "a worker that comes back hears which of its jobs are no longer its own",
        "server/fleet/members.py",
        "                drop.append(held.ref)\n",
        "                keep.append(held.ref)\n",
        (_LEASES + "test_a_worker_that_says_it_holds_unknown_jobs_is_told_to_drop_them",),
    ),
    Mutant(
        "beat-does-not-count",
        "a worker that is heard from is not lost",
        "server/fleet/members.py",
        "            member.last_contact = now\n            self._suspect(member, False)\n",
        "            self._suspect(member, False)\n",
        Worlds((1, 2)),
    ),
    Mutant(
        "silence-is-for-ever",
        "the jobs of a lost worker run elsewhere",
        "server/fleet/members.py",
        "if quiet > lost_after:",
        "if False:",
        (_LEASES + "test_a_worker_that_is_silent_on_an_open_connection_is_lost_too",),
    ),
    Mutant(
        "leases-end-after-a-start",
        "after a start of the server no lease ends before a full lost_after",
        "server/fleet/members.py",
        "            member.last_contact = now\n            self._changed.add((worker_id, slot))\n",
        "            self._changed.add((worker_id, slot))\n",
        Worlds((49, 60)),
    ),
    Mutant(
        "own-pause-counts-as-silence",
        "no lease ends because the server itself was paused",
        "server/duties.py",
        "if missed > self._settings.heartbeat:",
        "if False:",
        (_LEASES + "test_a_server_that_stood_still_loses_no_worker_for_it",),
    ),
    Mutant(
        "wall-clock",
        "a jump of the wall clock ends no lease",
        "server/clock.py",
        "return time.monotonic() + self._offset",
        "return time.time()",
        ("tests/server/test_clock.py::test_a_jump_of_the_wall_clock_moves_nothing",),
    ),
    Mutant(
        "handing-back-costs-an-attempt",
        "a drained worker hands jobs back at nobody's charge",
        "core/lifecycle.py",
        "    if reason is Reason.RELEASED:\n        return Verdict(Event.REQUEUE, reason, charged)\n",
        "",
        (_LIFECYCLE + "test_what_was_handed_back_waits_again_at_once_and_costs_nothing",),
    ),
    Mutant(
        "user-pays-for-lost-workers",
        "a lost worker uses up no retries",
        "core/lifecycle.py",
        "INFRA = frozenset({Reason.WORKER_LOST, ",
        "INFRA = frozenset({",
        (_LIFECYCLE + "test_losses_to_the_machines_use_up_no_retries_and_end_after_three",),
    ),
    Mutant(
        "machines-pay-for-handlers",
        "a handler that fails uses up retries",
        "core/lifecycle.py",
        "INFRA = frozenset({Reason.WORKER_LOST, ",
        "INFRA = frozenset({Reason.HANDLER_ERROR, Reason.WORKER_LOST, ",
        (_LIFECYCLE + "test_without_retries_a_fault_of_the_user_fails_the_job",),
    ),
    Mutant(
        "poison-is-never-stopped",
        "a job that takes down three workers is stopped",
        "core/lifecycle.py",
        "if losses >= INFRA_LIMIT:",
        "if False:",
        (_LIFECYCLE + "test_losses_to_the_machines_use_up_no_retries_and_end_after_three",),
    ),
    Mutant(
        "poison-at-the-first-loss",
        "a job outlives the loss of two workers",
        "core/lifecycle.py",
        "INFRA_LIMIT = 3\n",
        "INFRA_LIMIT = 1\n",
        (_LIFECYCLE + "test_losses_to_the_machines_use_up_no_retries_and_end_after_three",),
    ),
    Mutant(
        "quarantine-off",
        "a machine that fails one job after the other gets nothing new",
        "server/fleet/quarantine.py",
        "if len(strikes) < STRIKES:",
        "if True:",
        (_HOLDS + "test_a_machine_that_fails_three_attempts_in_a_row_is_quarantined_with_the_reason",),
    ),
    Mutant(
        "hold-forgotten-by-a-restart",
        "a drain outlives a restart of the server",
        "server/fleet/quarantine.py",
        "            self._fleet.hold(worker.id, _hold_of(worker))\n",
        "            pass\n",
        (_HOLDS + "test_a_drain_outlives_restarts_of_worker_and_server",),
    ),
    Mutant(
        "reboot-is-charged",
        "a reboot costs no job anything",
        "server/fleet/members.py",
        "rebooted = member.boot_id != hello.boot_id",
        "rebooted = False",
        (_HOLDS + "test_a_reboot_charges_no_job_and_a_crash_of_the_worker_alone_does",),
    ),
    Mutant(
        "shared-loss-is-charged",
        "workers that are lost together cost no job anything",
        "server/fleet/attempts.py",
        "excused = self._holds.excused(member)",
        "excused = False",
        (_HOLDS + "test_workers_lost_together_charge_no_job",),
    ),
    Mutant(
        "cancellation-said-once",
        "a worker that was away hears of a cancellation when it returns",
        "server/fleet/attempts.py",
        "        if refs:\n            link.send(Cancel(refs))\n",
        "",
        (_LEASES + "test_a_worker_that_was_away_during_the_cancellation_is_told_when_it_returns",),
    ),
    Mutant(
        "quota-off",
        "one user cannot fill the queue without end",
        "server/fleet/scheduler.py",
        "if waiting + count > limit:",
        "if False:",
        ("tests/server/test_retention.py::"
         "test_a_user_over_the_quota_of_waiting_jobs_is_told_so_and_others_are_not",),
    ),
    Mutant(
        "two-servers-on-one-folder",
        "a second server on the same data is refused",
        "server/app.py",
        "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(file, fcntl.LOCK_UN)",
        ("tests/server/test_process.py::test_a_second_server_on_the_same_folder_is_refused",),
    ),
)  # fmt: skip
