"""What `hecaton-gpu run` and `install` do: register this machine once, look around, build the worker and run it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import click

from hecaton import __version__
from hecaton.cli import output, units
from hecaton.cli.first_contact import follow, meet
from hecaton.cli.hecaton_gpu.options import WorkerOptions
from hecaton.core.errors import BadRequest, Conflict, HecatonError
from hecaton.core.model import KeyScope
from hecaton.wire.home import ENVIRONMENT
from hecaton.worker import control
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.capacity import capacity
from hecaton.worker.cards import discovery
from hecaton.worker.link import registration
from hecaton.worker.link.link import FINAL_EXIT
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.runtimes.port import Runtime, RuntimeFault
from hecaton.worker.runtimes.starting import in_container
from hecaton.worker.runtimes.table import RUNTIMES, Wishes

CONNECT_PATIENCE = 20.0
"""Seconds for which `install` watches the new service to tell how it went."""

STOP_SECONDS = 60
"""Seconds that the end of a worker may take beyond its drain timeout and its grace: containers are removed, results
delivered."""


def run_worker(options: WorkerOptions) -> int:
    """Until the worker is stopped; its exit code."""
    config = identity(options)
    with registration.exclusive(config):
        runtime = _runtime(options, config)
        found = discovery.discover()
        engine = _check(runtime, config.folder, found)
        output.print_lines(
            output.field_lines(
                [
                    ("hecaton-gpu", __version__),
                    ("engine", engine),
                    *(("card", f"{gpu.name}, {gpu.memory >> 30} GiB ({gpu.uuid})") for gpu in found.gpus),
                    ("card", None if found.gpus else _without_card(found.reason, options.slots)),
                    ("server", config.url),
                    ("worker", config.name),
                ]
            )
        )
        from hecaton.cli.log_lines import log_to_stderr
        from hecaton.worker.app import NewerJournal, run

        log_to_stderr()
        has = capacity()
        settings = WorkerSettings(
            slots=options.slots,
            idle_timeout=options.idle_timeout,
            drain_timeout=options.drain_timeout,
            startup_timeout=options.startup_timeout,
            grace=options.grace,
            cpus=has.cpus,
            memory=has.memory,
            new_cards=True,
        )
        try:
            return run(config, runtime, found.gpus, settings)
        except RuntimeFault as fault:
            raise HecatonError(fault.message, fault.hint) from fault
        except NewerJournal as error:
            output.show_error(error, as_json=False)
            return FINAL_EXIT  # another start would end the same way: its service waits for an upgrade


def install_worker(options: WorkerOptions) -> None:
    """Check what can be checked first, so that a service that is installed also works."""
    units.require(f"hecaton-gpu install {options.server}")
    config = identity(options)
    _check(_runtime(options, config), config.folder, discovery.discover())
    leave_to_next(options.unit)
    units.install(service(options, config))
    output.say(f"Installed the service {options.unit} as worker {config.name!r} of {config.url}.")
    output.say(_first_state(options.unit))
    output.say(f"Its log: hecaton-gpu logs -f{'' if options.unit == 'hecaton-gpu' else f' --name {options.name}'}")


def leave_to_next(unit: str) -> None:
    """Before the service's process is replaced: what runs goes on in the next one. Does nothing where none runs. One
    that does not hear of it here learns from systemd that it is restarted."""
    pid = units.status(unit).pid if unit in units.installed(unit) else 0
    folder = _folder_of_process(pid) if pid else None
    if folder is not None:
        control.leave(folder)


def _folder_of_process(pid: int) -> Path | None:
    """Where a worker that runs keeps its state, by what it was started with."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        variables = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    except (OSError, UnicodeDecodeError):
        return None
    if ENVIRONMENT not in variables or "--name" not in words[:-1]:
        return None
    return registration.folder_of(words[words.index("--name") + 1], Path(variables[ENVIRONMENT]))


