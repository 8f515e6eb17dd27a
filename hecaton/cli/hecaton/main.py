"""The command `hecaton`: the root of its command tree, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from hecaton import __version__
from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.context import Cli
from hecaton.cli.hecaton.tree import LazyGroup, common_option, server_option
from hecaton.cli.suggestions import explained
from hecaton.cli.terminal import prepare_streams
from hecaton.core.errors import HecatonError, Unauthenticated, not_text

NOUNS = {
    "up": "hecaton.cli.hecaton.machine.up:up",
    "join": "hecaton.cli.hecaton.machine.join:join",
    "server": "hecaton.cli.hecaton.nouns.servers:server",
    "user": "hecaton.cli.hecaton.nouns.users:user",
    "usage": "hecaton.cli.hecaton.nouns.usage:usage",
    "worker": "hecaton.cli.hecaton.nouns.workers:worker",
    "image": "hecaton.cli.hecaton.nouns.images:image",
    "run": "hecaton.cli.hecaton.jobs.run:run",
    **{verb: f"hecaton.cli.hecaton.jobs.job:{verb}" for verb in ("ps", "logs", "wait", "cancel", "retry")},
    "get": "hecaton.cli.hecaton.files.get:get",
    "why": "hecaton.cli.hecaton.why:why",
    "job": "hecaton.cli.hecaton.jobs.job:job",
    "batch": "hecaton.cli.hecaton.jobs.batch:batch",
    "demo": "hecaton.cli.hecaton.demo.demo:demo",
    "completion": "hecaton.cli.hecaton.completion:completion",
}

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning, _ in output.EXIT_CODES)


@click.group(
    cls=LazyGroup,
    nouns=NOUNS,
    habits=habits.ROOT,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
    params=[
        common_option("--json", is_flag=True, help="Answer in JSON."),
        server_option(envvar="HECATON_SERVER", show_envvar=True),
    ],
)
@click.version_option(__version__, prog_name="hecaton", message="%(prog)s %(version)s")
@click.pass_context
def root(ctx: click.Context) -> None:
    """Send jobs to the GPUs of a Hecaton server. Without a command: an interactive shell."""
    if ctx.invoked_subcommand is None:
        from hecaton.cli.hecaton.shell import open_shell

        ctx.exit(open_shell(ctx.ensure_object(Cli), root, run))


def main() -> NoReturn:
    prepare_streams()
    instruction = os.environ.get("_HECATON_COMPLETE")
    if instruction:
        from hecaton.cli.hecaton.completion import answer

        raise SystemExit(answer(root, instruction))
    raise SystemExit(run(sys.argv[1:]))


def run(arguments: Sequence[str], server: str | None = None) -> int:
    """Run one command line and return its exit code; never a traceback unless HECATON_DEBUG=1.

    `server`: used when the line names none (the shell was opened for it)."""
    cli = Cli(server=server)
    try:
        with root.make_context("hecaton", list(arguments), obj=cli) as context:
            code = root.invoke(context)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as group:
        click.echo(group.ctx.get_help())
        return 0
    except (KeyboardInterrupt, click.Abort):
        output.say(f"{output.behind_ctrl_c()}Interrupted.")
        return output.INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except Exception as error:
        if os.environ.get("HECATON_DEBUG"):
            raise
        shown = _explained(error, cli)
        output.show_error(shown, cli.json or (not cli.parsed and _asks_for_json(arguments)))
        return cli.own_code or output.exit_code(shown)


def _explained(error: Exception, cli: Cli) -> HecatonError:
    if isinstance(error, click.ClickException):
        return explained(error, "hecaton")
    if type(error) is Unauthenticated:
        return Unauthenticated(error.message, cli.how_to_log_in())
    if isinstance(error, HecatonError):
        return error
    if isinstance(error, UnicodeEncodeError):
        return not_text(str(error.object))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return HecatonError(f"{where}{error.strerror or error}")
    return HecatonError(f"{type(error).__name__}: {error}", "This is a fault of hecaton: HECATON_DEBUG=1 shows where.")


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Also for a line that could not be parsed; what follows `--` belongs to a script."""
    own = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return "--json" in own


def _silence_stdout() -> None:
    """The reader went away (`| head`): nobody wants the complaint that Python makes about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
