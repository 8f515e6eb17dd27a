"""What the Docker runtime asks of its engine for one container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hecaton.core.placement.needs import size_of
from hecaton.worker.runtimes.port import (
    CHANNEL_TARGET,
    GROUP_VARIABLE,
    LABEL_CONTAINER,
    LABEL_WORKER,
    OWN,
    PYTHON_TARGET,
    Bind,
    CommandLine,
    ContainerSpec,
)
from hecaton.worker.runtimes.starting import PIDS_LIMIT, environment, is_init, signals_group

_SHARES, _LEAST_SHARES = 1024, 2
"""Of the kernel, when all want to work: of one CPU, and the fewest that there are."""


def configuration(
    spec: ContainerSpec, worker_id: str, shm_size: int, command: CommandLine | None = None, cdi: bool = False
) -> dict[str, Any]:
    """What the engine is asked for. Nothing of the host but the two folders, and its own cards. `cdi`: it knows these
    by their CDI names."""
    entrypoint, words = run_by(spec, command)
    first = entrypoint or words  # what the container begins with
    config: dict[str, Any] = {
        "Image": spec.image.image_id,
        "Entrypoint": entrypoint,
        "Cmd": words,
        "Env": [f"{key}={value}" for key, value in _environment(spec, first, cdi).items()],
        "Labels": spec.labels | {LABEL_WORKER: worker_id, LABEL_CONTAINER: spec.id},
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},  # the channel tells whether it works
        "HostConfig": {
            "Init": not is_init(first),
            "SecurityOpt": ["no-new-privileges", "label=disable"],
            "CapDrop": ["NET_RAW"],
            **_limits(spec, shm_size),
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}},
            "RestartPolicy": {"Name": "no"},
            "DeviceRequests": _cards(spec, cdi),
            "Mounts": _mounts(spec),
        },
    }
    where = {} if spec.begins_in is None else {"WorkingDir": spec.begins_in}
    return config | where | ({} if spec.uid is None else {"User": f"{spec.uid}:{spec.uid}"})


def _limits(spec: ContainerSpec, shm_size: int) -> dict[str, int]:
    """In the engine's words. `shm_size`: bytes of /dev/shm where the job asks for none. What is swapped out would slow
    down all jobs of the machine: no container gets any of it."""
    asked = spec.options
    found = {"PidsLimit": PIDS_LIMIT, "ShmSize": shm_size if asked.shm is None else size_of(asked.shm)}
    memory = spec.memory if asked.memory is None else size_of(asked.memory)
    if memory:
        found |= {"Memory": memory, "MemorySwap": memory}
    if asked.cpus is not None:
        found |= {"NanoCpus": round(asked.cpus * 1e9), "CpuShares": max(_LEAST_SHARES, round(asked.cpus * _SHARES))}
    return found


def run_by(spec: ContainerSpec, command: CommandLine | None) -> tuple[list[str], list[str]]:
    """Entrypoint and command of a container. `command`: None: the image's own."""
    words = list(spec.image.command if command is None else command.words)
    asked_for = spec.options.entrypoint == "image" and (command is None or command.by_entrypoint)
    return list(spec.image.entrypoint) if asked_for else [], words


def _cards(spec: ContainerSpec, cdi: bool) -> list[dict[str, Any]]:
    """With a driver in any case: of several that can give a GPU, an engine that is told none takes any. By CDI names
    nothing else may be said."""
    if not spec.gpus:
        return []
    if cdi:
        return [{"Driver": "cdi", "DeviceIDs": [cdi_name(uuid) for uuid in spec.gpus]}]
    return [{"Driver": "nvidia", "DeviceIDs": list(spec.gpus), "Capabilities": [["gpu"]]}]


def cdi_name(uuid: str) -> str:
    """Of a card, as NVIDIA's container toolkit names it."""
    return f"nvidia.com/gpu={uuid}"


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    """Of the channel folder a container may change what is its own; pipes and the socket need no right to write."""
    own = ({"Type": "bind", "Source": f"{spec.folder}/{name}", "Target": f"{CHANNEL_TARGET}/{name}"} for name in OWN)
    return [
        {"Type": "bind", "Source": spec.folder, "Target": CHANNEL_TARGET, "ReadOnly": True},
        *own,
        {"Type": "bind", "Source": spec.python, "Target": PYTHON_TARGET, "ReadOnly": True},
        *(_bind(bind) for bind in spec.binds),
    ]


def _bind(bind: Bind) -> dict[str, Any]:
    """Without the mounts below it: an engine before 25 would let a container write to those of a read-only one."""
    how = {"ReadOnly": bind.read_only, "BindOptions": {"NonRecursive": True, "Propagation": "rprivate"}}
    return {"Type": "bind", "Source": bind.source, "Target": bind.target, **how}


def _environment(spec: ContainerSpec, first: Sequence[str], cdi: bool) -> dict[str, str]:
    variables = environment(spec, spec.image.env, CHANNEL_TARGET, PYTHON_TARGET)
    # Where the nvidia runtime is the engine's default it obeys this variable, which CUDA images set to "all".
    variables["NVIDIA_VISIBLE_DEVICES"] = _visible(spec, cdi)
    # To the engine's init process, which is tini: a signal is for the whole group, not for a shell that waits.
    variables.setdefault("TINI_KILL_PROCESS_GROUP", "1")
    if signals_group(first, {**spec.image.env, **variables}):
        variables[GROUP_VARIABLE] = "1"
    return variables


def _visible(spec: ContainerSpec, cdi: bool) -> str:
    """By CDI names they are there already."""
    return "void" if cdi else ",".join(spec.gpus) or "void"


def probe(spec: ContainerSpec, worker_id: str, image_id: str, cdi: bool = False) -> dict[str, Any]:
    """A container that any image can be, on the card and with the folders of this one, and with nothing of its job. Its
    command is the engine's own init process, which says its version."""
    return {
        "Image": image_id,
        "Entrypoint": ["/sbin/docker-init", "--version"],
        "Cmd": [],
        "User": "0",
        "WorkingDir": "/",
        "Env": [f"NVIDIA_VISIBLE_DEVICES={_visible(spec, cdi)}"],
        "Labels": {LABEL_WORKER: worker_id, LABEL_CONTAINER: f"{spec.id}-probe"},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {"Init": True, "DeviceRequests": _cards(spec, cdi), "Mounts": _mounts(spec)},
    }


__all__ = ["cdi_name", "configuration", "probe"]
