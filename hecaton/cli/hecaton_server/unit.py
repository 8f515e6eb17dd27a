"""`hecaton-server install|uninstall`: the server as a systemd service."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hecaton.cli import output, units
from hecaton.core.errors import HecatonError
from hecaton.wire.home import ENVIRONMENT, SERVICE_HOME

if TYPE_CHECKING:
    from hecaton.server.settings import Settings

UNIT = "hecaton-server"

START_SECONDS = 60.0
"""`install` gives a server so long until it listens: it may have a large database to bring up to date first."""

FINAL_EXIT = 3
"""Exit code of a server that another start would end in the same way."""


def install_server(settings: Settings, flags: Sequence[str]) -> None:
    """`flags`: of the service. The admin is made before it starts: neither journal nor unit file is a place for a
    password."""
    units.require("hecaton-server install")
    folder = Path(os.environ.get(ENVIRONMENT) or SERVICE_HOME)
    password = os.environ.get("HECATON_ADMIN_PASS")
    if UNIT in units.installed(UNIT):
        units.control("stop", UNIT)  # it holds the folder
    invented = _ensure_admin(folder, password or secrets.token_urlsafe(12))
    units.install(service(folder, flags))
    _until_it_answers(settings)
    output.say(f"Installed and started the service {UNIT}; it listens on {settings.host} port {settings.port}.")
    output.say(f"  data  {folder / 'server'}")
    output.say(f"  log   journalctl -u {UNIT} -f")
    if invented and not password:
        output.say("Made the user `admin`. Its password, shown only this once:")
        output.say(f"  {invented}")


def _until_it_answers(settings: Settings) -> None:
    """Whoever types the next line, such as that of a worker, finds it. HecatonError if it does not listen in time."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((here, settings.port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline or units.status(UNIT).active == "failed":
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


def _ensure_admin(folder: Path, password: str) -> str | None:
    """The password, if an admin had to be made with it."""
    import asyncio

    from hecaton.server.app import Server
    from hecaton.server.settings import Settings

    async def ensure() -> str | None:
        server = Server(Settings(folder / "server"))
        try:
            await server.start()
            had_admin = server.parts.directory.has_admin
            await server.ensure_admin(password)
            return None if had_admin else password
        finally:
            await server.stop()

    return asyncio.run(ensure())


def uninstall_server() -> None:
    units.require("hecaton-server uninstall")
    units.uninstall(UNIT)
    output.say(f"Removed the service {UNIT}. The data stays: {os.environ.get(ENVIRONMENT) or SERVICE_HOME}/server")
