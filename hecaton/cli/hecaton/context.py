"""What one command line knows: which server it means, whether it answers in JSON, and how it gets its client."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from hecaton.cli import output
from hecaton.cli.terminal import is_terminal
from hecaton.core.errors import NotFound, Unauthenticated

if TYPE_CHECKING:
    from hecaton.cli.hecaton.jobs.live import UploadLine
    from hecaton.client import Client
    from hecaton.client.profiles import Profile


def is_address(server: str) -> bool:
    """Whether that is where a server is, and not what somebody calls one: `https://host`, `host:8181`."""
    return "://" in server or ":" in server


class LoginRefused(Unauthenticated):
    """At the login itself, where 'log in again' would be no help."""


@dataclass
class Cli:
    json: bool = False
    server: str | None = None  # its name here, or its address; None: the active one
    quiet: bool = False  # completion: no warnings
    parsed: bool = False  # the line was understood: what it asks for is above
    own_code: int | None = None  # that of every error, for who hands on the exit codes of others
    server_flag: str = ""  # what a suggested command needs to mean the same server
    _client: Client | None = field(default=None, repr=False)
    _upload: UploadLine | None = field(default=None, repr=False)

    def client(self, timeout: float = 30.0, *, anonymous: bool = False) -> Client:
        """The client of the chosen server, with the token of HECATON_TOKEN or of its profile (`anonymous`: none)."""
        if self._client is None:
            from hecaton.client import Client

            profile = self._profile()
            self.server_flag = f" --server {shlex.quote(self.server)}" if self.server else ""
            self.server = profile.name
            token = None if anonymous else os.environ.get("HECATON_TOKEN") or profile.token
            # Who logs in sits in front of the screen; other commands may be part of a script that outlives a restart.
            self._client = Client(
                self._url(profile),
                token,
                ca_file=profile.ca_file,
                timeout=timeout,
                patient=not anonymous,
                uploading=None if self.quiet else self._show_upload,
                follow=False,  # commands go, or look at what happens meanwhile
            )
        return self._client

    def new_client(self) -> Client:
        """Another one, in the place of one that has been closed."""
        self._client = None
        return self.client()

    def _show_upload(self, name: str, sent: int, size: int) -> None:
        if self._upload is None:
            from hecaton.cli.hecaton.jobs.live import UploadLine

            self._upload = UploadLine()
        self._upload.show(name, sent, size)

    def _profile(self) -> Profile:
        from hecaton.client import profiles

        if self.server and is_address(self.server):
            return profiles.at(self.server)
        profile = profiles.get(self.server) if self.server else profiles.active()
        if profile is None:
            raise NotFound(
                "no server is connected",
                "Register one: hecaton server new --ip HOST:8181 --name NAME; or choose one: "
                "hecaton server connect NAME",
            )
        return profile

    def _url(self, profile: Profile) -> str:
        """Finds out the scheme where nobody had answered before, tells what has to be told, and remembers it."""
        from hecaton.client import profiles
        from hecaton.wire.reach.address import resolve

        address = resolve(profile.address, profile.ca_file, profile.scheme)
        if address.warning and not self.quiet:
            output.warn(address.warning)
        if profile.scheme is None and not is_address(profile.name):
            profiles.set_scheme(profile.name, address.scheme)
        return address.url

    def how_to_log_in(self) -> str:
        if os.environ.get("HECATON_TOKEN"):
            return "The token comes from HECATON_TOKEN: set it anew (hecaton server token prints one) or unset it."
        if self.server and is_address(self.server):
            return (
                f"Set HECATON_TOKEN, or: hecaton server new --ip {self.server} --name NAME, hecaton server login NAME"
            )
        return f"Log in with: hecaton server login {self.server or 'NAME'}"

    def show(self, value: Any, lines: Callable[[], Iterable[str]]) -> None:
        """The answer of a command: `value` for --json, else what `lines` makes of it."""
        if self.json:
            output.print_json(value)
        else:
            output.print_lines(lines())

    def submitted(self, noun: str, index: int, key: str) -> None:
        """What came into being: its id (`key`) for scripts, on stdout, and beside it the number that people use."""
        if not self.json and is_terminal(sys.stdout):
            output.say(f"{noun.capitalize()} {index} is submitted: hecaton {noun} wait {index}{self.server_flag}")
        self.show({"id": key, "index": index}, lambda: [key])

    def done(self, value: Any, sentence: str) -> None:
        """The end of a command that changes something: `value` for --json, else a sentence on stderr."""
        if self.json:
            output.print_json(value)
        else:
            output.say(sentence)


pass_cli = click.make_pass_decorator(Cli, ensure=True)
