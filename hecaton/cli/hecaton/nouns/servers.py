"""`hecaton server`: the servers that this machine knows, their tokens, and which of them commands mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import servers
from hecaton.cli.hecaton.context import Cli, LoginRefused, is_address, pass_cli
from hecaton.cli.hecaton.tree import Group, asked, confirm, yes_option
from hecaton.cli.terminal import Column, size
from hecaton.core.errors import HecatonError, NotFound, Unauthenticated, Unreachable

if TYPE_CHECKING:
    from hecaton.client.profiles import Profile

COLUMNS = [
    Column("ACTIVE"),
    Column("NAME", flexible=True),
    Column("ADDRESS", flexible=True),
    Column("USER", flexible=True),
]


class ServerView(msgspec.Struct):
    """A profile as --json shows it: without the token."""

    name: str
    address: str
    scheme: str | None
    ca_file: str | None
    username: str | None
    logged_in: bool
    active: bool


ca_file_option = click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Certificate (PEM) to trust: that of the server itself, or of who signed it.",
)


@click.group(cls=Group, habits=habits.SERVER)
def server() -> None:
    """Manage your local server connections."""


@server.command("new", talks=False)
@asked("--ip", "Server IP/URL, for example localhost:8181 or https://gpu.example.com.")
@asked("--name", "Local alias for the server.")
@ca_file_option
@pass_cli
def new(cli: Cli, ip: str, name: str, ca_file: str | None) -> None:
    """Register a new server; it becomes the active one, unless it does not answer and another one is."""
    from hecaton.client import profiles

    scheme, ca_file = _look(ip, ca_file)
    profiles.add(profiles.Profile(name, ip, scheme=scheme, ca_file=ca_file))
    before = profiles.active()
    if scheme is None and before is not None:
        said = f"registered. {before.name} stays the active one. When it answers: hecaton server login {name}"
    else:
        profiles.set_active(name)
        said = f"registered and active. Next: hecaton server login {name}"
    cli.done(_view(profiles.get(name)), f"Server {name} is {said}")


def _look(address: str, ca_file: str | None) -> tuple[str | None, str | None]:
    """The scheme that is spoken there, and what to trust from now on: `ca_file`, or the file with its own certificate.
    A server that is down may be registered; one that cannot be trusted may not."""
    from hecaton.cli.first_contact import meet
    from hecaton.client import Client, profiles
    from hecaton.wire.reach.tls import Untrusted

    try:
        found, certificate = meet(address, ca_file)
        if certificate is not None:
            ca_file = profiles.keep_certificate(certificate)
        if found.warning:
            output.warn(found.warning)
        Client(found.url, ca_file=ca_file, timeout=5.0, patient=False).health()
    except Untrusted:
        raise
    except Unreachable as error:
        output.warn(f"{error.message}. It is registered all the same.")
        return None, ca_file
    return found.scheme, ca_file


@server.command("login", talks=False)
@click.argument("server_name", required=False, shell_complete=servers)
@asked("--username", "Your name on the server.", envvar="HECATON_USERNAME")
@asked("--password", "Your password.", secret=True, envvar="HECATON_PASSWORD")
@pass_cli
def login(cli: Cli, server_name: str | None, username: str, password: str) -> None:
    """Authenticate with a server, without a name with the active one; it becomes the active one."""
    from hecaton.client import profiles

    server_name = cli.server = _chosen(cli, server_name).name
    try:
        token = cli.client(anonymous=True).login(username, password)
    except Unauthenticated as error:
        raise LoginRefused(error.message, "Check the name and the password, and try again.") from error
    profiles.set_token(server_name, token.token, token.username)
    profiles.set_active(server_name)
    cli.done(
        {"server": server_name, "username": token.username, "role": token.role, "expires_at": token.expires_at},
        f"Logged in to {server_name} as {token.username} ({token.role}).",
    )


@server.command("list", talks=False)
@pass_cli
def list_servers(cli: Cli) -> None:
    """List registered servers."""
    from hecaton.client import profiles

    views = [_view(profile) for profile in profiles.all_servers()]
    rows = [["*" if view.active else " ", view.name, view.address, view.username or "not logged in"] for view in views]
    empty = "No server is registered. Register one: hecaton server new --ip HOST:8181 --name NAME"
    cli.show(views, lambda: output.table_lines(COLUMNS, rows, empty))


@server.command("connect", talks=False)
@click.argument("server_name", shell_complete=servers)
@pass_cli
def connect(cli: Cli, server_name: str) -> None:
    """Switch the active server."""
    from hecaton.client import profiles

    profiles.set_active(server_name)
    cli.done(_view(profiles.get(server_name)), f"Server {server_name} is active.")


@server.command("disconnect", talks=False)
@pass_cli
def disconnect(cli: Cli) -> None:
    """Unset the active server. Its registration and token stay."""
    from hecaton.client import profiles

    profiles.set_active(None)
    cli.done({"active": None}, "No server is active.")


@server.command("show", talks=False)
@click.argument("server_name", required=False, shell_complete=servers)
@pass_cli
def show(cli: Cli, server_name: str | None) -> None:
    """View details of a server; without a name: of the active one."""
    profile = _chosen(cli, server_name)
    view = _view(profile)
    fields: list[tuple[str, object]] = [
        ("name", view.name),
        ("address", view.address),
        ("active", "yes" if view.active else "no"),
        ("speaks", view.scheme),
        ("CA file", view.ca_file),
        ("user", view.username or "not logged in"),
    ]
    live = _live_fields(cli, profile) if view.logged_in else {}
    fields += list(live.items())
    cli.show({**msgspec.structs.asdict(view), "server": live or None}, lambda: output.field_lines(fields))


def _live_fields(cli: Cli, profile: Profile) -> dict[str, Any]:
    """What the server itself says, or why it says nothing."""
    cli.server = profile.name
    try:
        info = cli.client(timeout=5.0).server_info()
    except HecatonError as error:
        return {"state": error.message}
    return {
        "state": "answers",
        "version": info.version,
        "role": str(info.role),
        "largest payload": size(info.max_payload),
        "largest result": size(info.max_result),
    }


@server.command("update", talks=False)
@click.argument("server_name", shell_complete=servers)
@click.option("--ip", help="New server IP/URL. It is another server then: log in again.")
@ca_file_option
@pass_cli
def update(cli: Cli, server_name: str, ip: str | None, ca_file: str | None) -> None:
    """Update server configuration."""
    from hecaton.client import profiles

    if ip is None and ca_file is None:
        raise click.UsageError("nothing to change: give --ip or --ca-file")
    old = profiles.get(server_name)
    scheme, ca_file = _look(ip or old.address, ca_file or old.ca_file)
    changed = profiles.update(server_name, address=ip, ca_file=ca_file)
    if scheme is not None and changed.scheme is None:
        profiles.set_scheme(server_name, scheme)
    login = "" if changed.token else f" Log in again: hecaton server login {server_name}"
    cli.done(_view(profiles.get(server_name)), f"Server {server_name} is updated.{login}")


@server.command("remove", talks=False)
@click.argument("server_name", shell_complete=servers)
@yes_option
@pass_cli
def remove(cli: Cli, server_name: str, yes: bool) -> None:
    """Forget a server and its token. The server itself is not touched."""
    from hecaton.client import profiles

    profiles.get(server_name)
    confirm(f"Forget the server {server_name} and its token?", yes)
    profiles.remove(server_name)
    cli.done({"server": server_name, "removed": True}, f"Server {server_name} is forgotten.")


@server.command("token", talks=False)
@click.argument("server_name", required=False, shell_complete=servers)
@pass_cli
def token(cli: Cli, server_name: str | None) -> None:
    """Print the access token, for scripts. Whoever has it is you."""
    profile = _chosen(cli, server_name)
    cli.server = profile.name
    if not profile.token:
        raise Unauthenticated(f"there is no token for {profile.name}")
    secret = profile.token
    cli.show({"server": profile.name, "token": secret}, lambda: [secret])


def _chosen(cli: Cli, name: str | None) -> Profile:
    from hecaton.client import profiles

    named = name or cli.server
    if named and is_address(named):
        named = profiles.at(named).name
    profile = profiles.get(named) if named else profiles.active()
    if profile is None:
        first = "" if profiles.all_servers() else "Register one: hecaton server new --ip HOST:8181 --name NAME"
        raise NotFound("no server is active", first or "Name one, or choose one: hecaton server connect NAME")
    return profile


def _view(profile: Profile) -> ServerView:
    from hecaton.client import profiles

    active = profiles.active()
    return ServerView(
        profile.name,
        profile.address,
        profile.scheme,
        profile.ca_file,
        profile.username,
        profile.token is not None,
        active is not None and active.name == profile.name,
    )
