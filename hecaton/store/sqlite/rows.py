"""Base of the SQLite store's parts, and the translation between rows and the nouns of core."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import msgspec

from hecaton.core.model import (
    Attempt,
    Body,
    Charged,
    Failure,
    Job,
    JobSpec,
    JobState,
    Kind,
    Reason,
)

Row = Sequence[Any]
T = TypeVar("T")

encode_json = msgspec.json.Encoder().encode
decode_spec = msgspec.json.Decoder(JobSpec).decode
_decode_failure = msgspec.json.Decoder(Failure).decode

# Looked up per row on the hot path: a dict is four times as fast as calling the enum.
STATE = {state.value: state for state in JobState}
KIND = {kind.value: kind for kind in Kind}
REASON = {reason.value: reason for reason in Reason}
CHARGED = {charged.value: charged for charged in Charged}

PARTS = (32, 16, 8, 4, 2, 1)
"""Rows that one statement writes. The interpreter's lock changes hands around each statement, which under load costs
more than the row; and with few lengths all of them stay prepared."""

_BODIES = {
    table: {rows: f"INSERT INTO {table} (seq, data) VALUES {', '.join(['(?, ?)'] * rows)}" for rows in PARTS}  # noqa: S608
    for table in ("payload", "result")
}

JOBS = """
    SELECT job.seq, job.id, user.name, job.owner_id, image.name, job.image_id, job.lane, job.spec, job.state,
           job.created_at, job.attempt, job.worker_id, worker.name, job.slot, job.run_after, job.assigned_at,
           job.started_at, job.ended_at, job.reason, job.failure, job.exit_code, job.user_failures, job.infra_failures,
           job.cancel_requested, job.retry_of, job.payload_kind, job.payload_size, job.payload_blob, job.result_kind,
           job.result_size, job.result_blob, batch.id, job.item, batch.paused
    FROM job CROSS JOIN user ON user.id = job.owner_id CROSS JOIN image ON image.id = job.image_id
    LEFT JOIN worker ON worker.id = job.worker_id LEFT JOIN batch ON batch.seq = job.batch
"""
"""To be followed by WHERE. CROSS JOIN keeps `job` the outer loop."""


class Verbs:
    """Part of a `Store`: plain functions over the transaction that is open on the connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection.execute
        self._sql_many = connection.executemany

    def _row(self, sql: str, *values: Any) -> Row | None:
        row: Row | None = self._sql(sql, values).fetchone()
        return row

    def _insert_bodies(self, table: str, bodies: Sequence[tuple[int, bytes]]) -> None:
        """Into `payload` or `result`, by index of the job."""
        for part in parts(bodies):
            self._sql(_BODIES[table][len(part)], [*chain.from_iterable(part)])


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """In lengths of `PARTS`."""
    start = 0
    for rows in PARTS:
        while len(values) - start >= rows:
            yield values[start : start + rows]
            start += rows


def job_of(row: Row) -> Job:
    """A row of `JOBS`."""
    return Job(
        index=row[0],
        id=row[1],
        owner=row[2],
        owner_id=row[3],
        image=row[4],
        image_id=row[5],
        lane=row[6],
        spec=decode_spec(row[7]),
        state=STATE[row[8]],
        created_at=row[9],
        attempt=row[10],
        worker_id=row[11],
        worker=row[12],
        slot=row[13],
        run_after=row[14],
        assigned_at=row[15],
        started_at=row[16],
        ended_at=row[17],
        reason=REASON[row[18]] if row[18] else None,
        failure=failure_of(row[19]),
        exit_code=row[20],
        user_failures=row[21],
        infra_failures=row[22],
        cancel_requested=bool(row[23]),
        retry_of=row[24],
        payload_kind=KIND[row[25]],
        payload_size=row[26],
        payload_blob=row[27],
        result_kind=KIND[row[28]] if row[28] else None,
        result_size=row[29],
        result_blob=row[30],
        batch=row[31],
        item=row[32],
        batch_paused=row[33],
    )


def attempt_of(row: Row) -> Attempt:
    """number, worker's name, assigned_at, started_at, ended_at, reason, charged, exit_code, failure."""
    return Attempt(
        number=row[0],
        worker=row[1],
        assigned_at=row[2],
        started_at=row[3],
        ended_at=row[4],
        reason=REASON[row[5]] if row[5] else None,
        charged=CHARGED[row[6]] if row[6] else None,
        exit_code=row[7],
        failure=failure_of(row[8]),
    )


def body_of(kind: str, size: int, blob: str | None, data: bytes | None) -> Body:
    return Body(KIND[kind], data or b"", blob, size)


def failure_of(text: str | None) -> Failure | None:
    return _decode_failure(text) if text else None


def json_text(value: Any) -> str:
    return encode_json(value).decode()


def failure_text(failure: Failure | None) -> str | None:
    return json_text(failure) if failure else None
