"""`hecaton join LINE`: address, certificate and login in one paste."""

from __future__ import annotations

import shlex
import sys

import click

from hecaton.cli import output
from hecaton.cli.first_contact import JoinLine, follow, read_line
from hecaton.cli.hecaton.context import Cli, LoginRefused, pass_cli
from hecaton.cli.hecaton.tree import Command
from hecaton.core.errors import BadRequest, Unauthenticated
from hecaton.core.model import KeyScope


@click.command(cls=Command, talks=False)
@click.argument("line")
@click.option("--name", help="Local alias for the server.  [default: its host]")
@pass_cli
def join(cli: Cli, line: str, name: str | None) -> None:
    """Use a server from this machine: registered, trusted and logged in with one LINE of `hecaton up`.

    A line is for one use, within an hour. With - it is read from standard input: command lines can be seen by all.
    """
    from hecaton.client import Client, profiles

    asked = read_line(sys.stdin.readline() if line == "-" else line)
    if asked.scope is KeyScope.ENROL:
        raise BadRequest(
            "this line is for a machine that is to run jobs",
            f"There: sudo hecaton-gpu install {shlex.quote(str(asked))}",
        )
    found, certificate = follow(asked)
    if found.warning:
        output.warn(found.warning)
    ca_file = None if certificate is None else profiles.keep_certificate(certificate)
    try:
        with Client(found.url, ca_file=ca_file, patient=False) as client:
            token = client.login_with_key(asked.key)
    except Unauthenticated as error:
        raise LoginRefused(error.message, error.hint) from error
    chosen = _name(asked, name)
    profiles.put(profiles.Profile(chosen, asked.address, found.scheme, ca_file, token.username, token.token))
    profiles.set_active(chosen)
    cli.done(
        {"server": chosen, "username": token.username, "role": token.role, "expires_at": token.expires_at},
        f"Joined {chosen}: logged in as {token.username} ({token.role}). Next: hecaton run train.py",
    )


def _name(line: JoinLine, name: str | None) -> str:
    """What it is called here: as said, as it was called before, or by its host."""
    from hecaton.client import profiles
    from hecaton.wire.reach.address import parse

    known = profiles.at(line.address).name
    return name or (known if ":" not in known else parse(line.address).host.replace(":", "-"))
