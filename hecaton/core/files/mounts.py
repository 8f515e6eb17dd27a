"""How a job asks for a folder of the machine that it runs on: by the name that an admin gave it, and where it is to
appear."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

MAX_MOUNTS = 16
"""Mounts that one job may ask for, and that one machine may have."""

MAX_TARGET = 256
"""Characters of the path at which a mount appears."""

MAX_UID = 2**31 - 1

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII)

FOLDERS = ("/workdir", "/inputs", "/outputs", "/checkpoints", "/cache", "/scratch")
"""Those that a container has for its job. A mount that is named like one would look as if it were it."""

EXPECTED = "absolute paths by name, apart, none a container's own"
"""Of a job's mounts, for people."""

_TAKEN = ("/proc", "/sys", "/dev", "/run/hecaton", *FOLDERS)
_ASK = "mount:"


def usual(name: str) -> str:
    """Where a mount appears for those who name no place."""
    return f"/mnt/{name}"


def asked(words: Iterable[str]) -> dict[str, str]:
    """From `data` or `data:/path`, as the command line has them: places by name."""
    found = {}
    for word in words:
        name, _, target = word.partition(":")
        found[name] = target or usual(name)
    return found


def are_mounts(values: Mapping[object, object]) -> bool:
    """Whether these are names, each with its place: absolute, none in another, none in a folder that is not the job's
    to give away."""
    if len(values) > MAX_MOUNTS:
        return False
    targets = list(values.values())
    for name, target in values.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(target, str):
            return False
        if not _is_place(target) or any(_meet(target, taken) for taken in _TAKEN):
            return False
    return not any(_meet(one, other) for at, one in enumerate(targets) for other in targets[:at])  # type: ignore[arg-type]


def _is_place(target: str) -> bool:
    plain = target.isprintable() and not set(target) & set(":,\\")
    root, *parts = target.split("/")
    return plain and len(target) <= MAX_TARGET and root == "" and {"", ".", ".."}.isdisjoint(parts or [""])


def _meet(one: str, other: str) -> bool:
    """They are one, or one lies in the other, where the engine would make the place of the inner one."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def as_asks(names: Iterable[str]) -> frozenset[str]:
    """As what a worker has to have, beside the options that it has to carry out."""
    return frozenset(f"{_ASK}{name}" for name in names)


def mounts_in(asks: Collection[str]) -> list[str]:
    """Names of the mounts among these."""
    return sorted(ask.removeprefix(_ASK) for ask in asks if ask.startswith(_ASK))


def spelt(mounts: Mapping[str, str]) -> list[str]:
    """As they are asked for."""
    return [name if target == usual(name) else f"{name}:{target}" for name, target in mounts.items()]
