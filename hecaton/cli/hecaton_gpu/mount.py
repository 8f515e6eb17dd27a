"""`hecaton-gpu mount`: which folders of this machine jobs may ask for, and under which names."""

from __future__ import annotations

import click

from hecaton.cli import output
from hecaton.cli.terminal import Column
from hecaton.core.errors import BadRequest


@click.command()
@click.argument("mounts", metavar="[NAME=PATH:ro|rw]...", nargs=-1)
@click.option("--remove", metavar="NAME", multiple=True, help="Let jobs ask for this one no more (repeatable).")
@click.option("--name", metavar="WORKER", help="The worker, where it is no service.  [default: this host's name]")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def mount(mounts: tuple[str, ...], remove: tuple[str, ...], name: str | None, as_json: bool) -> None:
    """Name folders of this machine that jobs may ask for with --mount NAME; alone: list them.

    {user} as the last part of a path is the name of the job's owner. Where jobs may write (rw) they run as the number
    that an admin has given their owner: hecaton user update NAME --uid NUMBER. Nothing else of the machine is mounted.

    \b
    sudo hecaton-gpu mount data=/srv/data:ro
    sudo hecaton-gpu mount home=/nfs/home/{user}:rw
    """
    from hecaton.core.files.mounts import MAX_MOUNTS
    from hecaton.worker.files import mounts as known
    from hecaton.worker.link import registration

    file = known.file_of(registration.folder_of(name or registration.default_name()))
    before = known.read(file)
    after = known.without(before, remove) | dict(known.parsed(word) for word in mounts)
    if len(after) > MAX_MOUNTS:
        raise BadRequest(f"these are {len(after)} mounts: a machine has at most {MAX_MOUNTS}")
    if after != before:
        known.write(file, after)
    if as_json:
        output.print_json({key: str(one) for key, one in after.items()})
        return
    columns = [Column("NAME"), Column("PATH", flexible=True), Column("JOBS MAY")]
    rows = [[key, one.path, "write" if one.writable else "read"] for key, one in sorted(after.items())]
    empty = "Jobs may ask for no folder of this machine. To name one: hecaton-gpu mount data=/srv/data:ro"
    output.print_lines(output.table_lines(columns, rows, empty))
    if after != before:
        again = "hecaton-gpu restart (what runs goes on)" if file == known.SERVICE_FILE else "stop it, and run it again"
        output.say(f"Written to {file}. It holds when the worker has started anew: {again}")
