"""Errors that stay with a process: its container is parted with, and nobody else pays for it."""

from __future__ import annotations

import pytest

from hecaton.core.model import AttemptRef, Body, Failure, Gpu, Kind, Reason
from hecaton.wire.channel import Released
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.failures.sticky import ALIKE, REPLACED_HINT, names_device
from tests.worker.brain import Brain, assignment, ref

ASSERT = Failure("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...", "RuntimeError")
KEYS = Failure("'lr'", "KeyError")


@pytest.fixture
def brain() -> Brain:
    brain = Brain(gpus=(Gpu("GPU-0", "H", 1),))
    brain.connect()
    return brain


def failed(
    brain: Brain, container: str, job: AttemptRef, failure: Failure, reason: Reason = Reason.HANDLER_ERROR
) -> None:
    brain.hear(ev.JobAnswered(brain.now, container, job, reason, None, failure))


def stopped(brain: Brain) -> list[str]:
    return [action.container for action in brain.did(ev.StopContainer)]


def up(brain: Brain, container: str, *, ahead: bool = False) -> None:
    brain.hear(ev.ImageReady(brain.now, container))
    brain.hear(ev.ContainerStarted(brain.now, container))
    brain.hear(ev.ContainerReady(brain.now, container, takes_ahead=ahead))


def fails(brain: Brain, container: str, *messages: str, warm: str = "w1") -> int:
    """How many of these failures it takes until the container is stopped; 0: all of them do not do it."""
    for number, message in enumerate(messages, 1):
        job = f"{container}-{number}"
        brain.assign(assignment(job, warm_key=warm))
        if number == 1:
            up(brain, container)
        failed(brain, container, ref(job), Failure(message, "ValueError"))
        if stopped(brain):
            brain.gone(container)
            return number
    return 0


@pytest.mark.parametrize(
    "failure",
    [
        ASSERT,
        Failure("an illegal memory access was encountered", "torch.AcceleratorError"),
        Failure("CUDNN_STATUS_EXECUTION_FAILED", "RuntimeError"),
        Failure("CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", "RuntimeError"),
        Failure(
            "cudaErrorLaunchFailure: unspecified launch failure", "cupy_backends.cuda.api.runtime.CUDARuntimeError"
        ),
        Failure("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS", "jaxlib.xla_extension.XlaRuntimeError"),
        Failure("HIP error: invalid device function", "RuntimeError"),
        Failure("uncorrectable ECC error encountered", "RuntimeError"),
        Failure("step failed", "app.Error", "RuntimeError: CUDA error: misaligned address\n\nThe above exception ..."),
    ],
)
def test_an_error_that_names_the_card_is_seen_as_such(failure: Failure) -> None:
    assert names_device(failure)


@pytest.mark.parametrize(
    "failure",
    [
        Failure("CUDA out of memory. Tried to allocate 2 GiB", "torch.OutOfMemoryError"),
        Failure("CUDA error: out of memory", "RuntimeError"),
        Failure("'cuda'", "KeyError"),
        Failure("the device is busy", "OSError", '  File "x.py"\n    raise OSError  # CUDA error: none\nOSError: x'),
        Failure("no errors in CUDA", "ValueError"),
    ],
)
def test_other_errors_are_not(failure: Failure) -> None:
    assert not names_device(failure)


def test_after_an_error_that_names_the_card_the_next_job_has_a_new_process(brain: Brain) -> None:
    brain.assign(assignment("a"), assignment("b"))
    up(brain, "c-1")
    failed(brain, "c-1", ref("a"), ASSERT)
    assert stopped(brain) == ["c-1"]
    assert brain.given() == []
    delivered = brain.did(ev.Deliver)[0].outcome
    assert (delivered.reason, delivered.failure and delivered.failure.hint) == (Reason.HANDLER_ERROR, REPLACED_HINT)
    brain.gone("c-1")
    up(brain, "c-2")
    assert brain.given() == [("c-2", ref("b"))]
    failed(brain, "c-2", ref("b"), ASSERT)
    assert stopped(brain) == ["c-2"], "each time: no job can succeed there"


def test_what_had_begun_in_such_a_process_is_nobodys_failure(brain: Brain) -> None:
    brain.assign(assignment("before"))
    up(brain, "c-1", ahead=True)
    brain.answer("c-1", ref("before"))
    brain.assign(*map(assignment, "abcd"))
    failed(brain, "c-1", ref("a"), ASSERT)
    assert stopped(brain) == ["c-1"]
    failed(brain, "c-1", ref("b"), ASSERT)
    assert brain.results() == [], "b began in a process whose card had failed"
    brain.hear(ev.Withdrawn(brain.now, "c-1", (ref("d"),)))
    assert brain.said(Released) == [Released((ref("d"),))]
    brain.gone("c-1")
    assert brain.said(Released) == [Released((ref("b"),)), Released((ref("c"),))]


def test_others_count_when_several_read_alike_in_a_row(brain: Brain) -> None:
    assert fails(brain, "c-1", "step 1 at 0xfe", "step 22 at 0x01", "step 333 at 0xabc") == ALIKE
    assert fails(brain, "c-2", "one", "two", "one", "two", "two", "one", warm="w2") == 0


def test_memory_of_the_card_that_stays_full_counts_too(brain: Brain) -> None:
    brain.assign(*map(assignment, "abc"))
    up(brain, "c-1")
    for job in "abc":
        failed(brain, "c-1", ref(job), Failure("CUDA out of memory", "torch.OutOfMemoryError"), Reason.OOM_GPU)
    assert stopped(brain) == ["c-1"]


def test_an_error_of_the_jobs_themselves_costs_one_start_until_a_job_succeeds(brain: Brain) -> None:
    assert fails(brain, "c-1", *["no such key"] * ALIKE) == ALIKE
    assert fails(brain, "c-2", *["no such key"] * 3 * ALIKE) == 0
    brain.assign(assignment("good"))
    brain.answer("c-2", ref("good"))
    for number in range(ALIKE):
        brain.assign(assignment(f"again-{number}"))
        failed(brain, "c-2", ref(f"again-{number}"), KEYS)
    assert stopped(brain) == ["c-2"]


def test_a_success_between_them_begins_the_count_anew(brain: Brain) -> None:
    brain.assign(*map(assignment, "abcde"))
    up(brain, "c-1")
    for job in "ab":
        failed(brain, "c-1", ref(job), KEYS)
    brain.hear(ev.JobAnswered(brain.now, "c-1", ref("c"), Reason.OK, Body.inline(Kind.JSON, b"1")))
    for job in "de":
        failed(brain, "c-1", ref(job), KEYS)
    assert stopped(brain) == []


def test_a_result_that_comes_in_time_counts_where_the_card_is_not_named(brain: Brain) -> None:
    brain.assign(assignment("before"))
    up(brain, "c-1", ahead=True)
    brain.answer("c-1", ref("before"))
    brain.assign(*map(assignment, "abcd"))
    for job in "abc":
        failed(brain, "c-1", ref(job), KEYS)
    assert stopped(brain) == ["c-1"]
    brain.answer("c-1", ref("d"))
    assert brain.results()[-1] == (ref("d"), Reason.OK)
