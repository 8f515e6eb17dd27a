"""The hot statements use the indexes that were made for them: the cost of a claim must not grow with the queue."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.core.lifecycle import Event, sources
from hecaton.core.model import JobState
from hecaton.store.sqlite.file import open_file
from hecaton.store.sqlite.migrate import migrations
from hecaton.store.sqlite.verbs import batches as sqlite_batches
from hecaton.store.sqlite.verbs import queue as sqlite_queue
from hecaton.store.sqlite.verbs import views as sqlite_views


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(tmp_path / "server" / "hecaton.db")
    yield connection
    connection.close()


def plan(connection: sqlite3.Connection, sql: str) -> str:
    values = [0] * (max([int(n) for n in re.findall(r"\?(\d)", sql)], default=0) or sql.count("?"))
    return "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))


def test_a_claim_walks_its_index_in_order(connection: sqlite3.Connection) -> None:
    steps = plan(connection, sqlite_queue.CLAIM)
    assert "SEARCH job USING INDEX job_ready (lane=?)" in steps
    assert "TEMP B-TREE" not in steps


def test_a_claim_costs_the_same_with_a_long_queue_and_with_delayed_jobs_before_it(
    connection: sqlite3.Connection,
) -> None:
    """Counted in steps of SQLite's machine, not in time."""
    _fill(connection, seq=1, lane=7, run_after=0)
    few = _steps(connection)
    for seq in range(2, 3000):
        _fill(connection, seq=seq, lane=7 + seq % 2, run_after=1e12 if seq % 3 else 0)
    assert _steps(connection) <= few + 5


def _fill(connection: sqlite3.Connection, *, seq: int, lane: int, run_after: float) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO user (id, name, name_key, role, password_hash, created_at) VALUES (1, '', '', '', '', 0)"
    )
    connection.execute(
        "INSERT OR IGNORE INTO image (id, name, description, created_at, updated_at) VALUES (1, '', '', 0, 0)"
    )
    connection.execute(
        "INSERT INTO job (seq, state, owner_id, image_id, lane, priority, run_after, id, key, key_digest, created_at,"
        " mode, spec, retries, payload_kind, payload_size)"
        " VALUES (?1, 'IN_QUEUE', 1, 1, ?2, 0, ?3, ?1, ?1, '', 0, 'native', '{}', 0, 'json', 0)",
        (seq, lane, run_after),
    )


def _steps(connection: sqlite3.Connection) -> int:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 1)
    try:
        assert len(connection.execute(sqlite_queue.CLAIM, (7, 0, 1)).fetchall()) == 1
    finally:
        connection.set_progress_handler(None, 0)
    return count


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (sqlite_queue.DUE, "SEARCH job USING INDEX job_delayed (run_after>? AND run_after<?)"),
        (sqlite_queue.CAP_EXPIRY, "SEARCH job USING INDEX job_expiry (expires_at>?)"),
        (sqlite_queue.EXPIRED, "SEARCH job USING INDEX job_expiry (expires_at>? AND expires_at<?)"),
        (sqlite_views.READY_LANES, "SCAN job USING COVERING INDEX job_ready"),
        (sqlite_views.DELAYED_LANES, "COVERING INDEX job_delayed"),
        (sqlite_views.HELD, "SEARCH job USING INDEX job_held (worker_id=?)"),
        (sqlite_views.ASSIGNED, "USING INDEX job_held"),
        (sqlite_batches.ENDED_ITEMS, "SEARCH job USING INDEX job_batch_end (batch=? AND ended_as>?)"),
        (sqlite_batches.INPUT_ITEMS, "SEARCH job USING INDEX job_batch (batch=? AND item>?)"),
        (sqlite_batches.FAILED_ITEMS, "SEARCH job USING INDEX job_batch (batch=? AND item>?)"),
        (sqlite_batches.RUNNING, "USING INDEX job_held"),
        (sqlite_batches.WITHHOLD, "SEARCH job USING INDEX job_batch (batch=? AND item>? AND item<?)"),
        (sqlite_views.BEFORE_IT, "SEARCH job USING COVERING INDEX job_ready (lane=? AND priority=? AND seq<?)"),
    ],
)
def test_other_statements_do_not_walk_through_finished_jobs(
    connection: sqlite3.Connection, sql: str, index: str
) -> None:
    assert index in plan(connection, sql)


@pytest.mark.parametrize("owner", [False, True])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("state", "index"),
    [
        (JobState.ASSIGNED, "job_held"),
        (JobState.IN_PROGRESS, "job_held"),
        (JobState.FAILED, "job_without_result"),
        (JobState.CANCELLED, "job_without_result"),
    ],
)
def test_a_list_of_few_among_many_uses_their_index(
    connection: sqlite3.Connection, owner: bool, before: bool, state: JobState, index: str
) -> None:
    assert f"USING INDEX {index}" in plan(connection, sqlite_views.jobs_query(owner=owner, state=state, before=before))


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("owner", [False, True])
def test_a_list_by_labels_steps_over_no_job_without_them(
    connection: sqlite3.Connection, owner: bool, labels: int
) -> None:
    steps = plan(connection, sqlite_views.jobs_query(owner=owner, state=None, before=True, labels=labels))
    assert "SEARCH job USING INTEGER PRIMARY KEY (rowid=?)" in steps
    assert "SEARCH label USING PRIMARY KEY (key=? AND value=?)" in steps
    assert "SCAN job" not in steps


def test_the_conditions_of_the_indexes_are_the_states_of_the_table_of_moves() -> None:
    schema = "".join(sql for _, sql in migrations())
    assert sources(Event.ASSIGN) == (JobState.IN_QUEUE,)
    assert "job_ready ON job (lane, priority DESC, seq, state, run_after) WHERE state = 'IN_QUEUE'" in schema
    held = ", ".join(f"'{state}'" for state in sources(Event.REQUEUE))
    assert f"job_held ON job (worker_id) WHERE state IN ({held})" in schema
