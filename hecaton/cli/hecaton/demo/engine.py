"""Whether a Docker engine answers here, with a Python image; if not, why, and what to type."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import sys

import msgspec

if sys.platform != "win32":  # where this module is loaded all the same
    import grp
    import pwd

SOCKET = "/var/run/docker.sock"
WHERE = "DOCKER_HOST"
NOBODY = "no Docker engine answers here"


class _EngineConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=5.0)
        self._path = path

    def connect(self) -> None:
        if sys.platform != "win32":  # where `up` and `demo` have said that they run on Linux
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)


class NoEngine(msgspec.Struct, frozen=True):
    """`why` none answers, as the end of a sentence, and what to `do` about it."""

    why: str
    do: str


def find_engine() -> NoEngine | None:
    """Why no Docker engine answers; None: one does."""
    found = _local_images()
    return found if isinstance(found, NoEngine) else None


def _local_images() -> set[str] | NoEngine:
    """Names of the images that the engine has."""
    path = os.environ.get(WHERE, f"unix://{SOCKET}").removeprefix("unix://")
    try:
        connection = _EngineConnection(path)
        connection.request("GET", "/images/json")
        images = json.loads(connection.getresponse().read())
        connection.close()
        return {tag for image in images for tag in image.get("RepoTags") or []}
    except PermissionError:
        return _not_allowed(path)
    except (OSError, http.client.HTTPException, ValueError, TypeError, AttributeError):
        return NoEngine(NOBODY, _how_to_get_one())


def _how_to_get_one() -> str:
    if WHERE in os.environ:
        return f"{WHERE} is {os.environ[WHERE]}: start that one, or unset {WHERE}"
    if shutil.which("dockerd") is not None:
        return "Start it: sudo systemctl start docker"
    return "Install it: curl -fsSL https://get.docker.com | sudo sh"


if sys.platform == "win32":

    def _not_allowed(path: str) -> NoEngine:
        return NoEngine(NOBODY, _how_to_get_one())

else:

    def _not_allowed(path: str) -> NoEngine:
        """It may run all the same: its socket is a group's."""
        try:
            number = os.stat(path).st_gid
        except OSError:  # in a folder that is not his, as that of a rootless engine of somebody else
            return NoEngine(
                f"you may not use the Docker engine at {path}", f"Name your own one ({WHERE}), or type it as root"
            )
        try:
            group, you = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            group, you = None, ""
        if group is None or number == 0:
            return NoEngine(f"you may not use the Docker engine: {path} is not for your groups", "Type it as root")
        why = f"the user {you} may not use the Docker engine"
        join = f"newgrp {group.gr_name}"
        if you in group.gr_mem:
            return NoEngine(f"{why} yet: this login is older than being in the group {group.gr_name}", f"Type: {join}")
        add = f"sudo usermod -aG {group.gr_name} {you}"
        return NoEngine(f"{why}: that takes the group {group.gr_name}", f"Type: {add} && {join}")


def find_python_image() -> tuple[str | None, str]:
    """A local `python:3.x` image, or None and why there is none. Nothing is pulled: that would take long, unasked."""
    tags = _local_images()
    if isinstance(tags, NoEngine):
        return None, f"{tags.why}. {tags.do}"
    usable = sorted(tag for tag in tags if re.match(r"python:3(\.([89]|1\d))?(-|$)", tag))
    if not usable:
        return None, "the Docker engine has no python image, and the demo pulls nothing (docker pull python:3.9-slim)"
    return usable[-1], ""
