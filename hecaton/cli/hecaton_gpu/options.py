"""What `hecaton-gpu run` and `install` are told about the worker: the options, and how they are read."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from hecaton.cli.first_contact import JoinLine, is_line, read_line
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.runtimes.table import DEFAULT, RUNTIMES, WITH_HANDLERS

UNIT = "hecaton-gpu"

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


_USUAL = WorkerSettings()


class WorkerOptions(msgspec.Struct, frozen=True):
    """What `run` and `install` are told about the worker. `shm_size` in bytes, time-outs in seconds."""

    server: str
    line: JoinLine | None  # to join with, if `server` was one
    name: str
    unit: str  # the service that runs it, if one does
    runtime: str
    handlers: dict[str, Path]
    slots: int
    idle_timeout: float
    drain_timeout: float
    startup_timeout: float
    grace: float
    shm_size: int
    ca_file: Path | None
    token: str | None
    username: str | None
    password: str | None


class Handler(click.ParamType[tuple[str, Path]]):
    """NAME=PATH; the name may hold a tag: `demo:1=handler.py`."""

    name = "NAME=PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Path]:
        name, separator, path = str(value).partition("=")
        if not (name and separator and path):
            self.fail(f"{value!r} is not NAME=PATH, for example demo:1=handler.py", param, ctx)
        if not Path(path).is_file():
            self.fail(f"there is no file {path}", param, ctx)
        return name, Path(path).absolute()


class Size(click.ParamType[int]):
    """A number of bytes, or one with the suffix k, m or g."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+)([kmg]?)b?", str(value).lower())
        if match is None or not int(match[1]):
            self.fail(f"{value!r} is not a size, for example 512m or 2g", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


def worker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a worker; the command gets them as one `WorkerOptions`."""

    @functools.wraps(command)
    def gathered(
        server: str, name: str | None, handler: tuple[tuple[str, Path], ...], runtime: str, **rest: Any
    ) -> Any:
        from hecaton.worker.link.registration import default_name

        if handler and not RUNTIMES[runtime].named_handlers:
            needed = " or ".join(WITH_HANDLERS)
            raise click.UsageError(f"--handler needs --runtime {needed}: containers bring their own handler")
        if RUNTIMES[runtime].named_handlers and not handler:
            raise click.UsageError(f"--runtime {runtime} runs named handler files: give --handler NAME=PATH")
        line = read_line(server) if is_line(server) else None
        server = server if line is None else line.address
        said = server, line, name or default_name(), unit_name(name), runtime, dict(handler)
        return command(WorkerOptions(*said, **rest))

    decorated: Callable[..., Any] = gathered
    for option in reversed(_WORKER_OPTIONS):
        decorated = option(decorated)
    return decorated


_WORKER_OPTIONS = (
    click.argument("server", metavar="SERVER_IP|LINE"),
    click.option("--name", metavar="NAME", help="Name of the worker.  [default: this host's name]"),
    click.option("--username", envvar="HECATON_USERNAME", show_envvar=True, help="User of role admin or worker."),
    click.option("--password", envvar="HECATON_PASSWORD", show_envvar=True, help="That user's password."),
    click.option("--token", envvar="HECATON_TOKEN", show_envvar=True, help="An access token instead of a login."),
    click.option(
        "--ca-file",
        envvar="HECATON_CA_FILE",
        show_envvar=True,
        type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
        help="Certificate (PEM) to trust: that of the server itself, or of who signed it.",
    ),
    click.option(
        "--runtime", type=click.Choice(list(RUNTIMES)), default=DEFAULT, show_default=True,
        help="What runs the jobs: containers, or the files given with --handler, without any isolation.",
    ),
    click.option("--handler", type=Handler(), multiple=True, help="A handler file and its image name (repeatable)."),
    click.option(
        "--slots", type=click.IntRange(1, 1024), default=_USUAL.slots, show_default=True,
        help="Jobs at a time on a machine without a GPU; with GPUs it is one for each.",
    ),
    click.option(
        "--idle-timeout", type=click.FloatRange(0), default=_USUAL.idle_timeout, show_default=True, metavar="SECONDS",
        help="How long a container without work stays warm.",
    ),
    click.option(
        "--drain-timeout", type=click.FloatRange(0, 86400), default=_USUAL.drain_timeout, show_default=True,
        metavar="SECONDS",
        help="How long running jobs may go on when the worker is stopped; then they go back to the queue.",
    ),
    click.option(
        "--startup-timeout", type=click.FloatRange(1, 86400), default=600.0, show_default=True, metavar="SECONDS",
        help="How long a container may take from its start until it asks for work, such as to load a model.",
    ),
    click.option(
        "--grace", type=click.FloatRange(0, 3600), default=30.0, show_default=True, metavar="SECONDS",
        help="Between SIGTERM and SIGKILL, for a job that is stopped to save its work.",
    ),
    click.option("--shm-size", type=Size(), default="1g", show_default=True, help="/dev/shm of each container."),
)  # fmt: skip


def unit_name(name: str | None) -> str:
    """Of the service of a worker; None: the worker that has the host's name."""
    return f"{UNIT}-{name.replace('@', '_')}" if name else UNIT
