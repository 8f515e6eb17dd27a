"""The last look: when everything has healed and gone quiet, do all sides agree, and is everything explained?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hecaton.core.lifecycle import charge
from hecaton.core.model import Attempt, AttemptRef, Charged, Job, JobState, Reason
from tests.simulator.engine import result_of
from tests.simulator.logs import is_silent, line_of
from tests.simulator.oracle import Fault, Oracle
from tests.simulator.plan import JobPlan
from tests.simulator.service import WALL

if TYPE_CHECKING:
    from tests.simulator.world import World

RECOVERY = 10.0
"""Seconds after a fault, beside two leases, in which its consequences may still appear."""

_HANDLERS = {Reason.OK, Reason.HANDLER_ERROR, Reason.OOM_GPU}
_EXITS = {Reason.HANDLER_EXIT: "exit", Reason.OOM_HOST: "oom"}


def judge(world: World) -> None:
    _check_quiet(world)
    _check_promises(world)
    for job in world.disk.run(lambda store: store.jobs(owner_id=None, state=None, before=None, limit=1_000_000).jobs):
        attempts = world.disk.run(lambda store, job=job: store.attempts(job.id))  # type: ignore[misc]
        _check_job(world, job, attempts)


def _check_quiet(world: World) -> None:
    """Nothing is held, waited for or running anywhere."""
    oracle, service = world.oracle, world.service
    assert service is not None
    oracle.rule(oracle.running() == 0, "a handler still runs")
    leases = [lease.ref for member in service.parts.fleet.members.values() for lease in member.leases()]
    oracle.rule(not leases, f"the server still holds leases: {[oracle.name(ref) for ref in leases]}")
    reserved = [
        slot for member in service.parts.fleet.members.values() for slot in member.slots.values() if slot.reserved
    ]
    oracle.rule(not reserved, f"slots stay reserved: {reserved}")
    oracle.rule(not service.parts.attempts.live, f"the server still minds attempts: {service.parts.attempts.live}")
    online = {
        member.name for member in service.parts.fleet.members.values() if member.link is not None and not member.suspect
    }
    away = [machine.name for machine in world.machines if machine.name not in online]
    oracle.rule(not away, f"not connected: {away}")
    for machine in world.machines:
        if machine.worker is None:
            continue  # not connected, either
        state = machine.worker.state
        oracle.rule(not state.holdings.jobs, f"{machine.name} still holds {list(state.holdings.jobs)}")
        oracle.rule(not state.holdings.done, f"{machine.name} still has results {list(state.holdings.done)}")
        oracle.rule(not machine.journal.written, f"{machine.name} still has results on disk")


def _check_promises(world: World) -> None:
    oracle, people = world.oracle, world.people
    for key, job in people.acknowledged.items():
        oracle.rule(
            oracle.by_key.get(key) == [job], f"{key} was acknowledged as {job}; there is {oracle.by_key.get(key)}"
        )
    for job, view in people.seen.items():
        state = oracle.ended.get(job, ("?", 0, None))[0]
        oracle.rule(state == view.state, f"j{view.index} was seen as {view.state} and is {state}")


def _check_job(world: World, job: Job, attempts: list[Attempt]) -> None:
    oracle = world.oracle
    plan = _plan(world, job)
    name = f"j{job.index}"
    oracle.rule(job.state.terminal, f"{name} is {job.state}")
    numbers = [attempt.number for attempt in attempts]
    oracle.rule(
        numbers == list(range(1, job.attempt + 1)), f"{name} has the attempts {numbers}, the last is {job.attempt}"
    )
    if plan is None:
        oracle.fail(f"{name} was asked for by nobody")
        return
    if job.state is JobState.FINISHED:
        body = world.disk.run(lambda store: store.result(job.id))
        oracle.rule(body is not None and body.data == result_of(plan.number), f"{name} has a wrong result")
    charges = [attempt.charged for attempt in attempts]
    oracle.rule(charges.count(Charged.USER) == job.user_failures, f"{name}: {charges}, counted {job.user_failures}")
    oracle.rule(charges.count(Charged.INFRA) == job.infra_failures, f"{name}: {charges}, counted {job.infra_failures}")
    oracle.rule(
        job.user_failures <= plan.retries + 1, f"{name} failed {job.user_failures} times, retries {plan.retries}"
    )
    for attempt in attempts:
        _check_attempt(world, job, plan, attempt)
        _check_log(world, job, plan, attempt)
    _check_end(world, job, plan)


def _check_log(world: World, job: Job, plan: JobPlan, attempt: Attempt) -> None:
    """A worker that was killed leaves the beginning; nothing is ever in the log of another one."""
    ref = AttemptRef(job.id, attempt.number)
    log = world.disk.run(lambda store: store.read_log(ref.job, ref.attempt, 0, 1 << 20))
    printed = b"" if is_silent(plan.number) else line_of(ref, "begin") + line_of(ref, "end")
    world.oracle.rule(printed.startswith(log), f"j{job.index} attempt {attempt.number} has the log {log!r}")


def _plan(world: World, job: Job) -> JobPlan | None:
    """What the job was asked for by: its idempotency key says so, or that of the job that it repeats."""
    oracle = world.oracle
    return oracle.plans.get(oracle.keys[job.retry_of or job.id])


def _check_attempt(world: World, job: Job, plan: JobPlan, attempt: Attempt) -> None:
    oracle = world.oracle
    name = f"j{job.index}/{attempt.number}"
    reason = attempt.reason
    if reason is None:
        oracle.fail(f"{name} has no end")
        return
    cancelled = job.state is JobState.CANCELLED and attempt.number == job.attempt
    free = cancelled or reason is Reason.WORKER_LOST  # not charged where several were lost, or a machine was rebooted
    right = attempt.charged is charge(reason) or (free and attempt.charged is Charged.NONE)
    oracle.rule(right, f"{name}: {reason} charged {attempt.charged}")
    run = oracle.executions.get(AttemptRef(job.id, attempt.number))
    outcome = run.outcome if run is not None else None
    if reason in _HANDLERS:
        oracle.rule(outcome == reason.value, f"{name} ended as {reason}, its container said {outcome}")
        oracle.rule(
            run is None or run.host == attempt.worker, f"{name} ran on {run and run.host}, not {attempt.worker}"
        )
    elif reason in _EXITS:
        oracle.rule(
            outcome == _EXITS[reason] or _excused(world, attempt), f"{name} ended as {reason}, ran as {outcome}"
        )
    elif reason is Reason.TIMEOUT:
        oracle.rule(plan.timeout is not None, f"{name} ended for its timeout and has none")
    elif reason is Reason.RELEASED:
        oracle.rule(run is None or _lost(world, attempt), f"{name} was released, but ran: {run}")
    elif reason is Reason.WORKER_LOST:
        oracle.rule(_lost(world, attempt), f"{name} lost its worker, which was never away: {run}")
    elif reason is Reason.CANCELLED:
        oracle.rule(job.id in world.people.cancelled, f"{name} was cancelled by nobody")
    else:
        oracle.rule(_excused(world, attempt), f"{name} ended as {reason} without any fault")
    if run is not None and outcome in ("stopped", "lost") and not cancelled and reason is not Reason.TIMEOUT:
        oracle.rule(_excused(world, attempt), f"{name} was cut off without any fault: {run}")


_DEADLY = {"worker_kill", "host_power", "worker_stop"}
_SILENT = {"link_hole", "link_refuse", "link_flap", "link_slow", "worker_pause"}
_HOST = {"engine_down", "registry_down", "container_exit", "container_oom"}

SILENCE = 10.0
"""Seconds of silence that may, with the pauses before the next tries, become a lost worker."""


def _lost(world: World, attempt: Attempt) -> bool:
    """Was the worker away? Its process or machine died, or it could not be heard for long. The server's own faults do
    not count: they must never cost an execution."""
    faults = _faults(world, attempt)
    silent = sum(fault.until - fault.since for fault in faults if fault.kind in _SILENT)
    return silent >= SILENCE or any(fault.kind in _DEADLY for fault in faults)


def _excused(world: World, attempt: Attempt) -> bool:
    """Was the worker lost, or did its engine, its containers or the registry break?"""
    return _lost(world, attempt) or any(fault.kind in _HOST for fault in _faults(world, attempt))


def _faults(world: World, attempt: Attempt) -> list[Fault]:
    """Of the attempt's worker, in its time. That is by the server's clock: where that may have jumped, all count."""
    oracle: Oracle = world.oracle
    subjects = (attempt.worker, "all")
    if any(fault.kind == "wall_jump" for fault in oracle.faults):
        return [fault for fault in oracle.faults if fault.subject in subjects]
    since, until = attempt.assigned_at - WALL, (attempt.ended_at or 0.0) - WALL
    return oracle.broken_between(subjects, since - 1.0, until + 1.0, 2 * world.plan.lost_after + RECOVERY)


def _check_end(world: World, job: Job, plan: JobPlan) -> None:
    oracle = world.oracle
    name = f"j{job.index}"
    if job.reason is Reason.QUEUE_TTL:
        oracle.rule(plan.queue_ttl is not None, f"{name} ended for a queue_ttl that it has not")
    if job.state is JobState.CANCELLED:
        oracle.rule(job.id in world.people.cancelled, f"{name} was cancelled by nobody")
    if plan.does == "ok" and job.state is JobState.FAILED and plan.timeout is None and plan.queue_ttl is None:
        oracle.rule(bool(oracle.faults), f"{name} does no harm and failed: {job.reason}")
