"""Services of systemd: unit files and what is done with them. For `hecaton-gpu` and `hecaton-server`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from hecaton.core.errors import Forbidden, HecatonError, NotFound

UNIT_FOLDER = Path("/etc/systemd/system")
_BOOTED = Path("/run/systemd/system")
_COMMAND_SECONDS = 180.0
_LAST_WORDS = 5  # lines


class Service(msgspec.Struct, frozen=True):
    """`command`: absolute path of the program and its arguments. `after`: units that are started before it if they are
    there; the service does not fall with them. `stop_seconds`: between SIGTERM and SIGKILL.
    `oom_score_adjust`: -1000 to 1000, below 0 makes the kernel kill others first.
    `final_codes`: exit codes after which it is not started again. `keeps_children`: what it has started outlives it
    when it is killed, and its next process goes on with that."""

    name: str
    description: str
    command: tuple[str, ...]
    environment: dict[str, str]
    after: tuple[str, ...] = ("network-online.target",)
    stop_seconds: int = 90
    oom_score_adjust: int = 0
    final_codes: tuple[int, ...] = ()
    keeps_children: bool = False


class Status(msgspec.Struct, frozen=True):
    """What systemd says. `text`: what the service said about itself. `active`: active, activating, inactive, failed."""

    name: str
    active: str
    detail: str
    enabled: bool
    pid: int
    since: str
    text: str


def unit_text(service: Service) -> str:
    """The unit file. No PrivateTmp or RuntimeDirectory: a restart would replace what containers have mounted."""
    after = " ".join(service.after)
    lines = [
        "[Unit]",
        f"Description={service.description}",
        f"After={after}",
        f"Wants={after}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(_quoted(word, command=True) for word in service.command)}",
        *(f"Environment={_quoted(f'{key}={value}')}" for key, value in service.environment.items()),
        "NotifyAccess=main",
        "Restart=always",
        "RestartSec=2",
        *([f"RestartPreventExitStatus={' '.join(map(str, service.final_codes))}"] if service.final_codes else []),
        f"KillMode={'process' if service.keeps_children else 'mixed'}",
        f"TimeoutStopSec={service.stop_seconds}",
        "LimitNOFILE=65536",
        f"OOMScoreAdjust={service.oom_score_adjust}",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """A command line that runs a module of this very installation, wherever it is."""
    return (sys.executable, "-P", "-m", module, *arguments)


def is_booted() -> bool:
    """Whether systemd runs on this machine."""
    return _BOOTED.is_dir() and shutil.which("systemctl") is not None


def require(what: str) -> None:
    """Forbidden without root; HecatonError on a machine without systemd. `what`: the command, for the message."""
    if os.geteuid() != 0:
        raise Forbidden(f"{what} needs root", f"Run: sudo {what}")
    if not is_booted():
        raise HecatonError("this machine does not run systemd", "Run it in the foreground instead.")


def install(service: Service) -> None:
    """Write the unit, start it now and with every boot. A unit that is there is replaced and restarted."""
    _write(UNIT_FOLDER / f"{service.name}.service", unit_text(service))
    _systemctl("daemon-reload")
    _systemctl("enable", service.name)
    _systemctl("restart", service.name)


def uninstall(name: str) -> None:
    """Stop the service and remove its unit. NotFound when it is not installed."""
    path = _installed(name)
    _systemctl("disable", "--now", name)
    path.unlink()
    _systemctl("daemon-reload")
    _run("systemctl", "reset-failed", name)  # forgets a failure, if there was one


def installed(prefix: str) -> list[str]:
    """Names of the services that begin with `prefix` and have a unit file of ours."""
    return sorted(path.stem for path in UNIT_FOLDER.glob(f"{prefix}*.service"))


def started_with(name: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment in the unit file of a service of ours. NotFound when it is not installed."""
    lines = [line.partition("=")[::2] for line in _installed(name).read_text().splitlines()]
    command = next(value for key, value in lines if key == "ExecStart")
    variables = [_words(value)[0] for key, value in lines if key == "Environment"]
    return [word.replace("$$", "$") for word in _words(command)], dict(v.partition("=")[::2] for v in variables)


