"""What the engine needs from the machine: programs, installed from Debian's packages where the set-up may do that."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PACKAGES = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "docker-registry": "docker-registry",
    "debootstrap": "debootstrap",
    "zsh": "zsh",
    "fish": "fish",
    "cc": "gcc",
    "nginx": "nginx",
    "caddy": "caddy",
    "valgrind": "valgrind",
}
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class EngineError(Exception):
    """The machine cannot give the tests what they need; the message names what is missing and what to do."""


def find(program: str) -> str | None:
    """Path of a program; the system folders count even where a plain user's PATH lacks them."""
    return shutil.which(program, path=SEARCH_PATH)


def require(*programs: str) -> None:
    """Make sure that the programs exist: install them as root on Debian, otherwise raise EngineError naming them."""
    missing = [program for program in programs if find(program) is None]
    if not missing:
        return
    packages = sorted({PACKAGES[program] for program in missing})
    if os.geteuid() != 0 or os_release().get("ID") != "debian":
        raise EngineError(
            f"The tests need real programs; missing here: {', '.join(missing)}."
            f" Install {', '.join(packages)} and run them again (as root on Debian they install it themselves)."
        )
    _install(packages)
    # From Debian 13 on the command line is a package of its own.
    if find("docker") is None:
        _install(["docker-cli"])


def os_release() -> dict[str, str]:
    """The fields of /etc/os-release, without quotes; empty where the file does not exist."""
    path = Path("/etc/os-release")
    lines = path.read_text().splitlines() if path.exists() else []
    fields = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip('"') for name, value in fields}


def _install(packages: list[str]) -> None:
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if _apt(command).returncode == 0:
        return
    # A machine that never ran `apt-get update` knows no packages.
    _apt(["apt-get", "update"])
    second = _apt(command)
    if second.returncode != 0:
        raise EngineError(f"Could not install {', '.join(packages)}:\n{second.stdout[-2000:]}")


def _apt(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
