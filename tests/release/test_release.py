"""A release can be made: what is in its wheel, how it installs, what is said about it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

import hecaton
from tests.engine.python_image import REPOSITORY
from tests.release import artefacts, installers, notes
from tests.release.artefacts import Artefacts


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    return artefacts.build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_has_the_package_and_nothing_else(made: Artefacts) -> None:
    assert made.wheel.name == f"hecaton-{hecaton.__version__}-py3-none-any.whl"
    assert artefacts.faults(made.wheel) == []
    sources = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "hecaton").rglob("*.*")}
    wanted = {name for name in sources if name.endswith(artefacts.KINDS)}
    assert {name for name in artefacts.members(made.wheel) if name.startswith("hecaton/")} == wanted


def test_a_wheel_that_is_not_fit_for_others_is_told_from_one_that_is(made: Artefacts, tmp_path: Path) -> None:
    """Each fault that is looked for is found."""
    information = f"hecaton-{hecaton.__version__}.dist-info"
    changed = {
        f"{information}/METADATA": b"Name: hecaton\nVersion: 1.9\nRequires-Dist: fastapi\n",
        f"{information}/entry_points.txt": b"[console_scripts]\nhecaton-cli = hecaton:main\n",
        "hecaton/settings.py": f"HOME = '{REPOSITORY}/'".encode(),
        "tests/test_settings.py": b"",
        "hecaton/notes.txt": b"",
    }
    unfit = tmp_path / "unfit.whl"
    with zipfile.ZipFile(unfit, "w") as archive:
        for name, content in {**artefacts.members(made.wheel), **changed}.items():
            archive.writestr(name, content)
    found = "\n".join(artefacts.faults(unfit))
    for fault in (
        "tests/test_settings.py is neither",
        "hecaton/notes.txt is neither",
        f"hecaton/settings.py names {REPOSITORY}",
        "its version is 1.9",
        "its dependencies are not those",
        *(f"it has no command {name}" for name in artefacts.PROGRAMS),
    ):
        assert fault in found


def test_the_source_distribution_gives_the_same_wheel(made: Artefacts, tmp_path: Path) -> None:
    again = artefacts.wheel_of(made.source, tmp_path)
    assert artefacts.members(again) == artefacts.members(made.wheel)


@pytest.mark.sample(1)
@pytest.mark.parametrize("typed", installers.INSTALLERS)
def test_it_installs_and_runs_with(typed: str, made: Artefacts, tmp_path: Path) -> None:
    commands = installers.INSTALLERS[typed](made.wheel, tmp_path)
    assert {path.name for path in commands.glob("hecaton*")} == set(artefacts.PROGRAMS)
    for program in artefacts.PROGRAMS:
        assert installers.say(commands, tmp_path, f"{program} --version") == f"{program} {hecaton.__version__}\n"


def test_the_notes_are_the_newest_section_of_the_changelog() -> None:
    version, _, text = notes.newest(notes.CHANGELOG.read_text())
    assert version == hecaton.__version__
    assert text.startswith(("The ", "###"))
    changelog = "# Changelog\n\n## [2.1.0] - 2027-01-02\n\n### Fixed\n\n- This.\n\n## [2.0.0] - 2026-12-01\n\n- That.\n"
    assert notes.newest(changelog) == ("2.1.0", "2027-01-02", "### Fixed\n\n- This.\n")
    with pytest.raises(ValueError, match="no section"):
        notes.newest("# Changelog\n")


def test_the_version_is_written_in_one_place() -> None:
    """Besides the changelog, which test_repository.py compares."""
    places = [path for path in (*REPOSITORY.glob("*.toml"), *(REPOSITORY / "hecaton").rglob("*.py"))]
    line = f'version__ = "{hecaton.__version__}"'
    assert [path.name for path in places if line in path.read_text()] == ["__init__.py"]
    assert 'dynamic = ["version"]' in (REPOSITORY / "pyproject.toml").read_text()
