"""What is written stands in the column of its name: statements that list columns, and the values that follow them, are
kept in two places for speed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hecaton.core.batches import lane_of
from hecaton.core.model import Body, Failure, JobId, JobSpec, Kind, Mode, Reason, Role, WorkerId
from hecaton.core.options import Options
from hecaton.store.port import AttemptEnd, Claim, NewBatch, NewJob
from hecaton.store.sqlite.file import MEMORY, open_file
from hecaton.store.sqlite.rows import Columns
from hecaton.store.sqlite.store import SqliteStore

FILE = "f" * 64
WORKER = WorkerId("worker")
SPEC = JobSpec(mode=Mode.HANDLER, file=FILE, priority=7, retries=1, queue_ttl=50.0)
NEW = NewJob(
    id=JobId("id"),
    owner_id=1,
    image_id=2,
    lane=lane_of(1, 2, SPEC),
    spec=SPEC,
    payload=Body(Kind.TEXT, b"payload", "blob", 70),
    created_at=100.0,
    key="key",
    key_digest=b"digest",
    retry_of=JobId("older"),
)
BATCH = NewBatch("batch", 1, 2, "name", SPEC, 90.0, "batch key", b"batch digest", retry_of="older batch")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = open_file(MEMORY)
    yield connection
    connection.close()


@pytest.fixture
def store(connection: sqlite3.Connection) -> SqliteStore:
    store = SqliteStore(connection)
    store.create_user("ann", "hash", Role.USER, 1.0)
    for image in ("first", "second"):
        store.add_image(image, None, "", 1.0)
    store.add_worker(WORKER, "name of the worker", "ann", b"token", 1.0)
    return store


def row(connection: sqlite3.Connection, table: str) -> dict[str, Any]:
    """The last one."""
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT 1")  # noqa: S608
    return dict(zip([name for name, *_ in cursor.description], cursor.fetchone(), strict=True))


def test_a_new_job_stands_in_the_columns_of_its_names(connection: sqlite3.Connection, store: SqliteStore) -> None:
    store.submit([NEW])
    written = row(connection, "job")
    assert msgspec.json.decode(written.pop("spec"), type=JobSpec) == SPEC
    assert {name: value for name, value in written.items() if value is not None} == {
        "seq": 1,
        "state": "IN_QUEUE",
        "owner_id": 1,
        "image_id": 2,
        "lane": NEW.lane.key(),
        "priority": 7,
        "run_after": 0.0,
        "expires_at": 150.0,
        "attempt": 0,
        "checkpoint": 0,
        "id": "id",
        "key": "key",
        "key_digest": b"digest",
        "created_at": 100.0,
        "mode": "handler",
        "file": FILE,
        "retries": 1,
        "user_failures": 0,
        "infra_failures": 0,
        "cancel_requested": 0,
        "retry_of": "older",
        "payload_kind": "text",
        "payload_size": 70,
        "payload_blob": "blob",
        "result_size": 0,
    }


def test_a_batch_and_its_items_stand_in_the_columns_of_their_names(
    connection: sqlite3.Connection, store: SqliteStore
) -> None:
    batch, _ = store.create_batch(BATCH)
    store.append("batch", 0, [NEW])
    store.append("batch", 1, [msgspec.structs.replace(NEW, id=JobId("another"), key="another key")])
    written = row(connection, "job")
    assert (written["id"], written["batch"], written["item"], written["run_after"]) == ("another", batch.index, 1, 0.0)
    kept = row(connection, "batch")
    for name in ("id", "owner_id", "image_id", "name", "key", "key_digest", "created_at", "may_pause", "retry_of"):
        assert kept[name] == getattr(BATCH, name)
    assert store.batch("batch") == msgspec.structs.replace(batch, size=2)


def test_ends_stand_in_the_columns_of_their_names(connection: sqlite3.Connection, store: SqliteStore) -> None:
    failure = Failure("why")
    store.create_batch(BATCH)
    store.append("batch", 0, [NEW])
    [first] = store.claim([Claim(NEW.lane.key(), WORKER, 3, 1, Options(startup_timeout=9.0))], 110.0)
    end = AttemptEnd(first.ref, WORKER, Reason.HANDLER_EXIT, 120.0, None, failure, exit_code=9, started_at=111.0)
    end = msgspec.structs.replace(end, image_version="an id")
    store.end([end])
    kept = row(connection, "attempt")
    assert msgspec.json.decode(kept.pop("failure"), type=Failure) == failure
    assert kept == {
        "seq": 1,
        "number": 1,
        "worker_id": WORKER,
        "assigned_at": 110.0,
        "started_at": 111.0,
        "ended_at": 120.0,
        "reason": "handler_exit",
        "charged": "user",
        "exit_code": 9,
        "image_version": "an id",
        "defaults": '{"startup_timeout":9.0}',
    }
    waits = row(connection, "job")
    assert (waits["state"], waits["user_failures"], waits["infra_failures"]) == ("IN_QUEUE", 1, 0)
    assert (waits["run_after"], waits["expires_at"], waits["worker_id"]) == (121.0, 170.0, None)
    [second] = store.claim([Claim(NEW.lane.key(), WORKER, 4, 1)], 130.0)
    body = Body(Kind.BYTES, b"", "result blob", 80)
    last = AttemptEnd(second.ref, WORKER, Reason.TIMEOUT, 140.0, body, failure, exit_code=8, started_at=131.0)
    last = msgspec.structs.replace(last, image_version="another id")
    store.end([last])
    ended = row(connection, "job")
    assert msgspec.json.decode(ended["failure"], type=Failure) == failure
    expected = {
        "state": "FAILED",
        "worker_id": WORKER,
        "slot": 4,
        "assigned_at": 130.0,
        "started_at": 131.0,
        "ended_at": 140.0,
        "reason": "timeout",
        "attempt_reason": None,
        "charged": "user",
        "exit_code": 8,
        "user_failures": 2,
        "infra_failures": 0,
        "result_kind": "bytes",
        "result_size": 80,
        "result_blob": "result blob",
        "ended_as": 1,
        "image_version": "another id",
        "defaults": None,
    }
    assert {name: ended[name] for name in expected} == expected


def test_a_column_for_a_field_that_a_struct_does_not_have_is_noticed_at_once() -> None:
    with pytest.raises(TypeError, match="has no nothing"):
        Columns(JobSpec, "job", {"nothing": "job.id"})
