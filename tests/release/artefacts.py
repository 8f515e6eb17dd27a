"""Wheel and source distribution: how they are built, and what must be in them."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hecaton
from tests.engine.python_image import REPOSITORY, build_wheel

PROGRAMS = ("hecaton", "hecaton-server", "hecaton-gpu")
KINDS = (".py", ".sql", "/py.typed")
"""What a file of the package may be."""


class Artefacts(NamedTuple):
    """`source`: the source distribution, a tar.gz."""

    wheel: Path
    source: Path


def build(folder: Path) -> Artefacts:
    """From the working tree, into the folder; needs no network. EngineError with the builder's words if it fails."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True)
    return Artefacts(build_wheel(folder), folder / f"hecaton-{hecaton.__version__}.tar.gz")


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def faults(wheel: Path) -> list[str]:
    """What does not belong into a wheel for others, or is missing there; a sentence each."""
    inside = members(wheel)
    information = f"hecaton-{hecaton.__version__}.dist-info/"
    found = [
        f"{name} is neither the package nor its metadata"
        for name in inside
        if not name.startswith(information) and not (name.startswith("hecaton/") and name.endswith(KINDS))
    ]
    here = {str(REPOSITORY), str(Path.home()), sys.prefix, sys.base_prefix} - {"/", "/usr"}
    found += [
        f"{name} names {path}, a folder of the machine that built it"
        for name, content in inside.items()
        for path in sorted(here)
        if f"{path}/".encode() in content
    ]
    return found + _faults_of_metadata(inside[f"{information}METADATA"].decode()) + _missing_programs(inside)


def _faults_of_metadata(text: str) -> list[str]:
    metadata = Parser().parsestr(text)
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = []
    if metadata["Version"] != hecaton.__version__:
        found.append(f"its version is {metadata['Version']}, and hecaton/__init__.py has {hecaton.__version__}")
    if _normal(metadata.get_all("Requires-Dist") or []) != _normal(declared):
        found.append("its dependencies are not those of pyproject.toml")
    return found


def _normal(requirements: list[str]) -> set[str]:
    """Distributions write names as they like: `PyJWT`, `pyjwt`."""
    read = map(Requirement, requirements)
    return {f"{canonicalize_name(one.name)} {one.specifier} {one.marker}" for one in read}


def _missing_programs(inside: dict[str, bytes]) -> list[str]:
    said = inside[f"hecaton-{hecaton.__version__}.dist-info/entry_points.txt"].decode()
    return [f"it has no command {name}" for name in PROGRAMS if f"\n{name} = " not in said]


def wheel_of(source: Path, folder: Path) -> Path:
    """Built from the source distribution alone, as distributors do it."""
    with tempfile.TemporaryDirectory() as name, tarfile.open(source) as archive:
        archive.extractall(name, filter="data")
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(command, cwd=Path(name) / source.name.removesuffix(".tar.gz"), capture_output=True, check=True)
    return next(folder.glob("*.whl"))
