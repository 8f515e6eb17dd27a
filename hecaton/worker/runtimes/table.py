"""Which runtimes a worker can be told to use: one row each. An adapter is loaded when it is made, and not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from hecaton.worker.runtimes.port import Runtime

DEFAULT = "docker"


class Wishes(msgspec.Struct, frozen=True):
    """What the worker was told about its runtime. `handlers`: files by image name. `shm_size`: bytes of /dev/shm."""

    handlers: dict[str, Path]
    shm_size: int


class Row(msgspec.Struct, frozen=True):
    """`make`: from the worker's id and wishes. `named_handlers`: it runs the handler files that it is given, and is of
    no use without; others take none. `services`: units of systemd that come up before the worker. `variables`: of the
    environment, which say where the engine is."""

    make: Callable[[str, Wishes], Runtime]
    named_handlers: bool = False
    services: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


def _docker(worker_id: str, wishes: Wishes) -> Runtime:
    from hecaton.worker.runtimes.docker import DockerRuntime

    return DockerRuntime(worker_id, shm_size=wishes.shm_size)


def _process(worker_id: str, wishes: Wishes) -> Runtime:
    from hecaton.worker.runtimes.process import ProcessRuntime

    return ProcessRuntime(worker_id, wishes.handlers)


RUNTIMES: Mapping[str, Row] = {
    "docker": Row(_docker, services=("docker.service",), variables=("DOCKER_HOST",)),
    "process": Row(_process, named_handlers=True),
}

WITH_HANDLERS = tuple(name for name, row in RUNTIMES.items() if row.named_handlers)