def service(options: WorkerOptions, config: WorkerConfig) -> units.Service:
    """The unit of a registered worker: it names no credentials, those of the worker itself are in its folder."""
    arguments = ["run", config.url, "--name", config.name, "--runtime", options.runtime]
    for name, path in options.handlers.items():
        arguments += ["--handler", f"{name}={path}"]
    arguments += ["--slots", str(options.slots), "--idle-timeout", f"{options.idle_timeout:g}"]
    arguments += ["--drain-timeout", f"{options.drain_timeout:g}"]
    arguments += ["--startup-timeout", f"{options.startup_timeout:g}", "--grace", f"{options.grace:g}"]
    arguments += ["--shm-size", str(options.shm_size)]
    environment = {ENVIRONMENT: str(registration.worker_home()), "PYTHONUNBUFFERED": "1"}
    runtime = RUNTIMES[options.runtime]
    environment |= {name: os.environ[name] for name in runtime.variables if os.environ.get(name)}
    return units.Service(
        name=options.unit,
        description=f"Hecaton GPU worker {config.name}",
        command=units.python_command("hecaton.cli.hecaton_gpu.main", *arguments),
        environment=environment,
        stop_seconds=STOP_SECONDS + round(options.drain_timeout + options.grace),
        after=("network-online.target", *runtime.services),
        oom_score_adjust=-900,  # a job that eats all memory must not take the worker along
        final_codes=(0, FINAL_EXIT),  # 0: removed on the server, or asked to end
        keeps_children=True,  # handlers of the process runtime; it stops them itself when it is stopped
    )


def identity(options: WorkerOptions) -> WorkerConfig:
    """The registration of this worker: the one it has, or a new one.

    One that was removed on the server is replaced where there are credentials or somebody to ask; a service without
    either goes on with it, and its log says what is wrong."""
    known = registration.load(options.name)
    if known is not None and not registration.matches(known, options.server):
        raise Conflict(
            f"the worker {options.name!r} of this machine is registered with {known.url}, not with {options.server}",
            f"Choose another --name, or remove {known.folder / 'worker.json'} to register it anew.",
        )
    if known is None:
        return _register(options)
    given = options.line, options.token, options.password
    may_register = any(one is not None for one in given) or sys.stdin.isatty()
    if may_register and not registration.still_known(known):
        output.warn(f"the worker {known.name!r} was removed from the server: registering it again")
        return _register(options)
    return known


def _register(options: WorkerOptions) -> WorkerConfig:
    line = options.line
    if line is not None and line.scope is not KeyScope.ENROL:
        raise BadRequest("this line is for a machine that is to send jobs", f"There: hecaton join {line}")
    server, certificate = meet(options.server, options.ca_file) if line is None else follow(line)
    if server.warning:
        output.warn(server.warning)
    username = password = None
    if options.token is None and line is None:
        username = options.username or _ask("username", "Username", hidden=False)
        password = options.password or _ask("password", "Password", hidden=True)
    ca_file = options.ca_file
    if certificate is not None:
        ca_file = registration.keep_certificate(options.name, certificate)
    return registration.register(
        server,
        options.name,
        username=username,
        password=password,
        token=options.token,
        key=None if line is None else line.key,
        ca_file=ca_file,
    )


def _ask(option: str, label: str, *, hidden: bool) -> str:
    if not sys.stdin.isatty():
        raise BadRequest(
            f"--{option} is missing, and there is no terminal to ask on",
            f"Give it as an option or in HECATON_{option.upper()}; or an access token in HECATON_TOKEN.",
        )
    answer: str = click.prompt(label, hide_input=hidden, err=True)
    return answer


def _runtime(options: WorkerOptions, config: WorkerConfig) -> Runtime:
    wishes = Wishes(options.handlers, options.shm_size)
    return RUNTIMES[options.runtime].make(config.worker_id, wishes)


def _check(runtime: Runtime, folder: Path, found: discovery.Discovery) -> str:
    async def ask() -> str:
        try:
            return await runtime.check(folder, [gpu.uuid for gpu in found.gpus])
        finally:
            await runtime.close()  # its connections belong to this short event loop

    try:
        return asyncio.run(ask())
    except RuntimeFault as fault:
        raise HecatonError(fault.message, fault.hint) from fault


def _without_card(reason: str, slots: int) -> str:
    lacks = "; a worker in a container gets cards with --gpus all" if in_container() else ""
    return f"no GPU found ({reason}{lacks}): CPU-only, {slots} slot{'s' if slots > 1 else ''}"


def _first_state(unit: str) -> str:
    """What became of the service, as soon as it is connected or has failed."""
    deadline = time.monotonic() + CONNECT_PATIENCE
    while True:
        state = units.status(unit)
        if state.active == "active" and state.text.startswith("connected"):
            return f"It runs and is {state.text}."
        if time.monotonic() > deadline:
            said = f" ({state.text})" if state.text else ""
            return f"It is {state.active}, but not connected yet{said}. It goes on trying."
        if state.active == "failed":
            raise HecatonError(
                f"the service {unit} failed: {state.detail}", f"See: journalctl --unit {unit} --lines 50"
            )
        time.sleep(0.1)
