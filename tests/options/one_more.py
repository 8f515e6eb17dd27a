"""The release after this one, as far as options go: a copy of the package in which a job may ask for one thing more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import hecaton

NAME = "network"
FIELD = """
    network: Annotated[
        str,
        _asks(
            ValueKind.WORD, "What its container may reach.", words=("default", "none"),
            changes=Changes.CONTAINER, by_worker=True, label="network",
        ),
    ] = "default"
"""
EDITS = (
    ("core/options.py", "\n\ndef _table() ->", FIELD + "\n\ndef _table() ->"),
    (
        "worker/runtimes/docker.py",
        '"mount", "port", "ready", "shm"})\n',
        '"mount", "port", "ready", "shm", "network"})\n',
    ),
    (
        "worker/runtimes/docker_config.py",
        '            "RestartPolicy": {"Name": "no"},\n',
        '            "RestartPolicy": {"Name": "no"}, "NetworkMode": spec.options.network,\n',
    ),
)
"""All that it takes: the option, and the runtime that carries it out."""


def release_after(folder: Path) -> dict[str, str]:
    """The environment in which its programs run."""
    package = folder / "hecaton"
    shutil.copytree(Path(hecaton.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, before, after in EDITS:
        text = (package / name).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has {text.count(before)} times, not once: {before}"
        (package / name).write_text(text.replace(before, after), encoding="utf-8")
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def run(code: str, *arguments: str, environment: dict[str, str]) -> str:
    """What a Python program of that release prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
