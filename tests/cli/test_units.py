"""Unit files and what is done with them, by a real systemd."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hecaton.cli import units
from hecaton.cli.units import Service
from hecaton.core.errors import HecatonError, NotFound
from tests.engine.needs import EngineError
from tests.engine.systemd import SystemdContainer, systemd_container

ODD = ("two words", "100%n", "$HOME", 'say "hi"', "it's", "back\\slash", "", "a\nb", "ü;#")
PROGRAM = """
import json, os, sys, time
from hecaton.worker.link.notify import notify
print(json.dumps([sys.argv[1:], os.environ.get("ODD")]), flush=True)
notify("ready for\\n  anything")
time.sleep(600)
"""


@pytest.fixture(scope="module")
def machine(engine: str) -> Iterator[SystemdContainer]:
    with systemd_container() as container:
        yield container


def python(machine: SystemdContainer, code: str) -> str:
    return machine.run("python", "-c", f"from hecaton.cli import units\n{code}")


def service(code: str = PROGRAM, *arguments: str, name: str = "hecaton-test", **changes: object) -> str:
    """Python text of a Service that runs `code`."""
    fields: dict[str, object] = {
        "name": name,
        "description": "A test",
        "command": ("PYTHON", "-c", code, *arguments),
        "environment": {"ODD": " ".join(ODD)},
    }
    return f"units.Service(**{fields | changes!r})".replace("'PYTHON'", "__import__('sys').executable")


def until(machine: SystemdContainer, condition: Callable[[units.Status], bool]) -> units.Status:
    deadline = time.monotonic() + 20
    while True:
        text = python(machine, "import msgspec; print(msgspec.json.encode(units.status('hecaton-test')).decode())")
        status = units.Status(**json.loads(text))
        if condition(status):
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.1)


def test_a_service_lives_from_install_to_uninstall(machine: SystemdContainer) -> None:
    python(machine, f"units.install({service(PROGRAM, *ODD)})")
    status = until(machine, lambda status: status.text != "")
    assert (status.active, status.detail, status.enabled) == ("active", "running", True)
    assert status.text == "ready for anything"
    assert status.pid > 1
    assert status.since

    said = python(machine, "units.logs('hecaton-test', 1, follow=False)")
    assert json.loads(said) == [list(ODD), " ".join(ODD)], "systemd must not read anything into the words"

    python(machine, "units.control('restart', 'hecaton-test')")
    again = until(machine, lambda status: status.text != "")
    assert again.pid != status.pid

    python(machine, "units.control('stop', 'hecaton-test')")
    assert until(machine, lambda status: status.active == "inactive").pid == 0
    python(machine, "units.control('start', 'hecaton-test')")
    until(machine, lambda status: status.active == "active")

    python(machine, "units.uninstall('hecaton-test')")
    with pytest.raises(EngineError, match="NotFound: the service hecaton-test is not installed"):
        python(machine, "units.status('hecaton-test')")
    assert "hecaton-test" not in machine.run("systemctl", "list-units", "--all", "--plain")
    assert "hecaton" not in machine.run("sh", "-c", "ls /etc/systemd/system /etc/systemd/system/*.wants")


def test_it_comes_back_when_it_is_killed_but_not_when_it_is_done(machine: SystemdContainer) -> None:
    python(machine, f"units.install({service(final_codes=(0,))})")
    first = until(machine, lambda status: status.text != "")
    machine.run("sh", "-c", f"kill -9 {first.pid}")
    until(machine, lambda status: status.active == "active" and status.pid not in (0, first.pid))
    python(machine, f"units.install({service('print(1)', final_codes=(0,))})")
    until(machine, lambda status: status.active == "inactive")
    python(machine, "units.uninstall('hecaton-test')")


def test_installing_again_replaces_and_restarts(machine: SystemdContainer) -> None:
    python(machine, f"units.install({service(PROGRAM, 'old')})")
    until(machine, lambda status: status.text != "")
    python(machine, f"units.install({service(PROGRAM, 'new')})")
    until(machine, lambda status: status.text != "")
    assert json.loads(python(machine, "units.logs('hecaton-test', 1, follow=False)"))[0] == ["new"]
    python(machine, "units.uninstall('hecaton-test')")


def test_a_service_that_cannot_start_says_so(machine: SystemdContainer) -> None:
    with pytest.raises(EngineError, match=r"HecatonError: systemctl restart hecaton-test failed"):
        python(machine, f"units.install({service(command=('/no/such/program',))})")
    python(machine, "units.uninstall('hecaton-test')")


def test_systemd_finds_nothing_to_complain_about(machine: SystemdContainer) -> None:
    after = ("network-online.target", "docker.service")
    text = service(name="hecaton-gpu", after=after, oom_score_adjust=-900, final_codes=(0, 3))
    python(machine, f"open('/tmp/hecaton-gpu.service', 'w').write(units.unit_text({text}))")
    said = machine.run("sh", "-c", "systemd-analyze verify /tmp/hecaton-gpu.service 2>&1 || true")
    assert "hecaton-gpu.service:" not in said.replace("Unit docker.service not found", ""), said


def test_the_unit_keeps_folders_in_place_and_stops_in_order() -> None:
    text = units.unit_text(
        Service("x", "X", ("/bin/x",), {}, after=("docker.service",), stop_seconds=45, oom_score_adjust=-900)
    )
    assert "\nAfter=docker.service\nWants=docker.service\n" in text
    assert "\nKillMode=mixed\nTimeoutStopSec=45\n" in text
    assert "\nOOMScoreAdjust=-900\n" in text
    assert "\nKillMode=process\n" in units.unit_text(Service("x", "X", ("/bin/x",), {}, keeps_children=True))
    for setting in ("Requires=", "PrivateTmp", "RuntimeDirectory"):
        assert setting not in text


def test_a_machine_without_systemd_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(units, "_BOOTED", Path("/no/such/folder"))
    with pytest.raises(HecatonError, match="does not run systemd"):
        units.require("hecaton-gpu install x")


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HecatonError, match="needs root") as error:
        units.require("hecaton-gpu install x:8181")
    assert error.value.hint == "Run: sudo hecaton-gpu install x:8181"


def test_what_is_not_installed_is_not_found() -> None:
    with pytest.raises(NotFound, match="the service hecaton-no-such is not installed"):
        units.status("hecaton-no-such")
