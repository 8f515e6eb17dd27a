"""`hecaton demo`: everything for real, and nothing left over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import HECATON, Process
from tests.cli.screen import Terminal

LIMIT = 120.0
"""Seconds for a whole demo on a busy machine."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which is empty afterwards."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that have the demo's folder as their home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"HECATON_HOME={folder}".encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("python39_image")
def test_the_demo_runs_in_containers_and_shows_results_times_and_a_failure(hecaton: Process) -> None:
    done = hecaton("demo")
    assert done.returncode == 0, done.stderr
    assert "Docker engine, image python:3" in done.stdout
    assert "32 of 32 jobs finished" in done.stdout
    assert re.search(r"first job \(cold\) +\d.*others \(warm\), median +\d", done.stdout, re.DOTALL)
    assert "@@@@@@@@" in done.stdout
    assert "TypeError: can't multiply sequence" in done.stdout


def test_without_docker_it_runs_handlers_as_processes_and_says_so(hecaton: Process) -> None:
    done = hecaton("demo", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 0, done.stderr
    assert "process runtime (no isolation)" in done.stdout
    assert "because no Docker engine answers here" in done.stdout
    assert "32 of 32 jobs finished" in done.stdout


def test_json_has_the_figures(hecaton: Process) -> None:
    done = hecaton("demo", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    figures = json.loads(done.stdout)
    assert (figures["jobs"], figures["failed"]) == (32, "handler_error")


def test_ctrl_c_in_the_middle_leaves_nothing_behind(scratch: Path) -> None:
    with Terminal([str(HECATON), "demo"], DOCKER_HOST="unix:///nowhere/docker.sock") as terminal:
        terminal.until("ready after.*ready after")
        assert len(processes_of(scratch)) >= 2
        terminal.type("\x03")
        assert terminal.end(LIMIT) == 130


@pytest.mark.sample(2)
@pytest.mark.parametrize("after", [0.0, 0.002, 0.004, 0.006, 0.008])
def test_sigterm_while_the_worker_is_being_started_leaves_nothing_behind(after: float) -> None:
    environment = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([str(HECATON), "demo"], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.lstrip().startswith("server"):
                time.sleep(after)
                process.terminate()
                break
        assert process.wait(LIMIT) == 128 + signal.SIGTERM
