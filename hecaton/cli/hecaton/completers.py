"""Names from the live server, for completion in shells and in the interactive shell.

The functions named after nouns are what the commands give click as `shell_complete`. They answer within a second and
say nothing when something is wrong: a prompt is no place for errors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from hecaton.cli.hecaton.context import Cli
from hecaton.cli.terminal import one_line

if TYPE_CHECKING:
    from hecaton.client import Client

PATIENCE = 1.0
"""Seconds that a completion waits for the server."""

FRESH = 5.0
"""Seconds for which the interactive shell believes an answer."""

Names = list[tuple[str, str]]  # a value, and what it is
Fetch = Callable[["Client"], Iterable[tuple[str, str]]]

_known: dict[tuple[str, str | None], tuple[float, Names]] = {}


def servers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    from hecaton.client import profiles

    try:
        return _items([(profile.name, profile.address) for profile in profiles.all_servers()], incomplete)
    except Exception:
        return []


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _live(ctx, "images", lambda client: ((i.name, i.description) for i in client.images()), incomplete)


def jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Both names of the latest jobs: the short number, and the id once its first character is typed."""

    def fetch(client: Client) -> Iterable[tuple[str, str]]:
        for job in client.jobs(limit=50).jobs:
            yield str(job.index), f"{job.state} {job.image}"
            yield job.id, f"{job.state} {job.image}"

    found = _live(ctx, "jobs", fetch, incomplete)
    return found if incomplete else [item for item in found if "-" not in item.value]


def batches(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    def fetch(client: Client) -> Iterable[tuple[str, str]]:
        return ((str(b.index), f"{b.name or b.image} {b.finished}/{b.size}") for b in client.batches())

    return _live(ctx, "batches", fetch, incomplete)


def workers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _live(ctx, "workers", lambda client: ((w.name, w.status) for w in client.workers()), incomplete)


def users(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _live(ctx, "users", lambda client: ((u.username, u.role) for u in client.users()), incomplete)


def _items(names: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem[str]]:
    # Names that hold control characters or blanks are no words of a command line: left out, not repaired.
    return [
        CompletionItem(value, help=one_line(text) or None)
        for value, text in names
        if value.startswith(incomplete) and one_line(value) == value and " " not in value
    ]


def _live(ctx: click.Context, kind: str, fetch: Fetch, incomplete: str) -> list[CompletionItem[str]]:
    cli = ctx.ensure_object(Cli)
    key = (kind, cli.server)
    kept = _known.get(key)
    if kept is None or time.monotonic() - kept[0] > FRESH:
        names = _within_patience(cli, fetch)
        if names is None:
            return []
        kept = _known[key] = (time.monotonic(), names)
    return _items(kept[1], incomplete)


def _within_patience(cli: Cli, fetch: Fetch) -> Names | None:
    answer: list[Names] = []

    def ask() -> None:
        try:
            answer.append(list(fetch(Cli(server=cli.server, quiet=True).client(timeout=PATIENCE))))
        except Exception:
            return

    thread = threading.Thread(target=ask, name="completion", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answer[0] if answer else None
