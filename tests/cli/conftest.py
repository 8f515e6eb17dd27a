"""A home of its own for each test, the command in this process and as a process, and a server that answers as told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hecaton.cli.hecaton import completers
from hecaton.cli.hecaton.main import run
from hecaton.client import profiles
from tests.client.scripted import ScriptedServer

HECATON = Path(sys.executable).with_name("hecaton")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Invoke = Callable[..., Ended]
Process = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("HECATON_"):
            monkeypatch.delenv(name)
    # The shells' histories and caches.
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / "home"
    monkeypatch.setenv("HECATON_HOME", str(folder))
    completers._known.clear()
    return folder


@pytest.fixture
def invoke(capfd: pytest.CaptureFixture[str]) -> Invoke:
    """A command line in this process: fast, with everything but a terminal and a fresh interpreter."""

    def invoke(*arguments: str) -> Ended:
        capfd.readouterr()
        code = run(arguments)
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return invoke


@pytest.fixture
def hecaton() -> Process:
    """The installed command as a process of its own, without a terminal."""

    def process(*arguments: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(HECATON), *arguments],
            input=input,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return process


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Registered as `my-server`, active, logged in with the token `secret`."""
    with ScriptedServer() as scripted:
        profiles.add(profiles.Profile("my-server", scripted.url, scheme="http"))
        profiles.set_token("my-server", "secret", "ann")
        profiles.set_active("my-server")
        yield scripted
