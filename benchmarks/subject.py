"""Hecaton as it is measured: real processes with everything on, and real containers when a Docker engine answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from benchmarks.load import Target
from hecaton.client import Client
from hecaton.testing.cluster import PASSWORD, LocalCluster

NO_QUOTA = ("--max-queued", "100000000")
"""Queues of a million jobs all belong to one user here, who may have 100,000 by default."""

ECHO = Path(__file__).with_name("echo.py")
IMAGE = "hecaton-benchmark/echo:1"
BASE = "python:3.9-slim"
DOCKERFILE = f"""\
FROM {BASE}
COPY echo.py /app/echo.py
CMD ["python", "/app/echo.py"]
{{extra}}
"""


class Subject:
    """A server and a worker. `body` is what a client posts to /v1/jobs."""

    def __init__(self, cluster: LocalCluster, containers: bool) -> None:
        self.cluster = cluster
        self.docker = containers and image_ready()
        self.image = IMAGE if self.docker else "echo"
        cluster.register(self.image)
        self._token = Client(cluster.url).login("admin", PASSWORD).token

    @property
    def target(self) -> Target:
        return Target(int(self.cluster.url.rpartition(":")[2]), self._token)

    @property
    def server_pid(self) -> int:
        assert self.cluster.server is not None
        return self.cluster.server.pid

    def start_worker(self, name: str = "bench", slots: int = 1) -> int:
        """Connected; with a warm container on every slot. Gives its process id."""
        options = ["--slots", str(slots)]
        handlers = None if self.docker else {self.image: ECHO}
        worker = self.cluster.start_worker(name, handlers=handlers, options=options)
        self.target.flood([self.body(number) for number in range(slots * 50)], connections=slots * 8)
        return worker.pid

    def body(self, value: int) -> bytes:
        return b'{"image":"%s","input":%d}' % (self.image.encode(), value)


@contextmanager
def running(folder: Path, server_options: Sequence[str] = (), *, containers: bool = True) -> Iterator[Subject]:
    """`folder` is the server's and the worker's home; it may hold the state of an earlier server."""
    with LocalCluster(folder, server_options=(*NO_QUOTA, *server_options)) as cluster:
        yield Subject(cluster, containers)


def runtime() -> str:
    """For the report: what the jobs ran in."""
    if image_ready():
        return f"Docker {_docker('version', '--format', '{{.Server.Version}}')}, containers of {BASE}"
    return f"the process runtime, without containers: no Docker engine answers that has {BASE}"


@cache
def image_ready() -> bool:
    """Build the echo image. False without an engine, or without a base image for it."""
    try:
        build(IMAGE)
    except (FileNotFoundError, subprocess.SubprocessError):
        return False
    return True


def build(name: str, extra: str = "") -> str:
    """An image of the echo, with `extra` lines in its Dockerfile. Returns the name."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}  # the classic builder needs no plugin
    command = ["docker", "build", "--quiet", "--tag", name, "--file", "-", str(ECHO.parent)]
    lines = DOCKERFILE.format(extra=extra).encode()
    subprocess.run(command, input=lines, capture_output=True, env=environment, timeout=300, check=True)
    return name


def remove(*names: str) -> None:
    _docker("image", "rm", "--force", *names)


def remove_image() -> None:
    if image_ready():
        remove(IMAGE)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=True, timeout=60)
    return done.stdout.decode().strip()
