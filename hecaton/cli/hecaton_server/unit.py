"""`hecaton-server install|uninstall`: the server as a systemd service."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hecaton.cli import interrupts, output, units
from hecaton.cli.hecaton_server.admin import IGNORED, VARIABLE
from hecaton.core.errors import Conflict, HecatonError
from hecaton.wire.home import ENVIRONMENT, SERVICE_HOME

if TYPE_CHECKING:
    from hecaton.server.settings import Settings

UNIT = "hecaton-server"

START_PATIENCE = 60.0
"""Seconds that `install` gives a server until it listens: it may have a large database to bring up to date first."""

FINAL_EXIT = 3
"""Exit code of a server that another start would end in the same way."""


def install_server(settings: Settings, flags: Sequence[str]) -> None:
    """`flags`: of the service. The admin is made before it starts: neither journal nor unit file is a place for a
    password."""
    units.require("hecaton-server install")
    folder = Path(os.environ.get(ENVIRONMENT) or SERVICE_HOME)
    if UNIT in units.installed(UNIT):
        units.control("stop", UNIT)  # it holds the folder
    require_free(settings.host, settings.port)
    make_admin(folder)
    units.install(service(folder, flags))
    _until_it_answers(settings)
    output.say(f"Installed and started the service {UNIT}; it listens on {settings.host} port {settings.port}.")
    output.say(f"  data  {folder / 'server'}")
    output.say(f"  log   journalctl -u {UNIT} -f")


def make_admin(folder: Path) -> None:
    """The user `admin`, if there is no admin in the server's `folder`: with the password of HECATON_ADMIN_PASS, or one
    that is shown at once, for it is in no file. The server must not run."""
    given = os.environ.get(VARIABLE)
    with interrupts.postponed():  # a password that nobody has seen would keep everybody out
        invented, ignored = asyncio.run(_ensure_admin(folder, given))
        if invented is not None:
            output.say("Made the user `admin`. Its password, shown only this once:")
            output.say(f"  {invented}")
    if ignored:
        output.say("\n".join(IGNORED))


def require_free(host: str, port: int) -> None:
    """Whoever listens there would pass for the server. Conflict."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Conflict(
                    f"another program listens on {host} port {port} already",
                    f"Which one: sudo ss -ltnp 'sport = {port}'. Another port: --port {port + 1}",
                ) from None


def _until_it_answers(settings: Settings) -> None:
    """Whoever types the next line, such as that of a worker, finds it. HecatonError if it does not listen in time."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    deadline = time.monotonic() + START_PATIENCE
    while True:
        try:
            socket.create_connection((here, settings.port), timeout=1).close()
            return
        except OSError:
            units.require_alive(UNIT)
            if time.monotonic() > deadline:
                raise HecatonError(
                    f"the service {UNIT} is installed, and nothing listens on {settings.host} port {settings.port}",
                    f"Its log says why: journalctl -u {UNIT}",
                ) from None
            time.sleep(0.1)


def service(folder: Path, flags: Sequence[str]) -> units.Service:
    """`folder`: for all data. It is started again whatever ended it, but for what only a person can mend."""
    return units.Service(
        name=UNIT,
        description="Hecaton server",
        command=units.python_command("hecaton.cli.hecaton_server.main", *flags),
        environment={ENVIRONMENT: str(folder), "PYTHONUNBUFFERED": "1"},
        stop_seconds=20,
        final_codes=(FINAL_EXIT,),
    )


async def _ensure_admin(folder: Path, given: str | None) -> tuple[str | None, bool]:
    """The password, if one had to be made up; and whether the one that is `given` is of no use."""
    from hecaton.server.app import Server
    from hecaton.server.settings import Settings

    server = Server(Settings(folder / "server"))
    try:
        await server.start()
        invented = await server.ensure_admin(given)
        return invented, await server.is_ignored(given)
    finally:
        await server.stop()


def uninstall_server() -> None:
    units.require("hecaton-server uninstall")
    units.uninstall(UNIT)
    output.say(f"Removed the service {UNIT}. The data stays: {os.environ.get(ENVIRONMENT) or SERVICE_HOME}/server")
