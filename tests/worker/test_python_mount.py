"""The mounted folder brings `hecaton.serverless` along, gives way to an installed one, and launches scripts."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import hecaton
from hecaton.worker.runtimes import python_mount

WHERE = "import hecaton, hecaton.serverless as s; print(hecaton.__version__, s.__file__)"


def run(code: str, *path: Path, python: str = sys.executable) -> str:
    """Run code in a Python that has nothing installed, with PYTHONPATH as the worker would set it."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, path))}
    done = subprocess.run([python, "-S", "-c", code], env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_brings_serverless_to_a_python_that_has_none(tmp_path: Path) -> None:
    mount = python_mount.build(tmp_path)
    assert run(WHERE, mount) == f"{hecaton.__version__} {mount}/hecaton/serverless/__init__.py"
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
    assert (built[0] / python_mount.LAUNCHER).exists()


def test_is_made_again_where_a_power_cut_has_emptied_its_files(tmp_path: Path) -> None:
    mount = python_mount.build(tmp_path)
    (mount / "hecaton/serverless/__init__.py").write_bytes(b"")
    (mount / python_mount.LAUNCHER).unlink()
    assert python_mount.build(tmp_path) == mount
    assert (mount / python_mount.LAUNCHER).exists()
    assert str(mount) in run(WHERE + "; s.start", mount)


def test_another_content_gets_another_folder(tmp_path: Path) -> None:
    """Running containers keep the folder that they were started with."""
    mount = python_mount.build(tmp_path)
    assert mount.name.startswith(f"{hecaton.__version__}-")
    assert len(mount.name) == len(hecaton.__version__) + 1 + 16


def test_the_launcher_appends_a_scripts_output_to_the_log(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\nassert __name__ == '__main__'\nprint(sys.argv)\nsys.stderr.write('warn\\n')\n"
        "os.write(1, b'raw\\n')\nsys.exit(5)"
    )
    log = tmp_path / "log"
    log.write_text("before\n")
    done = subprocess.run(
        [sys.executable, python_mount.build(tmp_path) / python_mount.LAUNCHER, script, "--epochs", "3"],
        env={"HECATON_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, b"", b"")
    assert log.read_text() == f"before\n['{script}', '--epochs', '3']\nwarn\nraw\n"
