"""`hecaton up`: server and worker as services of systemd, from /opt/hecaton."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from hecaton.cli import output, units
from hecaton.cli.hecaton.demo.cluster import find_engine, find_python_image
from hecaton.cli.hecaton.machine import person, place
from hecaton.cli.hecaton.machine.site import (
    OwnServer,
    admin_of,
    certificate_in,
    site_in,
    tell_cards,
    tell_lines,
    tell_no_engine,
)
from hecaton.cli.hecaton_server.unit import UNIT as SERVER
from hecaton.cli.hecaton_server.unit import install_server
from hecaton.client import Client
from hecaton.core.errors import Conflict, Forbidden, HecatonError
from hecaton.core.model import Mode
from hecaton.wire.home import ENVIRONMENT, SERVICE_HOME, home
from hecaton.wire.reach.address import DEFAULT_PORT, parse

assert sys.platform != "win32"  # `up` has said so before this is imported

WORKER = "hecaton-gpu"

PROOF_SECONDS = 60.0
"""For the first container."""


def run(port: int | None, ip: str | None) -> None:
    """As root, and from where services find it; becomes so first. HecatonError where no systemd runs; Conflict where
    the server's service is another one. `port`: None: its own, or the usual one."""
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
    typist = person.who_typed()
    site = _site(port, ip)
    os.environ[ENVIRONMENT] = str(site.home)
    _server(site)
    with admin_of(site, lambda: None) as client:
        output.say(f"  server   https://{site.address}, certificate {site.pin}")
        tell_cards()
        _worker(site, client)
        person.log_in(typist, site, client)
        tell_lines(site, client)


def _become_root() -> None:
    """The same command line by way of sudo, which asks for the password."""
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Forbidden("hecaton up installs services, which only root may", "There is no sudo here: log in as root.")
    output.say(f"hecaton up installs services and {place.PLACE}: sudo asks for your password, once.")
    os.execv(sudo, [sudo, "--", "env", f"{person.PROFILES_IN}={home()}", *_again(sys.executable)])


def _go_to_place() -> None:
    """Services that are there already go on with the new one: what runs on the worker goes on, too. Everybody may run
    it, whatever the umask of root is."""
    os.umask(0o022)
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


def _site(port: int | None, ip: str | None) -> OwnServer:
    """That of the service that is there already; else a new one in HECATON_HOME of root, as for `install`. Conflict if
    that service is none of ours, or has another port than is wanted."""
    if SERVER not in units.installed(SERVER):
        return site_in(Path(os.environ.get(ENVIRONMENT) or SERVICE_HOME), port or DEFAULT_PORT, ip)
    command, environment = units.started_with(SERVER)
    options = dict(pairwise(command))
    folder = Path(environment.get(ENVIRONMENT, SERVICE_HOME))
    again = (
        f"To replace it (the data stays): sudo hecaton-server uninstall, then: {' '.join(['hecaton up', *_port(port)])}"
    )
    if Path(options.get("--ssl-certfile", "")) != certificate_in(folder):
        raise Conflict(f"the service {SERVER} on this machine is not one of `hecaton up`", again)
    own = int(options.get("--port", DEFAULT_PORT))
    if port not in (None, own):
        raise Conflict(f"the service {SERVER} is there already, with port {own}", f"For its lines: hecaton up. {again}")
    return site_in(folder, own, ip)


def _port(port: int | None) -> list[str]:
    return [] if port is None else [f"--port {port}"]


def _server(site: OwnServer) -> None:
    if _runs(SERVER):
        output.say(f"The service {SERVER} runs already.")
        return
    if SERVER in units.installed(SERVER):
        units.control("start", SERVER)
        output.say(f"The service {SERVER} is started again.")
        return
    from hecaton.server.settings import Settings

    settings = Settings(
        site.home / "server", port=site.port, ssl_certfile=str(site.certificate), ssl_keyfile=str(site.key)
    )
    install_server(settings, site.flags)


def _worker(site: OwnServer, client: Client) -> None:
    if _runs(WORKER):
        _tell_whose(site)
        return
    why = find_engine()
    if why is not None:
        tell_no_engine(why)
        return
    command = units.python_command("hecaton.cli.hecaton_gpu.main", "install", site.local)
    if subprocess.run(command, env={**os.environ, **site.worker_secrets}).returncode == 0:
        _prove(client)


def _tell_whose(site: OwnServer) -> None:
    """Of the worker that runs already: it may have been installed for another server, or another port of this one."""
    command, _ = units.started_with(WORKER)
    url = command[command.index("run") + 1]
    place = parse(url)
    if place.port == site.port and place.host in ("localhost", "127.0.0.1", parse(site.address).host):
        output.say(f"The service {WORKER} runs already.")
    else:
        change = "To change that: sudo hecaton-gpu uninstall, then: hecaton up"
        output.warn(f"the service {WORKER} works for {url}, not for this server. {change}")


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
