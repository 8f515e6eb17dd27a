"""A real image registry on loopback, for pushes and pulls in tests."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engine.daemon import docker
from tests.engine.needs import SEARCH_PATH, EngineError, find, require


@dataclass(frozen=True)
class Registry:
    """A running registry; `address` is `localhost:PORT`, which image names may start with."""

    address: str

    def push(self, local: str, name: str) -> str:
        """Push a local image under a name such as `team/app:1`; returns the full reference (without digest)."""
        reference = f"{self.address}/{name}"
        docker("tag", local, reference)
        docker("push", "--quiet", reference)
        return reference

    def digest(self, reference: str) -> str:
        """The manifest digest (`sha256:...`) of a reference that was pushed or pulled here."""
        wanted = reference.rpartition(":")[0] + "@"
        digests = json.loads(docker("image", "inspect", "--format", "{{json .RepoDigests}}", reference))
        return str(next(found for found in digests if found.startswith(wanted))).partition("@")[2]

    def forget_local(self, reference: str) -> None:
        """Remove the reference from the engine, so that the next use has to pull it."""
        docker("image", "rm", reference)


USER, PASSWORD = "tester", "secret"
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


@contextmanager
def running_registry(folder: Path, *, private: bool = False) -> Iterator[Registry]:
    """Run Debian's docker-registry with its storage in the folder until the block ends. `private`: only USER may use
    it, with basic authentication."""
    port = _free_port()
    process = start_registry(folder, port, private=private)
    try:
        _wait_until_ready(process, port, folder / "registry.log")
        yield Registry(f"localhost:{port}")
    finally:
        process.terminate()
        process.wait(10)


def start_registry(
    folder: Path, port: int, network: Path | None = None, *, private: bool = False
) -> subprocess.Popen[bytes]:
    """Over what an earlier one has left in the folder. `network`: the namespace on whose loopback it listens."""
    require("docker-registry")
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if private:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    within = [] if network is None else ["nsenter", f"--net={network}", "--"]
    with (folder / "registry.log").open("ab") as log:
        return subprocess.Popen(
            [*within, find("docker-registry") or "docker-registry", "serve", str(folder / "config.yml")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": SEARCH_PATH},
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it wants a login
        except OSError:
            time.sleep(0.05)
    raise EngineError(f"docker-registry did not start:\n{log.read_text(errors='replace')[-2000:]}")
