"""`hecaton up`: this machine becomes a server and its first worker."""

from __future__ import annotations

import sys

import click

from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.tree import Command
from hecaton.core.errors import BadRequest
from hecaton.wire.reach.address import DEFAULT_PORT


@click.command(cls=Command, talks=False)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port of the server.  [default: {DEFAULT_PORT}, or the service's]"
)
@click.option("--ip", metavar="ADDRESS", help="By which others reach this machine.  [default: that of its way out]")
@click.option("--foreground", is_flag=True, help="Without root and without services, for a look: until Ctrl-C.")
@pass_cli
def up(cli: Cli, port: int | None, ip: str | None, foreground: bool) -> None:
    """Make this machine a server and its first worker, log in here, and print the lines with which others join.

    As services of systemd, from /opt/hecaton; asks for sudo once. Again, it restarts nothing and prints fresh lines.

    \b
    Example:
      hecaton up
      hecaton up --foreground
    """
    if sys.platform != "linux":
        raise BadRequest(
            f"workers run on Linux: this system is {sys.platform}",
            "The client runs here. Paste the line that `hecaton up` has printed elsewhere: hecaton join LINE",
        )
    from hecaton.cli.hecaton.machine import foreground as here
    from hecaton.cli.hecaton.machine import services

    if foreground:
        here.run(port or DEFAULT_PORT, ip)
    else:
        services.run(port, ip)
