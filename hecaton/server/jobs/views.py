"""Turns what the store and the server's memory know into the replies of `wire.api`."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from hecaton.core.doors import WAYS
from hecaton.core.model import Attempt, Body, Job, JobId, JobState, Kind, Reason, WorkerRecord, WorkerStatus
from hecaton.core.options import values_of
from hecaton.core.placement.matching import BY_ITSELF
from hecaton.server.fleet.attempts import Live
from hecaton.server.fleet.places.leases import Member, SlotState
from hecaton.store.port import Checkpoint
from hecaton.wire import api

SHOWN_PAYLOAD = 64 * 1024
TAIL_LINES = 50
_NULL = msgspec.Raw(b"null")


class JobParts(msgspec.Struct, frozen=True):
    """What one read of the store knows about a job."""

    job: Job
    payload: Body | None
    result: Body | None
    attempts: list[Attempt]
    queue_position: int | None
    log_tails: dict[int, bytes]  # by number of the attempt
    checkpoint: Checkpoint | None = None


def _reason(job: Job, reason: Reason | None) -> Reason | None:
    """By the name that it has for jobs of its mode."""
    return WAYS[job.spec.mode].exit_reason if reason is Reason.HANDLER_EXIT else reason


def job_summary(job: Job) -> api.JobSummary:
    return api.JobSummary(
        job.id, job.index, job.state, job.image, job.owner, job.created_at, job.started_at, job.ended_at, job.attempt,
        job.worker, _reason(job, job.reason), job.spec.name, job.spec.mode, job.spec.file_name, job.spec.args,
        dict(job.spec.tags),
    )  # fmt: skip


def job_view(parts: JobParts, live: Live | None, waiting: Sequence[api.Waiting], keep_results: float) -> api.JobView:
    job, spec = parts.job, parts.job.spec
    current = live if live is not None and live.ref == job.ref else None
    # What was refused is kept, and has to be asked for: `result` is that of a job that has one.
    result, result_base64 = shown_result(parts.result if job.state is JobState.FINISHED else None)
    return api.JobView(
        id=job.id,
        index=job.index,
        state=job.state,
        image=job.image,
        owner=job.owner,
        mode=spec.mode,
        created_at=job.created_at,
        assigned_at=job.assigned_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        attempt=job.attempt,
        worker=job.worker,
        reason=_reason(job, job.reason),
        failure=job.failure,
        exit_code=job.exit_code,
        cancel_requested=job.cancel_requested,
        retry_of=job.retry_of,
        **values_of(spec),
        batch=job.batch,
        item=job.item,
        name=spec.name,
        file_name=spec.file_name,
        args=spec.args,
        tags=dict(spec.tags),
        workdir=spec.workdir,
        payload_kind=job.payload_kind,
        payload_size=job.payload_size,
        payload=shown_payload(parts.payload),
        result_kind=job.result_kind,
        result_size=job.result_size,
        result=result,
        result_base64=result_base64,
        progress=current.progress if current else None,
        note=current.note if current else None,
        queue_position=parts.queue_position,
        waiting=tuple(waiting),
        attempts=tuple(_attempt(job, attempt, parts.log_tails.get(attempt.number)) for attempt in parts.attempts),
        log_tail=_tail(parts.log_tails.get(job.attempt, b"")) if job.state is JobState.FAILED else None,
        checkpoint=None if parts.checkpoint is None else _checkpoint(parts.checkpoint),
        removed=removed(keep_results) if job.result_kind is not None and parts.result is None else None,
    )


def _checkpoint(found: Checkpoint) -> api.CheckpointView:
    size = sum(file.size for file in found.files)
    return api.CheckpointView(found.attempt, found.made_at, len(found.files), size)


def removed(keep_results: float) -> str:
    return f"the result was removed after {keep_results / 86400:g} days"


def shown_payload(body: Body | None) -> msgspec.Raw:
    if body is None or body.blob or body.size > SHOWN_PAYLOAD or body.kind is Kind.BYTES:
        return _NULL
    return msgspec.Raw(body.data) if body.kind is Kind.JSON else msgspec.Raw(msgspec.json.encode(body.data.decode()))


def shown_result(body: Body | None) -> tuple[msgspec.Raw, str | None]:
    if body is None or body.blob:
        return _NULL, None
    if body.kind is Kind.JSON:
        return msgspec.Raw(body.data), None
    if body.kind is Kind.TEXT:
        return msgspec.Raw(msgspec.json.encode(body.data.decode("utf-8", "replace"))), None
    return _NULL, base64.b64encode(body.data).decode()


def _attempt(job: Job, attempt: Attempt, log: bytes | None) -> api.AttemptView:
    named = {**msgspec.structs.asdict(attempt), "reason": _reason(job, attempt.reason)}
    return api.AttemptView(**named, log_tail=None if log is None else _tail(log))


def _tail(data: bytes) -> str:
    return "\n".join(data.decode("utf-8", "replace").splitlines()[-TAIL_LINES:])


class Seen(msgspec.Struct, frozen=True):
    """What on the slots of workers somebody may see."""

    jobs: frozenset[JobId]
    images: frozenset[str]


def worker_view(
    record: WorkerRecord, member: Member | None, last_seen: float, seen: Seen | None = None
) -> api.WorkerView:
    """With all that is on its slots, or with what of it is in `seen`."""
    slots = member.slots.values() if member else ()
    return api.WorkerView(
        id=record.id,
        name=record.name,
        status=member.status if member else WorkerStatus.OFFLINE,
        last_seen=last_seen,
        runtime=member.runtime if member else None,
        version=member.version if member else None,
        registered_by=record.registered_by,
        slots=tuple(_slot_view(slot, seen) for slot in sorted(slots, key=lambda slot: slot.index) if slot.shown),
        drained=record.drained,
        note=_note(record, member),
    )


def _note(record: WorkerRecord, member: Member | None) -> str | None:
    if record.drained:
        return "drained by an admin"
    if record.quarantine:
        return f"quarantined: {record.quarantine}"
    if member is not None and member.draining:
        return BY_ITSELF
    return next((slot.lost for slot in member.slots.values() if slot.lost), None) if member else None


def _slot_view(slot: SlotState, seen: Seen | None) -> api.SlotView:
    jobs = tuple(job for job in slot.held if seen is None or job in seen.jobs)
    image = slot.image if seen is None or slot.image in seen.images else None
    return api.SlotView(slot.index, slot.gpu, "lost" if slot.lost else "busy" if slot.held else "idle", image, jobs)