def _words(text: str) -> list[str]:
    """Those that `_quoted` has written; `$` apart, which it doubles in command lines alone."""
    return [word.replace("%%", "%") for word in shlex.split(text)]


def control(action: str, name: str) -> None:
    """`action`: start, stop or restart."""
    _installed(name)
    _systemctl(action, name)


def status(name: str) -> Status:
    _installed(name)
    keys = "ActiveState,SubState,UnitFileState,MainPID,ActiveEnterTimestamp,StatusText,Result"
    shown = _run("systemctl", "show", name, f"--property={keys}").stdout
    values = dict(line.partition("=")[::2] for line in shown.splitlines())
    active = values.get("ActiveState", "unknown")
    return Status(
        name=name,
        active=active,
        detail=values.get("Result", "") if active == "failed" else values.get("SubState", ""),
        enabled=values.get("UnitFileState") == "enabled",
        pid=int(values.get("MainPID") or 0),
        since=values.get("ActiveEnterTimestamp", ""),
        text=values.get("StatusText", ""),
    )


def require_alive(name: str) -> None:
    """HecatonError, with its last words, if it has just ended by itself, and will again."""
    found = status(name)
    if found.active == "failed" or found.detail == "auto-restart":
        said = _run("journalctl", "--unit", name, "--lines", "20", "--output", "cat", "--no-pager", "--quiet").stdout
        words = [line for line in said.splitlines() if not line.startswith(f"{name}.service:")][-_LAST_WORDS:]
        raise HecatonError(
            "\n".join([f"the service {name} does not stay up. It says", *words]),
            f"All that it has said: journalctl -u {name}",
        )


def logs(name: str, lines: int, follow: bool) -> int:
    """Show the service's log on stdout, until Ctrl-C when following; the exit code of journalctl."""
    _installed(name)
    if shutil.which("journalctl") is None:
        raise HecatonError("there is no journalctl on this machine", "The service writes to the system's journal.")
    command = ["journalctl", "--unit", name, "--lines", str(lines), "--output", "cat", "--no-pager"]
    try:
        return subprocess.run([*command, "--follow"] if follow else command).returncode
    except KeyboardInterrupt:
        return 0


def _installed(name: str) -> Path:
    path = UNIT_FOLDER / f"{name}.service"
    if not path.exists():
        raise NotFound(f"the service {name} is not installed on this machine")
    return path


def _systemctl(*arguments: str) -> None:
    """As long as it takes: systemd itself ends what does not stop within the time that its unit says."""
    done = _run("systemctl", *arguments, seconds=None)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise HecatonError(
            f"systemctl {' '.join(arguments)} failed: {said or f'exit code {done.returncode}'}",
            f"See: journalctl --unit {arguments[-1]} --lines 50",
        )


def _run(*command: str, seconds: float | None = _COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except FileNotFoundError as error:
        raise HecatonError(f"there is no {command[0]} on this machine", "Services need systemd.") from error
    except subprocess.TimeoutExpired as error:
        raise HecatonError(f"{' '.join(command)} did not end within {seconds:g} s") from error


def _write(path: Path, text: str) -> None:
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".hecaton-")
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        os.fchmod(descriptor, 0o644)
    os.rename(unfinished, path)


def _quoted(word: str, *, command: bool = False) -> str:
    """One word of a unit file: `%` starts a specifier everywhere, `$` a variable in command lines."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{word.replace("$", "$$") if command else word}"'


__all__ = [
    "Service",
    "Status",
    "control",
    "install",
    "installed",
    "is_booted",
    "logs",
    "python_command",
    "require",
    "require_alive",
    "started_with",
    "status",
    "uninstall",
    "unit_text",
]
