"""What is remembered, as a port: one method = one domain verb, guarded by the state or attempt that it expects.

`Store` methods are plain and synchronous; they run inside a transaction that `Database` opens. So a use case combines
verbs in one function, and a hundred callers share one commit (group commit):

    await database.write(lambda store: store.submit(jobs))      durable (fsynced) when this returns
    await database.read(lambda store: store.job(job_id))        a consistent snapshot, never blocked by writers

A function given to `write` may be run twice: when another one of its batch raises, the batch is undone and repeated. So
it must do nothing but call verbs and compute (no sending, no counters). A result is delivered only after the commit.

Verbs of the hot path take and return lists. Payloads, results and logs are bytes: no engine ever parses them. Adapters
raise `core.errors` only: `Conflict` and `NotFound` for domain cases, `Unavailable` when the disk is full or the engine
is away. Contract: tests/contracts/store_contract.py, run on every adapter.

- `accounts`: The part of the port about users, images and workers.
- `batches`: The part of the port about batches.
- `blobs`: Large payloads, results and files: who may use which (a part of the port), and the bytes themselves.
- `files`: The part of the port about the files that attempts have made.
- `folders`: The part of the port about folders that users send along: which there are, and in which blobs their files
  are.
- `jobs`: The part of the port about jobs: what moves them and what shows them.
- `logs`: The part of the port about the logs of attempts.
- `meta`: The part of the port about the database as a whole: facts by name, and what it has to do as a copy.
- `retention`: The part of the port that keeps the store from growing for ever: what is removed, by the age of ended
  jobs.
- `store`: `Store`, put together from its parts, and `Database`, which runs functions over it.
"""

from __future__ import annotations

from hecaton.store.port.accounts import Home, Used
from hecaton.store.port.batches import Appended, EndedItem, FailedItem, NewBatch, Swept
from hecaton.store.port.blobs import Blobs, BlobWriter
from hecaton.store.port.files import Checkpoint, FileSums
from hecaton.store.port.jobs import (
    AttemptEnd,
    CancelResult,
    Claim,
    Claimed,
    EndResult,
    Expired,
    LaneInfo,
    NewJob,
    Page,
    Returned,
    Stored,
)
from hecaton.store.port.retention import JOB_BYTES, ForgottenJobs, StoredBytes
from hecaton.store.port.store import Database, Store

__all__ = [
    "JOB_BYTES",
    "Appended",
    "AttemptEnd",
    "BlobWriter",
    "Blobs",
    "CancelResult",
    "Checkpoint",
    "Claim",
    "Claimed",
    "Database",
    "EndResult",
    "EndedItem",
    "Expired",
    "FailedItem",
    "FileSums",
    "ForgottenJobs",
    "Home",
    "LaneInfo",
    "NewBatch",
    "NewJob",
    "Page",
    "Returned",
    "Store",
    "Stored",
    "StoredBytes",
    "Swept",
    "Used",
]
