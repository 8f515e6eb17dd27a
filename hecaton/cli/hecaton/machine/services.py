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
from hecaton.cli.hecaton.demo.engine import find_engine, find_python_image
from hecaton.cli.hecaton.machine import person, place
from hecaton.cli.hecaton.machine.site import (
    OwnServer,
    admin_of,
    certificate_in,
    site_in,
    tell_cards,
    tell_ignored_password,
    tell_lines,
    tell_no_engine,
)
from hecaton.cli.hecaton_server.admin import VARIABLE
from hecaton.cli.hecaton_server.unit import UNIT as SERVER
from hecaton.cli.hecaton_server.unit import install_server
from hecaton.client import Client
from hecaton.core.errors import Conflict, Forbidden, HecatonError
from hecaton.core.model import Mode
from hecaton.wire.home import ENVIRONMENT, SERVICE_HOME, home
from hecaton.wire.reach.address import DEFAULT_PORT, parse

assert sys.platform != "win32"  # `up` has said so before this is imported

WORKER = "hecaton-gpu"

_COPIED = "HECATON_UP_COPIED"
"""In the environment of the one in its place: what it came from has just been there."""

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
    if place.is_placed() and os.environ.pop(_COPIED, None) is None:
        _go_to_origin()
    if os.geteuid() != 0:
        _become_root()
    if not place.is_placed():
        _go_to_place()
    output.say(f"Hecaton is in {place.PLACE}.")
    os.umask(0o077)
    typist = person.who_typed()
    site = _site(port, ip)
    os.environ[ENVIRONMENT] = str(site.home)
    is_new = _server(site)
    with admin_of(site, lambda: units.require_alive(SERVER)) as client:
        output.say(f"  server   https://{site.address}, certificate {site.pin}")
        if not is_new:
            tell_ignored_password(site)
        tell_cards()
        has_worker = _worker(site, client)
        person.log_in(typist, site, client, has_worker=has_worker)
        tell_lines(site, client)


def _become_root() -> None:
    """The same command line by way of sudo, which asks for the password."""
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Forbidden("hecaton up installs services, which only root may", "There is no sudo here: log in as root.")
    output.say(f"hecaton up installs services and {place.PLACE}: sudo asks for your password, once.")
    kept = [f"--preserve-env={VARIABLE}"] if VARIABLE in os.environ else []  # a command line is read by all
    os.execv(sudo, [sudo, *kept, "--", "env", f"{person.PROFILES_IN}={home()}", *_again(sys.executable)])


def _go_to_place() -> None:
    """Services that are there already go on with the new one: what runs on the worker goes on, too. Everybody may run
    it, whatever the umask of root is."""
    os.umask(0o022)
    if place.put_in_place():
        for unit in (SERVER, WORKER):
            if unit in units.installed(unit):
                units.control("restart", unit)
                output.say(f"The service {unit} is started again, with what is there now.")
    python = str(place.PLACE / "bin" / "python")
    os.environ[_COPIED] = "1"
    os.execv(python, _again(python))


def _go_to_origin() -> None:
    """What is in the place may be older than what it came from: `pipx upgrade` and the like know nothing of it."""
    python = place.origin()
    if python is not None:
        os.execv(python, _again(str(python)))


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


def _server(site: OwnServer) -> bool:
    """Whether it was not there yet."""
    if _runs(SERVER):
        output.say(f"The service {SERVER} runs already.")
        return False
    if SERVER in units.installed(SERVER):
        units.control("restart", SERVER)  # one that ends again and again, too: what it says now tells why
        output.say(f"The service {SERVER} is started again.")
        return False
    from hecaton.server.settings import Settings

    settings = Settings(
        site.home / "server", port=site.port, ssl_certfile=str(site.certificate), ssl_keyfile=str(site.key)
    )
    install_server(settings, site.flags)
    return True


def _worker(site: OwnServer, client: Client) -> bool:
    """Whether one runs here, for this server."""
    if _runs(WORKER):
        return _is_ours(site)
    missing = find_engine()
    if missing is not None:
        tell_no_engine(missing)
        return False
    command = units.python_command("hecaton.cli.hecaton_gpu.main", "install", site.local)
    if subprocess.run(command, env={**os.environ, **site.worker_secrets}).returncode != 0:
        return False
    _prove(client)
    return True


def _is_ours(site: OwnServer) -> bool:
    """The worker that runs already may have been installed for another server, or another port of this one: said."""
    command, _ = units.started_with(WORKER)
    url = command[command.index("run") + 1]
    place = parse(url)
    if place.port == site.port and place.host in ("localhost", "127.0.0.1", parse(site.address).host):
        output.say(f"The service {WORKER} runs already.")
        return True
    change = "To change that: sudo hecaton-gpu uninstall, then: hecaton up"
    output.warn(f"the service {WORKER} works for {url}, not for this server. {change}")
    return False


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
