"""With which login this machine asks a registry: that of `docker login`, from Docker's own configuration, or from the
credential helper that it names, as Docker asks it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import getpass
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hecaton.core.references import DOCKER_HUB

HELPER_SECONDS = 20.0

_HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = ("docker.io", "index.docker.io")
_TOKEN_USER = "<token>"  # in the user's place: what follows is an identity token
_NOT_FOUND = "credentials not found"


class RegistryLogin(msgspec.Struct, frozen=True):
    """`header`: X-Registry-Auth; None: nobody has logged in. `problem`: why a helper that should know one did not say
    it."""

    registry: str
    header: str | None = None
    problem: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Registry-Auth": self.header} if self.header else {}

    @property
    def hint(self) -> str:
        """What a person does about a registry that refuses."""
        hub = "" if self.registry == DOCKER_HUB else f" {self.registry}"
        who = f"as {_user()}, as whom this worker runs"
        said = f" {self.problem}." if self.problem else ""
        return f"For a private registry run `docker login{hub}` on the worker {who}.{said}"


async def login_for(name: str) -> RegistryLogin:
    """For an image of this name. Read anew each time: a login holds from the next pull on."""
    registry = _registry(name)
    folder = Path(os.environ.get("DOCKER_CONFIG") or _home() / ".docker")
    try:
        config = json.loads((folder / "config.json").read_bytes())
        keys = (_HUB_KEY, *_HUB_NAMES) if registry == DOCKER_HUB else (registry,)
        helpers = config.get("credHelpers") or {}
        helper = next((helpers[key] for key in keys if key in helpers), None) or config.get("credsStore")
    except (OSError, ValueError, AttributeError):
        return RegistryLogin(registry)
    problem = None
    if helper:
        found, problem = await _ask(str(helper), keys[0])
        if found is not None:
            return RegistryLogin(registry, _header(registry, found))
    return RegistryLogin(registry, _kept(registry, config), problem)


def _registry(name: str) -> str:
    registry, slash, _ = name.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost") or registry in _HUB_NAMES:
        return DOCKER_HUB
    return registry


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


async def _ask(helper: str, key: str) -> tuple[Mapping[str, str] | None, str | None]:
    """What it knows, or why it does not say."""
    program = f"docker-credential-{helper}"
    try:
        process = await asyncio.create_subprocess_exec(
            program, "get", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        return None, f"{program}, which Docker's configuration names, cannot be run: {error.strerror}"
    try:
        async with asyncio.timeout(HELPER_SECONDS):
            said, _ = await process.communicate(key.encode())
    except TimeoutError:
        return None, f"{program} did not answer within {HELPER_SECONDS:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        text = said.decode("utf-8", "replace").strip()[:300]
        return None, None if _NOT_FOUND in text else f"{program} failed: {text or f'exit code {process.returncode}'}"
    try:
        answer = json.loads(said)
        if answer["Username"] == _TOKEN_USER:
            return {"identitytoken": answer["Secret"]}, None
        return {"username": answer["Username"], "password": answer["Secret"]}, None
    except (ValueError, LookupError, TypeError):
        return None, f"{program} gave no login"


def _kept(registry: str, config: Mapping[str, Any]) -> str | None:
    """The login that stands in the configuration itself, under whatever address of the registry."""
    logins = config.get("auths") or {}
    names = _HUB_NAMES if registry == DOCKER_HUB else (registry,)
    try:
        login = next(kept for key, kept in logins.items() if _host(key) in names)
        if token := login.get("identitytoken"):
            return _header(registry, {"identitytoken": token})
        user, _, password = base64.b64decode(login["auth"]).decode().partition(":")
    except (ValueError, LookupError, StopIteration, AttributeError, TypeError, binascii.Error):
        return None
    return _header(registry, {"username": user, "password": password})


def _host(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _header(registry: str, login: Mapping[str, str]) -> str:
    said = dict(login) if "identitytoken" in login else {**login, "serveraddress": registry}
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


__all__ = ["RegistryLogin", "login_for"]
