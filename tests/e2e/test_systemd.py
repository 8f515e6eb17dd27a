"""`hecaton-gpu` as a service of a real systemd, with a real server: from install to uninstall."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.core.model import Charged, JobState, Reason, Role
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import WorkerView
from tests.engine.daemon import docker
from tests.engine.needs import EngineError
from tests.engine.systemd import SystemdContainer, systemd_container

pytestmark = pytest.mark.sample(2)

HANDLER = b"""
import os, time
from hecaton.serverless import start

def handler(data):
    wait = isinstance(data.input, dict) and data.input.get("wait")
    if wait:
        with open(wait + ".seen", "a") as file:
            print("begun", file=file)
        while not os.path.exists(wait):
            time.sleep(0.05)
    return {"got": data.input}

start(handler)
"""
PASSWORD = "the worker user's password"


class Machine:
    """A machine with systemd on which root types commands."""

    def __init__(self, container: SystemdContainer) -> None:
        self._container = container

    def sh(self, line: str) -> str:
        """stdout and stderr; EngineError with both when it fails."""
        return self._container.run("sh", "-c", f"{{ {line}; }} 2>&1")

    def fails(self, line: str) -> str:
        with pytest.raises(EngineError) as error:
            self.sh(line)
        return str(error.value)

    def write(self, path: str, content: bytes) -> None:
        self._container.run("sh", "-c", f"cat > {path}", stdin=content)

    def until_off(self) -> None:
        """EngineError if it does not go down."""
        docker("wait", self._container.name, timeout=90)

    def follow_logs(self) -> subprocess.Popen[str]:
        command = ["docker", "exec", self._container.name, "hecaton-gpu", "logs", "-f", "-n", "0"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path / "cluster") as cluster:
        cluster.client().create_user("gpu-user", PASSWORD, Role.WORKER)
        cluster.register("demo:1")
        yield cluster


@pytest.fixture
def machine(engine: str) -> Iterator[Machine]:
    with systemd_container("--network=host") as container:
        machine = Machine(container)
        machine.write("/opt/handler.py", HANDLER)
        yield machine


@pytest.fixture
def login() -> str:
    return f"HECATON_USERNAME=gpu-user HECATON_PASSWORD={shlex.quote(PASSWORD)}"


@pytest.fixture
def install(cluster: LocalCluster) -> str:
    return f"hecaton-gpu install {cluster.url} --runtime process --handler demo:1=/opt/handler.py"


def only_worker(client: Client, condition: Callable[[WorkerView], bool]) -> WorkerView:
    """The one worker, as soon as it is so."""
    deadline = time.monotonic() + 30
    while True:
        (worker,) = client.workers()
        if condition(worker):
            return worker
        assert time.monotonic() < deadline, worker
        time.sleep(0.05)


def test_a_worker_lives_as_a_service(cluster: LocalCluster, machine: Machine, login: str, install: str) -> None:
    client = cluster.client()

    said = machine.sh(f"{login} {install}")
    assert "Installed the service hecaton-gpu" in said
    assert f"It runs and is connected to {cluster.url}." in said
    worker = only_worker(client, lambda worker: worker.status == "ONLINE")
    assert client.submit("demo:1", {"n": 1}).result(timeout=30) == {"got": {"n": 1}}

    status = json.loads(machine.sh("hecaton-gpu status --json"))
    assert (status["active"], status["enabled"]) == ("active", True)
    assert f"connected to {cluster.url}" in machine.sh("hecaton-gpu status")
    assert "Connected to the server" in machine.sh("hecaton-gpu logs -n 20")
    assert len(machine.sh("hecaton-gpu logs -n 1").splitlines()) == 1

    with machine.follow_logs() as following:
        assert following.stdout is not None
        # The server's log of this moment: restarting makes the worker say something.
        assert "hecaton-gpu: active" in machine.sh("hecaton-gpu restart")
        assert following.stdout.readline()
        following.terminate()
    again = json.loads(machine.sh("hecaton-gpu status --json"))
    assert again["active"] == "active"
    assert again["pid"] != status["pid"]
    assert client.submit("demo:1", {"n": 2}).result(timeout=30) == {"got": {"n": 2}}

    assert "hecaton-gpu: inactive" in machine.sh("hecaton-gpu stop")
    assert machine.sh("hecaton-gpu status; echo exit code $?").splitlines()[-1] == "exit code 3"
    only_worker(client, lambda worker: worker.status == "OFFLINE")
    machine.sh("hecaton-gpu start")
    assert only_worker(client, lambda worker: worker.status == "ONLINE").id == worker.id

    assert "is connected" in machine.sh(f"{install} </dev/null"), "a registered worker needs no login"

    machine.sh("hecaton-gpu uninstall")
    assert "is not installed on this machine" in machine.fails("hecaton-gpu status")
    assert machine.sh("ls /etc/systemd/system /etc/systemd/system/*.wants | grep hecaton || echo none") == "none"
    only_worker(client, lambda worker: worker.status == "OFFLINE")
    assert machine.sh("grep --text --files-with-matches '[h]andler.py' /proc/[1-9]*/cmdline || echo none") == "none"


def test_a_handler_outlives_its_worker_that_is_killed(
    cluster: LocalCluster, machine: Machine, login: str, install: str
) -> None:
    client = cluster.client()
    machine.sh(f"{login} {install}")
    job = client.submit("demo:1", {"wait": "/tmp/go"})
    machine.sh("until test -e /tmp/go.seen; do sleep 0.1; done")
    before = json.loads(machine.sh("hecaton-gpu status --json"))["pid"]
    machine.sh(f"kill -9 {before}")
    machine.sh(f"until hecaton-gpu status --json | grep -q active && ! test -e /proc/{before}; do sleep 0.1; done")
    machine.sh("touch /tmp/go")
    assert job.result(timeout=60) == {"got": {"wait": "/tmp/go"}}
    assert job.view().attempt == 1
    assert machine.sh("cat /tmp/go.seen") == "begun"


@pytest.mark.parametrize(
    "restart", ["hecaton-gpu restart", "systemctl restart hecaton-gpu", "{install} --grace 20 </dev/null"]
)
def test_a_restart_is_no_stop(cluster: LocalCluster, machine: Machine, login: str, install: str, restart: str) -> None:
    """Whoever orders it: the job that runs goes on, and its process is the next worker's."""
    client = cluster.client()
    machine.sh(f"{login} {install} --drain-timeout 0")
    job = client.submit("demo:1", {"wait": "/tmp/go"})
    machine.sh("until test -e /tmp/go.seen; do sleep 0.1; done")
    before = json.loads(machine.sh("hecaton-gpu status --json"))["pid"]
    machine.sh(restart.format(install=install))
    assert json.loads(machine.sh("hecaton-gpu status --json"))["pid"] != before
    machine.sh("touch /tmp/go")
    assert job.result(timeout=60) == {"got": {"wait": "/tmp/go"}}
    assert job.view().attempt == 1
    assert machine.sh("cat /tmp/go.seen") == "begun"


