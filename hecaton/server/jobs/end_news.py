"""A job that was waited for, as it is at its end, without asking the store again: all of it has just passed by."""

from __future__ import annotations

from hecaton.core.model import Image, JobState
from hecaton.core.options import NOTHING_ASKED, values_of
from hecaton.server.fleet.attempts import EndNews
from hecaton.server.jobs.views import shown_payload, shown_result
from hecaton.store.port import NewJob
from hecaton.wire import api


def view_at_end(job: NewJob, index: int, owner: str, image: Image, worker: str, ending: EndNews) -> api.JobView | None:
    """As `views.job_view` of what a read of the store would give now. None: more would have to be known, as after
    several attempts."""
    # hot: benchmarks/instructions.py - the usual case alone: the first attempt of the job succeeded. By way of a `Job`
    # and with all names it costs 5 % of a job more
    said, ended = ending.said, ending.stored
    verdict, assigned_at, body = ended.verdict, ended.assigned_at, said.body
    if ended.state is not JobState.FINISHED or said.ref.attempt != 1 or verdict is None or assigned_at is None:
        return None
    if image.defaults is not NOTHING_ASKED:
        return None
    spec, payload = job.spec, job.payload
    result, result_base64 = shown_result(body)
    attempt = api.AttemptView(
        1, worker, assigned_at, ended.started_at, said.at, verdict.reason, verdict.charged, said.exit_code,
        said.failure, said.image_version,
    )  # fmt: skip
    return api.JobView(
        job.id, index, ended.state, image.name, owner, spec.mode, job.created_at, assigned_at, ended.started_at,
        said.at, 1, worker, verdict.reason, said.failure, said.exit_code, ended.cancel_requested, job.retry_of,
        payload.kind, payload.size, shown_payload(payload), body.kind if body else None, body.size if body else 0,
        result, result_base64, attempts=(attempt,), name=spec.name, file_name=spec.file_name, args=spec.args,
        tags=dict(spec.tags), workdir=spec.workdir, **values_of(spec),
    )  # fmt: skip
