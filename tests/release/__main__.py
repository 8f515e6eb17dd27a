"""`make dist`: wheel, source distribution and notes into dist/, looked at from outside."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hecaton
from tests.engine.python_image import REPOSITORY
from tests.release import artefacts, installers, notes

DIST = REPOSITORY / "dist"
ELSEWHERE = "tests/test_platforms.py::test_the_index_has_a_wheel_of_everything_that_is_needed_there"


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    made = artefacts.build(DIST)
    version, date, text = notes.newest(notes.CHANGELOG.read_text(encoding="utf-8"))
    if version != hecaton.__version__:
        sys.exit(f"The newest section of CHANGELOG.md is {version}, and hecaton/__init__.py has {hecaton.__version__}.")
    (DIST / "notes.md").write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="hecaton-dist-") as name:
        _check(made, Path(name))
    for file in sorted(DIST.iterdir()):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{file.relative_to(REPOSITORY)}  {file.stat().st_size:,} bytes  sha256 {digest}")
    if not date[:1].isdigit():
        print(f"Not to be published yet: CHANGELOG.md has no date for {version}.")
    print("The server's image: docker build -t hecaton-server .")


def _check(made: artefacts.Artefacts, folder: Path) -> None:
    if found := artefacts.faults(made.wheel):
        sys.exit("\n".join([f"{made.wheel.name} is not fit for others:", *found]))
    if artefacts.members(artefacts.wheel_of(made.source, folder)) != artefacts.members(made.wheel):
        sys.exit(f"{made.source.name} gives another wheel than the working tree.")
    _said("the wheel has what it should, and the source distribution gives the same one")
    for typed, install in installers.INSTALLERS.items():
        home = folder / typed.replace(" ", "-")
        home.mkdir()
        commands = install(made.wheel, home)
        for program in artefacts.PROGRAMS:
            installers.say(commands, home, f"{program} --version")
        jobs = json.loads(installers.say(commands, home, "hecaton demo --json", HECATON_HOME=str(home)))["jobs"]
        _said(f"{typed}: {', '.join(artefacts.PROGRAMS)}; hecaton demo ran {jobs} jobs")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", ELSEWHERE], cwd=REPOSITORY, check=True)
    _said("the index has what the client needs on Windows, and client and server on macOS")


def _said(what: str) -> None:
    print(f"ok  {what}", flush=True)


if __name__ == "__main__":
    main()
