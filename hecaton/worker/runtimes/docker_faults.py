"""What a refusal of the Docker engine means. It tells the cases apart by text only, so what is not known here decides
nothing: a pull is tried again until the server's patience is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiodocker import DockerError

from hecaton.core.model import Reason
from hecaton.worker.runtimes.docker_engine import NOT_FOUND
from hecaton.worker.runtimes.docker_logins import RegistryLogin
from hecaton.worker.runtimes.port import Exit, RuntimeFault

PULL_HINT = (
    "Can the worker reach the registry, and has its disk room? An image that was never pushed has to be built or loaded"
    " on the worker itself."
)

# The first list wins: "lookup ...: no such host ... not found" will pass.
_WILL_PASS = (
    "dial tcp", "lookup ", "timeout", "connection re", "toomanyrequests", "no space left", "handshake", "x509", "eof",
    "service unavailable", "bad gateway", "server error",
)  # fmt: skip
_NO_ACCESS = ("denied", "unauthorized", "authentication required", "no basic auth credentials", "forbidden")
_WILL_NOT_PASS = (
    "not found", "manifest unknown", "does not exist", "no matching manifest", "invalid reference", "name unknown",
    "not implemented", "unsupported",
)  # fmt: skip


def pull_fault(name: str, error: DockerError, login: RegistryLogin | None = None) -> RuntimeFault:
    """`login`: with which the registry was asked; None: it was not."""
    text = error.message.lower()
    if not any(word in text for word in _WILL_PASS):
        own = " An image that was never pushed has to be built or loaded on the worker itself."
        private = login.hint if login is not None else ""
        if any(word in text for word in _NO_ACCESS):
            return RuntimeFault(Reason.IMAGE_DENIED, f"no access to {name}: {error.message}", private + own)
        if error.status == NOT_FOUND or any(word in text for word in _WILL_NOT_PASS):
            hint = f"Check the name and the platform. {private}{own}"
            return RuntimeFault(Reason.IMAGE_DENIED, f"cannot pull {name}: {error.message}", hint)
    return RuntimeFault(Reason.IMAGE_PULL, f"cannot pull {name}: {error.message}", PULL_HINT)


# A command, a user or a folder that is not in the image. "hook" in the text: what did not start is the machine's own.
_OF_THE_IMAGE = (
    'exec: "', "exec format error", "unable to find user", "no matching entries in passwd", "chdir to cwd",
)  # fmt: skip

_DRIVER = "nvidia-smi has to work on the machine first: reboot it, or load the installed driver again."
_OF_THE_MACHINE = (
    ("driver/library version mismatch", f"The driver was upgraded, and the old one is still loaded. {_DRIVER}"),
    ("could not select device driver", "Install the NVIDIA Container Toolkit on the worker and restart Docker."),
    ("unable to initialize nvml", _DRIVER),
    ("nvml error", _DRIVER),
    ("nvidia-container-cli", _DRIVER),
    ("no space left", "Free some space on the disk of Docker's folder: docker system df, docker system prune."),
    (
        "unknown or invalid runtime",
        "A runtime that Docker is told to use is missing: see /etc/docker/daemon.json; for cards install the NVIDIA"
        " Container Toolkit and restart Docker.",
    ),
    ("unknown runtime", "A runtime that Docker is told to use is missing: see /etc/docker/daemon.json."),
    ("docker-init", "Docker's init program is missing: install Docker's package anew, or tini, on the worker."),
    ("cgroup", "The machine's control groups do not work as Docker needs them: restart Docker, or reboot."),
    ("resource temporarily unavailable", "The machine is at its limit of processes or memory: see ulimit and dmesg."),
    ("cannot allocate memory", "The machine is out of memory: see free and dmesg."),
)  # fmt: skip


def start_fault(image: str, error: DockerError) -> RuntimeFault | None:
    """What a refusal to make or start a container means. None: it is not known, and nothing may be concluded."""
    text = error.message
    low = text.lower()
    if error.status == NOT_FOUND and "no such image" in low:
        return RuntimeFault(Reason.IMAGE_PULL, f"{image} was removed from the worker before it could start: {text}")
    if "no command specified" in low:
        return RuntimeFault(
            Reason.STARTUP_EXIT,
            f"{image} has no command of its own to run",
            "Its Dockerfile needs a CMD that calls hecaton.serverless.start(handler); or use --script or --handler.",
        )
    if "unsatisfied condition: cuda" in low:
        return RuntimeFault(
            Reason.IMAGE_DENIED,
            f"{image} cannot run here: {text}",
            "This machine's driver is too old for it: upgrade the driver, or use an image for an older CUDA.",
        )
    if "bind source path does not exist" in low:
        return RuntimeFault(
            Reason.WORKER_ERROR, f"the Docker engine does not see the worker's folder: {text}", _SAME_PATH
        )
    for needle, hint in _OF_THE_MACHINE:
        if needle in low:
            return RuntimeFault(Reason.WORKER_ERROR, f"the Docker engine cannot start a container: {text}", hint)
    if "hook" not in low and any(word in low for word in _OF_THE_IMAGE):
        return RuntimeFault(Reason.STARTUP_EXIT, f"{image} cannot be started: {text}")
    return None


_SAME_PATH = (
    "A worker that runs in a container needs its folder at the same path on both sides, with HECATON_HOME naming it:"
    " -v /var/lib/hecaton:/var/lib/hecaton -e HECATON_HOME=/var/lib/hecaton."
    " An engine on another machine cannot be used."
)


def folder_unseen(folder: Path, error: DockerError) -> RuntimeFault | None:
    """The engine has refused a mount of something in the worker's folder. None: for another reason."""
    if "bind source path does not exist" not in error.message.lower():
        return None
    return RuntimeFault(
        Reason.WORKER_ERROR, f"the Docker engine does not see the worker's folder {folder}: {error.message}", _SAME_PATH
    )


def exit_of(state: dict[str, Any], interrupted: bool) -> Exit:
    """From what the engine says of a container. `interrupted`: it went away while this one ran."""
    error = str(state.get("Error") or "")
    if interrupted and not error:
        error = "the Docker engine went away while the container ran, and stopped it"
    return Exit(int(state["ExitCode"]), oom=bool(state.get("OOMKilled")), error=error)


__all__ = ["PULL_HINT", "exit_of", "folder_unseen", "pull_fault", "start_fault"]
