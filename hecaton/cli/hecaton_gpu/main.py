"""`hecaton-gpu`: runs the worker of this machine in the foreground, or as a systemd service."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from hecaton import __version__
from hecaton.cli import output
from hecaton.cli.hecaton_gpu.mount import mount
from hecaton.cli.hecaton_gpu.options import UNIT, WorkerOptions, unit_name, worker_options
from hecaton.cli.suggestions import SuggestingGroup, explained
from hecaton.cli.terminal import prepare_streams
from hecaton.core.errors import BadRequest, HecatonError

NOT_RUNNING = 3
"""Exit code of `status` when the service does not run, as systemctl has it."""

service_option = click.option("--name", metavar="NAME", help="The worker, where several are installed.")

HABITS = {
    **dict.fromkeys(("add", "join", "register", "enable", "setup"), "sudo hecaton-gpu install SERVER"),
    **dict.fromkeys(("remove", "rm", "disable"), "sudo hecaton-gpu uninstall"),
    **dict.fromkeys(("list", "ls", "show", "info"), "hecaton-gpu status|hecaton worker list"),
    **dict.fromkeys(("drain", "pause"), "hecaton worker drain NAME"),
    **dict.fromkeys(("undrain", "resume"), "hecaton worker undrain NAME"),
    "log": "hecaton-gpu logs -f",
    "version": "hecaton-gpu --version",
}

EXAMPLES = """\b
Examples:
  sudo hecaton-gpu install 192.168.1.5:8181
  sudo hecaton-gpu logs -f
  hecaton-gpu run localhost:8181 --runtime process --handler demo:1=handler.py

\b
Completion, in ~/.bashrc (bash) or ~/.zshrc (zsh):
  eval "$(_HECATON_GPU_COMPLETE=bash_source hecaton-gpu)"
  eval "$(_HECATON_GPU_COMPLETE=zsh_source hecaton-gpu)"
"""


@click.group(
    cls=SuggestingGroup,
    habits=HABITS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXAMPLES,
)
@click.version_option(__version__, prog_name="hecaton-gpu", message="%(prog)s %(version)s")
def cli() -> None:
    """Run this machine as a worker of a Hecaton server. Docker workers need root."""


@cli.command()
@worker_options
def run(options: WorkerOptions) -> int:
    """Run the worker in the foreground (useful for debugging).

    The first time it registers with the server; later it knows it. Ctrl-C stops it: running jobs may end within the
    drain timeout, the rest goes back to the queue.
    """
    from hecaton.cli.hecaton_gpu.worker import run_worker

    return run_worker(options)


@cli.command()
@worker_options
def install(options: WorkerOptions) -> None:
    """Install the worker as a systemd service that starts with the machine, and start it."""
    from hecaton.cli.hecaton_gpu.worker import install_worker

    install_worker(options)


@cli.command()
@service_option
def uninstall(name: str | None) -> None:
    """Stop the service and remove it. The worker stays registered."""
    from hecaton.cli import units

    units.require("hecaton-gpu uninstall")
    unit = _unit(name)
    units.uninstall(unit)
    output.say(f"Removed the service {unit}.")
    output.say(
        "The worker stays registered, so that it can be installed again; to end that: hecaton worker remove NAME"
    )


@cli.command()
@service_option
def start(name: str | None) -> None:
    """Start the worker service."""
    _control("start", name)


@cli.command()
@service_option
def stop(name: str | None) -> None:
    """Stop the worker service until the next boot. Running jobs get its drain timeout to end, then its grace."""
    _control("stop", name)


@cli.command()
@service_option
def restart(name: str | None) -> None:
    """Restart the worker service. What runs goes on, and what is warm stays warm: the new process takes it over."""
    from hecaton.cli import units
    from hecaton.cli.hecaton_gpu.worker import leave_to_next

    units.require("hecaton-gpu restart")
    leave_to_next(_unit(name))
    _control("restart", name)


@cli.command()
@service_option
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def status(name: str | None, as_json: bool) -> int:
    """Check if the service is running. Exit code 0: it runs, 3: it does not."""
    from hecaton.cli import units

    found = units.status(_unit(name))
    if as_json:
        output.print_json(found)
    else:
        fields = [
            ("service", found.name),
            ("state", f"{found.active} ({found.detail})"),
            ("since", found.since or None),
            ("process", found.pid or None),
            ("at boot", "starts" if found.enabled else "does not start"),
            ("worker", found.text or None),
        ]
        output.print_lines(output.field_lines(fields))
    return 0 if found.active == "active" else NOT_RUNNING


@cli.command()
@service_option
@click.option("-f", "--follow", is_flag=True, help="Follow logs: show new lines as they come, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help="Number of lines.")
def logs(name: str | None, follow: bool, lines: int) -> int:
    """View service logs."""
    from hecaton.cli import units

    return units.logs(_unit(name), lines, follow)


cli.add_command(mount)


def _unit(name: str | None) -> str:
    """The service that a command without --name means: the only one, or the one with the host's name."""
    from hecaton.cli import units

    found = units.installed(UNIT)
    if name is None and UNIT not in found and found:
        if len(found) > 1:
            raise BadRequest(f"several workers are installed: {', '.join(found)}", "Say which one: --name NAME")
        return found[0]
    return unit_name(name)


def _control(action: str, name: str | None) -> None:
    from hecaton.cli import units

    units.require(f"hecaton-gpu {action}")
    unit = _unit(name)
    units.control(action, unit)
    output.say(f"{unit}: {units.status(unit).active}")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    prepare_streams()
    raise SystemExit(_main(sys.argv[1:] if arguments is None else arguments))


def _main(arguments: Sequence[str]) -> int:
    """One command line to its exit code; no traceback unless HECATON_DEBUG=1."""
    try:
        code = cli.main(list(arguments), prog_name="hecaton-gpu", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as group:
        click.echo(group.ctx.get_help())
        return 0
    except (KeyboardInterrupt, click.Abort):
        output.say(f"{output.behind_ctrl_c()}Interrupted.")
        return output.INTERRUPTED
    except (HecatonError, click.ClickException, OSError) as error:
        if os.environ.get("HECATON_DEBUG"):
            raise
        shown = _explained(error)
        output.show_error(shown, as_json="--json" in arguments)
        return output.exit_code(shown)


def _explained(error: HecatonError | click.ClickException | OSError) -> HecatonError:
    if isinstance(error, HecatonError):
        return error
    if isinstance(error, click.ClickException):
        return explained(error, "hecaton-gpu")
    where = f"{error.filename}: " if error.filename else ""
    return HecatonError(f"{where}{error.strerror or error}")


if __name__ == "__main__":
    main()
