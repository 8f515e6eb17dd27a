"""Puts this very installation where services and sudo find it: /opt/hecaton, with links in /usr/local/bin.

A virtual environment with the packages of this one, copied: nothing is downloaded, and whatever has installed Hecaton
(uv, pipx, pip, a checkout) may go its own ways afterwards.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import hecaton
from hecaton.cli import output
from hecaton.core.errors import HecatonError

assert sys.platform != "win32"  # `up` has said so before this is imported

PLACE = Path("/opt/hecaton")
LINKS = Path("/usr/local/bin")

PROGRAMS = {"hecaton": "client", "hecaton-server": "server", "hecaton-gpu": "worker"}
"""What each runs of `hecaton._entry`."""

_MARK = "installation"
"""Names a file with what was put there."""

_ORIGIN = "origin"
"""Names a file with the Python of the installation that it was copied from."""


def is_placed() -> bool:
    """Whether it is that one which runs here."""
    return Path(sys.prefix) == PLACE


def origin(place: Path = PLACE) -> Path | None:
    """The Python of the installation that was copied, if it is still one: it may be newer by now. Only root's, and that
    of whoever types this: as root nobody runs what is a third one's."""
    try:
        python = Path((place / _ORIGIN).read_text().strip())
        owner = os.stat(python.parent).st_uid
    except OSError:
        return None
    if str(owner) not in {"0", str(os.getuid()), os.environ.get("SUDO_UID")}:
        return None
    found = subprocess.run([python, "-P", "-c", "import hecaton._entry"], capture_output=True, cwd="/")
    return python if found.returncode == 0 else None


def put_in_place(place: Path = PLACE, links: Path = LINKS) -> bool:
    """Whether there was something to do: not if the same is there already. HecatonError if it fails."""
    wanted = _identity()
    before = (place / _MARK).read_text() if (place / _MARK).exists() else None
    changed = before != wanted
    if changed:
        _tell_of_home(Path(_python()))
        _build(place, wanted)
        if before is not None:
            output.say(f"{place} is brought up to date: {_version(before)} before, {_version(wanted)} now.")
    (place / _ORIGIN).write_text(f"{sys.executable}\n")
    (place / _ORIGIN).chmod(0o644)  # whatever root's umask
    for name in PROGRAMS:
        _link(links / name, place / "bin" / name)
    return changed


def _version(identity: str) -> str:
    """The second word of what a mark says."""
    return identity.partition(",")[0].rpartition(" ")[2]


def _build(place: Path, identity: str) -> None:
    """Beside it first: what is there serves until the new one is whole. HecatonError if there is no room or no venv."""
    new, old = place.with_name(f".{place.name}-new"), place.with_name(f".{place.name}-old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        made = subprocess.run([_python(), "-m", "venv", "--without-pip", new], capture_output=True, text=True)
        if made.returncode != 0:
            raise HecatonError(f"cannot make {place}: {made.stderr.strip() or made.stdout.strip()}")
        (packages,) = new.glob("lib/python3*/site-packages")
        for found in _needed():
            _copy(found, packages)
        for name, function in PROGRAMS.items():
            _write_program(new / "bin" / name, place / "bin" / "python", function)
        (new / _MARK).write_text(identity)
        _open_to_all(new)
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        new.rename(place)
    except OSError as error:
        raise HecatonError(f"cannot make {place}: {error.filename}: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _open_to_all(folder: Path) -> None:
    """To be read and run, not written: root's umask and modes in somebody's home say otherwise."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)


def _python() -> str:
    """The system's where it is of this version: that of uv or of a user lies in his home."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        if os.access(candidate, os.X_OK):
            return candidate
    return os.path.realpath(sys.executable)


def _tell_of_home(python: Path) -> None:
    """A Python that only one person keeps is a weak ground for services."""
    person = os.path.expanduser(f"~{os.environ.get('SUDO_USER', '')}")
    if any(python.is_relative_to(folder) for folder in {"/home", "/root", person} - {"/"}):
        output.warn(
            f"services run with {python}, in somebody's home folder: they end when it is moved or removed. Better: "
            f"install Python {sys.version_info[0]}.{sys.version_info[1]} for the whole system, then: hecaton up"
        )


def _needed() -> Iterator[Distribution]:
    """Hecaton, and each package that is there of those that it needs."""
    names, seen = ["hecaton"], set[str]()
    while names:
        name = names.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another system or an older Python
        yield found
        wanted = (line for line in _requirements(found) if "extra ==" not in line)
        names += [match[0] for line in wanted if (match := re.match(r"[A-Za-z0-9._-]+", line))]


def _requirements(found: Distribution) -> list[str]:
    """A checkout may be newer than what was written down when it was installed."""
    checkout = Path(hecaton.__file__).parents[1] / "pyproject.toml"
    if found.name == "hecaton" and checkout.exists():
        declared: list[str] = tomllib.loads(checkout.read_text())["project"]["dependencies"]
        return declared
    return found.requires or []


def _copy(found: Distribution, packages: Path) -> None:
    """What lies beside the other packages, of its files: no programs. Of Hecaton itself the folder that runs, which may
    be a checkout's. What is compiled comes along, with the time of its source: the first start need not do it; what is
    being compiled (`*.pyc.*`) does not. HecatonError where nobody knows which files are its own."""
    own = found.name == "hecaton"
    if own:
        shutil.copytree(Path(hecaton.__file__).parent, packages / "hecaton", ignore=shutil.ignore_patterns("*.pyc.*"))
    if found.files is None:
        raise HecatonError(
            f"cannot copy the package {found.name}: what has installed it has noted no list of its files (RECORD)",
            "Install Hecaton in an environment of its own: pipx install hecaton",
        )
    for file in found.files:
        inside = ".." not in file.parts and not file.is_absolute()
        if not inside or (own and not file.parts[0].endswith(".dist-info")):
            continue
        source = Path(str(found.locate_file(file)))
        if "__pycache__" in file.parts and not source.exists():
            continue  # its installer has noted it, and it is gone since
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _write_program(path: Path, python: Path, function: str) -> None:
    path.write_text(f"#!{python} -P\nfrom hecaton._entry import {function}\n\n{function}()\n")
    path.chmod(0o755)


def _link(link: Path, program: Path) -> None:
    """What somebody else has put there stays."""
    if link.is_symlink() and os.readlink(link) == str(program):
        return
    if link.exists() and not link.is_symlink():
        output.warn(f"{link} is another program: it stays. This one is {program}")
        return
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(program)


def _identity() -> str:
    """Of what is to be copied: the same text for the same content."""
    digest = hashlib.sha256(_python().encode())
    folder = Path(hecaton.__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for line in sorted(f"{found.name} {found.version}" for found in _needed()):
        digest.update(f"{line}\n".encode())
    return f"hecaton {hecaton.__version__}, Python {sys.version_info[0]}.{sys.version_info[1]}, {digest.hexdigest()}\n"
