"""`hecaton up`: server and worker as services of systemd, from /opt/hecaton."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hecaton.cli import output, units
from hecaton.cli.hecaton.demo.cluster import find_engine, find_python_image
from hecaton.cli.hecaton.machine import place
from hecaton.cli.hecaton.machine.site import OwnServer, admin_of, site_in, tell_cards, tell_lines, tell_no_engine
from hecaton.cli.hecaton_server.unit import UNIT as SERVER
from hecaton.cli.hecaton_server.unit import install_server
from hecaton.client import Client
from hecaton.core.errors import Forbidden, HecatonError
from hecaton.core.model import Mode
from hecaton.wire.home import ENVIRONMENT, SERVICE_HOME

WORKER = "hecaton-gpu"

PROOF_SECONDS = 60.0
"""For the first container."""


def run(port: int, ip: str | None) -> None:
    """As root, and from where services find it; becomes so first. HecatonError where no systemd runs."""
    if not units.is_booted():
        raise HecatonError(
            "this machine does not run systemd, which services need",
            "Without services, for a look: hecaton up --foreground",
        )
    if os.geteuid() != 0:
        _become_root()
    if not place.is_placed():
        _go_to_place()
    output.say(f"Hecaton is in {place.PLACE}.")
    os.umask(0o077)
    os.environ[ENVIRONMENT] = str(SERVICE_HOME)
    site = site_in(SERVICE_HOME, port, ip)
    _server(site)
    with admin_of(site, lambda: None) as client:
        output.say(f"  server   https://{site.address}, certificate {site.pin}")
        tell_cards()
        _worker(site, client)
        tell_lines(site, client)


def _become_root() -> None:
    """The same command line by way of sudo, which asks for the password."""
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Forbidden("hecaton up installs services, which only root may", "There is no sudo here: log in as root.")
    output.say(f"hecaton up installs services and {place.PLACE}: sudo asks for your password, once.")
    os.execv(sudo, [sudo, "--", *_again(sys.executable)])


def _go_to_place() -> None:
    """Services that are there already go on with the new one: what runs on the worker goes on, too."""
    if place.put_in_place():
        for unit in (SERVER, WORKER):
            if unit in units.installed(unit):
                units.control("restart", unit)
    python = str(place.PLACE / "bin" / "python")
    os.execv(python, _again(python))


def _again(python: str) -> list[str]:
    return [python, "-P", "-m", "hecaton.cli.hecaton.main", *sys.argv[1:]]


def _runs(unit: str) -> bool:
    return unit in units.installed(unit) and units.status(unit).active == "active"


def _server(site: OwnServer) -> None:
    if _runs(SERVER):
        output.say(f"The service {SERVER} runs already.")
        return
    from hecaton.server.settings import Settings

    settings = Settings(
        site.home / "server", port=site.port, ssl_certfile=str(site.certificate), ssl_keyfile=str(site.key)
    )
    install_server(settings, site.flags)


def _worker(site: OwnServer, client: Client) -> None:
    if _runs(WORKER):
        output.say(f"The service {WORKER} runs already.")
        return
    why = find_engine()
    if why is not None:
        tell_no_engine(why)
        return
    command = units.python_command("hecaton.cli.hecaton_gpu.main", "install", str(site.local_line(client)))
    if subprocess.run(command).returncode == 0:
        _prove(client)


def _prove(client: Client) -> None:
    """One container, the whole way from submission to end."""
    image, _ = find_python_image()
    if image is None:
        output.say("No container was tried: the engine has no python image. The first job pulls one.")
        return
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "proof.py"
        script.write_text("print('It works.')\n")
        try:
            client.submit(image, mode=Mode.SCRIPT, file=script, name="proof").result(PROOF_SECONDS)
        except HecatonError as error:
            output.warn(f"a container of {image} did not run: {error}")
        else:
            output.say(f"A container of {image} has run a script here, as a proof.")
