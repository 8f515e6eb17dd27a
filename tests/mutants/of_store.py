"""Mutants of the store: what is durable, what is fenced, what is removed."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_CONTRACT = "tests/store/test_sqlite_contract.py::TestSqliteInline::"
_FAULTS = "tests/store/test_sqlite_faults.py::"
_SYNCED = "tests/store/test_synced.py::"
_BACKUPS = "tests/server/test_backups.py::"

MUTANTS = (
    Mutant(
        "no-fsync-of-commits",
        "an acknowledged write survives a power cut",
        "store/sqlite/file.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = OFF",
        (_FAULTS + "test_a_failed_fsync_is_never_acknowledged_and_nothing_is_taken_after_it",),
    ),
    Mutant(
        "work-goes-on-after-failed-fsync",
        "after a failed fsync nothing more is acknowledged",
        "store/sqlite/database.py",
        "self._broken = is_sync_failure(error)",
        "self._broken = False",
        (_FAULTS + "test_a_failed_fsync_is_never_acknowledged_and_nothing_is_taken_after_it",),
    ),
    Mutant(
        "failed-commit-is-acknowledged",
        "nobody hears of success when the group's commit failed",
        "store/sqlite/database.py",
        "return [(None, translated(error, self._path)) for _ in batch]\n\n    def _refusal",
        "return [(None, None) for _ in batch]\n\n    def _refusal",
        (_FAULTS + "test_a_failed_fsync_is_never_acknowledged_and_nothing_is_taken_after_it",),
    ),
    Mutant(
        "failing-work-is-kept-in-part",
        "a work that raises is undone, alone",
        "store/sqlite/database.py",
        '            self._connection.execute("ROLLBACK TO work")\n',
        "",
        ("tests/store/test_sqlite_contract.py::TestSqliteFile::"
         "test_a_work_that_raises_takes_no_other_of_its_batch_with_it",),
    ),
    Mutant(
        "blob-not-fsynced",
        "an upload is on the disk before it is acknowledged",
        "store/blobs.py",
        "                os.fsync(self._file.fileno())\n",
        "",
        (_SYNCED + "test_an_upload_is_on_the_disk_before_it_has_its_name",),
    ),
    Mutant(
        "blob-folder-not-fsynced",
        "the name of an upload is on the disk before it is acknowledged",
        "store/blobs.py",
        "                sync_folder(folder)\n",
        "",
        (_SYNCED + "test_an_upload_is_on_the_disk_before_it_has_its_name",),
    ),
    Mutant(
        "fence-of-results-off",
        "a result of an old attempt is refused",
        "store/sqlite/verbs/queue.py",
        "or attempt != end.ref.attempt or (end.by is not None",
        "or (end.by is not None",
        (_CONTRACT + "test_an_old_attempt_is_fenced_even_where_its_worker_holds_the_next_one",),
    ),
    Mutant(
        "result-of-anybody",
        "only the worker that holds an attempt can end it",
        "store/sqlite/verbs/queue.py",
        " or (end.by is not None and end.by != worker_id):",
        ":",
        (_CONTRACT + "test_an_end_by_a_worker_that_does_not_hold_the_attempt_is_fenced",),
    ),
    Mutant(
        "result-accepted-twice",
        "an ended job takes no second result",
        "store/sqlite/verbs/queue.py",
        "if state not in HELD_STATES or attempt != end.ref.attempt",
        "if state is JobState.IN_QUEUE or attempt != end.ref.attempt",
        (_CONTRACT + "test_a_repeated_end_is_recognised_and_changes_nothing",),
    ),
    Mutant(
        "repeated-result-is-refused",
        "a result whose acknowledgement was lost is acknowledged again",
        "store/sqlite/verbs/queue.py",
        "return reason == end.reason.value and end.by in (None, worker_id)",
        "return False",
        (_CONTRACT + "test_a_repeated_end_is_recognised_and_changes_nothing",),
    ),
    Mutant(
        "fence-of-starts-off",
        "news of the start of an old attempt changes nothing",
        "store/sqlite/verbs/queue.py",
        "WHERE id = ? AND attempt = ? AND state = ?",
        "WHERE id = ? AND attempt >= ? AND state = ?",
        (_CONTRACT + "test_the_start_of_an_older_attempt_is_not_that_of_the_current_one",),
    ),
    Mutant(
        "attempt-does-not-rise",
        "every assignment has a number of its own",
        "store/sqlite/verbs/queue.py",
        "attempt = attempt + 1",
        "attempt = max(attempt, 1)",
        (_CONTRACT + "test_a_late_result_of_a_lost_worker_is_fenced",),
    ),
    Mutant(
        "claim-ignores-back-off",
        "a job that failed waits before its next attempt",
        "store/sqlite/verbs/queue.py",
        "WHERE job.state = 'IN_QUEUE' AND job.{IS_READY} AND job.lane = ?",
        "WHERE job.state = 'IN_QUEUE' AND job.lane = ?",
        (_CONTRACT + "test_a_delayed_job_waits_for_its_time_and_then_has_its_old_place",),
    ),
    Mutant(
        "key-conflict-not-checked",
        "a key that comes with another request is a conflict",
        "store/sqlite/verbs/submit.py",
        "if key_digest != job.key_digest:",
        "if False:",
        (_CONTRACT + "test_the_same_key_with_another_request_is_a_conflict_that_names_the_first_job",),
    ),
    Mutant(
        "cancelled-before-stopped",
        "a job at a worker is not cancelled before its container is gone",
        "store/sqlite/verbs/queue.py",
        "        if state is JobState.IN_QUEUE:\n            state = TRANSITIONS[state, Event.CANCEL]",
        "        if not state.terminal:\n            state = TRANSITIONS[state, Event.CANCEL]",
        (_CONTRACT + "test_cancelling_a_held_job_asks_its_worker",),
    ),
    Mutant(
        "retention-removes-unfinished",
        "old jobs that have not ended are kept",
        "store/sqlite/verbs/retention.py",
        "FROM job WHERE seq < ? AND ended_at < ? ORDER BY seq LIMIT ?",
        "FROM job WHERE seq < ? AND coalesce(ended_at, created_at) < ? ORDER BY seq LIMIT ?",
        (_CONTRACT + "test_jobs_go_with_all_that_is_theirs_and_unfinished_ones_stay",),
    ),
    Mutant(
        "newer-schema-accepted",
        "a database of a newer release is refused",
        "store/sqlite/migrate.py",
        "if current > newest:",
        "if False:",
        ("tests/store/test_sqlite_file.py::test_a_newer_schema_is_refused_with_both_versions",),
    ),
    Mutant(
        "backup-copies-the-file-alone",
        "a backup during work holds what was acknowledged before it",
        "store/sqlite/backup.py",
        "source.backup(connection)",
        "shutil.copyfile(folder / DATABASE, copy)",
        (_BACKUPS + "test_a_backup_made_while_jobs_are_submitted_holds_every_job_acknowledged_before_it",),
    ),
    Mutant(
        "check-of-files-says-ok",
        "`check` finds uploads that are missing or cut off",
        "store/sqlite/inspection.py",
        "problems += _shortened(_missing(connection, files, folder / BLOBS))",
        "pass",
        (_BACKUPS + "test_check_names_blobs_that_are_missing_or_cut_off_and_counts_those_of_no_job",),
    ),
    Mutant(
        "check-of-database-says-ok",
        "`check` finds damage inside the database",
        "store/sqlite/inspection.py",
        "return Findings(schema, 0, 0, tuple(problems), 0, 0)",
        "return Findings(schema, 0, 0, (), 0, 0)",
        (_BACKUPS + "test_check_finds_damage_inside_the_database_and_a_schema_of_the_future",),
    ),
)  # fmt: skip
