"""`hecaton get`: the files that a job has made, listed or brought here; and what `hecaton run` says of them at last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecaton.cli import output
from hecaton.cli.hecaton.completers import jobs
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.tree import Command
from hecaton.cli.terminal import Column, one_line
from hecaton.cli.terminal import size as sized
from hecaton.core.errors import HecatonError, NotFound

if TYPE_CHECKING:
    from hecaton.client import Client
    from hecaton.client.files.fetching import LocalFile
    from hecaton.wire.api import FileList, FileView

AT_ONCE = 64 * 1024 * 1024
"""Bytes that `run` brings at its end without being asked."""

FEW = 1000
"""Files that it brings so."""


@click.command("get", cls=Command)
@click.argument("job", shell_complete=jobs, metavar="JOB")
@click.argument("pattern", required=False, metavar="[PATTERN]")
@click.option(
    "-o", "--output", "folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="Where to: outputs/JOB by default.",
)  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Show what there is, and fetch nothing.")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt: the newest that has made any by default.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there and differ; else they are left.")
@pass_cli
def get(
    cli: Cli,
    /,
    job: str,
    pattern: str | None,
    folder: Path | None,
    listing: bool,
    attempt: int | None,
    overwrite: bool,
) -> None:
    """Bring the files here that a job has put into /outputs.

    \b
    hecaton get 412                    all of them, into outputs/412
    hecaton get 412 '*.pt' -o models   those that are called so
    hecaton get 412 --list             what there is

    Jobs that failed or were cancelled have files, too. Cut off, it goes on where it was when it is typed again. A file
    that is there and differs stays: what comes is written beside it, as NAME.job412.
    """
    client = cli.client()
    view = client.job(job)
    pages = list(client.file_pages(view.index, attempt))
    if listing:
        _show(cli, pages, pattern)
        return
    files = _chosen(pages, pattern)
    if not files:
        raise NotFound(*_nothing(str(view.index), pages, pattern))
    target = folder or default_folder(view.index)
    written = [_fetched(client, view.index, pages[0].attempt, file, target, overwrite) for file in files]
    if cli.json:
        import msgspec

        output.print_json([{**msgspec.structs.asdict(one), "where": str(one.where)} for one in written])
        return
    for line in _left_lines(pages, pattern):
        output.say(line)
    output.say(summary(written, target))


def default_folder(index: int) -> Path:
    return Path("outputs") / str(index)


def bring_back(cli: Cli, job: str, index: int) -> None:
    """At the end of `run`: what is small comes at once, all else is named. Never the reason why `run` fails."""
    try:
        client = cli.client()
        pages = list(client.file_pages(job))
        for line in _left_lines(pages, None):
            output.say(line)
        kept, size = pages[0].kept, pages[0].size
        if not kept:
            return
        if kept > FEW or size > AT_ONCE:
            output.say(f"{_count(kept)}, {sized(size)}, are kept: hecaton get {index}")
            return
        target = default_folder(index)
        written = [_fetched(client, index, pages[0].attempt, file, target, False) for file in _chosen(pages, None)]
        output.say(summary(written, target))
    except NotFound:
        return  # a server of the release before, or the job has been removed meanwhile
    except HecatonError as error:
        output.warn(f"the files of job {index} have not come back: {error.message}\nhecaton get {index} -o DIR")


def summary(written: list[LocalFile], target: Path) -> str:
    """What has come, and what was left as it was."""
    from hecaton.client.files.fetching import Written

    beside = [one for one in written if one.written is Written.BESIDE]
    same = sum(one.written is Written.SAME for one in written)
    text = f"{_count(len(written))}, {sized(sum(one.size for one in written))}: {target}"
    if same:
        text += f" ({same} were there already)" if same > 1 else " (1 was there already)"
    for one in beside:
        text += f"\n{one.path} is there and differs, and stays: what came is {one.where}"
    return text


def _fetched(client: Client, index: int, attempt: int, file: FileView, target: Path, overwrite: bool) -> LocalFile:
    return client.fetch_file(index, file, target, attempt=attempt, overwrite=overwrite)


def _chosen(pages: list[FileList], pattern: str | None) -> list[FileView]:
    from hecaton.client.files.fetching import matches

    return [file for page in pages for file in page.files if not file.why and matches(file.path, pattern)]


def _left_lines(pages: list[FileList], pattern: str | None) -> list[str]:
    from hecaton.client.files.fetching import matches

    left = [file for page in pages for file in page.files if file.why and matches(file.path, pattern)]
    lines = [f"{one_line(file.path)} was not kept: {file.why}" for file in left[:5]]
    return [*lines, f"... and {len(left) - 5} more were not kept"] if len(left) > 5 else lines


def _nothing(index: str, pages: list[FileList], pattern: str | None) -> tuple[str, str]:
    """What there is not, and what to do."""
    if pattern is not None and any(page.files for page in pages):
        return f"no file of job {index} is called {pattern}", f"hecaton get {index} --list"
    if pages[0].left:
        return f"no file of job {index} was kept", f"Why: hecaton get {index} --list"
    return f"job {index} has no files", "What a job writes into /outputs is kept, until its results are removed."


def _show(cli: Cli, pages: list[FileList], pattern: str | None) -> None:
    from hecaton.client.files.fetching import matches

    files = [file for page in pages for file in page.files if matches(file.path, pattern)]
    if cli.json:
        output.print_json({"attempt": pages[0].attempt, "files": files})
        return
    rows = [(sized(file.size), file.path, f"not kept: {file.why}" if file.why else "") for file in files]
    columns = [Column("SIZE", right=True), Column("FILE", flexible=True)]
    if any(file.why for file in files):
        columns.append(Column(""))
    rows_shown = [row[: len(columns)] for row in rows]
    empty = "No files: what a job writes into /outputs is kept."
    output.print_lines(output.table_lines(columns, rows_shown, empty))


def _count(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"
