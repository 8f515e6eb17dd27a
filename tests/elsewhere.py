"""Another system than this one, as far as Hecaton can see.

`python -m tests.elsewhere SYSTEM` loads what belongs to others (the standard library, the packages that are needed
there) as it is here; then the name of the system changes, and what that system lacks goes, packages among it. From then
on each piece of code that `Elsewhere.run` hands in runs in a fork of its own: Hecaton's code is imported and run as on
that system. The code of others is theirs to test.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import msgspec
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "win32": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}
"""What markers of requirements look at."""

_LINUX_ALONE = {"epoll", "posix_fadvise", "posix_fallocate", "pidfd_open", "memfd_create", "sched_getaffinity", "prctl"}
_NOT_ON_WINDOWS = {
    os: [
        name
        for name in dir(os)
        if name
        in {"O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "fork", "fchmod", "getuid"}
        or name in {"geteuid", "getgid", "getegid", "getpgid", "killpg", "mkfifo", "setsid", "uname", "openpty"}
    ],
    signal: [
        "SIGHUP",
        "SIGKILL",
        "SIGQUIT",
        "SIGUSR1",
        "SIGUSR2",
        "SIGPIPE",
        "SIGCHLD",
        "pthread_sigmask",
        "setitimer",
    ],
    socket: ["AF_UNIX", "SO_REUSEPORT", "socketpair"],
}
_MODULES_NOT_ON_WINDOWS = {
    "asyncio", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty",
}  # fmt: skip
"""And asyncio, which Windows has: its own parts for Windows cannot be loaded here. The client has no use for it."""


def requirements(system: str, python: str = "3.12") -> list[Requirement]:
    """Of Hecaton, as they hold on a system."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [one for one in map(Requirement, project["dependencies"]) if holds(one, system, python)]


def holds(requirement: Requirement, system: str, python: str = "3.12") -> bool:
    here = {name: str(value) for name, value in default_environment().items()}
    there = {
        **here,
        **ENVIRONMENTS[system],
        "python_version": python,
        "python_full_version": f"{python}.0",
        "extra": "",
    }
    return requirement.marker is None or requirement.marker.evaluate(there)


def installed_there(system: str) -> set[str]:
    """Names of the distributions that `pip install hecaton` brings on a system, by what is installed here."""
    found: set[str] = set()
    waiting = requirements(system)
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name not in found:
            found.add(name)
            waiting += [one for one in map(Requirement, distribution(name).requires or ()) if holds(one, system)]
    return found


class _Missing(importlib.abc.MetaPathFinder):
    """Refuses packages that are installed here but not there."""

    def __init__(self, modules: set[str]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name.partition(".")[0] in self._modules:
            raise ModuleNotFoundError(f"{name} is not installed on {sys.platform}", name=name)


def _provided_by(names: set[str]) -> Iterator[str]:
    for module, distributions in packages_distributions().items():
        if {canonicalize_name(name) for name in distributions} & names:
            yield module


def move_to(system: str) -> None:
    """From here on this process is on that system. For a fresh process: nothing of Hecaton may be loaded yet."""
    assert not any(name == "hecaton" or name.startswith("hecaton.") for name in sys.modules)
    there = installed_there(system)
    kept = set(_provided_by(there))
    for module in sorted(kept):
        importlib.import_module(module)
    for name in ("click.shell_completion", "urllib3.util.retry", "rich.console", "rich.progress", "rich.table"):
        importlib.import_module(name)
    for name in ("prompt_toolkit.patch_stdout", "prompt_toolkit.history", "prompt_toolkit.completion"):
        importlib.import_module(name)
    gone = set(packages_distributions()) - kept - {"hecaton", "tests"}
    for name in list(sys.modules):
        if name.partition(".")[0] in gone:
            del sys.modules[name]
    sys.meta_path.insert(0, _Missing(gone))
    sys.platform = system
    if system == "win32":
        _lose_what_windows_lacks()
    for name in _LINUX_ALONE & set(dir(os)):
        delattr(os, name)


def _lose_what_windows_lacks() -> None:
    import fcntl

    sys.modules["msvcrt"] = _msvcrt(fcntl)
    for module, names in _NOT_ON_WINDOWS.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    _refuse_imports_of_ours(_MODULES_NOT_ON_WINDOWS)


def _refuse_imports_of_ours(modules: set[str]) -> None:
    """The standard library goes on with what it has loaded."""
    load = builtins.__import__

    def checked(name: str, globals: Any = None, *rest: Any, **more: Any) -> Any:
        asking = str((globals or {}).get("__name__", "")).partition(".")[0]
        if asking in ("hecaton", "__main__") and name.partition(".")[0] in modules:
            raise ModuleNotFoundError(f"there is no {name} on {sys.platform}", name=name)
        return load(name, globals, *rest, **more)

    builtins.__import__ = checked


def _msvcrt(fcntl: Any) -> ModuleType:
    """Windows' locks on ranges of a file, as far as they are used: with those of this system."""

    def locking(descriptor: int, mode: int, length: int) -> None:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        assert length == 1
        fcntl.flock(descriptor, {0: fcntl.LOCK_UN, 2: fcntl.LOCK_EX | fcntl.LOCK_NB}[mode])

    made = ModuleType("msvcrt")
    vars(made).update(LK_UNLCK=0, LK_NBLCK=2, locking=locking)
    return made


def modules_of(*packages: str) -> list[str]:
    """Every module below some packages, by dotted name."""
    found = []
    for package in packages:
        for path in sorted((REPOSITORY / package.replace(".", "/")).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


class Done(msgspec.Struct, frozen=True):
    """How a piece of code ended: its exit code (a traceback makes it 1) and what it said."""

    code: int
    out: str
    err: str


class _Order(msgspec.Struct, frozen=True):
    code: str
    environment: dict[str, str]
    copies: int


class Elsewhere:
    """A process on the other system, which forks for each piece of code. Used as a context."""

    def __init__(self, system: str) -> None:
        self._command = [sys.executable, "-m", "tests.elsewhere", system]

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, cwd=REPOSITORY, stdin=pipe, stdout=pipe)
        return self

    def __exit__(self, *error: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def run_copies(self, copies: int, code: str, **environment: str) -> list[Done]:
        """All at once; each knows its `number`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(_Order(code, environment, copies)) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=list[Done])

    def run(self, code: str, **environment: str) -> Done:
        return self.run_copies(1, code, **environment)[0]

    def must(self, code: str, **environment: str) -> str:
        """What it says on stdout."""
        done = self.run(code, **environment)
        assert done.code == 0, done.err
        return done.out


def _serve() -> None:
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=_Order)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            children = [_start(order, number, folder) for number in range(order.copies)]
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            done = [
                Done(code, *((folder / f"{number}.{kind}").read_text("utf-8") for kind in ("out", "err")))
                for number, code in enumerate(codes)
            ]
        sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
        sys.stdout.buffer.flush()


_fork = os.fork


def _start(order: _Order, number: int, folder: Path) -> int:
    child = _fork()
    if child:
        return child
    code = 1
    try:
        for descriptor, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / f"{number}.{kind}", os.O_WRONLY | os.O_CREAT), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order.environment)
        exec(order.code, {"__name__": "__main__", "modules_of": modules_of, "number": number})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    move_to(sys.argv[1])
    _serve()
