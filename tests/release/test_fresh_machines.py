"""Debian 12 with an externally managed Python, and the server's image: from the wheel alone to what people want."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

import hecaton
from hecaton.client import Client, HecatonError
from tests.engine.daemon import docker
from tests.engine.desktop import USER, desktop_image
from tests.engine.images import LABEL, context
from tests.engine.python_image import REPOSITORY, build_wheel
from tests.release.walk import IMAGE, LINES, STEPS, UV_LINES, walk

pytestmark = pytest.mark.sample(1)

PASSWORD = "mysecurepassword"
SERVICES = "Installed and started the service hecaton-server", "Installed the service hecaton-gpu"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    (folder := tmp_path / "wheels").mkdir()
    return build_wheel(folder)


@pytest.mark.usefixtures("python39_image")
@pytest.mark.parametrize(("user", "questions", "lines"), [(USER, 1, LINES), ("root", 0, LINES), (USER, 1, UV_LINES)])
def test_the_three_lines_lead_to_a_jobs_output(
    wheel: Path, tmp_path: Path, user: str, questions: int, lines: tuple[str, ...]
) -> None:
    walked = walk(wheel, tmp_path / "home", user, lines)
    assert (len(walked.seconds), walked.questions) == (4, questions)
    proof = f"A container of {IMAGE} has run a script here, as a proof."
    for said in (*SERVICES, proof, f"login    {user} on this machine, as admin", "Joined "):
        assert said in walked.shown
    assert "Warning" not in walked.shown


@pytest.mark.usefixtures("python39_image")
def test_the_quick_start_step_by_step_leads_to_a_jobs_output(wheel: Path, tmp_path: Path) -> None:
    walked = walk(wheel, tmp_path / "home", USER, STEPS)
    assert walked.questions == 1
    for said in SERVICES:
        assert said in walked.shown


def test_the_servers_image_serves_and_ends_when_it_is_told_to(engine: str, wheel: Path) -> None:
    files = {name: (REPOSITORY / name).read_bytes() for name in ("Dockerfile", ".dockerignore", "LICENSE")}
    files[f"dist/{wheel.name}"] = wheel.read_bytes()
    files["dist/notes.md"] = files["hecaton/__init__.py"] = b"not needed"
    name = f"hecaton-test/server-{uuid.uuid4().hex[:8]}"
    python = f"PYTHON={desktop_image()}"
    docker("build", "--quiet", f"--label={LABEL}=1", f"--build-arg={python}", "--tag", name, "-", stdin=context(files))
    container = docker("run", "--detach", f"--env=HECATON_ADMIN_PASS={PASSWORD}", name)
    try:
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)
        with Client(f"http://{address}:8181") as client:
            _log_in(client)
            assert [user.username for user in client.users()] == ["admin"]
        assert docker("exec", container, "hecaton-server", "--version").endswith(hecaton.__version__)
        assert docker("exec", container, "sh", "-c", "id -un; ls /data; test ! -e /wheel") == "hecaton\nserver"
        docker("stop", container)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"
    finally:
        docker("rm", "--force", "--volumes", container)
        docker("rmi", name)


def _log_in(client: Client) -> None:
    """As soon as the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            client.login("admin", PASSWORD)
            return
        except HecatonError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
