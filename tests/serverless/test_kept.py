"""Files in the folder of outputs belong to the job that has left them there, and a result may name them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hecaton.serverless.calling import Caller
from hecaton.serverless.kept import Outputs
from hecaton.serverless.protocol import ASIDE_NAME, OUTPUTS_VARIABLE


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setenv(OUTPUTS_VARIABLE, str(folder))
    return folder


def _returned(value: Any) -> Any:
    outcome = Caller(lambda data: value).call(None, lambda item, encoded, index: None, 1 << 20)  # type: ignore[arg-type]
    assert outcome.error is None, outcome.error
    return json.loads(outcome.body)


def test_what_follows_at_once_is_not_taken_for_what_was_there_before(outputs: Path) -> None:
    """The times of a folder move in steps: two jobs may end within one."""
    looked = Outputs()
    for number in range(50):
        (outputs / "file").write_text(str(number))
        assert looked.put_aside("job", number)
        assert (outputs / ASIDE_NAME / f"job.{number}" / "file").read_text() == str(number)
        assert not looked.put_aside("none", number)


def test_without_a_folder_nothing_is_put_aside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(OUTPUTS_VARIABLE, raising=False)
    assert not Outputs().put_aside("job", 1)
    monkeypatch.setenv(OUTPUTS_VARIABLE, str(tmp_path / "absent"))
    assert not Outputs().put_aside("job", 1)


def test_paths_in_a_result_become_names_of_kept_files(outputs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "model.pt"
    elsewhere.write_text("weights")
    elsewhere.chmod(0o755)
    (outputs / "plots").mkdir()
    (outputs / "plots" / "a.png").write_text("png")
    named = _returned({"model": elsewhere, "plots": [outputs / "plots" / "a.png"], "loss": 0.1, "both": (elsewhere, 1)})
    assert named == {"model": "model.pt", "plots": ["plots/a.png"], "loss": 0.1, "both": ["model-2.pt", 1]}
    assert (outputs / "model.pt").read_text() == "weights"
    assert os.access(outputs / "model.pt", os.X_OK)
    assert elsewhere.exists(), "it is the user's"


def test_a_folder_is_kept_whole(outputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("x")
    assert _returned(folder) == "run"
    assert (outputs / "run" / "deep" / "file").read_text() == "x"
    assert _returned({"all": outputs}) == {"all": "."}, "which is kept anyway"
    assert os.listdir(outputs) == ["run"]


@pytest.mark.parametrize("bad", [Path("/no/such/file"), Path("/dev/null")])
def test_a_path_that_cannot_be_kept_is_said(outputs: Path, bad: Path) -> None:
    outcome = Caller(lambda data: {"model": bad}).call(None, lambda item, encoded, index: None, 1 << 20)  # type: ignore[arg-type]
    assert outcome.status == "result_invalid"
    assert str(bad) in (outcome.error or {})["message"]
