"""`hecaton-gpu` up to the point where the worker runs: options, credentials, errors, the unit it would install."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hecaton.cli.hecaton_gpu import main as gpu
from hecaton.cli.hecaton_gpu import options as gpu_options
from hecaton.cli.hecaton_gpu import worker as gpu_worker
from hecaton.cli.hecaton_gpu.options import WorkerOptions, unit_name
from hecaton.core.errors import Conflict
from hecaton.wire.reach.address import resolve
from hecaton.worker.link import registration
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.memory import journal
from tests.worker.test_registration import Server, address, home, server

__all__ = ["address", "home", "server"]


def hecaton_gpu(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a real process."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hecaton.cli.hecaton_gpu.main", *arguments],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def options(server: str, **changes: object) -> WorkerOptions:
    fields: dict[str, object] = {
        "server": server,
        "line": None,
        "name": "box",
        "unit": "hecaton-gpu",
        "runtime": "docker",
        "handlers": {},
        "slots": 1,
        "idle_timeout": 900.0,
        "drain_timeout": 30.0,
        "startup_timeout": 600.0,
        "grace": 30.0,
        "shm_size": 1 << 30,
        "ca_file": None,
        "token": None,
        "username": None,
        "password": None,
    }
    return WorkerOptions(**(fields | changes))  # type: ignore[arg-type]


class TestCommandLine:
    def test_knows_the_commands_of_the_readme(self) -> None:
        assert {"install", "uninstall", "start", "stop", "restart", "status", "logs", "run"} <= set(gpu.cli.commands)
        logs = {option for param in gpu.cli.commands["logs"].params for option in param.opts}
        assert {"-f", "-n"} <= logs

    def test_help_shows_examples_and_the_version_is_the_packages(self) -> None:
        code, said, _ = hecaton_gpu("--help")
        assert code == 0
        assert "sudo hecaton-gpu install 192.168.1.5:8181" in said
        assert hecaton_gpu("--version") == (0, "hecaton-gpu 2.0.0\n", "")

    def test_completes_in_a_shell(self) -> None:
        request = {"_HECATON_GPU_COMPLETE": "bash_complete", "COMP_WORDS": "hecaton-gpu sta", "COMP_CWORD": "1"}
        assert hecaton_gpu(**request)[1].split() == ["plain,start", "plain,status"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["run"], "Missing argument 'SERVER_IP|LINE'"),
            (["run", "x", "--handler", "noise"], "is not NAME=PATH"),
            (["run", "x", "--handler", "a=/no/such.py"], "there is no file /no/such.py"),
            (["run", "x", "--runtime", "process"], "give --handler NAME=PATH"),
            (["run", "x", "--handler", f"a={__file__}"], "--handler needs --runtime process"),
            (["run", "x", "--shm-size", "much"], "is not a size, for example 512m or 2g"),
            (["run", "x", "--slots", "0"], "0 is not in the range"),
            (["run", "x", "--name", "a b"], "is not a name for a worker"),
            (["run", "http://x/pa%th"], "has a path"),
            (["logs", "-n", "some"], "not a valid integer"),
        ],
    )
    def test_bad_input_is_one_line_and_exit_code_2(self, home: Path, arguments: list[str], message: str) -> None:
        code, said, error = hecaton_gpu(*arguments)
        assert (code, said) == (2, "")
        assert error.startswith("Error: ")
        assert message in error
        assert "Traceback" not in error

    def test_commands_of_a_service_that_is_not_there_say_so(self) -> None:
        for command in ("status", "logs"):
            code, said, error = hecaton_gpu(command, "--name", "no-such")
            assert (code, said) == (6, "")
            assert "the service hecaton-gpu-no-such is not installed on this machine" in error

    @pytest.mark.parametrize(("text", "size"), [("512m", 512 << 20), ("2g", 2 << 30), ("2GB", 2 << 30), ("4096", 4096)])
    def test_sizes(self, text: str, size: int) -> None:
        assert gpu_options.Size().convert(text, None, None) == size

    def test_a_handlers_name_may_hold_a_tag(self) -> None:
        assert gpu_options.Handler().convert(f"demo:1={__file__}", None, None) == ("demo:1", Path(__file__))
        with pytest.raises(click.BadParameter):
            gpu_options.Handler().convert("=x", None, None)

    def test_each_worker_has_a_service_of_its_own(self) -> None:
        assert [unit_name(None), unit_name("second"), unit_name("me@box")] == [
            "hecaton-gpu",
            "hecaton-gpu-second",
            "hecaton-gpu-me_box",
        ]


class TestIdentity:
    def test_without_a_terminal_missing_credentials_are_named(self, address: str, home: Path) -> None:
        code, _, error = hecaton_gpu("run", address)
        assert code == 2
        assert "--username is missing, and there is no terminal to ask on" in error
        assert "HECATON_USERNAME" in error
        assert "--password is missing" in hecaton_gpu("run", address, HECATON_USERNAME="w")[2]

    def test_on_a_terminal_they_are_asked_for(self, server: Server, address: str, home: Path) -> None:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-P", "-m", "hecaton.cli.hecaton_gpu.main", "run", address, "--name", "box"]
        with subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, start_new_session=True) as process:
            assert process.stderr is not None
            said = b""
            for prompt, answer in ((b"Username: ", b"w\n"), (b"Password: ", b"wrong\n")):
                while not said.endswith(prompt):
                    said += process.stderr.read1(1) or pytest.fail(said.decode())  # type: ignore[attr-defined]
                os.write(ours, answer)
            said += process.stderr.read()
        os.close(ours)
        os.close(theirs)
        assert server.requests[0][:2] == ("/v1/login", {"username": "w", "password": "wrong"})
        assert process.returncode == 5
        assert b"wrong user name or password" in said

    def test_plain_http_is_warned_about(self, address: str, home: Path) -> None:
        assert "Warning: " in hecaton_gpu("run", address)[2]

    def test_a_registered_worker_needs_no_credentials(self, server: Server, address: str, home: Path) -> None:
        first = gpu_worker.identity(options(address, username="w", password="secret password"))
        server.requests.clear()
        assert gpu_worker.identity(options(address)) == first
        assert gpu_worker.identity(options(address, token="user token")) == first
        assert server.requests == []

    def test_one_that_was_removed_on_the_server_is_registered_again(
        self, server: Server, address: str, home: Path
    ) -> None:
        gpu_worker.identity(options(address, token="user token"))
        server.taken.clear()
        server.knows_worker = False
        gpu_worker.identity(options(address, token="user token"))
        assert server.taken == {"box"}

    def test_a_worker_of_another_server_is_not_taken_over(self, address: str, home: Path) -> None:
        registration.register(resolve(f"http://{address}"), "box", token="user token")
        with pytest.raises(Conflict, match="'box' of this machine is registered with http://127"):
            gpu_worker.identity(options("other.example.com"))


def test_the_service_runs_this_installation_without_credentials(tmp_path: Path, home: Path) -> None:
    config = WorkerConfig("box", "https://gpu.example.com:8181", "id", "worker token", tmp_path)
    service = gpu_worker.service(
        options("gpu.example.com", runtime="process", handlers={"demo:1": tmp_path / "my handler.py"}, token="secret"),
        config,
    )
    assert service.command[:7] == (
        sys.executable, "-P", "-m", "hecaton.cli.hecaton_gpu.main", "run", "https://gpu.example.com:8181", "--name"
    )  # fmt: skip
    assert f"demo:1={tmp_path}/my handler.py" in service.command
    assert service.environment["HECATON_HOME"] == str(home)
    assert "secret" not in str(service)
    assert "worker token" not in str(service)


def test_the_service_waits_for_the_engine_of_its_runtime_and_knows_where_it_is(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    config = WorkerConfig("box", "https://gpu.example.com:8181", "id", "worker token", tmp_path)
    docker, process = (gpu_worker.service(options("x", runtime=name), config) for name in ("docker", "process"))
    assert docker.after == ("network-online.target", "docker.service")
    assert docker.environment["DOCKER_HOST"] == "unix:///run/other.sock"
    assert process.after == ("network-online.target",)
    assert "DOCKER_HOST" not in process.environment


def test_the_service_may_take_as_long_to_stop_as_its_jobs_may(tmp_path: Path, home: Path) -> None:
    config = WorkerConfig("box", "https://gpu.example.com:8181", "id", "worker token", tmp_path)
    service = gpu_worker.service(options("gpu.example.com", drain_timeout=3600.0), config)
    assert service.command[service.command.index("--drain-timeout") + 1] == "3600"
    assert service.stop_seconds > 3600


def test_a_worker_whose_journal_is_newer_than_it_is_not_started_again_by_its_service(home: Path, address: str) -> None:
    config = registration.register(resolve(f"http://{address}"), "box", token="user token")
    (config.folder / "journal").write_bytes(journal.MAGIC + bytes((journal.VERSION + 1,)))
    code, _, error = hecaton_gpu("run", address, "--name", "box", "--runtime", "process", "--handler", f"x={__file__}")
    assert "was written by a newer release" in error
    assert "Upgrade this worker" in error
    assert code in gpu_worker.service(options(address), config).final_codes
    assert code != 0


def test_without_an_engine_it_says_what_to_do(home: Path, address: str) -> None:
    code, said, error = hecaton_gpu(
        "run", address, "--name", "box", HECATON_TOKEN="user token", DOCKER_HOST="unix:///no/such.sock"
    )
    assert (code, said) == (9, "")
    assert "cannot be reached" in error
    assert "Is Docker installed and running" in error


def test_a_machine_without_systemd_can_run_but_not_install(home: Path) -> None:
    code, _, error = hecaton_gpu("install", "localhost:8181")
    assert code != 0
    assert "systemd" in error or "root" in error


def test_bad_credentials_are_never_shown(address: str, home: Path) -> None:
    said = hecaton_gpu("run", address, "--username", "w", "--password", "my secret")
    assert said[0] == 5
    assert "my secret" not in said[1] + said[2]
