"""`hecaton image`: new, list, update, show, delete."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecaton.cli import output
from hecaton.cli.hecaton import habits
from hecaton.cli.hecaton.completers import images
from hecaton.cli.hecaton.context import Cli, pass_cli
from hecaton.cli.hecaton.nouns.image_options import FLAGS, asked_for, image_options, shown
from hecaton.cli.hecaton.tree import Group, confirm, yes_option
from hecaton.cli.suggestions import known
from hecaton.cli.terminal import Column, ago

if TYPE_CHECKING:
    from hecaton.wire.api import ImageView

COLUMNS = [
    Column("IMAGE", flexible=True),
    Column("DIGEST"),
    Column("UPDATED"),
    Column("OF"),
    Column("DESCRIPTION", flexible=True),
]


@click.group(cls=Group, habits=habits.IMAGE)
def image() -> None:
    """Manage Docker images available for jobs."""


@image.command("new")
@click.argument("image_name")
@click.option("--desc", default="", help="What it is for.")
@click.option("--no-verify", is_flag=True, help="Do not ask the image's registry whether it exists.")
@image_options
@pass_cli
def new(cli: Cli, /, image_name: str, desc: str, no_verify: bool, **flags: Any) -> None:
    """Register a new Docker image from Docker Hub or any other registry, for everybody (admins).

    Who uses one that is not registered needs no such line: it is his own from his first job on.

    \b
    hecaton image new python:3.9-slim
    hecaton image new ghcr.io/me/model:v2 --desc "the model, second version" --startup-timeout 20m
    """
    made = cli.client().add_image(image_name, desc, verify=not no_verify, defaults=asked_for(flags))
    _changed(cli, made, "is registered")


@image.command("list")
@pass_cli
def list_images(cli: Cli) -> None:
    """List images: those that are registered, for everybody, and those that you alone use."""
    found = cli.client().images()
    now = cli.client().now()
    rows = [[v.name, _short(v.digest), ago(v.updated_at, now), v.owner or "", v.description] for v in found]
    cli.show(
        found,
        lambda: output.table_lines(
            COLUMNS, rows, "No image yet. One is here with its first job: hecaton run -i IMAGE FILE"
        ),
    )


@image.command("update")
@click.argument("image_name", shell_complete=images)
@click.option(
    "--fp",
    type=click.Path(path_type=Path),
    help="File with environment variables (KEY=VALUE per line); they replace those of the image.",
)
@click.option("--desc", help="New description.")
@click.option(
    "--refresh",
    is_flag=True,
    help="Ask the registry again which digest the tag means, if need be with a worker's login.",
)
@image_options
@pass_cli
def update(cli: Cli, /, image_name: str, fp: Path | None, desc: str | None, refresh: bool, **flags: Any) -> None:
    """Update image metadata (admins); an image of one's own can be refreshed. Changes hold from the next job on."""
    defaults = asked_for(flags)
    if fp is None and desc is None and not refresh and not defaults:
        raise click.UsageError(f"nothing to change: give --fp, --desc, {FLAGS} or --refresh")
    env = None
    if fp is not None:
        from hecaton.cli.hecaton.nouns import envfile

        env = envfile.read(fp)
    with _known(cli, image_name):
        view = cli.client().update_image(
            image_name, env=env, description=desc, refresh=refresh, defaults=defaults or None
        )
    _changed(cli, view, "is updated")


@image.command("show")
@click.argument("image_name", shell_complete=images)
@pass_cli
def show(cli: Cli, image_name: str) -> None:
    """Show image details including environment variables (those for admins only)."""
    with _known(cli, image_name):
        view = cli.client().image(image_name)
    cli.show(view, lambda: _details(view, cli.client().now()))


@image.command("delete")
@click.argument("image_name", shell_complete=images)
@yes_option
@pass_cli
def delete(cli: Cli, image_name: str, yes: bool) -> None:
    """Take an image off the list: one's own, or as an admin a registered one. Its jobs stay on record."""
    confirm(f"Delete the image {image_name} from the server's list?", yes)
    with _known(cli, image_name):
        cli.client().delete_image(image_name)
    cli.done({"image": image_name, "deleted": True}, f"Image {image_name} is deleted.")


def _known(cli: Cli, name: str) -> AbstractContextManager[None]:
    return known(name, lambda: (view.name for view in cli.client().images()))


def _changed(cli: Cli, view: ImageView, what: str) -> None:
    if view.warning:
        output.warn(view.warning)
    cli.done(view, f"Image {view.name} {what}" + (f" ({view.digest})." if view.digest else "."))


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else ""


def _details(view: ImageView, now: float) -> list[str]:
    fields: list[tuple[str, object]] = [
        ("image", view.name),
        ("digest", view.digest or "unknown: workers use the tag"),
        ("of", view.owner),
        ("description", view.description or None),
        ("created", ago(view.created_at, now)),
        ("updated", ago(view.updated_at, now)),
        ("warning", view.warning),
        *shown(view.defaults),
    ]
    lines = output.field_lines(fields)
    if view.versions:
        from hecaton.core.image_versions import version_lines

        lines += output.block_lines("on the workers' machines", "\n".join(version_lines(view.versions, now)))
    if view.env is None:
        return [*lines, "", "The environment is shown to admins only."]
    from hecaton.cli.hecaton.nouns import envfile

    env = "\n".join(envfile.line(key, value) for key, value in sorted(view.env.items()))
    return [*lines, *output.block_lines("environment", env or "(none)")]
