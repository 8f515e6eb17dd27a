"""A job that takes more memory than there is: whoever kills it, the word is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.client import Client, JobHandle
from hecaton.core.model import Mode
from hecaton.worker.runtimes.port import LABEL_WORKER
from tests.e2e.commands import Person
from tests.e2e.conftest import PATIENCE, PYTHON, ended, running
from tests.engine.daemon import docker

HOARDS = """\
import os, time
with open("/tmp/pid", "w") as file:
    file.write(str(os.getpid()))
while not os.path.exists("/tmp/go"):
    time.sleep(0.02)
hoard = [b"x" * (8 << 20) for _ in range(64)]
"""


@pytest.fixture
def job(admin: Client, tmp_path: Path) -> Iterator[JobHandle]:
    """A script that waits for /tmp/go, and then wants half a gigabyte."""
    script = tmp_path / "hoards.py"
    script.write_text(HOARDS)
    job = running(admin.submit(PYTHON, mode=Mode.SCRIPT, file=script))
    yield job
    if not job.status().terminal:
        job.cancel()
        ended(job)


def container_of(admin: Client) -> str:
    """The only one of this worker that runs: each script has a fresh one, and the worker has one slot."""
    (worker,) = admin.workers()
    (container,) = docker("ps", "--filter", f"label={LABEL_WORKER}={worker.id}", "--format", "{{.ID}}").split()
    return container


def test_one_that_reaches_the_containers_limit_ran_out_of_memory(job: JobHandle, admin: Client, person: Person) -> None:
    container = container_of(admin)
    docker("update", "--memory", "64m", "--memory-swap", "64m", container)
    docker("exec", container, "touch", "/tmp/go")
    assert (ended(job).reason, ended(job).exit_code) == ("oom_host", 137)
    said = person.types(f"hecaton job wait {job.index}", code=1).err
    assert "the container was killed because it ran out of memory" in said


def test_one_that_the_machine_kills_says_that_it_was_most_likely_for_memory(
    job: JobHandle, admin: Client, person: Person
) -> None:
    """The engine knows nothing of it: to it this is a process that somebody has killed."""
    kill = "until [ -s /tmp/pid ]; do sleep 0.05; done; kill -9 $(cat /tmp/pid)"
    docker("exec", "--detach", container_of(admin), "sh", "-c", kill)
    view = job.wait(PATIENCE)
    assert (view.reason, view.exit_code) == ("script_exit", 137)
    said = person.types(f"hecaton job wait {job.index}", code=1).err
    assert "the script ended with exit code 137 (SIGKILL: killed, most likely for memory)" in said
