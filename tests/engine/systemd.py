"""A container with a real systemd as PID 1, in which the checkout's own commands run.

For tests of the services: interpreter, environment and checkout are mounted read-only under their own paths."""

from __future__ import annotations

import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engine.daemon import docker, exclusive
from tests.engine.images import base_image, build_from_context, context, image_id, key_of, label_of
from tests.engine.needs import EngineError
from tests.engine.python_image import REPOSITORY, libraries

NAME = "hecaton-test/systemd:latest"
DOCKERFILE = """\
FROM {base}
RUN apt-get update && apt-get install --yes --no-install-recommends systemd systemd-sysv dbus ca-certificates \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY lib/ /usr/local/lib/
RUN ldconfig && systemctl mask systemd-resolved.service systemd-networkd.service systemd-timesyncd.service
CMD ["/sbin/init"]
"""
# What systemd needs on a cgroup v1 host; --privileged is more than that, and refused on some machines.
OPTIONS = (
    *("--cgroupns", "private", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "--stop-signal", "SIGRTMIN+3"),
)


@dataclass(frozen=True)
class SystemdContainer:
    """A running container whose PID 1 is systemd."""

    name: str

    def run(self, *command: str, stdin: bytes | None = None) -> str:
        """Run a command in it and return its stdout; EngineError with its output when it fails."""
        return docker("exec", "--interactive", self.name, *command, stdin=stdin, timeout=120)


def systemd_image() -> str:
    """Name of an image with systemd, and with the shared libraries that the running Python loads."""
    base = base_image()
    wanted = libraries([Path(sys.executable).resolve(), *_extensions()])
    key = key_of(DOCKERFILE, image_id(base), *sorted(map(str, wanted)))
    if label_of(NAME) != key:
        files = {f"lib/{library.name}": library.read_bytes() for library in wanted}
        files["Dockerfile"] = DOCKERFILE.format(base=base).encode()
        with exclusive():
            if label_of(NAME) != key:
                build_from_context(NAME, context(files), key)
    return NAME


@contextmanager
def systemd_container(*options: str) -> Iterator[SystemdContainer]:
    """Start one with more `docker run` options (network, mounts, environment); it is removed when the block ends."""
    mounts = [f"--volume={path}:{path}:ro" for path in sorted({str(REPOSITORY), sys.prefix, sys.base_prefix})]
    path = f"--env=PATH={Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with booted(systemd_image(), *mounts, path, *options) as container:
        yield container


@contextmanager
def booted(image: str, *options: str) -> Iterator[SystemdContainer]:
    """One of an image whose process 1 is systemd, once it has booted."""
    container = SystemdContainer(f"hecaton-systemd-{uuid.uuid4().hex[:12]}")
    docker("run", "--detach", "--name", container.name, *OPTIONS, *options, image)
    try:
        _wait_until_booted(container)
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.name)


def _wait_until_booted(container: SystemdContainer) -> None:
    deadline = time.monotonic() + 60
    state = ""
    while time.monotonic() < deadline:
        # "degraded" is up too: a unit of the system's own failed, which is no concern of the tests.
        state = container.run("sh", "-c", "systemctl is-system-running 2>&1 || true")
        if state in ("running", "degraded"):
            return
        time.sleep(0.1)
    raise EngineError(f"systemd in {container.name} does not come up: {state}\n{docker('logs', container.name)}")


def _extensions() -> list[Path]:
    extensions = Path(sysconfig.get_path("stdlib")).glob("lib-dynload/*.so")
    return sorted(path for path in extensions if not path.name.startswith("_tkinter"))
