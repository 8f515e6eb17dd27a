"""Finds the Pythons that are installed here: by name in the PATH, and in pyenv's folder of versions."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


@functools.cache
def installed() -> dict[str, str]:
    """Version, such as 3.9, to the path of a Python of that version that really starts."""
    found = {}
    for version in VERSIONS:
        path = next((path for path in _candidates(version) if _is_version(path, version)), None)
        if path is not None:
            found[version] = path
    return found


def _candidates(version: str) -> Iterator[str]:
    # pyenv's own folder first: its commands in the PATH only start versions that somebody has selected
    for root in _pyenv_roots():
        yield from sorted(str(path) for path in root.glob(f"versions/{version}.*/bin/python{version}"))
    in_path = shutil.which(f"python{version}")
    if in_path:
        yield in_path


@functools.cache
def _pyenv_roots() -> tuple[Path, ...]:
    pyenv = shutil.which("pyenv")
    if pyenv is None:
        return tuple(path for path in [Path.home() / ".pyenv"] if path.is_dir())
    root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
    return (Path(root),)


def _is_version(path: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip() == version
