"""Who checks the checker: a test run that leaves something behind fails, and says what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.engine.leftovers import WORKER_LABEL
from tests.engine.python_image import REPOSITORY

UNTIDY = f"""
import subprocess, tempfile
from tests.engine.daemon import docker

def test_leaves_a_daemon():
    subprocess.run(["sh", "-c", "sleep 987 >/dev/null 2>&1 </dev/null &"], start_new_session=True, check=True)

def test_leaves_a_container(base_image):
    docker("create", "--label", "{WORKER_LABEL}=untidy", base_image)

def test_leaves_a_folder():
    tempfile.mkdtemp(prefix="untidy-")
"""
TIDY = """
import subprocess, sys, tempfile

def test_cleans_up(engine):
    with tempfile.TemporaryDirectory():
        subprocess.run(["sleep", "0"], check=True)
"""


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.engine.fixtures", "--basetemp", "base", "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_run_that_leaves_something_behind_fails_and_names_it(tmp_path: Path, base_image: str) -> None:
    done = run(tmp_path, UNTIDY)
    assert done.returncode == 1, done.stdout
    assert "3 passed, 1 error" in done.stdout
    left = done.stdout[done.stdout.index("Left behind by this test run:") :]
    assert "sleep 987" in left
    assert base_image in left
    assert "untidy-" in left


def test_a_run_that_cleans_up_passes(tmp_path: Path) -> None:
    done = run(tmp_path, TIDY)
    assert done.returncode == 0, done.stdout
