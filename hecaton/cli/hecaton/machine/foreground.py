"""`hecaton up --foreground`: server and worker as child processes, until Ctrl-C. Their data stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from hecaton.cli import output, units
from hecaton.cli.hecaton.demo.engine import find_engine
from hecaton.cli.hecaton.machine import person
from hecaton.cli.hecaton.machine.site import OwnServer, admin_of, site_in, tell_cards, tell_lines, tell_no_engine
from hecaton.cli.hecaton_server.unit import make_admin, require_free
from hecaton.client import Client
from hecaton.core.errors import HecatonError
from hecaton.core.model import WorkerStatus
from hecaton.server.settings import Settings
from hecaton.wire.home import ENVIRONMENT, home

assert sys.platform != "win32"  # `up` has said so before this is imported

STOP_SECONDS = 100.0
"""A worker gives its jobs time to end."""

CONNECT_PATIENCE = 20.0
"""Seconds for which the new worker is watched, to tell how it went."""

_POLL = 0.2


def run(port: int, ip: str | None) -> None:
    """Until Ctrl-C or SIGTERM; HecatonError if one of the two ends by itself."""
    os.umask(0o077)
    site = site_in(home(), port, ip)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed leaves nothing running
        signal.signal(number, _interrupt)
    children = Children(site.home)
    try:
        _start(site, children)
        while True:
            children.check()
            time.sleep(_POLL)
    except KeyboardInterrupt:
        output.say(f"{output.behind_ctrl_c()}Stopping worker and server. Their data stays in {site.home}.")
    finally:
        children.stop()


def _start(site: OwnServer, children: Children) -> None:
    require_free(Settings(site.home).host, site.port)
    make_admin(site.home)
    children.start("server", "hecaton.cli.hecaton_server.main", site.flags, {})
    with admin_of(site, children.check) as client:
        output.say(f"  server   https://{site.address}, certificate {site.pin}")
        tell_cards()
        missing = find_engine()
        if missing is not None:
            tell_no_engine(missing)
        else:
            children.start("worker", "hecaton.cli.hecaton_gpu.main", ["run", site.local], site.worker_secrets)
            output.say(f"  worker   {_first_state(client, children)}")
        output.say(f"  logs     {children.log('server').parent}/up-*.log")
        person.log_in(person.who_typed(), site, client, has_worker=missing is None)
        tell_lines(site, client)
    output.say("It runs until Ctrl-C.")


def _first_state(client: Client, children: Children) -> str:
    deadline = time.monotonic() + CONNECT_PATIENCE
    while time.monotonic() < deadline:
        children.check()
        for worker in client.workers():
            if worker.status is WorkerStatus.ONLINE:
                return f"{worker.name}, connected"
        time.sleep(_POLL)
    return "is starting; what it says is in its log"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Children:
    """Each in a session of its own: Ctrl-C is for us, who stop them in order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, module: str, arguments: list[str], secret: dict[str, str]) -> None:
        """`secret`: for its environment alone."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HECATON_")}
        environment |= {ENVIRONMENT: str(self._folder), **secret}
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                units.python_command(module, *arguments),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((name, process))

    def log(self, name: str) -> Path:
        return self._folder / f"up-{name}.log"

    def check(self) -> None:
        """HecatonError, with its last words, if one has ended."""
        for name, process in self._running:
            if process.poll() is not None:
                said = self.log(name).read_text(errors="replace").splitlines()[-5:]
                raise HecatonError(f"the {name} has ended (exit code {process.returncode}):\n" + "\n".join(said))

    def stop(self) -> None:
        """The worker first: it says goodbye. A second Ctrl-C disturbs nothing."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for _, process in reversed(self._running):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
