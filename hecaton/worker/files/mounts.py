"""The folders of this machine that its admins let jobs ask for, by name: what the file says, and what a job gets of it.

Nothing else of the machine is ever mounted. A link inside a mount leads, in the container, to what the container has
there; a link in the place of somebody's own folder is refused; and what other file systems are mounted below a folder
does not come along: the engine would let a container write there, whatever was said of the mount.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hecaton.core.errors import BadRequest, NotFound
from hecaton.core.files.mounts import MAX_MOUNTS, NAME
from hecaton.core.model import Reason
from hecaton.wire.home import SERVICE_HOME
from hecaton.worker.runtimes.port import Bind, RuntimeFault

USER = "{user}"
"""Stands in a path for the name of the job's owner: the last part of it, so that nothing above it is the owner's to
replace with a link."""

FILE = "worker.toml"
SERVICE_FILE = Path("/etc/hecaton") / FILE

_SAFE_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)
_TABLE = "mounts"
_HEADER = re.compile(r"\s*\[\[?\s*([^\]\s]+)\s*\]")


class Mount(msgspec.Struct, frozen=True):
    path: str  # absolute; may end with `USER`
    writable: bool

    def __str__(self) -> str:
        return f"{self.path}:{'rw' if self.writable else 'ro'}"


Mounts = Mapping[str, Mount]
"""By the names that jobs ask for."""


def parsed(word: str) -> tuple[str, Mount]:
    """`data=/srv/data:ro`. BadRequest for what is none."""
    name, equals, rest = word.partition("=")
    if not equals:
        raise BadRequest(f"{word[:80]!r} names no folder", "Write NAME=PATH:ro or NAME=PATH:rw: data=/srv/data:ro")
    return name, _mount(name, rest)


def _mount(name: str, text: str) -> Mount:
    if not NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is not a name for a mount",
            "Use a to z, digits, '_' and '-', at most 32, beginning with a letter or digit.",
        )
    path, colon, access = text.rpartition(":")
    if not colon or access not in ("ro", "rw"):
        raise BadRequest(
            f"it is not said whether jobs may write to the mount {name}", f"Write {name}={text}:ro, or :rw if they may."
        )
    if not path.startswith("/") or path == "/" or os.path.normpath(path) != path or not path.isprintable():
        raise BadRequest(f"{path!r} is not the absolute path of a folder", f"Such as {name}=/srv/{name}:{access}.")
    if set(path.removesuffix(f"/{USER}")) & {"{", "}"}:
        raise BadRequest(
            f"{path!r}: only the whole last part may be {USER}", f"Such as {name}=/nfs/home/{USER}:{access}."
        )
    return Mount(path, access == "rw")


def file_of(folder: Path) -> Path:
    """Where the mounts of the worker with this folder stand: the machine's file for services, else one in there."""
    return SERVICE_FILE if folder.is_relative_to(SERVICE_HOME) else folder / FILE


def read(file: Path) -> dict[str, Mount]:
    """None where there is no file. BadRequest for one that is damaged; OSError."""
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8")).get(_TABLE, {})
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file} is damaged: {error}", "Mend it, or remove it and name the mounts anew.") from error
    if not isinstance(said, dict) or not all(isinstance(text, str) for text in said.values()):
        raise BadRequest(f'{file}: the table {_TABLE} is to have lines like data = "/srv/data:ro"')
    found = {name: _mount(name, text) for name, text in said.items()}
    if len(found) > MAX_MOUNTS:
        raise BadRequest(f"{file} names {len(found)} mounts: at most {MAX_MOUNTS}")
    return found


def write(file: Path, mounts: Mounts) -> None:
    """What else the file says stays as it is. OSError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    others, table = list[str](), ""
    for line in lines:
        if header := _HEADER.match(line):
            table = header[1]
        if table != _TABLE:
            others.append(line)
    while others and not others[-1].strip():
        others.pop()
    ours = [f"[{_TABLE}]", *(f'{name} = "{_escaped(str(mount))}"' for name, mount in sorted(mounts.items()))]
    text = "\n".join([*others, *([""] if others else []), *(ours if mounts else [])])
    file.parent.mkdir(mode=0o755 if file == SERVICE_FILE else 0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f".{FILE}-", delete=False, encoding="utf-8") as new:
        new.write(text.rstrip("\n") + "\n")
        os.fchmod(new.fileno(), 0o644)
    os.replace(new.name, file)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def binds(mounts: Mounts, asked: Mapping[str, str], owner: str, uid: int | None) -> tuple[Bind, ...]:
    """What a job of this owner gets that asked for these: places by name. Looks at folders, which may take long on a
    network: in a thread. RuntimeFault for what it may not have, or what is not there."""
    return tuple(Bind(_source(name, mounts, owner, uid), asked[name], not mounts[name].writable) for name in asked)


def needs_uid(mounts: Mounts, asked: Mapping[str, str]) -> bool:
    """Whether a job that asked for these writes into a folder of this machine: then it runs as its owner does there."""
    return any(name in mounts and mounts[name].writable for name in asked)


def _source(name: str, mounts: Mounts, owner: str, uid: int | None) -> str:
    mount = mounts.get(name)
    if mount is None:
        raise RuntimeFault(Reason.WORKER_ERROR, f"this machine has no mount {name} any more")
    if mount.writable and uid is None:
        raise RuntimeFault(
            Reason.STARTUP_EXIT,
            f"the mount {name} is writable, and nobody has said which user {owner} is on the machines",
            f"An admin says it once: hecaton user update {owner} --uid NUMBER",
        )
    if not mount.path.endswith(USER):
        if not os.path.isdir(mount.path):
            raise RuntimeFault(Reason.WORKER_ERROR, f"the folder of the mount {name} is not there on this machine now")
        return os.path.realpath(mount.path)
    if not _SAFE_USER.fullmatch(owner):
        raise RuntimeFault(Reason.STARTUP_EXIT, f"the mount {name} has no folder for a user of this name")
    path = os.path.join(os.path.realpath(os.path.dirname(mount.path)), owner)
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        text = f"the mount {name} has no folder for {owner} on this machine"
        raise RuntimeFault(Reason.STARTUP_EXIT, text, "An admin of the machine makes it.") from None
    except OSError as error:
        raise RuntimeFault(Reason.WORKER_ERROR, f"the mount {name} cannot be looked at: {error.strerror}") from error
    if not stat.S_ISDIR(kind):
        raise RuntimeFault(Reason.STARTUP_EXIT, f"what the mount {name} has for {owner} on this machine is no folder")
    return path


def without(mounts: Mounts, names: tuple[str, ...]) -> dict[str, Mount]:
    """NotFound for one that is not there."""
    for name in names:
        if name not in mounts:
            raise NotFound(f"this machine has no mount {name!r}", f"It has: {', '.join(sorted(mounts)) or 'none'}.")
    return {name: mount for name, mount in mounts.items() if name not in names}
