"""What of a container's /checkpoints counts, and what leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from hecaton.core.model import AttemptRef, JobId
from hecaton.serverless import checkpoint
from hecaton.worker.files import checkpoints
from hecaton.worker.files.checkpoints import Checkpoints, complete, stage
from hecaton.worker.files.made import MadeFiles
from hecaton.worker.files.walk import FOLDER
from hecaton.worker.link.bodies import Bodies

LOOKS = 2_000
"""At a file that is opened all the time: each of them may meet the moment in which a lease is held."""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "state").mkdir()
    fd = os.open(tmp_path / "state", FOLDER)
    yield fd
    os.close(fd)


def counted(root: int, after: float = 0.0) -> set[str]:
    """Names of what counts so many seconds from now."""
    return {unit.name for unit in complete(root, time.time() + after)}


def test_a_file_counts_when_it_was_renamed_or_is_closed_and_quiet(root: int, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "model.pt.tmp").write_text("1")
    os.utime(state / "model.pt.tmp", (time.time() - 1,) * 2)  # the clock of file systems moves in steps
    os.rename(state / "model.pt.tmp", state / "model.pt")
    assert counted(root) == {"model.pt"}, "at once"
    (state / "plain").write_text("2")
    assert counted(root) == {"model.pt"}
    assert counted(root, checkpoints.FILE_QUIET + 0.1) == {"model.pt", "plain"}
    with (state / "open").open("w"):
        assert counted(root, 60) == {"model.pt", "plain"}, "somebody writes to it"
    assert counted(root, 60) == {"model.pt", "plain", "open"}


def test_a_folder_counts_when_it_says_so_and_no_longer_when_it_is_written_to(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    monkeypatch.setenv("HECATON_CHECKPOINTS", str(state))
    for name in ("step-9", "step-10", "other"):
        (state / name).mkdir()
        (state / name / "weights").write_text(name)
        time.sleep(0.02)
    assert counted(root) == set()
    checkpoint("step-9")
    time.sleep(0.02)
    checkpoint("step-10")
    assert counted(root) == {"step-10"}, "the newest of names that differ in numbers only"
    assert counted(root, checkpoints.FOLDER_QUIET + 1) == {"step-10", "other"}
    time.sleep(0.02)
    (state / "step-10/weights").write_text("anew")
    assert counted(root) == {"step-9"}
    checkpoint()
    assert counted(root) == {""}, "all of it"
    time.sleep(0.02)
    (state / "model").write_text("of the next step")
    assert counted(root, 60) == set(), "nothing else counts: what lies beside it is still of the step before"
    checkpoint()
    assert counted(root) == {""}


def test_what_can_be_part_of_no_checkpoint_never_counts(root: int, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "link").symlink_to("/etc/passwd")
    os.mkfifo(state / "pipe")
    (state / "folder").mkdir()
    (state / "folder/link").symlink_to("/etc")
    (state / "folder/.complete").touch()
    deep = state
    for _ in range(100):
        deep /= "d"
        deep.mkdir()
    (deep / "file").touch()
    assert counted(root, 60) == set()


def test_a_link_that_takes_the_place_of_a_folder_leads_nowhere(root: int, tmp_path: Path) -> None:
    state, secret = tmp_path / "state", tmp_path / "secret"
    secret.mkdir()
    (secret / "weights").write_text("of the host")
    (state / "step").mkdir()
    (state / "step/weights").write_text("mine")
    units = complete(root, time.time() + 60)
    os.rename(state / "step", state / "moved")
    (state / "step").symlink_to(secret)
    with pytest.raises(NotADirectoryError):
        stage(root, units, tmp_path / "staged")
    assert not (tmp_path / "staged/step/weights").exists()


def test_what_is_written_to_while_it_is_held_is_noticed(root: int, tmp_path: Path) -> None:
    (tmp_path / "state/model").write_text("whole")
    units = complete(root, time.time() + 60)
    stage(root, units, tmp_path / "staged")
    assert checkpoints._is_as_it_was(tmp_path / "staged", units)
    (tmp_path / "state/new").write_text("other")
    os.rename(tmp_path / "state/new", tmp_path / "state/model")
    assert checkpoints._is_as_it_was(tmp_path / "staged", units), "what replaces it is another file"
    os.unlink(tmp_path / "state/model")
    os.link(tmp_path / "staged/model", tmp_path / "state/model")
    time.sleep(0.02)
    (tmp_path / "state/model").write_text("torn!")
    assert not checkpoints._is_as_it_was(tmp_path / "staged", units)


def test_a_job_that_opens_its_file_while_it_is_looked_at_does_not_end_the_worker(root: int, tmp_path: Path) -> None:
    """The lease by which a closed file is known is broken then, of which the kernel tells by a signal: SIGIO, if no
    other is named, which ends whoever does not await it."""
    (tmp_path / "state/model").write_text("whole")
    opens = "import os, sys\nprint(flush=True)\nwhile True: os.close(os.open(sys.argv[1], os.O_WRONLY))"
    heard: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, frame: heard.append(number))
    opening = subprocess.Popen([sys.executable, "-c", opens, str(tmp_path / "state/model")], stdout=subprocess.PIPE)
    try:
        assert opening.stdout is not None
        opening.stdout.readline()
        for _ in range(LOOKS):
            complete(root, time.time() + 60)
    finally:
        opening.kill()
        opening.communicate()
        signal.signal(signal.SIGIO, before)
    assert not heard


async def test_what_was_held_when_its_container_ends_is_held_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to a checkpoint takes its room on the disk, after its job has removed it, too."""
    monkeypatch.setattr(checkpoints, "LOOK_EVERY", 0.0)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/model").write_text("whole")
    os.utime(tmp_path / "state/model", (1, 1))
    begun, goes_on = threading.Event(), threading.Event()
    held = checkpoints.stage

    def waiting(*args: object) -> None:
        begun.set()
        goes_on.wait()
        held(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoints, "stage", waiting)
    removed = asyncio.Queue[Path]()
    ref = AttemptRef(JobId("job"), 1)
    async with aiohttp.ClientSession() as session:
        bodies = Bodies("http://localhost", session)
        parts = Checkpoints(tmp_path, bodies, MadeFiles(tmp_path, bodies, print), removed.put_nowait)
        parts.watch(ref, tmp_path / "state", print)
        await asyncio.to_thread(begun.wait)
        parts.stop(ref)
        await asyncio.sleep(0)
        goes_on.set()
        assert (await asyncio.wait_for(removed.get(), 20) / "model").read_text() == "whole"
