"""`hecaton job new`: one job, or with --each a batch, from what is typed; what will not go well is said at once."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecaton.cli import output
from hecaton.cli.hecaton.completers import images
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.files.workdir import dry_run_option, look, send, show, workdir_option
from hecaton.cli.hecaton.jobs.follow import follow, output_option
from hecaton.cli.hecaton.jobs.options import job_options, tags_option
from hecaton.cli.hecaton.tree import Command
from hecaton.cli.suggestions import Suggestion, known, near
from hecaton.core.errors import HecatonError

if TYPE_CHECKING:
    from hecaton.client import Client, JobHandle

JUST_NOW = 30.0
"""Seconds from an image's first use, in which somebody who has mistyped its name is likely to be told of it."""


class ScriptCommand(Command):
    """An option that there is not may be one of the script, whose `--` was forgotten."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            line = _with_dashes(typed, error.option_name)
            if line is None:
                raise
            raise Suggestion(error.format_message(), [f"{ctx.command_path} {line}"], ctx) from error


def _with_dashes(typed: Sequence[str], unknown: str) -> str | None:
    """The same line with `--` before the unknown option. None where no script is run."""
    at = next((i for i, word in enumerate(typed) if word == unknown or word.startswith(f"{unknown}=")), len(typed))
    ours = [word for word in typed[at:] if word in ("--script", "--wait", "--json")]
    front = [*typed[:at], *ours]
    if "--" in front or not any(word == "--script" or Path(word).suffix in (".py", ".sh") for word in front):
        return None
    flag = [] if "--script" in front else ["--script"]
    return shlex.join([*front, *flag, "--", *(word for word in typed[at:] if word not in ours)])


@click.command("new", cls=ScriptCommand)
@click.argument("file_path", type=click.Path(path_type=Path))
@click.argument("image_name", required=False, shell_complete=images)
@click.argument("args", nargs=-1)
@click.option(
    "--each",
    metavar="FILE",
    help="A batch, without FILE_PATH: a job for each line of FILE (JSON), or each file of a quoted glob.",
)
@click.option("--name", help="What you call the job, or the batch.")
@tags_option("By what else you will look for it, as team=vision.")
@click.option("--wait", is_flag=True, help="Stay: logs and progress on stderr, the result on stdout.")
@click.option("--script", is_flag=True, help="FILE_PATH is a Python or shell file to run; its ARGS follow after --.")
@click.option(
    "--handler", type=click.Path(path_type=Path), help="A local file that calls start(); FILE_PATH is its payload."
)
@job_options
@workdir_option
@dry_run_option
@click.option("--idempotency-key", help="Submitting again with the same key gives the first job.")
@output_option
@pass_cli
def new(
    cli: Cli,
    /,
    file_path: Path,
    image_name: str | None,
    args: tuple[str, ...],
    each: str | None,
    name: str | None,
    tags: dict[str, str],
    wait: bool,
    script: bool,
    handler: Path | None,
    target: Path | None,
    idempotency_key: str | None,
    workdir: Path | None,
    dry_run: bool,
    **options: Any,
) -> int:
    """Submit a new job; prints its id. `-` is stdin in the place of a file.

    \b
    hecaton job new payload.json my-image:latest
    hecaton job new payload.json my-image:latest --wait -o result.json
    hecaton job new train.py python:3.9-slim --script -- --epochs 3
    hecaton job new payload.json python:3.9-slim --handler handler.py --workdir .
    hecaton job new --each payloads.jsonl --name pictures my-image:latest
    """
    given = {name: value for name, value in options.items() if value is not None}
    asked = Submission(script, handler, args, idempotency_key, {**given, "tags": tags})
    if dry_run:
        return show(cli, None if workdir is None else look(workdir, True))
    if script and handler:
        raise click.UsageError("--script and --handler exclude each other")
    if target and not wait:
        raise click.UsageError("--output needs --wait: there is no result yet")
    if each is not None:
        _refuse_files_of_a_glob(each, [str(file_path), image_name or "", *args])
        if script or image_name is not None:
            raise click.UsageError("--each takes the place of FILE_PATH, and goes with no script")
        return _new_batch(cli, str(file_path), each, name or "", wait, target, _with_folder(cli, asked, workdir))
    if image_name is None:
        raise click.UsageError("Missing argument 'IMAGE_NAME'.")
    if not script:
        _refuse_files_of_a_glob(str(file_path), [image_name, *args])
        if args:
            raise click.UsageError(f"{args[0]!r} is too much: arguments go to scripts only (--script)")
    if not os.path.exists(file_path) and os.path.isfile(image_name):
        raise Suggestion(f"there is no file {file_path}", [f"hecaton job new {image_name} {file_path}"])
    client = cli.client()  # that no server is known is not for the image
    with known_image(cli, image_name):
        handle = submit(client, file_path, image_name, name, _with_folder(cli, asked, workdir))
    if wait:
        output.say(f"Job {handle.index} is submitted.")
        return follow(cli, handle.id, None, target, str(handle.index))
    cli.submitted("job", handle.index, handle.id)
    return 0


@dataclass(frozen=True)
class Submission:
    """How a payload is to be run. `key`: idempotency key. `options`: of the job, by name, without those not given, and
    its tags and folder."""

    script: bool
    handler: Path | None
    args: tuple[str, ...]
    key: str | None
    options: dict[str, Any]


def _with_folder(cli: Cli, asked: Submission, folder: Path | None) -> Submission:
    if folder is None:
        return asked
    return replace(asked, options={**asked.options, "workdir": send(cli, look(folder, True), None)})


def submit(client: Client, path: Path, image: str, name: str | None, asked: Submission) -> JobHandle:
    """With what will not go well said first."""
    from hecaton.cli.hecaton.jobs import notes
    from hecaton.core.doors import WAYS, asked_for

    mode = asked_for(name for name, given in (("script", asked.script), ("handler", asked.handler)) if given)
    for note in notes.of_submission(path, asked.handler, image, mode, "workdir" not in asked.options):
        output.warn(note)
    options = {"mode": mode, "key": asked.key, "name": name, **asked.options}
    if not WAYS[mode].takes_payload:
        return client.submit(image, file=path, args=asked.args, **options)
    return client.submit(image, payload_file=path, file=asked.handler, **options)


def _refuse_files_of_a_glob(first: str, others: Sequence[str]) -> None:
    """A pattern without quotes is many words by the time it comes here."""
    suffix = Path(first).suffix
    files = [one for one in others if suffix and Path(one).suffix == suffix and os.path.isfile(one)]
    if files and os.path.isfile(first):
        folder = os.path.commonpath([os.path.dirname(one) for one in (first, *files)])
        pattern = shlex.quote(os.path.join(folder, f"*{suffix}"))
        raise Suggestion(
            f"{first} and {files[0]} are several files: a pattern has to be quoted, or the shell makes words of it",
            [f"hecaton job new --each {pattern} IMAGE"],
        )


@contextmanager
def known_image(cli: Cli, name: str | None) -> Iterator[None]:
    """Around a submission: an image that may not be used, or that has not been up to now, may be another one, mistyped.
    None: the default one."""
    if name is None:
        yield
        return
    with known(name, lambda: (image.name for image in cli.client().images())):
        yield
    meant = _meant_instead(cli, name)
    if meant is not None:
        output.warn(f"{name} is used here for the first time. Did you mean {meant!r}?")


def _meant_instead(cli: Cli, name: str) -> str | None:
    """None: it was there before, or nothing is like it."""
    try:
        found = {image.name: image for image in cli.client().images()}
    except HecatonError:  # all is well without it
        return None
    new = found.pop(name, None)
    if new is None or new.owner is None or cli.client().now() - new.created_at > JUST_NOW:
        return None
    return near(name, found)


def _new_batch(cli: Cli, image: str, each: str, name: str, wait: bool, target: Path | None, asked: Submission) -> int:
    from hecaton.cli.hecaton.jobs import batch, notes
    from hecaton.cli.hecaton.jobs.batch_results import require_fit
    from hecaton.cli.hecaton.jobs.each import items_of

    if target is not None:
        require_fit(target)
    client, since = cli.client(), time.monotonic()
    options = asked.options
    if asked.handler:
        options = {**options, "mode": "handler", "file": asked.handler}
        for note in notes.of_handler(asked.handler, image, "workdir" not in options):
            output.warn(note)
    with items_of(client, each) as items, known_image(cli, image):
        handle = client.submit_items(image, items, name=name, key=asked.key, **options)
    if wait:
        output.say(f"Batch {handle.index} is submitted.")
        return batch.follow(cli, handle, target, since)
    cli.submitted("batch", handle.index, handle.id)
    return 0
