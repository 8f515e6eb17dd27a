"""What a refusal of the Docker engine means. It tells the cases apart by text only, so what is not known here decides
nothing: a pull is tried again until the server's patience is over."""

from __future__ import annotations

from aiodocker import DockerError

from hecaton.core.model import Reason
from hecaton.worker.runtimes.docker_engine import NOT_FOUND
from hecaton.worker.runtimes.docker_logins import RegistryLogin
from hecaton.worker.runtimes.port import RuntimeFault

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


__all__ = ["PULL_HINT", "pull_fault"]
