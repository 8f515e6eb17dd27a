"""`hecaton-server admin-password`: a way back in for who has lost the password, and sits at the server's machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from hecaton.cli import output
from hecaton.core.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from hecaton.server.settings import Settings

VARIABLE = "HECATON_ADMIN_PASS"

IGNORED = (
    f"{VARIABLE} is not used: there is an admin already, with another password.",
    "  If that is lost: stop the server, then: hecaton-server admin-password",
)

TOKEN_LIFE = 600.0
"""Seconds for the token with which this machine's own administrator asks the server for something."""


def set_admin_password(settings: Settings, name: str) -> None:
    """From HECATON_ADMIN_PASS, or a new one that is shown once. Conflict while the server runs: it knows its users by
    heart."""
    given = os.environ.get(VARIABLE)
    password = given or secrets.token_urlsafe(12)
    if not (settings.folder / "hecaton.db").exists():
        raise NotFound(f"there is no server's data in {settings.folder}", "HECATON_HOME names another folder.")
    asyncio.run(_set(settings, name, password))
    output.say(f"The password of {name} is changed. Old tokens of {name} do not hold any more. Start the server again.")
    if given is None:
        output.say(f"It is, shown only this once:\n  {password}")


def token_here(folder: Path) -> str:
    """An access token of an admin, for whoever may read the server's `folder`; the server may run. NotFound if there is
    no admin."""
    from hecaton.core.model import Role
    from hecaton.server.accounts.auth import Tokens, load_secret
    from hecaton.store.sqlite.file import open_existing
    from hecaton.store.sqlite.store import SqliteStore

    with closing(open_existing(folder / "hecaton.db")) as connection:
        store = SqliteStore(connection)
        admins = [user for user in store.users() if user.role is Role.ADMIN]
        server_id = store.meta("server_id")
    if not admins or server_id is None:
        raise NotFound(f"the server in {folder} has no admin", "Start it once: hecaton-server")
    return Tokens(load_secret(folder / "secret"), server_id, TOKEN_LIFE, time.time).issue(admins[0])[0]


async def _set(settings: Settings, name: str, password: str) -> None:
    from hecaton.server.app import Server

    server = Server(settings)
    try:
        try:
            hashed = await server.passwords.hash(password)
        except BadRequest as error:
            raise BadRequest(f"{VARIABLE}: {error.message}", error.hint) from error
        await server.database.write(lambda store: store.set_password(name, hashed))
    finally:
        await server.stop()
