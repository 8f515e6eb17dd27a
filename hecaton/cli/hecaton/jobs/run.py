"""`hecaton run`: a file, or a command, as a job that is waited for as if it ran here: its output, its exit code."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecaton.cli import output
from hecaton.cli.hecaton import project as projects
from hecaton.cli.hecaton.completers import images
from hecaton.cli.hecaton.context import Cli, is_address, pass_cli
from hecaton.cli.hecaton.files.get import bring_back
from hecaton.cli.hecaton.files.workdir import dry_run_option, found_for, look, send, show, workdir_option
from hecaton.cli.hecaton.jobs.follow import follow
from hecaton.cli.hecaton.jobs.new import Submission, known_image, submit
from hecaton.cli.hecaton.jobs.options import script_options, tags_option
from hecaton.cli.hecaton.project import Project
from hecaton.cli.hecaton.tree import Command
from hecaton.cli.suggestions import Suggestion
from hecaton.core.errors import BadRequest
from hecaton.core.model import JobState, Reason
from hecaton.core.options import OPTIONS

if TYPE_CHECKING:
    from hecaton.client.files.snapshot import Snapshot
    from hecaton.wire.api import JobView

EXIT_CODES = """\b
Exit codes: that of the script, and Hecaton's own
  124  it ran longer than --timeout
  125  anything on Hecaton's side: no server, no such image, a worker that was lost
  130  cancelled, or interrupted with Ctrl-C
  137  it was killed, most likely for its memory"""

TIMED_OUT = 124
OURS = 125
KILLED = 137

NAMED_BY = 64
"""Characters of a command that are the name of its job's file: whole lines are typed as one word."""

_OF_REASONS = {Reason.TIMEOUT: TIMED_OUT, Reason.OOM_HOST: KILLED}

_ALL = "hecaton.run.help"


class RunCommand(Command):
    """Our options stand before FILE: what stands behind it is the script's, and behind `--` a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ensure_object(Cli).own_code = OURS
        typed = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _behind_file(ctx, typed, error) from error
        words = ctx.params.get("words") or ()
        before = typed[: len(typed) - len(words)]
        ctx.params["is_command"] = bool(words) and before[-1:] == ["--"]
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those that are needed daily; with --help-all each in its group."""
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in _GROUPS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups[_group(param.name or "")].append(record)
        for title in _GROUPS if ctx.meta.get(_ALL) else (_DAILY, _LINE):
            with formatter.section(title):
                formatter.write_dl(groups[title])


_GROUPS = ("Options", "Its container", "Its place in the queue", "How it is found again", "This line")
_DAILY, _CONTAINER, _QUEUE, _FOUND, _LINE = _GROUPS


def _group(name: str) -> str:
    option = OPTIONS.get(name)
    if name in ("detach", "image", "env", "name", "timeout", "workdir", "dry_run"):
        return _DAILY
    if option is not None:
        return _CONTAINER if option.by_worker else _QUEUE
    return _FOUND if name in ("tags", "key") else _LINE


def _behind_file(ctx: click.Context, typed: Sequence[str], error: click.NoSuchOption) -> click.UsageError:
    """An option that there is not may be one of the script, which it was typed before."""
    file = next((word for word in typed if Path(word).suffix in (".py", ".sh") and os.path.isfile(word)), None)
    if file is None:
        return error
    at = next(i for i, word in enumerate(typed) if word.partition("=")[0] == error.option_name)
    there = typed.index(file)
    if there < at:
        return error
    line = shlex.join([*typed[:at], file, *typed[at:there], *typed[there + 1 :]])
    return Suggestion(f"No such option {error.option_name!r}.", [f"{ctx.command_path} {line}"], ctx)


