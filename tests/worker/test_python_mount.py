"""The mounted folder brings `hecaton.serverless` along and no other name; it gives way to a package from 2.0 on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import hecaton
from hecaton.worker.runtimes import python_mount
from hecaton.worker.runtimes.port import PYTHON_TARGET
from hecaton.worker.runtimes.python_mount import SHELL_LAUNCHER

LAUNCHER = Path(SHELL_LAUNCHER).relative_to(PYTHON_TARGET)
WHERE = "import hecaton, hecaton.serverless as s; print(hecaton.__version__, s.__file__)"


def ran(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that has nothing installed, with PYTHONPATH as the worker would set it."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, path))}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def run(code: str, *path: Path) -> str:
    """What it prints."""
    return ran(code, *path).stdout.strip()


def test_brings_serverless_to_a_python_that_has_none(tmp_path: Path) -> None:
    mount = python_mount.build(tmp_path)
    done = ran(WHERE, mount)
    assert done.stdout == f"{hecaton.__version__} {mount}/hecaton/serverless/__init__.py\n"
    assert done.stderr == ""
    assert (
        run("from hecaton.serverless import start, progress, ServerLessInput; print('all there')", mount) == "all there"
    )


def test_gives_way_to_the_images_own_package(tmp_path: Path) -> None:
    own = tmp_path / "site"
    (own / "hecaton/serverless").mkdir(parents=True)
    (own / "hecaton/__init__.py").write_text("__version__ = '2.7.1'")
    (own / "hecaton/serverless/__init__.py").write_text("")
    mount = python_mount.build(tmp_path)
    assert run(WHERE, mount, own) == f"2.7.1 {own}/hecaton/serverless/__init__.py"
    assert run("import hecaton.serverless, sys; print(sys.modules['hecaton'].__file__)", mount, own).startswith(
        str(own)
    )


@pytest.mark.parametrize(
    ("text", "installed", "older"),
    [
        ("__version__ = '1.0.1'", None, True),
        ('from hecaton.all import *\n__version__: str = "0.9"', None, True),
        ("raise SystemExit('never run')", "1.0.1.dist-info", True),
        ("raise SystemExit('never run')", "1.0-py3.9.egg-info", True),
        ("from importlib.metadata import version\n__version__ = version('hecaton')", "1.0.1.dist-info", True),
        ("", "2.0.0.dist-info", False),
        ("__version__ = '2.1'", "1.0.1.dist-info", False),
        ("", None, False),
    ],
)
def test_passes_over_one_that_is_older_than_2(tmp_path: Path, text: str, installed: str | None, older: bool) -> None:
    """Read, not run. What says no version is somebody's own package."""
    own = tmp_path / "site"
    (own / "hecaton/serverless").mkdir(parents=True)
    (own / "hecaton/__init__.py").write_text(text)
    (own / "hecaton/serverless/__init__.py").write_text("")
    if installed is not None:
        (own / f"hecaton-{installed}").mkdir()
    mount = python_mount.build(tmp_path)
    assert run("import hecaton.serverless as s; print(s.__file__)", mount, own).startswith(str(mount if older else own))


@pytest.mark.parametrize(
    ("text", "installed"),
    [("", "hecaton-1.0.1.dist-info"), ("", "hecaton-1.0.1-py3.9.egg-info"), ("__version__ = '1.0.1'  # old\n", None)],
)
def test_says_once_what_it_has_passed_over(tmp_path: Path, text: str, installed: str | None) -> None:
    """As the index has it: `hecaton/serverless.py` beside an `__init__.py` with nothing in it. The processes that a
    handler starts say it no more."""
    own = tmp_path / "site"
    (own / "hecaton").mkdir(parents=True)
    (own / "hecaton/__init__.py").write_text(text)
    (own / "hecaton/serverless.py").write_text("raise FileNotFoundError('/shared')")
    if installed is not None:
        (own / installed).mkdir()
    again = "; import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import hecaton.serverless'])"
    said = ran(WHERE + again, python_mount.build(tmp_path), own).stderr
    assert said == (
        "hecaton: the image has hecaton 1.0.1, another program; the worker's own hecaton.serverless is used\n"
    )


def test_puts_no_name_on_the_path_but_its_own(tmp_path: Path) -> None:
    assert os.listdir(python_mount.build(tmp_path)) == ["hecaton"]


def test_is_not_fooled_by_a_folder_that_happens_to_be_called_hecaton(tmp_path: Path) -> None:
    (tmp_path / "app/hecaton").mkdir(parents=True)
    mount = python_mount.build(tmp_path)
    assert str(mount) in run(WHERE, mount, tmp_path / "app")


def test_is_readable_for_everyone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        mount = python_mount.build(tmp_path)
    finally:
        os.umask(before)
    for path in (mount.parent, mount, *mount.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_is_built_once_and_whole_also_by_two_workers_at_once(tmp_path: Path) -> None:
    built: list[Path] = []
    threads = [threading.Thread(target=lambda: built.append(python_mount.build(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 8
    assert [str(path) for path in built[0].parent.iterdir()] == [str(built[0])]
    assert (built[0] / LAUNCHER).exists()


def test_is_made_again_where_a_power_cut_has_emptied_its_files(tmp_path: Path) -> None:
    mount = python_mount.build(tmp_path)
    (mount / "hecaton/serverless/__init__.py").write_bytes(b"")
    (mount / LAUNCHER).unlink()
    assert python_mount.build(tmp_path) == mount
    assert (mount / LAUNCHER).exists()
    assert str(mount) in run(WHERE + "; s.start", mount)


def test_another_content_gets_another_folder(tmp_path: Path) -> None:
    """Running containers keep the folder that they were started with."""
    mount = python_mount.build(tmp_path)
    assert mount.name.startswith(f"{hecaton.__version__}-")
    assert len(mount.name) == len(hecaton.__version__) + 1 + 16