def test_a_stop_is_no_restart(cluster: LocalCluster, machine: Machine, login: str, install: str) -> None:
    client = cluster.client()
    machine.sh(f"{login} {install} --drain-timeout 0")
    job = client.submit("demo:1", {"wait": "/tmp/go"})
    machine.sh("until test -e /tmp/go.seen; do sleep 0.1; done")
    machine.sh("systemctl stop hecaton-gpu")
    assert machine.sh("grep --text --files-with-matches '[h]andler.py' /proc/[1-9]*/cmdline || echo none") == "none"
    assert job.view().state is JobState.IN_QUEUE
    assert [attempt.charged for attempt in job.view().attempts] == [Charged.NONE]


def test_a_machine_that_goes_down_is_not_held_up_and_nobody_pays(
    cluster: LocalCluster, machine: Machine, login: str, install: str
) -> None:
    """With a drain time-out of a day."""
    client = cluster.client()
    machine.sh(f"{login} {install} --drain-timeout 86400")
    job = client.submit("demo:1", {"wait": "/tmp/go"})
    machine.sh("until test -e /tmp/go.seen; do sleep 0.1; done")
    machine.sh("systemctl poweroff --no-block")
    machine.until_off()
    assert job.view().state is JobState.IN_QUEUE
    assert [(attempt.reason, attempt.charged) for attempt in job.view().attempts] == [(Reason.RELEASED, Charged.NONE)]


def test_the_login_is_kept_nowhere(cluster: LocalCluster, machine: Machine, login: str, install: str) -> None:
    machine.sh(f"{login} {install}")
    secret = shlex.quote(PASSWORD)
    assert machine.sh(f"grep -r {secret} /etc/systemd /var/lib/hecaton /run/log || echo nowhere") == "nowhere"
    kept = machine.sh(
        "stat -c '%a %n' /var/lib/hecaton /var/lib/hecaton/worker/*/ /var/lib/hecaton/worker/*/worker.json"
    )
    assert [line.split()[0] for line in kept.splitlines()] == ["700", "700", "600"]


def test_two_workers_on_one_machine_do_not_disturb_each_other(
    cluster: LocalCluster, machine: Machine, login: str, install: str
) -> None:
    client = cluster.client()
    for name in ("first", "second"):
        machine.sh(f"{login} {install} --name {name}")
    assert {worker.name: worker.status for worker in client.workers()} == {"first": "ONLINE", "second": "ONLINE"}
    assert "Say which one: --name NAME" in machine.fails("hecaton-gpu stop")
    machine.sh("hecaton-gpu uninstall --name first")
    client.remove_worker("first")
    assert client.submit("demo:1", 1).result(timeout=30) == {"got": 1}
    assert "active" in machine.sh("hecaton-gpu status"), "the only one that is left needs no name"


def test_one_that_was_removed_on_the_server_is_installed_anew(
    cluster: LocalCluster, machine: Machine, login: str, install: str
) -> None:
    client = cluster.client()
    machine.sh(f"{login} {install}")
    (worker,) = client.workers()
    client.remove_worker(worker.name)
    assert "is connected" in machine.sh(f"{login} {install}")
    assert only_worker(client, lambda again: again.status == "ONLINE").id != worker.id


def test_what_cannot_work_is_not_installed(cluster: LocalCluster, machine: Machine, login: str, install: str) -> None:
    assert "--username is missing" in machine.fails(f"{install} </dev/null")
    wrong = machine.fails(f"HECATON_USERNAME=gpu-user HECATON_PASSWORD=wrong {install}")
    assert "Traceback" not in wrong
    machine.fails(f"HECATON_TOKEN=x {install.replace(cluster.url, 'http://127.0.0.1:9')}")
    assert "Is Docker installed and running" in machine.fails(
        f"{login} hecaton-gpu install {cluster.url} --name nodocker"
    )
    assert machine.sh("ls /etc/systemd/system | grep hecaton || echo none") == "none"
