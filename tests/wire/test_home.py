"""Where the state of this machine is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecaton.wire.home import home


def test_hecaton_home_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HECATON_HOME", str(tmp_path))
    assert home() == tmp_path


def test_a_relative_home_is_taken_from_here_and_a_tilde_from_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HECATON_HOME", "state")
    assert home() == tmp_path / "state"
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("HECATON_HOME", "~/hecaton")
    assert home() == Path("/home/ada/hecaton")


@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_user_data_folder_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.delenv("HECATON_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("HECATON_HOME", value)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home() == tmp_path / "hecaton"
