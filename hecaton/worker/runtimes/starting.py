"""What every runtime does alike when it starts a container: its environment, its command, its limits."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Awaitable, Callable, Mapping, Sequence

from hecaton.core.model import Reason
from hecaton.worker.runtimes.port import (
    CACHE,
    CACHE_VARIABLES,
    CHANNEL_TARGET,
    FOLDER_VARIABLES,
    SCRATCH,
    CommandLine,
    ContainerSpec,
    RuntimeFault,
)

_TO_GROUP = frozenset({"tini", "tini-static", "docker-init", "dumb-init"})
_TO_ONE = frozenset({"-c", "--single-child"})  # options of dumb-init
_INITS = frozenset({"init", "catatonit", "my_init", "systemd"}) | _TO_GROUP

DEFAULT_SHM_SIZE = 1 << 30
"""Bytes of /dev/shm per container. Docker's 64 MiB break PyTorch's data loaders; unused, it costs nothing."""

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into every container."""

PIDS_LIMIT = 4096
"""Enough for a training job with many threads, too few for a fork bomb."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def in_container() -> bool:
    """Whether this worker runs in one itself."""
    return any(os.path.exists(path) for path in CONTAINER_MARKS)


def environment(spec: ContainerSpec, around: Mapping[str, str], folder: str, python: str) -> dict[str, str]:
    """What is set beside `around`, which the container has in any case. `folder`, `python`: where the channel folder
    and the worker's `hecaton.serverless` are for what runs there; where it is CHANNEL_TARGET, all binds are at their
    targets, else they are where they are on this host."""
    own_path = spec.env.get("PYTHONPATH") or around.get("PYTHONPATH")
    path = f"{python}:{own_path}" if own_path else python
    usual, named = _of_folders(spec, around, folder)
    return {**usual, **spec.env, **named, "HECATON_DIR": folder, "PYTHONPATH": path}


def _of_folders(spec: ContainerSpec, around: Mapping[str, str], folder: str) -> tuple[dict[str, str], dict[str, str]]:
    """What programs go by, unless image or job say otherwise, and what is ours."""
    where = {bind.target: bind.target if folder == CHANNEL_TARGET else bind.source for bind in spec.binds}
    named = {FOLDER_VARIABLES[target]: path for target, path in where.items() if target in FOLDER_VARIABLES}
    usual = {name: where[CACHE] + below for name, below in CACHE_VARIABLES.items()} if CACHE in where else {}
    if spec.uid is not None and SCRATCH in where:  # the image knows no such user: his home would be /
        usual["HOME"] = where[SCRATCH]
    return {name: path for name, path in usual.items() if name not in around}, named


class Executables:
    """Which of the commands of a container can be run in its image: the first whose executable is in its PATH. Looked
    up once for each image, on the worker's loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], str] = {}

    def known(self, spec: ContainerSpec) -> CommandLine | None:
        """The command whose executable was found in this image before."""
        executable = self._known.get(_question(spec))
        return next((command for command in spec.commands or () if command.words[0] == executable), None)

    async def find(self, spec: ContainerSpec, exists: Callable[[str], Awaitable[bool]]) -> CommandLine:
        """`exists`: whether there is a file of this path in the image. Raises RuntimeFault: none of them is there."""
        path = spec.env.get("PATH") or spec.image.env.get("PATH") or _DEFAULT_PATH
        for command in spec.commands or ():
            executable = command.words[0]
            for folder in ("/",) if posixpath.isabs(executable) else path.split(":"):
                if await exists(posixpath.join(folder or "/", executable)):
                    self._known[_question(spec)] = executable
                    return command
        missing = " or ".join(command.words[0] for command in spec.commands or ())
        raise RuntimeFault(
            Reason.STARTUP_EXIT,
            f"there is no {missing} in {spec.image_name}",
            "A script or a handler file needs an image with a shell, or with Python in PATH, such as python:3.9-slim.",
        )


def _question(spec: ContainerSpec) -> tuple[str, ...]:
    return (spec.image.image_id, *(command.words[0] for command in spec.commands or ()))


def is_init(words: Sequence[str]) -> bool:
    """Whether this process reaps and forwards signals itself, and may insist on being process 1."""
    return bool(words) and posixpath.basename(words[0]) in _INITS


def signals_group(words: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether the init process, this one or the engine's, sends a signal to the whole group of what it has started."""
    name = posixpath.basename(words[0]) if is_init(words) else "docker-init"
    alone = variables.get("DUMB_INIT_SETSID") == "0" or not _TO_ONE.isdisjoint(words)
    return name in _TO_GROUP and not (name == "dumb-init" and alone)
