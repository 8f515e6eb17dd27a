"""pip, pipx and uv as people have them: each in a home of its own, with the index that this machine uses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PINS = Path(__file__).with_name("requirements.txt")


def _pip(wheel: Path, home: Path) -> Path:
    _run(sys.executable, "-m", "venv", str(home / "environment"))
    _run(str(home / "environment/bin/pip"), "install", "--quiet", str(wheel), HOME=str(home))
    return home / "environment/bin"


def _pipx(wheel: Path, home: Path) -> Path:
    settings = {"HOME": str(home), "PIPX_HOME": str(home / "pipx"), "PIPX_BIN_DIR": str(home / "bin")}
    _run(_tool("pipx", home), "install", "--python", sys.executable, str(wheel), **settings)
    return home / "bin"


def _uv(wheel: Path, home: Path) -> Path:
    settings = {"HOME": str(home), "UV_TOOL_DIR": str(home / "uv"), "UV_TOOL_BIN_DIR": str(home / "bin")}
    _run(_tool("uv", home), "tool", "install", "--no-config", "--python", sys.executable, str(wheel), **settings)
    return home / "bin"


def _tool(name: str, home: Path) -> str:
    """The program at its pinned version, in an environment of its own."""
    environment = home / "tool"
    _run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    (pin,) = (line for line in PINS.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}=="))
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(environment / "bin/python")]
    _run(*pip, "install", pin)
    return str(environment / "bin" / name)


INSTALLERS: Mapping[str, Callable[[Path, Path], Path]] = {
    "pip install": _pip,
    "pipx install": _pipx,
    "uv tool install": _uv,
}
"""By what is typed: of a wheel and an empty home; gives the folder of the commands."""


def say(commands: Path, home: Path, line: str, **variables: str) -> str:
    """What an installed command answers, of whom nothing else is on the path."""
    name, *arguments = line.split()
    found = {"PATH": f"{commands}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    return _run(str(commands / name), *arguments, HOME=str(home), **found, **variables)


def _run(*command: str, **variables: str) -> str:
    """stdout; AssertionError with all that was said if it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, env={**kept, **variables}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
