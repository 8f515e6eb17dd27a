"""`hecaton user`: create, list, delete, passwd. For admins; `passwd` for everyone about themselves."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

import click

from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import users
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.tree import Group, asked, confirm, yes_option
from hecaton.cli.suggestions import known
from hecaton.cli.terminal import Column, ago
from hecaton.core.model import Role

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
    columns = [Column("USERNAME", flexible=True), Column("ROLE"), Column("CREATED")]
    now = time.time()
    rows = [[view.username, view.role, ago(view.created_at, now)] for view in found]
    cli.show(found, lambda: output.table_lines(columns, rows, "There is no user."))


@user.command("delete")
@click.argument("username", shell_complete=users)
@yes_option
@pass_cli
def delete(cli: Cli, username: str, yes: bool) -> None:
    """Delete a user. Their tokens stop working at once."""
    confirm(f"Delete the user {username}?", yes)
    with _known(cli, username):
        cli.client().delete_user(username)
    cli.done({"username": username, "deleted": True}, f"User {username} is deleted.")


@user.command("passwd")
@click.argument("username", shell_complete=users)
@asked("--password", "The new password.", secret=True, new=True)
@pass_cli
def passwd(cli: Cli, username: str, password: str) -> None:
    """Set a user's password. Their old tokens stop working at once."""
    with _known(cli, username):
        cli.client().set_password(username, password)
    cli.done(
        {"username": username, "changed": True},
        f"The password of {username} is changed. Who uses it logs in again: hecaton server login NAME",
    )


def _known(cli: Cli, name: str) -> AbstractContextManager[None]:
    return known(name, lambda: (view.username for view in cli.client().users()))
