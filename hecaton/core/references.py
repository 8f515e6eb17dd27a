"""Names of container images, by the grammar of the distribution project (`reference.go`), with Docker Hub's short
forms."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from hecaton.core.errors import BadRequest

DOCKER_HUB = "docker.io"
MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:\[[0-9a-fA-F:]+\]|{_LABEL}(?:\.{_LABEL})*)(?::\d{{1,5}})?"
_REFERENCE = re.compile(
    rf"(?:(?P<registry>{_HOST})/)??(?P<repository>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_IMAGE_ID = re.compile("[0-9a-f]{64}")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True):
    """`python:3.9-slim` is registry docker.io, repository library/python, tag 3.9-slim."""

    registry: str
    repository: str
    tag: str
    digest: str | None

    @property
    def familiar(self) -> str:
        """The repository as the engine lists it: without Docker Hub's implied parts."""
        if self.registry != DOCKER_HUB:
            return f"{self.registry}/{self.repository}"
        return self.repository.removeprefix("library/")

    def by_digest(self, digest: str) -> str:
        return f"{self.familiar}@{digest}"


def registry_of(name: str) -> str:
    """Of anything that may be the name of an image."""
    first, slash, rest = name.partition("/")
    return _split(first, rest)[0] if slash and rest else DOCKER_HUB


def same_repository(name: str, names: Iterable[str]) -> str | None:
    """The first of these that differs from `name` in its tag or digest only."""
    try:
        wanted = parse(name).familiar
    except BadRequest:
        return None
    return next((one for one in names if parse(one).familiar == wanted), None)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def parse(name: str) -> Reference:
    """Raises BadRequest for anything that the engine would not take as an image name."""
    match = _REFERENCE.fullmatch(name) if 0 < len(name) <= MAX_NAME else None
    # 64 hex digits alone are the id of a local image to the engine, never a name.
    if match is None or _IMAGE_ID.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is not an image name",
            "Expected something like python:3.9-slim, user/name:tag, ghcr.io/owner/name:tag or localhost:5000/name.",
        )
    registry, repository = _split(match["registry"], match["repository"])
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, match["tag"] or "latest", match["digest"])


def _split(registry: str | None, repository: str) -> tuple[str, str]:
    """The first part is a host only if it looks like one: `user/name` is Docker Hub, `localhost/name` is not."""
    if registry is None and "/" in repository:
        first, rest = repository.split("/", 1)
        if "." in first or first == "localhost":
            registry, repository = first, rest
    if registry is None or registry in (DOCKER_HUB, "index.docker.io"):
        return DOCKER_HUB, repository
    if "." in registry or ":" in registry or registry == "localhost":
        return registry, repository
    if registry.lower() != registry:
        raise BadRequest(f"{registry}/{repository}: repository names are lower case")
    return DOCKER_HUB, f"{registry}/{repository}"
