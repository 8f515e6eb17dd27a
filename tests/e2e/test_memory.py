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
LOADS = """\
import subprocess, sys
hoard = "hoard = [b'x' * (8 << 20) for _ in range(64)]"
ended = subprocess.run([sys.executable, "-c", hoard])
print("a worker is gone:", ended.returncode, flush=True)
sys.exit(3)
"""
SHARES = """\
import mmap
with open("/dev/shm/batch", "w+b") as file:
    file.truncate(8 << 20)
    shared = mmap.mmap(file.fileno(), 0)
    shared.write(b"x" * (8 << 20))
"""


@pytest.fixture
def job(admin: Client, tmp_path: Path) -> Iterator[JobHandle]:
    """A script that waits for /tmp/go, and then wants half a gigabyte."""
    script = tmp_path / "hoards.py"
    script.write_text(HOARDS)
    job = running(admin.submit(PYTHON, mode=Mode.SCRIPT, file=script, memory="64M"))
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
    docker("exec", container_of(admin), "touch", "/tmp/go")
    assert (ended(job).reason, ended(job).exit_code) == ("oom_host", 137)
    said = person.types(f"hecaton job wait {job.index}", code=1).err
    assert "out of memory (RAM, not GPU memory). It may use 64 MB (--memory) and reached it" in said
    assert "The kernel killed python" in said
    assert f"hecaton retry {job.index} --memory 128M" in said


def test_a_child_process_that_was_killed_is_named(admin: Client, person: Person, tmp_path: Path) -> None:
    """As data loaders are: what started it goes on, and says no more than that it is gone."""
    script = tmp_path / "loads.py"
    script.write_text(LOADS)
    job = admin.submit(PYTHON, mode=Mode.SCRIPT, file=script, memory="64M")
    assert (ended(job).reason, ended(job).exit_code) == ("oom_host", 3)
    said = person.types(f"hecaton job wait {job.index}", code=1).err
    assert "It may use 64 MB (--memory) and reached it. The kernel killed python" in said
    assert "That ended the script, with exit code 3" in said
    assert "a worker is gone: -9" in said


def test_a_bus_error_names_shm(admin: Client, person: Person, tmp_path: Path) -> None:
    script = tmp_path / "shares.py"
    script.write_text(SHARES)
    job = admin.submit(PYTHON, mode=Mode.SCRIPT, file=script, shm="1M")
    assert ended(job).reason == "script_exit"
    said = person.types(f"hecaton job wait {job.index}", code=1).err
    assert "exit code 135 (SIGBUS)" in said
    assert f"/dev/shm, which data loaders share, is full. Try: hecaton retry {job.index} --shm 128M" in said


def test_one_that_somebody_has_killed_did_not_run_out_of_memory(job: JobHandle, admin: Client, person: Person) -> None:
    """The kernel's log says of whom it has killed; of nobody here."""
    kill = "until [ -s /tmp/pid ]; do sleep 0.05; done; kill -9 $(cat /tmp/pid)"
    docker("exec", "--detach", container_of(admin), "sh", "-c", kill)
    view = job.wait(PATIENCE)
    assert (view.reason, view.exit_code) == ("script_exit", 137)
    said = person.types(f"hecaton job wait {job.index}", code=1).err
    assert "ended with exit code 137 (SIGKILL: killed from outside, and not by the kernel for memory)" in said
