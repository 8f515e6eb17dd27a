"""Out of memory, told apart: a job's own limit, the machine's end, a child process, a full /dev/shm."""

from __future__ import annotations

import pytest

from hecaton.core.model import AttemptRef, Failure, JobId, Reason
from hecaton.core.options import NOTHING_ASKED, Options
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.failures.shortage import hinted, larger
from hecaton.worker.brain.failures.words import exit_failure, startup_failure
from hecaton.worker.containers.kills import last_kill, tells_of_containers
from hecaton.worker.runtimes.port import Exit, Shortage
from tests.worker.brain import Brain, assignment

A = AttemptRef(JobId("a"), 1)
GIB = 1 << 30
OURS, OTHER = "e0eac099c1645bfdf876ee78f781c0bb", "5bfdf876ee78f781c0bbe0eac099c164"


def kernel(container: str, *, own: bool = True, at: float = 65243.0, pid: int = 12132) -> list[str]:
    """As Linux 5 and 6 write it, with the head of /dev/kmsg."""
    whose = f"oom_memcg=/docker/{container}" if own else "global_oom"
    constraint = "CONSTRAINT_MEMCG" if own else "CONSTRAINT_NONE"
    return [
        f"4,901,{int(at * 1e6)},-;python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        f"6,902,{int(at * 1e6)},-;oom-kill:constraint={constraint},nodemask=(null),cpuset={container},mems_allowed=0,"
        f"{whose},task_memcg=/docker/{container},task=python3,pid={pid},uid=0",
        f"3,903,{int(at * 1e6)},-;Memory cgroup out of memory: Killed process {pid} (python3) total-vm:537436kB, "
        "anon-rss:64512kB, file-rss:5608kB, shmem-rss:8kB, UID:0 pgtables:188kB oom_score_adj:0",
    ]


def test_the_kernel_says_who_was_killed_and_whose_limit_that_was() -> None:
    size = (64512 + 5608 + 8) << 10
    assert last_kill(kernel(OURS), OURS) == Shortage(machine=False, process="python3", size=size)
    assert last_kill(kernel(OURS, own=False), OURS) == Shortage(machine=True, process="python3", size=size)
    assert last_kill(kernel(OTHER), OURS) is None
    assert last_kill([*kernel(OURS), *kernel(OTHER, pid=7)], OURS) == Shortage(False, "python3", size)


def test_what_was_killed_long_ago_ended_another_job() -> None:
    assert last_kill(kernel(OURS, at=100.0), OURS, since=101.0) is None
    assert last_kill(kernel(OURS, at=102.0), OURS, since=101.0) is not None


def test_an_older_kernel_does_not_say_which_container_it_was() -> None:
    line = "3,903,1,-;Out of memory: Kill process 12132 (python3) score 900 or sacrifice child"
    assert not tells_of_containers([line])
    assert tells_of_containers(kernel(OURS))


def test_a_job_that_reached_its_own_limit_hears_the_figure_and_the_next_one() -> None:
    shortage = Shortage(process="python", size=21 * GIB, limit=30 * GIB)
    reason, failure = exit_failure(Exit(137, True, shortage=shortage), "", "script", Options(memory="32G"))
    assert reason is Reason.OOM_HOST
    assert failure.message == (
        "out of memory (RAM, not GPU memory). It may use 32 GB (--memory) and reached it."
        " The kernel killed python, which had 21 GB."
    )
    assert str(failure.hint).startswith("Try: hecaton retry JOB --memory 48G, or fewer")


def test_one_that_asked_for_nothing_hears_what_it_had() -> None:
    _, failure = exit_failure(Exit(137, True, shortage=Shortage(limit=30 * GIB)), "")
    assert "It may use 30 GB (the default: all of the machine's but a reserve) and reached it." in failure.message
    assert "--memory 32G" in str(failure.hint)


def test_a_machine_without_memory_is_not_the_jobs_fault() -> None:
    reason, failure = exit_failure(Exit(137, shortage=Shortage(machine=True, process="python", size=GIB)), "")
    assert reason is Reason.WORKER_ERROR
    assert failure.message.startswith("the machine ran out of memory: the job is tried again elsewhere")
    reason, _ = startup_failure(Exit(137, shortage=Shortage(machine=True)), "", "", "")
    assert reason is Reason.WORKER_ERROR


def test_a_child_process_that_was_killed_is_told_from_what_ended_by_it() -> None:
    reason, failure = exit_failure(Exit(1, True, shortage=Shortage(process="loader", size=GIB)), "lost", "script")
    assert reason is Reason.OOM_HOST
    assert "The kernel killed loader, which had 1 GB. That ended the script, with exit code 1. " in failure.message
    assert failure.message.endswith("lost")


@pytest.mark.parametrize(
    ("sure", "said"),
    [(True, "killed from outside, and not by the kernel for memory"), (False, "killed, most likely for memory")],
)
def test_a_plain_kill_is_one_where_the_kernel_could_be_asked(sure: bool, said: str) -> None:
    reason, failure = exit_failure(Exit(137, sure=sure), "")
    assert (reason, f"(SIGKILL: {said})" in failure.message) == (Reason.HANDLER_EXIT, True)


@pytest.mark.parametrize("code", [135, -7])
def test_a_bus_error_names_shm(code: int) -> None:
    _, failure = exit_failure(Exit(code), "", "script", Options(shm="8G"))
    assert str(failure.hint).endswith("hecaton retry JOB --shm 12G")
    assert exit_failure(Exit(139), "", "script")[1].hint is None


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("DataLoader worker (pid 31) is killed by signal: Killed. ", "--memory 48G"),
        ("DataLoader worker (pid 31) is killed by signal: Bus error. It is possible that", "--shm 8G"),
        ("A process in the process pool was terminated abruptly while the future was running", "--memory 48G"),
        ("unable to write to file </torch_12_1>: No space left on device (28) in /dev/shm", "--shm 8G"),
        ("ValueError: no", None),
    ],
)
def test_a_handler_that_lost_a_child_process_hears_what_to_try(said: str, hint: str | None) -> None:
    brain = Brain()
    brain.running(assignment("a"))
    brain.hear(ev.JobAnswered(brain.now, "c-1", A, Reason.HANDLER_ERROR, None, Failure(said, type="RuntimeError")))
    [delivered] = brain.did(ev.Deliver)
    assert delivered.outcome.failure is not None
    if hint is None:
        assert delivered.outcome.failure.hint is None
    else:
        said_again = hinted(Failure(said, type="RuntimeError"), NOTHING_ASKED, 32 * GIB)
        assert hint in str(said_again.hint)
        assert hint.partition(" ")[0] in str(delivered.outcome.failure.hint)


def test_the_next_size_is_one_that_people_say() -> None:
    assert [larger(size << 20) for size in (16, 100, 600, 1024, 1500, 24576, 32768)] == [
        "128M", "200M", "1G", "2G", "2G", "32G", "48G",
    ]  # fmt: skip
