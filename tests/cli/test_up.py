"""`hecaton up`: in the foreground, and the copy of an installation that services run from."""

from __future__ import annotations

import grp
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PathDistribution
from pathlib import Path

import aiohttp
import pytest

import hecaton
from hecaton.cli import units
from hecaton.cli.hecaton.machine import site as machine_site
from hecaton.cli.hecaton.machine.place import _copy, origin, put_in_place
from hecaton.cli.hecaton.machine.site import admin_of, site_in
from hecaton.client import Client
from hecaton.core.errors import HecatonError
from hecaton.wire.reach.tls import Untrusted
from tests.cli.conftest import HECATON, Invoke
from tests.client.certificates import self_signed
from tests.client.scripted import ScriptedServer
from tests.e2e.commands import free_port

LAST_LINE = "It runs until Ctrl-C."
NO_ENGINE = "unix:///nonexistent"


@contextmanager
def up(home: Path, port: int, **environment: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """What it has said once all is up; stopped by Ctrl-C at the end of the block."""
    process = subprocess.Popen(
        [HECATON, "up", "--foreground", "--port", str(port), "--ip", "127.0.0.1"],
        env={**os.environ, "HECATON_HOME": str(home), "DOCKER_HOST": NO_ENGINE, **environment},
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
        assert f"no Docker engine answers here. DOCKER_HOST is {NO_ENGINE}" in "\n".join(first)
        made = next(place for place, line in enumerate(first) if "Made the user `admin`" in line)
        assert made < next(place for place, line in enumerate(first) if line.startswith("  worker")), "before it fails"
        assert not (tmp_path / "site" / "up-server.log").stat().st_mode & 0o077
        assert invoke("join", _after(first, "hecaton join"), "--name", "lab").code == 0
        piped = subprocess.run([HECATON, "join", "-"], input="127.0.0.1:1/-/login.x\n", text=True, capture_output=True)
        assert "127.0.0.1:1" in piped.stderr, "the line was read"
        assert _after(first, "login").endswith(" on this machine, as admin."), "no job would run"
        own = {**os.environ, "HECATON_HOME": str(tmp_path / "site")}
        assert "admin" in subprocess.check_output([HECATON, "user", "list"], env=own, text=True)
        assert f"127.0.0.1:{port}/" in _after(first, 'sudo "$(command -v hecaton-gpu)" install')
    assert process.returncode == 0
    assert "Their data stays" in first[-1]
    with up(tmp_path / "site", port, HECATON_ADMIN_PASS="another-password") as (_, second):
        assert not any("Made the user" in line for line in second)
        assert "HECATON_ADMIN_PASS is not used: there is an admin already, with another password." in second
        assert _after(second, "server") == _after(first, "server")  # the same certificate
        assert invoke("join", _after(second, "hecaton join"), "--name", "lab").code == 0


def test_a_terminal_that_is_closed_leaves_nothing_running(tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path / "site", port, HECATON_ADMIN_PASS="a-password-of-mine") as (process, said):
        assert not any("password" in line for line in said), "it is the one that was given"
        site = site_in(tmp_path / "site", port, "127.0.0.1")
        with Client(f"https://{site.local}", ca_file=site.certificate) as client:
            assert client.login("admin", "a-password-of-mine").role == "admin"
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
    assert done.returncode == 7
    assert f"another program listens on 0.0.0.0 port {port} already" in done.stderr


def test_another_server_at_the_port_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_site, "START_PATIENCE", 3600.0)
    context, _ = self_signed(tmp_path)
    with ScriptedServer(context) as other:
        site = site_in(tmp_path / "site", other.port, "127.0.0.1")
        with pytest.raises(Untrusted, match="has changed"):
            admin_of(site, lambda: None)


INTERRUPTED = """
import signal
from pathlib import Path
from hecaton.cli.hecaton_server.unit import make_admin
from hecaton.server.app import Server

made = Server.ensure_admin

async def interrupted(server, password):
    invented = await made(server, password)
    signal.raise_signal(signal.SIGINT)
    return invented

Server.ensure_admin = interrupted
make_admin(Path("site"))
"""


def test_who_interrupts_while_the_admin_is_made_still_sees_his_password(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, capture_output=True, text=True)
    assert re.search(r"Its password, shown only this once:\n  \S{10,}\n", done.stderr)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


@pytest.fixture
def socket_of_others() -> Iterator[Path]:
    """Of an engine that listens, in a folder that everybody may look into."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, socket.socket(socket.AF_UNIX) as listening:
        Path(name).chmod(0o755)
        listening.bind(f"{name}/docker.sock")
        listening.listen()
        Path(name, "docker.sock").chmod(0)
        yield Path(name, "docker.sock")


IMPORT = "from hecaton.cli.hecaton.demo.engine import find_engine"


def _as_nobody(code: str, **environment: str) -> str:
    """As somebody who is not root; for who is not root anyway, as himself."""
    become = "os.setgroups([]), os.setgid(65534), os.setuid(65534)" if os.geteuid() == 0 else ""
    command = [sys.executable, "-c", f"import os, pwd\n{IMPORT}\n{become}\n{code}"]
    return subprocess.check_output(command, env={**os.environ, **environment}, text=True)


def test_an_engine_that_one_may_not_use_is_no_missing_one(socket_of_others: Path) -> None:
    code = "print(find_engine())"
    where = f"unix://{socket_of_others}"
    group = grp.getgrgid(socket_of_others.stat().st_gid).gr_name
    if os.geteuid() == 0:
        assert f"{socket_of_others} is not for your groups" in _as_nobody(code, DOCKER_HOST=where)
        os.chown(socket_of_others, 0, 1)
        group = grp.getgrgid(1).gr_name
    you = _as_nobody("print(pwd.getpwuid(os.geteuid()).pw_name)").strip()
    said = _as_nobody(code, DOCKER_HOST=where)
    assert f"the user {you} may not use the Docker engine: that takes the group {group}" in said
    assert f"Type: sudo usermod -aG {group} {you} && newgrp {group}" in said
    socket_of_others.parent.chmod(0o700)
    if os.geteuid() == 0:
        assert "Name your own one (DOCKER_HOST)" in _as_nobody(code, DOCKER_HOST=where)


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


def test_what_is_there_stays_what_is_the_same_and_what_is_somebody_elses(
    placed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (placed / "hecaton").stat().st_ino
    assert not put_in_place(placed / "hecaton", placed / "bin")
    assert (placed / "hecaton").stat().st_ino == before
    assert (placed / "bin" / "hecaton-gpu").read_text() == "somebody else's"
    (placed / "hecaton" / "installation").write_text("hecaton 1.9.9, Python 3.11, 0\n")
    assert put_in_place(placed / "hecaton", placed / "bin")
    version = hecaton.__version__
    assert f"{placed}/hecaton is brought up to date: 1.9.9 before, {version} now." in capsys.readouterr().err
    assert re.match(r"hecaton \d", _run(placed / "bin" / "hecaton", "--version"))
    assert sorted(path.name for path in placed.iterdir()) == ["bin", "hecaton"]


def test_the_copy_knows_what_it_came_from_while_that_is_there_and_is_no_third_ones(
    placed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert origin(placed / "hecaton") == Path(sys.executable)
    (place := tmp_path / "place").mkdir()
    assert origin(place) is None
    (place / "origin").write_text(f"{tmp_path}/bin/python\n")
    assert origin(place) is None
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert origin(place) is None, "hecaton is not there any more"
    program.write_text("#!/bin/sh\n")
    assert origin(place) == program
    if os.geteuid() == 0:
        os.chown(program.parent, 4242, 4242)
        assert origin(place) is None
        monkeypatch.setenv("SUDO_UID", "4242")
        assert origin(place) == program


def test_a_package_whose_files_nobody_knows_is_named(tmp_path: Path) -> None:
    (info := tmp_path / "odd-1.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    with pytest.raises(HecatonError, match="cannot copy the package odd: what has installed it has noted no list"):
        _copy(PathDistribution(info), tmp_path)
