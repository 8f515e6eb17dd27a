"""`hecaton user`: create, list, update, delete, passwd. For admins; `passwd` for everyone about themselves."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any

import click
from msgspec import UNSET

from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import users
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.tree import Group, asked, confirm, yes_option
from hecaton.cli.suggestions import known
from hecaton.cli.terminal import Column, ago
from hecaton.core.files.mounts import MAX_UID
from hecaton.core.model import Role


class Uid(click.ParamType[int]):
    """The number of a user of the machines, or `none`, which becomes 0."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text == "none":
            return 0
        if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) <= MAX_UID):
            self.fail(f"{text[:40]!r} is neither none nor the number of a user, as `id -u` shows it", param, ctx)
        return int(text)


ROLES = sorted((role.value for role in Role), key=lambda role: role != Role.USER)  # the usual one first


@click.group(cls=Group, habits=habits.USER)
def user() -> None:
    """Manage users (admins only)."""


@user.command("create")
@asked("--username", "New user's name.")
@asked("--password", "New user's password.", secret=True, new=True)
@click.option("--role", type=click.Choice(ROLES), default=Role.USER.value, show_default=True, help="Role.")
@pass_cli
def create(cli: Cli, username: str, password: str, role: str) -> None:
    """Create a new user."""
    made = cli.client().create_user(username, password, Role(role))
    cli.done(made, f"User {made.username} is created with the role {made.role}.")


@user.command("list")
@pass_cli
def list_users(cli: Cli) -> None:
    """List all users."""
    found = cli.client().users()
    columns = [Column("USERNAME", flexible=True), Column("ROLE"), Column("UID"), Column("CREATED")]
    now = cli.client().now()
    rows = [
        [view.username, view.role, "" if view.uid is None else str(view.uid), ago(view.created_at, now)]
        for view in found
    ]
    cli.show(found, lambda: output.table_lines(columns, rows, "There is no user."))


@user.command("update")
@click.argument("username", shell_complete=users)
@click.option("--role", type=click.Choice(ROLES), help="The new role.")
@click.option("--uid", type=Uid(), help="As whom, on the machines, their jobs write into mounts; none takes it back.")
@pass_cli
def update(cli: Cli, username: str, role: str | None, uid: int | None) -> None:
    """Change a user's role, or as whom their jobs write into folders of the machines.

    A role holds at once: what they watch ends, and what they ask next is judged by the new one. A uid holds for
    containers that start from then on.
    """
    if role is None and uid is None:
        raise click.UsageError("say what is to change: --role ROLE, --uid NUMBER")
    number = UNSET if uid is None else uid or None
    with _known(cli, username):
        changed = cli.client().update_user(username, None if role is None else Role(role), uid=number)
    said = [] if role is None else [f"has the role {changed.role} now"]
    if uid is not None:
        writes = f"as uid {changed.uid}" if changed.uid is not None else "nowhere"
        said.append(f"writes {writes} into mounts of the machines, in containers that start from now on")
    cli.done(changed, f"User {changed.username} {' and '.join(said)}.")


@user.command("delete")
@click.argument("username", shell_complete=users)
@click.option("--workers", "with_workers", is_flag=True, help="Remove the workers too that they have registered.")
@yes_option
@pass_cli
def delete(cli: Cli, username: str, with_workers: bool, yes: bool) -> None:
    """Delete a user. Their tokens stop working at once; the workers that they have registered go on, unless --workers
    is given."""
    confirm(f"Delete the user {username}?", yes)
    client = cli.client()
    workers = [view.name for view in client.workers() if view.registered_by.casefold() == username.casefold()]
    with _known(cli, username):
        client.delete_user(username)
    for name in workers if with_workers else ():
        client.remove_worker(name)
    report = {"username": username, "deleted": True, "workers": workers, "workers_removed": with_workers}
    cli.done(report, f"User {username} is deleted.{_what_of(workers, with_workers)}")


def _what_of(workers: list[str], removed: bool) -> str:
    if not workers:
        return ""
    names = ", ".join(workers)
    if removed:
        return f" Removed too, as registered by them: {names}."
    return f" The workers registered by them go on: {names}. To remove one: hecaton worker remove NAME"


@user.command("passwd")
@click.argument("username", shell_complete=users)
@asked("--password", "The new password.", secret=True, new=True)
@click.option("--old-password", help="Your old password, when it is your own that you change.")
@pass_cli
def passwd(cli: Cli, username: str, password: str, old_password: str | None) -> None:
    """Set a user's password: your own with the old one, which is asked for, or as an admin anybody's. Their old tokens
    stop working at once."""
    client = cli.client()
    if old_password is None and client.server_info().username.casefold() == username.casefold():
        old_password = _old_password()
    with _known(cli, username):
        client.set_password(username, password, old_password)
    cli.done(
        {"username": username, "changed": True},
        f"The password of {username} is changed. Who uses it logs in again: hecaton server login NAME",
    )


def _old_password() -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "your own password changes with the old one: give it as --old-password (there is no terminal to ask on)"
        )
    return str(click.prompt("Your old password", hide_input=True, err=True))


def _known(cli: Cli, name: str) -> AbstractContextManager[None]:
    return known(name, lambda: (view.username for view in cli.client().users()))
