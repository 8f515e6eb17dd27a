"""What a container leaves behind is removed, or named in the worker's log, and holds up nobody."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from hecaton.worker.app import serve
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.doors import removal
from hecaton.worker.doors.removal import Remover, remove
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.serverless import interpreters
from tests.worker import leftovers
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

OF_WORKERS = ("3.11", "3.12", "3.13")


@pytest.fixture(autouse=True)
def cleared(tmp_path: Path) -> Iterator[None]:
    """What pytest could not remove itself."""
    yield
    for path in tmp_path.iterdir():
        remove(path)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory: fast, and the name of what it is mounted on cannot be removed."""
    folder = tmp_path / "c/deep/held"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    yield folder
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def test_however_deep_and_however_many(mounted: Path) -> None:
    left = mounted / "c"
    left.mkdir()
    leftovers.make(left, deep=20_000, files=100_000)
    assert remove(left) is None
    assert list(mounted.iterdir()) == []


@pytest.mark.parametrize("version", OF_WORKERS)
def test_on_every_python_that_workers_run_on(tmp_path: Path, version: str) -> None:
    python = interpreters.installed()[version]
    found = os.pathsep.join([str(interpreters.REPOSITORY), *(path for path in sys.path if "site-packages" in path)])
    command = [python, "-m", "tests.worker.leftovers", str(tmp_path / "c")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": found}, cwd=tmp_path)


def test_what_is_no_folder_and_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert remove(tmp_path / "link") is None
    assert remove(tmp_path / "gone") is None
    assert list(tmp_path.iterdir()) == []


async def test_what_cannot_be_removed_is_named_once_and_the_rest_goes(tmp_path: Path, mounted: Path) -> None:
    leftovers.nest(tmp_path / "c", 10)
    remover = Remover()
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            remover.remove(tmp_path / "c")
            await remover.wait()
            await asyncio.sleep(0)
    assert [(line["log_level"], "held" in line["left"]) for line in said] == [("error", True)]
    assert len(os.listdir(tmp_path / "c")) == 1
    await remover.close()


async def test_the_end_of_a_worker_waits_for_no_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "REMOVAL_PATIENCE", 0.0)
    (tmp_path / "c").mkdir()
    leftovers.nest(tmp_path / "c", 1500)
    remover = Remover()
    remover.remove(tmp_path / "c")
    await remover.close()
    assert (tmp_path / "c").exists()
    assert remove(tmp_path / "c") is None


async def test_a_worker_starts_whatever_its_containers_left(tmp_path: Path) -> None:
    async with ScriptedServer() as server:
        config = server.config(tmp_path / "state")
        left = config.folder / "c/old"
        left.mkdir(parents=True)
        leftovers.make(left)
        worker = asyncio.create_task(serve(config, ProcessRuntime(WORKER, {}), (), WorkerSettings()))
        await server.connected()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(worker, PATIENCE) == 0
    assert os.listdir(tmp_path / "state/c") == []
