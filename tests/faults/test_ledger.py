"""The oracle has teeth: it finds each fault that it is there for, and none where all is well."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hecaton.core.model import JobState, Kind, Mode, Reason
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import JobView
from tests.e2e.conftest import running, until
from tests.faults.handler import value_of
from tests.faults.ledger import HANDLER, Ledger

EXECUTION = "e0"
RESULT = {"value": value_of(7), "attempt": 1, "execution": EXECUTION}


def says(
    ledger: Ledger, what: str, at: float = 1.0, attempt: int = 1, execution: str = EXECUTION, job: str = "j"
) -> None:
    record = {
        "job": job,
        "attempt": attempt,
        "execution": execution,
        "what": what,
        "key": "key",
        "where": "here:1",
        "time": at,
    }
    with open(ledger.environment["LEDGER"], "a", encoding="ascii") as file:
        file.write(json.dumps(record) + "\n")


def ran(ledger: Ledger, attempt: int = 1, execution: str = EXECUTION, job: str = "j") -> None:
    for what in ("begin", "end"):
        says(ledger, what, attempt=attempt, execution=execution, job=job)


def view(job: str = "j", state: JobState = JobState.FINISHED, attempt: int = 1) -> JobView:
    nothing: dict[str, Any] = dict.fromkeys(field for field in JobView.__struct_fields__)
    return msgspec.structs.replace(
        JobView(**nothing),
        id=job,
        state=state,
        attempt=attempt,
        reason=Reason.OK,
        mode=Mode.NATIVE,
        payload_kind=Kind.JSON,
    )


def one_good_job(ledger: Ledger) -> None:
    ledger.acknowledged("j", "key", 7)
    ran(ledger)
    ledger.read(view(), RESULT)


def test_a_job_that_ran_once_and_was_read_twice_is_all_right(ledger: Ledger) -> None:
    one_good_job(ledger)
    ledger.read(view(), RESULT)
    ledger.verdict().check()


LINES = [f"j 1 {EXECUTION} begin", f"j 1 {EXECUTION} end"]


@pytest.mark.parametrize(
    "lines",
    [
        [*LINES, f"k 1 {EXECUTION} begin"],
        [f"j 2 {EXECUTION} begin", *LINES],
        LINES[:1],
        [*LINES, LINES[1]],
        [],
    ],
    ids=["another job's", "another attempt's", "one is missing", "one is there twice", "all are missing"],
)
def test_a_log_that_is_not_what_its_attempt_printed_is_mixed(ledger: Ledger, lines: list[str]) -> None:
    one_good_job(ledger)
    ledger.log("j", 1, "".join(f"{line}\n" for line in lines))
    with pytest.raises(AssertionError, match="1 mixed"):
        ledger.verdict().check()


def test_a_log_may_have_what_the_sdk_says_and_what_a_child_of_the_job_says(ledger: Ledger) -> None:
    one_good_job(ledger)
    more = ["hecaton.serverless: connecting to the worker again", f"j 1 {EXECUTION} left over"]
    ledger.log("j", 1, "".join(f"{line}\n" for line in [*LINES, *more]))
    ledger.verdict().check()


def test_an_acknowledged_job_that_nobody_can_read_is_lost(ledger: Ledger) -> None:
    ledger.acknowledged("j", "key", 7)
    ran(ledger)
    with pytest.raises(AssertionError, match="1 lost"):
        ledger.verdict().check()


def test_a_job_that_failed_did_so_for_the_machines_sake(ledger: Ledger) -> None:
    ledger.acknowledged("j", "key", 7)
    ran(ledger)
    ledger.read(view(state=JobState.FAILED), None)
    with pytest.raises(AssertionError, match="1 failed"):
        ledger.verdict().check()


@pytest.mark.parametrize(("no_overlap", "overlaps"), [(True, 1), (False, 0)])
def test_a_job_that_may_not_overlap_and_lives_on_beside_its_next_attempt_is_found(
    ledger: Ledger, no_overlap: bool, overlaps: int
) -> None:
    ledger.acknowledged("j", "key", 7, no_overlap=no_overlap)
    for attempt, what, at in ((1, "begin", 1.0), (2, "begin", 5.0), (1, "beat", 6.0), (2, "end", 7.0)):
        says(ledger, what, at, attempt, str(attempt))
    assert len(ledger.verdict().overlaps) == overlaps


@pytest.mark.parametrize(
    ("read", "result"),
    [
        (view(), {**RESULT, "value": value_of(8)}),
        (view(), {**RESULT, "execution": "one that nobody saw"}),
        (view(attempt=2), RESULT),
        (view(), None),
    ],
)
def test_a_result_of_other_input_execution_or_attempt_is_wrong(ledger: Ledger, read: JobView, result: Any) -> None:
    ledger.acknowledged("j", "key", 7)
    ran(ledger)
    ledger.read(read, result)
    with pytest.raises(AssertionError, match="1 wrong"):
        ledger.verdict().check()


def test_an_end_that_changes_after_it_was_read_is_a_duplicate(ledger: Ledger) -> None:
    one_good_job(ledger)
    ran(ledger, attempt=2, execution="e1")
    ledger.read(view(attempt=2), {**RESULT, "attempt": 2, "execution": "e1"})
    with pytest.raises(AssertionError, match="1 duplicates"):
        ledger.verdict().check(extra_percent=100)


def test_a_key_that_makes_two_jobs_is_a_duplicate(ledger: Ledger) -> None:
    one_good_job(ledger)
    ledger.acknowledged("another", "key", 7)
    assert len(ledger.verdict().duplicates) == 1


def test_a_second_job_of_a_key_is_found_by_its_execution_alone(ledger: Ledger) -> None:
    one_good_job(ledger)
    ran(ledger, job="never acknowledged", execution="e1")
    assert len(ledger.verdict().duplicates) == 1


def test_a_second_execution_is_extra_and_of_the_same_attempt_it_is_never_right(ledger: Ledger) -> None:
    one_good_job(ledger)
    ran(ledger, execution="e1")
    with pytest.raises(AssertionError, match=r"1 extra executions of 1 jobs: 100\.0 %"):
        ledger.verdict().check()
    with pytest.raises(AssertionError, match="1 repeated:\n  j, attempt 1: 2 times"):
        ledger.verdict().check(extra_percent=100)


def test_it_sees_what_processes_execute(tmp_path: Path, ledger: Ledger) -> None:
    """Also an execution that never ended: its worker and process are killed."""
    with LocalCluster(tmp_path / "home", environment={**os.environ, **ledger.environment}) as cluster:
        worker = cluster.start_worker("one", handlers={"work": HANDLER})
        cluster.register("work")
        client = cluster.client()
        jobs = [ledger.submit(client, "work", n) for n in range(5)]
        ledger.read_all(client, 30)
        ledger.verdict().check()
        slow = running(ledger.submit(client, "work", 5, sleep=600))
        until(lambda: bool(ledger.executions(slow.id)), "it began")
        (execution,) = ledger.executions(slow.id)
        assert (execution.attempt, execution.ended) == (1, None)
        assert execution.began <= time.monotonic()
        assert worker.child.poll() is None
        slow.cancel()
        ledger.read_all(client, 30)
        assert ledger.verdict().failed == [f"{slow.id}: CANCELLED (cancelled) in attempt 1"]
        assert ledger.jobs() == [*(job.id for job in jobs), slow.id]


def test_it_sees_what_containers_execute(python39_image: str, tmp_path: Path, ledger: Ledger) -> None:
    with ledger.listening() as environment, LocalCluster(tmp_path / "home") as cluster:
        cluster.start_worker("one")
        cluster.register(python39_image)
        client = cluster.client()
        client.update_image(python39_image, env=environment)
        for n in range(3):
            ledger.submit(client, python39_image, n, mode="handler", file=HANDLER)
        ledger.read_all(client, 60)
        verdict = ledger.verdict()
        verdict.check()
        assert verdict.executions == 3
        assert not any(execution.where.startswith(f"{os.uname().nodename}:") for execution in ledger.executions())


def test_a_job_that_cannot_leave_its_trace_fails(tmp_path: Path) -> None:
    environment = {**os.environ, "LEDGER": str(tmp_path / uuid.uuid4().hex)}
    with LocalCluster(tmp_path / "home", environment=environment) as cluster:
        cluster.start_worker("one", handlers={"work": HANDLER})
        cluster.register("work")
        assert cluster.client().submit("work", {"n": 1}).wait(30).reason == Reason.HANDLER_ERROR