def _show_all(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


@click.command(
    "run",
    cls=RunCommand,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[-d] [-i IMAGE] [OPTIONS]",
    epilog=EXIT_CODES,
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="FILE [ARGS]... | -- COMMAND...")
@click.option("-d", "--detach", is_flag=True, help="Do not wait: print the job's number and go.")
@click.option(
    "-i", "--image", shell_complete=images, metavar="IMAGE",
    help="Where it runs: any image there is. Without it: that of hecaton.toml, or the server's default one.",
)  # fmt: skip
@script_options
@workdir_option
@click.option("--no-workdir", is_flag=True, help="No folder goes along: the file alone.")
@dry_run_option
@click.option("--name", help="What you call the job.")
@tags_option("By what else you will look for it, as team=vision.")
@click.option("--idempotency-key", "key", help="Submitting again with the same key gives the first job.")
@click.option("--save", is_flag=True, help="Write the options of this line to hecaton.toml, for the next time.")
@click.option(
    "--help-all", is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help="Show all options and exit."
)
@pass_cli
def run(
    cli: Cli,
    /,
    words: tuple[str, ...],
    is_command: bool,
    detach: bool,
    image: str | None,
    name: str | None,
    tags: dict[str, str],
    key: str | None,
    save: bool,
    workdir: Path | None,
    no_workdir: bool,
    dry_run: bool,
    **options: Any,
) -> int:
    """Run a Python or shell FILE, or a command, on a worker, and wait for it: its output, its exit code.

    \b
    hecaton run train.py --epochs 3
    hecaton run -i pytorch/pytorch:latest --timeout 2h train.py
    hecaton run -- nvidia-smi

    Our options stand before FILE: everything behind it is the script's. What would be typed each time may stand in
    hecaton.toml in this folder (--save writes it). The folder of its project goes along (--dry-run lists what):
    that with hecaton.toml or .git around FILE, else FILE's own. What it writes into /outputs is kept, and comes back to
    outputs/JOB if that is not much (hecaton get brings the rest); other files are lost with its container. A result in
    JSON is kept if it writes that to the file that HECATON_OUTPUT names.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if save:
        server = cli.server if cli.server and not is_address(cli.server) else None
        saved = projects.save(Path(), Project(image, name, server, tags, given))
        readable = f", with what {', '.join(given['env'])} is: as readable as the file" if "env" in given else ""
        output.say(f"Saved in {saved}{readable}.")
    if not words:
        return _without_file(saved_only=save)
    known = projects.read(Path())
    cli.server = cli.server or known.server
    own = {**known.options, **given, "tags": {**known.tags, **tags}}
    if "env" in own:
        own["env"] = {**known.options.get("env", {}), **given.get("env", {})}
    chosen = image or known.image
    with _file(words, is_command) as (file, args), known_image(cli, chosen):
        found = None if no_workdir else _folder(workdir, None if is_command or words[0] == "-" else file)
        if dry_run:
            return show(cli, found, file)
        if found is not None:
            own["workdir"] = send(cli, found, file.name)
        there = chosen or _default_image(cli)
        handle = submit(cli.client(), file, there, name or known.name, Submission(True, None, args, key, own))
    if detach:
        cli.submitted("job", handle.index, handle.id)
        return 0
    output.say(f"Job {handle.index} is submitted" + ("." if chosen else f", in {there}."))
    code = follow(cli, handle.id, None, None, str(handle.index), exit_code)
    if code != output.INTERRUPTED and not cli.json:
        bring_back(cli, handle.id, handle.index)
    return code


def exit_code(view: JobView) -> int:
    """That of the script, as if it had run here."""
    if view.state is JobState.FINISHED:
        return 0
    if view.state is JobState.CANCELLED:
        return output.INTERRUPTED
    code = None if view.reason is None else _OF_REASONS.get(view.reason)
    own = view.exit_code & 0xFF if view.exit_code is not None else 0
    return code or own or OURS


def _folder(named: Path | None, file: Path | None) -> Snapshot | None:
    """What goes along with a script, or with a command (None)."""
    folder = named or found_for(file)
    return None if folder is None else look(folder, named is not None)


def _default_image(cli: Cli) -> str:
    found = cli.client().server_info().default_image
    if found is None:
        raise BadRequest("this server has no default image: name one", "hecaton run -i IMAGE FILE")
    return found


def _without_file(saved_only: bool) -> int:
    if not saved_only:
        click.echo(click.get_current_context().get_help())
    return 0


@contextmanager
def _file(words: Sequence[str], is_command: bool) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """What runs, and its arguments. A command is a shell script of one line that goes by the command's name."""
    first, *others = words
    if not is_command:
        _require_file(first, others)
        yield Path(first), tuple(others)
        return
    with tempfile.TemporaryDirectory(prefix="hecaton-run-") as folder:
        file = Path(folder) / (Path(first).name[:NAMED_BY] or "command")
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(first)} "$@"\n', encoding="utf-8")
        yield file, tuple(others)


def _require_file(first: str, others: Sequence[str]) -> None:
    """What is no file may be a command, or the interpreter in front of one."""
    if os.path.exists(first) or first == "-":
        return
    if Path(first).name.startswith(("python", "bash", "sh")) and others and os.path.isfile(others[0]):
        raise Suggestion(f"there is no file {first}", [shlex.join(["hecaton", "run", *others])])
    if not Path(first).suffix:
        raise Suggestion(f"there is no file {first}", [f"hecaton run -- {shlex.join([first, *others])}"])
    raise BadRequest(f"there is no file {first}")
