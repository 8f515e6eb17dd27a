"""`hecaton-server`: runs the server in the foreground, or installs it as a systemd service."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hecaton import __version__
from hecaton.cli.duration import Duration
from hecaton.cli.hecaton_server.admin import IGNORED
from hecaton.cli.hecaton_server.values import Listening, Network, RootPath, is_loopback
from hecaton.cli.suggestions import SuggestingGroup
from hecaton.cli.terminal import prepare_streams
from hecaton.server.settings import ANY, BOTH_FAMILIES, DAY, LISTED, MIB, Settings

if TYPE_CHECKING:
    from hecaton.server.app import Announcement

DEFAULTS = Settings(folder=Path())


def _mib(
    name: str, default: int | None, help: str, least: int = 1
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """In MiB as it is typed, in bytes from then on."""
    return click.option(
        name,
        default=None if default is None else default // MIB,
        show_default=default is not None,
        type=click.IntRange(least),
        metavar="MIB",
        callback=lambda ctx, param, value: None if value is None else value * MIB,
        help=help,
    )


def _keep(what: str, default: float, help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    days = f"{default / DAY:g}d"
    return click.option(f"--keep-{what}", default=days, show_default=True, type=Duration(), metavar="TIME", help=help)


def _reference(context: click.Context, parameter: click.Parameter, value: str) -> str:
    from hecaton.core.references import parse

    parse(value)
    return value


HABITS = {
    **dict.fromkeys(("run", "start", "serve", "up"), "hecaton-server --port 8181"),
    **{word: f"sudo systemctl {word} hecaton-server" for word in ("stop", "restart", "status")},
    **dict.fromkeys(("log", "logs"), "sudo journalctl -u hecaton-server -f"),
    **dict.fromkeys(("password", "passwd", "reset-password", "admin"), "hecaton-server admin-password"),
    "version": "hecaton-server --version",
}


@click.group(
    cls=SuggestingGroup,
    habits=HABITS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--host", default=DEFAULTS.host, show_default=True, help="Address to listen on; :: is all of IPv6 and IPv4."
)
@click.option(
    "--port", default=DEFAULTS.port, show_default=True, type=click.IntRange(0, 65535), help="Port; 0: any free one."
)
@click.option("--ssl-keyfile", type=click.Path(), help="TLS: private key (PEM).")
@click.option("--ssl-certfile", type=click.Path(), help="TLS: certificate chain (PEM).")
@click.option(
    "--root-path",
    type=RootPath(),
    metavar="PATH",
    help="The path below which a proxy in front has the server, such as /hecaton.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    type=Network(),
    envvar="HECATON_TRUSTED_PROXY",
    show_envvar=True,
    metavar="ADDRESS",
    help="A proxy in front, or its network: X-Forwarded-For from there names the client.",
)
@click.option(
    "--metrics", type=Listening(), metavar="HOST:PORT",
    help="Where Prometheus finds /metrics, for everybody who gets there; a port alone: on this machine.",
)  # fmt: skip
@_mib("--max-payload", DEFAULTS.max_payload, "Largest payload.")
@_mib("--max-result", DEFAULTS.max_result, "Largest result.")
@click.option(
    "--lost-after", default=DEFAULTS.lost_after, show_default=True, type=click.FloatRange(1), metavar="SECONDS",
    help="A worker that is silent for so long loses its jobs to others.",
)  # fmt: skip
@click.option(
    "--images", default=DEFAULTS.images, show_default=True, type=click.Choice((ANY, LISTED)),
    help="Which images people may use: any that there are, or those alone that an admin has registered.",
)  # fmt: skip
@click.option(
    "--default-image", default=DEFAULTS.default_image, show_default=True, metavar="NAME", callback=_reference,
    help="The image of jobs that name none. May always be used.",
)  # fmt: skip
@click.option(
    "--default-timeout",
    type=Duration(),
    metavar="TIME",
    help="How long a job may run that asks for no time-out. Without it: for ever.",
)
@click.option(
    "--pull-patience",
    type=Duration(),
    default=f"{DEFAULTS.pull_patience:g}",
    metavar="TIME",
    help="How long an image that no worker can get is tried before its jobs fail.",
)
@click.option(
    "--max-queued",
    default=DEFAULTS.max_queued,
    show_default=True,
    type=click.IntRange(1),
    metavar="JOBS",
    help="Jobs that one user may have waiting.",
)
@_mib(
    "--max-user-bytes", None, "What one user may have stored. Without it: 100 GiB, or half of the disk if that is less."
)
@_mib(
    "--disk-floor",
    None,
    "Free disk below which admins alone may write. Without it: 1 GiB, or a twentieth of the disk if that is less.",
    least=0,
)
@click.option(
    "--max-running",
    type=click.IntRange(1),
    metavar="PLACES",
    help="Places that may work for one user at a time. Without it: all that nobody else has work for.",
)
@_keep("results", DEFAULTS.keep_results, "Results and files are removed so long after their job ended; it stays.")
@_keep("logs", DEFAULTS.keep_logs, "Logs are removed so long after their job ended.")
@_keep("jobs", DEFAULTS.keep_jobs, "Jobs are removed, with all that belongs to them, so long after they ended.")
@click.version_option(__version__, prog_name="hecaton-server", message="%(prog)s %(version)s")
@click.pass_context
def cli(
    context: click.Context,
    /,
    lost_after: float,
    keep_results: float,
    keep_logs: float,
    keep_jobs: float,
    **others: Any,
) -> None:
    """Run the Hecaton server.

    On the first start HECATON_ADMIN_PASS makes the user `admin`; without it a password is made up and shown once.
    HECATON_HOME names the folder for all data.

    \b
    Example:
      HECATON_ADMIN_PASS=mysecurepassword hecaton-server --port 8181
      hecaton-server --ssl-keyfile key.pem --ssl-certfile cert.pem
    """
    from hecaton.wire.home import home

    settings = Settings(
        folder=home() / "server",
        heartbeat=min(DEFAULTS.heartbeat, lost_after / 6),
        suspect_after=min(DEFAULTS.suspect_after, lost_after / 2),
        lost_after=lost_after,
        keep_results=min(keep_results, keep_jobs),
        keep_logs=min(keep_logs, keep_jobs),
        keep_jobs=keep_jobs,
        **others,
    )
    if keep_jobs < DAY:
        raise click.BadParameter(
            "less than a day: repeated submissions could no longer be told from new ones", param_hint="--keep-jobs"
        )
    _check_tls(settings)
    if context.invoked_subcommand is None:
        _run(settings)
    else:
        context.obj = settings


@cli.command()
@click.pass_obj
def install(settings: Settings) -> None:
    """Install the server as a systemd service (as root), with the options given before `install`.

    Example: HECATON_ADMIN_PASS=mysecurepassword hecaton-server --port 8181 install
    """
    from hecaton.cli.hecaton_server.unit import install_server

    install_server(settings, _flags(cli, settings))


def _flags(command: click.Command, settings: Settings) -> list[str]:
    """Every option of the command that has a value, as it would be typed for these settings."""
    flags: list[str] = []
    for option in command.params:
        value = getattr(settings, option.name or "", None)
        if value is None:
            continue
        if option.multiple:
            flags += [word for one in value for word in (option.opts[0], one)]
            continue
        if isinstance(option.type, click.Path):
            value = os.path.abspath(value)
        elif option.metavar == "MIB":
            value //= MIB
        flags += [option.opts[0], f"{value:.0f}" if isinstance(option.type, Duration) else f"{value}"]
    return flags


@cli.command()
def uninstall() -> None:
    """Stop and remove the systemd service. The data stays."""
    from hecaton.cli.hecaton_server.unit import uninstall_server

    uninstall_server()


@cli.command("admin-password")
@click.option("--username", default="admin", show_default=True, help="Whose.")
@click.pass_obj
def admin_password(settings: Settings, username: str) -> None:
    """Set a new password for an admin who has lost it: that of HECATON_ADMIN_PASS, or one that is made up and shown
    once. The server must not run meanwhile.

    Example: sudo systemctl stop hecaton-server && sudo HECATON_HOME=/var/lib/hecaton hecaton-server admin-password
    """
    from hecaton.cli.hecaton_server.admin import set_admin_password

    set_admin_password(settings, username)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_obj
def backup(settings: Settings, folder: Path) -> None:
    """Copy all data to a new FOLDER, while the server runs or not. To restore: stop the server, put FOLDER in the
    place of its data folder.

    \b
    Example:
      hecaton-server backup /backup/hecaton-2026-08-01
    """
    from hecaton.cli.terminal import size
    from hecaton.store.sqlite.backup import backup as copy

    copied = copy(settings.folder, folder.absolute())
    click.echo(f"Copied {settings.folder} to {folder}: {copied.jobs} jobs, {copied.blobs} blobs, {size(copied.size)}")
    click.echo(f"To restore: stop the server, move {settings.folder} away, then: cp -a {folder} {settings.folder}")


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def check(settings: Settings, folder: Path | None) -> None:
    """Read all data, or a backup in FOLDER, and say whether it is whole. Exit code 1 if it is not.

    Example: hecaton-server check
    """
    from hecaton.cli.terminal import size
    from hecaton.store.sqlite.inspection import inspect

    chosen = folder or settings.folder
    found = inspect(chosen)
    for problem in found.problems:
        click.echo(f"Problem: {problem}", err=True)
    if found.orphans:
        click.echo(
            f"{found.orphans} blobs ({size(found.orphaned_bytes)}) belong to no job: being uploaded, or left over"
        )
    if found.problems:
        click.echo(f"{chosen} is not whole. Restore a backup, or ask for help with this output.", err=True)
        raise SystemExit(1)
    click.echo(f"{chosen} is whole: schema version {found.schema}, {found.jobs} jobs, {found.blobs} blobs")


def _check_tls(settings: Settings) -> None:
    """Both or neither, and a pair that fits: found out now, not at the first connection."""
    if not settings.ssl_keyfile and not settings.ssl_certfile:
        return
    if not settings.ssl_keyfile or not settings.ssl_certfile:
        raise click.UsageError("TLS needs both --ssl-keyfile and --ssl-certfile")
    from hecaton.server.private_files import require_private

    try:
        require_private(Path(settings.ssl_keyfile), group_may_read=True)
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile)
    except (OSError, ssl.SSLError) as error:
        pair = f"{settings.ssl_certfile} and {settings.ssl_keyfile}"
        raise click.UsageError(f"cannot use {pair} for TLS: {error.strerror or error}") from None


def _run(settings: Settings) -> None:
    import uvloop

    from hecaton.cli.log_lines import log_to_stderr
    from hecaton.server.app import serve

    log_to_stderr()
    os.umask(0o077)
    uvloop.run(serve(settings, os.environ.get("HECATON_ADMIN_PASS") or None, announce))


def announce(started: Announcement) -> None:
    """What a tired person needs to go on."""
    settings = started.settings
    scheme = "https" if settings.ssl_certfile else "http"
    shown = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    base = f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{started.port}"
    families = " (IPv6 and IPv4)" if settings.host == BOTH_FAMILIES else ""
    elsewhere = f"{seen_from_elsewhere(settings.host)}:{started.port}"
    lines = [
        f"Hecaton {__version__} serves at {base}{families}",
        f"  data             {settings.folder}",
        f"  kept             results {_days(settings.keep_results)}, logs {_days(settings.keep_logs)},"
        f" jobs {_days(settings.keep_jobs)} after their end",
        f"  API description  {base}/openapi.json",
        *_certificate_line(settings),
        f"  next             hecaton server new --ip {elsewhere} --name my-server",
    ]
    if settings.metrics is not None:
        lines.insert(-1, f"  metrics          {scheme}://{settings.metrics}/metrics")
        if not is_loopback(settings.metrics):
            lines.append(f"Note: whoever reaches {settings.metrics} reads names of images there, and how much is run.")
    if scheme == "http" and not settings.host.startswith("127.") and settings.host not in ("localhost", "::1"):
        lines.append("Warning: no TLS, and reachable from other machines: passwords and tokens travel in clear text.")
        lines.append(
            "  Use --ssl-keyfile and --ssl-certfile, an overlay network (WireGuard, Tailscale), or --host 127.0.0.1."
        )
    if started.admin_password:
        lines.append("Made the user `admin` (HECATON_ADMIN_PASS was not set). Its password, shown only this once:")
        lines.append(f"  {started.admin_password}")
    if started.password_ignored:
        lines.extend(IGNORED)
    print("\n".join(lines), file=sys.stderr, flush=True)


def _certificate_line(settings: Settings) -> list[str]:
    """What those compare who see it for the first time."""
    from hecaton.wire.reach.tls import fingerprint

    if settings.ssl_certfile is None:
        return []
    first, end, _ = Path(settings.ssl_certfile).read_text().partition("-----END CERTIFICATE-----")
    return [f"  certificate      {fingerprint(first[first.index('-----BEGIN') :] + end)}"]


def seen_from_elsewhere(host: str) -> str:
    """The address by which other machines are likely to reach this one. Nothing is sent for it."""
    if host not in ("0.0.0.0", "::"):
        return f"[{host}]" if ":" in host else host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # no such machine (RFC 5737): says which way packets would go
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _days(seconds: float) -> str:
    return f"{seconds / 86400:g} days"


def main() -> None:
    from hecaton.core.errors import HecatonError

    prepare_streams()
    try:
        cli(prog_name="hecaton-server")
    except HecatonError as error:
        from hecaton.cli.hecaton_server.unit import FINAL_EXIT
        from hecaton.store.sqlite.migrate import NewerDatabase

        click.echo(f"Error: {error}", err=True)
        raise SystemExit(FINAL_EXIT if isinstance(error, NewerDatabase) else 1) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {where}{error.strerror or error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
