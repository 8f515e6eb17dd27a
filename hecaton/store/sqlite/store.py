"""The `Store` port over one SQLite connection: says which unit has which verb."""

from __future__ import annotations

import sqlite3

from hecaton.store.sqlite.made.checkpoints import CheckpointVerbs
from hecaton.store.sqlite.made.files import FileVerbs
from hecaton.store.sqlite.made.folders import FolderVerbs
from hecaton.store.sqlite.made.logs import LogVerbs
from hecaton.store.sqlite.statements import Statements
from hecaton.store.sqlite.tally import Tally
from hecaton.store.sqlite.there import AllThere
from hecaton.store.sqlite.verbs.accounts import AccountVerbs
from hecaton.store.sqlite.verbs.backups import BackupVerbs
from hecaton.store.sqlite.verbs.batch_ends import BatchEnds
from hecaton.store.sqlite.verbs.batches import BatchVerbs
from hecaton.store.sqlite.verbs.blobs import BlobVerbs
from hecaton.store.sqlite.verbs.meta import MetaVerbs
from hecaton.store.sqlite.verbs.queue import QueueVerbs
from hecaton.store.sqlite.verbs.retention import RetentionVerbs
from hecaton.store.sqlite.verbs.returns import ReturnVerbs
from hecaton.store.sqlite.verbs.submit import SubmitVerbs
from hecaton.store.sqlite.verbs.views import ViewVerbs


class SqliteStore:
    """One object with all verbs of the port. Each is a unit's own method, bound when the store is made: a call costs
    what it would cost if the units were one class. Called on the thread that runs the connection's transactions: the
    writer's or the reader's, or the caller's in a database that is `inline`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        statements = Statements(connection)
        tally = Tally(statements)
        there = AllThere(statements)
        checkpoints = CheckpointVerbs(statements)
        submission = SubmitVerbs(statements, tally, there, checkpoints)
        queue = QueueVerbs(statements, BatchEnds(statements), tally, there.workers.has)
        views = ViewVerbs(statements)
        self._bind_jobs(submission, queue, views, ReturnVerbs(statements, tally))
        self._bind_batches(BatchVerbs(statements, tally, submission, queue))
        self._bind_accounts(AccountVerbs(statements, there))
        self._bind_logs_and_blobs(LogVerbs(statements, tally), BlobVerbs(statements, tally))
        self._bind_files(FileVerbs(statements, tally), FolderVerbs(statements), checkpoints)
        self._bind_housekeeping(
            MetaVerbs(statements), BackupVerbs(statements, queue, views), RetentionVerbs(statements, tally)
        )

    def _bind_jobs(self, submission: SubmitVerbs, queue: QueueVerbs, views: ViewVerbs, returns: ReturnVerbs) -> None:
        self.submit = submission.submit
        self.claim = queue.claim
        self.start = queue.start
        self.end = queue.end
        self.cancel = queue.cancel
        self.expire_queued = queue.expire_queued
        self.cap_waits = queue.cap_waits
        self.return_leases = returns.return_leases
        self.job = views.job
        self.payload = views.payload
        self.result = views.result
        self.attempts = views.attempts
        self.jobs = views.jobs
        self.held = views.held
        self.assigned = views.assigned
        self.lanes = views.lanes
        self.queue_position = views.queue_position

    def _bind_batches(self, batches: BatchVerbs) -> None:
        self.create_batch = batches.create_batch
        self.append = batches.append
        self.close_batch = batches.close_batch
        self.batch = batches.batch
        self.batches = batches.batches
        self.batch_failures = batches.batch_failures
        self.batch_running = batches.batch_running
        self.batch_pace = batches.batch_pace
        self.ended_items = batches.ended_items
        self.failed_items = batches.failed_items
        self.last_retried = batches.last_retried
        self.set_paused = batches.set_paused
        self.cancel_batch = batches.cancel_batch
        self.sweep = batches.sweep

    def _bind_accounts(self, accounts: AccountVerbs) -> None:
        self.create_user = accounts.create_user
        self.user = accounts.user
        self.user_by_name = accounts.user_by_name
        self.users = accounts.users
        self.set_password = accounts.set_password
        self.delete_user = accounts.delete_user
        self.set_role = accounts.set_role
        self.set_uid = accounts.set_uid
        self.add_key = accounts.add_key
        self.use_key = accounts.use_key
        self.homes = accounts.homes
        self.add_home = accounts.add_home
        self.add_image = accounts.add_image
        self.use_image = accounts.use_image
        self.pin_image = accounts.pin_image
        self.image = accounts.image
        self.image_by_name = accounts.image_by_name
        self.images = accounts.images
        self.update_image = accounts.update_image
        self.delete_image = accounts.delete_image
        self.add_worker = accounts.add_worker
        self.worker_by_token = accounts.worker_by_token
        self.workers = accounts.workers
        self.seen = accounts.seen
        self.remove_worker = accounts.remove_worker
        self.enrol_slots = accounts.enrol_slots
        self.set_drained = accounts.set_drained
        self.set_quarantine = accounts.set_quarantine

    def _bind_logs_and_blobs(self, logs: LogVerbs, blobs: BlobVerbs) -> None:
        self.append_log = logs.append_log
        self.cut_log = logs.cut_log
        self.read_log = logs.read_log
        self.log_tail = logs.log_tail
        self.add_blob = blobs.add_blob
        self.has_blob = blobs.has_blob
        self.unused_blobs = blobs.unused_blobs
        self.forget_blobs = blobs.forget_blobs

    def _bind_files(self, files: FileVerbs, folders: FolderVerbs, checkpoints: CheckpointVerbs) -> None:
        self.keep_checkpoint = checkpoints.keep_checkpoint
        self.checkpoint = checkpoints.checkpoint
        self.keep_files = files.keep_files
        self.file_sums = files.file_sums
        self.files = files.files
        self.file = files.file
        self.add_bundled = folders.add_bundled
        self.find_files = folders.find_files
        self.add_folder = folders.add_folder
        self.has_folder = folders.has_folder
        self.forget_folders = folders.forget_folders

    def _bind_housekeeping(self, meta: MetaVerbs, backups: BackupVerbs, retention: RetentionVerbs) -> None:
        self.meta = meta.meta
        self.set_meta = meta.set_meta
        self.adopt_copy = backups.adopt_copy
        self.forget_results = retention.forget_results
        self.forget_files = retention.forget_files
        self.forget_logs = retention.forget_logs
        self.forget_jobs = retention.forget_jobs
        self.forget_ended = retention.forget_ended
        self.stored = retention.stored
        self.give_back = retention.give_back
