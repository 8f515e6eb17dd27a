"""A job that was waited for, as it is at its end, without asking the store again: all of it has just passed by."""

from __future__ import annotations

from hecaton.core.model import INLINE_LIMIT, Attempt, Job, JobState
from hecaton.server.fleet.attempts import EndNews
from hecaton.server.jobs.views import JobParts
from hecaton.store.port import NewJob


def parts_at_end(job: NewJob, index: int, owner: str, image: str, worker: str, ending: EndNews) -> JobParts | None:
    """What a read of the store would give now. None: more would have to be known, as after several attempts."""
    # hot: benchmarks/latency.py - the usual case alone: the first attempt of the job succeeded
    said, ended = ending.said, ending.stored
    verdict, assigned_at, body = ended.verdict, ended.assigned_at, said.body
    if ended.state is not JobState.FINISHED or said.ref.attempt != 1 or verdict is None or assigned_at is None:
        return None
    attempt = Attempt(
        1, worker, assigned_at, ended.started_at, said.at, verdict.reason, verdict.charged, said.exit_code, said.failure
    )
    payload = job.payload
    now = Job(
        index=index,
        id=job.id,
        owner=owner,
        owner_id=job.owner_id,
        image=image,
        image_id=job.image_id,
        lane=job.lane.key(),
        spec=job.spec,
        state=ended.state,
        created_at=job.created_at,
        attempt=1,
        worker_id=said.by,
        worker=worker,
        assigned_at=assigned_at,
        started_at=ended.started_at,
        ended_at=said.at,
        reason=verdict.reason,
        failure=said.failure,
        exit_code=said.exit_code,
        cancel_requested=ended.cancel_requested,
        retry_of=job.retry_of,
        payload_kind=payload.kind,
        payload_size=payload.size,
        payload_blob=payload.blob,
        result_kind=body.kind if body else None,
        result_size=body.size if body else 0,
        result_blob=body.blob if body else None,
    )
    return JobParts(now, payload if payload.size <= INLINE_LIMIT else None, body, [attempt], None, {})
