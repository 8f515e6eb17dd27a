"""What runs inside users' images needs nothing but an old Python."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hecaton.worker.runtimes import python_mount
from tests.serverless.interpreters import REPOSITORY, installed

SOURCES = [REPOSITORY / "hecaton" / "__init__.py", *sorted((REPOSITORY / "hecaton" / "serverless").glob("*.py"))]
#: Each takes milliseconds of every container's start, and is imported only where it is used.
SLOW = {"asyncio", "contextlib", "ctypes", "inspect", "pathlib", "selectors", "shutil", "socket", "threading"}
SLOW |= {"traceback", "typing"}


def test_the_pythons_that_users_images_have_are_installed_here() -> None:
    missing = {"3.8", "3.9", "3.11"} - set(installed())
    assert not missing, f"install Python {sorted(missing)}, with pyenv for instance: handlers must be tested on it"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_sources_are_python_3_8(source: Path) -> None:
    ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_importing_loads_only_the_standard_library(python: str, tmp_path: Path) -> None:
    loaded = imported(python, REPOSITORY)
    roots = {name.split(".")[0] for name in loaded}
    assert roots - set(sys.stdlib_module_names) - {"sre_compile", "sre_parse", "sre_constants"} == {"hecaton"}
    ours = {name for name in loaded if name.startswith("hecaton.")}
    assert all(name.startswith("hecaton.serverless") for name in ours)
    assert not loaded & SLOW
    assert not imported(python, python_mount.build(tmp_path)) & SLOW


def imported(python: str, folder: Path) -> set[str]:
    """The modules that are new after the import of what lies there."""
    code = (
        "import json, sys, types; before = set(sys.modules)\n"
        "import hecaton.serverless\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    command = [python, "-S", "-c", code]
    answer = subprocess.run(command, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True)
    return set(json.loads(answer.stdout))
