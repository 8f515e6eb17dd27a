"""Hecaton as its users have it: the wheel in an environment of its own, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.engine.python_image import build_wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel; its dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(folder)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = folder.glob("venv/lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(folder / "venv/bin/python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


def run(environment: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [environment / "bin" / arguments[0], *arguments[1:]],
        cwd=environment,
        env={**kept, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_is_the_wheel_that_runs(environment: Path) -> None:
    found = run(environment, "python", "-c", "import hecaton; print(hecaton.__file__)").stdout
    assert found.startswith(str(environment))


@pytest.mark.usefixtures("python39_image")
def test_the_demo_runs_with_a_docker_engine(environment: Path) -> None:
    done = run(environment, "hecaton", "demo", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"] == 32
    assert "Docker engine, image python:3" in done.stderr


def test_the_demo_runs_without_a_docker_engine(environment: Path) -> None:
    done = run(environment, "hecaton", "demo", "--json", DOCKER_HOST="unix:///nonexistent")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"] == 32
    assert "process runtime" in done.stderr
