"""`hecaton up`: in the foreground, and the copy of an installation that services run from."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from hecaton.cli import units
from hecaton.cli.hecaton.machine.place import put_in_place
from hecaton.cli.hecaton.machine.site import site_in
from tests.cli.conftest import HECATON, Invoke
from tests.e2e.commands import free_port

LAST_LINE = "It runs until Ctrl-C."


@contextmanager
def up(home: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """What it has said once all is up; stopped by Ctrl-C at the end of the block."""
    process = subprocess.Popen(
        [HECATON, "up", "--foreground", "--port", str(port), "--ip", "127.0.0.1"],
        env={**os.environ, "HECATON_HOME": str(home), "DOCKER_HOST": "unix:///nonexistent"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    with process:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1] == LAST_LINE:
                break
        try:
            assert lines[-1:] == [LAST_LINE], lines
            yield process, lines
        finally:
            process.send_signal(signal.SIGINT)
            lines.extend(process.communicate()[0].splitlines())


def _after(lines: list[str], word: str) -> str:
    (found,) = [line.strip().removeprefix(word).strip() for line in lines if line.strip().startswith(word)]
    return found


def test_in_the_foreground_all_is_there_until_ctrl_c_and_again_with_fresh_lines(invoke: Invoke, tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path / "site", port) as (process, first):
        assert "no Docker engine answers here. Install it: curl" in "\n".join(first)
        made = next(place for place, line in enumerate(first) if "Made the user `admin`" in line)
        assert made < next(place for place, line in enumerate(first) if line.startswith("  worker")), "before it fails"
        assert not (tmp_path / "site" / "up-server.log").stat().st_mode & 0o077
        assert invoke("join", _after(first, "hecaton join"), "--name", "lab").code == 0
        piped = subprocess.run([HECATON, "join", "-"], input="127.0.0.1:1/-/login.x\n", text=True, capture_output=True)
        assert "127.0.0.1:1" in piped.stderr, "the line was read"
        assert _after(first, "login").endswith(" on this machine, as admin. Next: hecaton run train.py")
        own = {**os.environ, "HECATON_HOME": str(tmp_path / "site")}
        assert "admin" in subprocess.check_output([HECATON, "user", "list"], env=own, text=True)
        assert f"127.0.0.1:{port}/" in _after(first, 'sudo "$(command -v hecaton-gpu)" install')
    assert process.returncode == 0
    assert "Their data stays" in first[-1]
    with up(tmp_path / "site", port) as (_, second):
        assert not any("Made the user" in line for line in second)
        assert _after(second, "server") == _after(first, "server")  # the same certificate
        assert invoke("join", _after(second, "hecaton join"), "--name", "lab").code == 0


def test_a_terminal_that_is_closed_leaves_nothing_running(tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path / "site", port) as (process, _):
        process.send_signal(signal.SIGHUP)
        process.wait(60)
    assert process.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_worker_of_this_machine_registers_with_nothing_secret_in_its_command_line(tmp_path: Path) -> None:
    port = free_port()
    handler = tmp_path / "handler.py"
    handler.write_text("from hecaton.serverless import start; start(print)\n")
    with up(tmp_path / "site", port):
        site = site_in(tmp_path / "site", port, "127.0.0.1")
        words = ["run", site.local, "--name", "here", "--runtime", "process", "--handler", f"demo:1={handler}"]
        command = units.python_command("hecaton.cli.hecaton_gpu.main", *words)
        environment = {
            **os.environ,
            "HECATON_HOME": str(tmp_path / "worker"),
            "PYTHONUNBUFFERED": "1",
            **site.worker_secrets,
        }
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            try:
                assert any(line.split() == ["worker", "here"] for line in worker.stdout), "it is registered"
            finally:
                worker.terminate()


def test_who_cannot_start_the_server_says_why(tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path / "first", port):
        command = [str(HECATON), "up", "--foreground", "--port", str(port)]
        environment = {**os.environ, "HECATON_HOME": str(tmp_path / "second"), "DOCKER_HOST": "unix:///nonexistent"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9
    assert "Is another server running there?" in done.stderr


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placed")
    (folder / "bin").mkdir()
    (folder / "bin" / "hecaton-gpu").write_text("somebody else's")
    umask = os.umask(0o077)
    try:
        assert put_in_place(folder / "hecaton", folder / "bin")
    finally:
        os.umask(umask)
    return folder


def test_all_may_run_what_root_has_put_in_place_whatever_its_umask(placed: Path) -> None:
    folder = placed / "hecaton"
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    assert not [path for path in paths if path.stat().st_mode & 0o044 != 0o044]
    assert not [path for path in paths if path.is_dir() and path.stat().st_mode & 0o011 != 0o011]
    assert not [path for path in paths if path.stat().st_mode & 0o022]


def _run(program: Path, *arguments: str) -> str:
    clean = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "HECATON_HOME": "/nonexistent"}
    return subprocess.run([program, *arguments], env=clean, capture_output=True, text=True, check=True, cwd="/").stdout


def test_an_installation_is_copied_whole_and_needs_the_first_one_no_more(placed: Path) -> None:
    assert _run(placed / "bin" / "hecaton", "--version").startswith("hecaton ")
    for program in ("hecaton", "hecaton-server", "hecaton-gpu"):
        assert "Usage" in _run(placed / "hecaton" / "bin" / program, "--help")
    modules = "hecaton.server.app, hecaton.worker.app, hecaton"
    where = _run(
        placed / "hecaton" / "bin" / "python", "-c", f"import sys, {modules}; print(sys.path, hecaton.__file__)"
    )
    assert str(placed / "hecaton") in where
    assert sys.prefix + "/" not in where.replace(str(placed), "")


def test_what_is_compiled_comes_along(placed: Path) -> None:
    """As much as there is: pip compiles what it installs, and that is more than a start imports."""
    (packages,) = placed.glob("hecaton/lib/python3*/site-packages")
    there = {path.name for path in Path(aiohttp.__file__).parent.glob("__pycache__/*.pyc")}
    assert {path.name for path in packages.glob("aiohttp/__pycache__/*.pyc")} >= there


def test_a_python_in_a_home_folder_is_told(
    placed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = (placed / "hecaton" / "bin" / "python").resolve()
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("HOME", str(python.parent))
    put_in_place(tmp_path / "hecaton", tmp_path / "bin")
    said = capsys.readouterr().err
    assert f"services run with {python}, in somebody's home folder" in said
    assert "then: hecaton up" in said


def test_what_is_there_stays_what_is_the_same_and_what_is_somebody_elses(placed: Path) -> None:
    before = (placed / "hecaton").stat().st_ino
    assert not put_in_place(placed / "hecaton", placed / "bin")
    assert (placed / "hecaton").stat().st_ino == before
    assert (placed / "bin" / "hecaton-gpu").read_text() == "somebody else's"
    (placed / "hecaton" / "installation").write_text("another release\n")
    assert put_in_place(placed / "hecaton", placed / "bin")
    assert re.match(r"hecaton \d", _run(placed / "bin" / "hecaton", "--version"))
    assert sorted(path.name for path in placed.iterdir()) == ["bin", "hecaton"]
