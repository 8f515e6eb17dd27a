"""The folder that goes along with a job: which one it is, what of it goes, and the words about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hecaton.cli import output
from hecaton.cli.hecaton import project
from hecaton.cli.hecaton.context import Cli
from hecaton.cli.terminal import size as readable
from hecaton.core.errors import HecatonError, TooLarge
from hecaton.core.files.manifest import MAX_FOLDER

if TYPE_CHECKING:
    from hecaton.client import SentFolder
    from hecaton.client.files.snapshot import Snapshot

F = TypeVar("F", bound=Callable[..., Any])

MAX_UNASKED = 1024**3
"""Bytes of a folder that goes along without being named."""

_MARKS = (project.FILE, ".git")
_WAYS_OUT = "--no-workdir sends the file alone, --workdir FOLDER another folder, or all of this one."


def workdir_option(command: F) -> F:
    text = "A folder that goes along: its files are in /workdir there, where the job begins."
    return click.option("--workdir", type=click.Path(path_type=Path), metavar="FOLDER", help=text)(command)


def dry_run_option(command: F) -> F:
    text = "List what of the folder would go along, and send nothing."
    return click.option("--dry-run", is_flag=True, help=text)(command)


def project_of(place: Path) -> Path | None:
    """The nearest of the folders around it that is a project's. The home folder is none, and what is above it."""
    own = _no_projects()
    for folder in (place, *place.parents):
        if folder in own:
            return None
        if any((folder / mark).exists() for mark in _MARKS):
            return folder
    return None


def _no_projects() -> set[Path]:
    try:
        home = Path.home().resolve()
    except RuntimeError:  # nobody knows it
        return {Path("/")}
    return {home, *home.parents, Path(home.anchor)}


def found_for(file: Path | None) -> Path | None:
    """The folder of the project that a script belongs to, or else its own; of a command (None) that of the project in
    which it is typed. None: there is none, which is said."""
    if file is None:
        return project_of(Path.cwd())
    own = file.resolve().parent
    found = project_of(own)
    if found is None and own in _no_projects():
        output.say(f"{file.name} goes alone: {own} is no folder of a project. --workdir FOLDER sends one along.")
        return None
    return found or own


def look(folder: Path, asked: bool) -> Snapshot:
    """What of it goes. `asked`: it was named; else it may be too large to be meant."""
    from hecaton.client.files.snapshot import snapshot

    exclude = project.read(folder).exclude
    try:
        return snapshot(folder, exclude, MAX_FOLDER if asked else MAX_UNASKED)
    except TooLarge as error:
        raise TooLarge(error.message, error.hint if asked else f"{error.hint} {_WAYS_OUT}") from None
    except HecatonError as error:
        error.hint = error.hint if asked or error.hint is None else f"{error.hint} {_WAYS_OUT}"
        raise


def send(cli: Cli, found: Snapshot, alone: str | None) -> SentFolder:
    """`alone`: the name of a script, of which nothing is said if nothing else is there."""
    if [entry.path for entry in found.entries] != [alone]:
        output.say(f"{_what(found)} of {_shown(found.folder)} go along.")
    return cli.client().send_folder(found)


def show(cli: Cli, found: Snapshot | None, file: Path | None = None) -> int:
    """For --dry-run: what goes on stdout, what stays on stderr. None: no folder, but `file` alone."""
    if cli.json:
        entries = () if found is None else found.entries
        files = [{"path": one.path, "kind": one.kind, "size": one.size} for one in entries]
        folder, left = (None, ()) if found is None else (str(found.folder), found.left)
        output.print_json({"folder": folder, "files": files, "left": left})
        return 0
    if found is None:
        alone = "No folder would go along: --workdir FOLDER sends one" if file is None else f"{file} would go alone"
        output.say(f"{alone}. Nothing was sent.")
        return 0
    output.print_lines(f"{readable(one.size):>10}  {one.path}{'/' * (one.kind == 'dir')}" for one in _sorted(found))
    for name in found.left:
        output.say(f"{'stays here':>10}  {name}")
    output.say(f"{_what(found)} of {_shown(found.folder)} would go along. Nothing was sent.")
    return 0


def _sorted(found: Snapshot) -> Sequence[Any]:
    return sorted(found.entries, key=lambda entry: entry.path)


def _what(found: Snapshot) -> str:
    return f"{found.files} file{'s' * (found.files != 1)} ({readable(found.size)})"


def _shown(folder: Path) -> str:
    return os.path.relpath(folder) if folder != Path.cwd() else str(folder)
