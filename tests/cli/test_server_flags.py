"""The flags of a server that is installed are those that it was given, and none is forgotten."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from hecaton.cli.hecaton_server.main import _flags, cli
from hecaton.server.settings import Settings

GIVEN = {
    "--images": "listed", "--default-image": "team/app:1",
    "--root-path": "/hecaton", "--metrics": "127.0.0.1:9181", "--trusted-proxy": "10.0.0.0/8",
    "--host": "::1", "--port": "8282", "--max-payload": "3", "--max-result": "5", "--lost-after": "12.5",
    "--pull-patience": "300", "--max-queued": "7", "--max-user-bytes": "9",
    "--disk-floor": "0", "--max-running": "3", "--keep-results": "172800",
    "--keep-logs": "86400", "--keep-jobs": "259200",
}  # fmt: skip


def _settings(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> Settings:
    """As `hecaton-server FLAGS install` hands them to `install`."""
    monkeypatch.setenv("HECATON_HOME", str(folder))
    context = cli.make_context("hecaton-server", [*flags, "install"])
    context.invoked_subcommand = "install"
    assert cli.callback is not None
    context.invoke(cli.callback, **context.params)
    settings = context.obj
    assert isinstance(settings, Settings)
    return settings


def test_without_flags_the_settings_are_those_of_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _settings(monkeypatch, tmp_path) == Settings(folder=tmp_path / "server")


def test_the_flags_that_are_installed_give_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = _settings(monkeypatch, tmp_path, *(word for pair in GIVEN.items() for word in pair))
    flags = _flags(cli, settings)
    assert dict(zip(flags[::2], flags[1::2], strict=True)) == GIVEN
    assert _settings(monkeypatch, tmp_path, *flags) == settings


@pytest.mark.parametrize("typed", ["hecaton", "/hecaton/", "hecaton/", "/hecaton"])
def test_a_path_is_the_same_however_its_slashes_are_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str
) -> None:
    assert _settings(monkeypatch, tmp_path, "--root-path", typed).root_path == "/hecaton"


@pytest.mark.parametrize("typed", ["/", "", "a b", "//x/../y", "/v1"])
def test_what_no_path_is_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str) -> None:
    with pytest.raises(click.BadParameter, match="no path that the server can be below"):
        _settings(monkeypatch, tmp_path, "--root-path", typed)


def test_every_option_with_a_value_is_a_setting() -> None:
    named = {option.name for option in cli.params if isinstance(option, click.Option) and not option.is_eager}
    assert named <= set(Settings.__struct_fields__)
