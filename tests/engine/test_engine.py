"""The set-up itself: what other tests rely on when they ask for an engine, an image or a registry."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hecaton import __version__
from tests.engine.daemon import docker
from tests.engine.images import build_image, image_id
from tests.engine.leftovers import WORKER_LABEL, Traces
from tests.engine.needs import EngineError, require
from tests.engine.registry import Registry
from tests.engine.systemd import systemd_container

README_DOCKERFILE = """\
FROM python:3.9-slim
RUN pip install hecaton
COPY handler.py /app/handler.py
CMD ["python", "/app/handler.py"]
"""


def test_the_base_image_has_a_shell_and_no_python(base_image: str) -> None:
    assert docker("run", "--rm", base_image, "sh", "-c", "command -v python3 || echo none") == "none"


def test_the_python_image_holds_a_working_python_3_9(python39_image: str) -> None:
    program = "import sys, ssl, sqlite3, ctypes, lzma, bz2, asyncio; print(sys.version_info[:2])"
    assert docker("run", "--rm", python39_image, "python", "-c", program) == "(3, 9)"


def test_the_readmes_dockerfile_installs_hecaton_and_nothing_else(python39_image: str) -> None:
    before = docker("run", "--rm", python39_image, "pip", "list", "--format=freeze").splitlines()
    build_image("hecaton-test/readme", README_DOCKERFILE, {"handler.py": b"import hecaton; print(hecaton.__file__)"})
    after = docker("run", "--rm", "hecaton-test/readme", "pip", "list", "--format=freeze").splitlines()
    assert [line.partition("==")[0] for line in after if line not in before] == ["hecaton"]
    assert "site-packages/hecaton" in docker("run", "--rm", "hecaton-test/readme")


def test_the_same_files_give_the_same_image(base_image: str) -> None:
    dockerfile = f"FROM {base_image}\nCOPY run.sh /run.sh\nCMD /run.sh"
    first = build_image("hecaton-test/same", dockerfile, {"run.sh": b"#!/bin/sh\nexit 3"})
    assert build_image("hecaton-test/same", dockerfile, {"run.sh": b"#!/bin/sh\nexit 3"}) == first
    with pytest.raises(EngineError, match="exit code 3"):
        docker("run", "--rm", "hecaton-test/same")


def test_an_image_can_be_pushed_and_pulled(base_image: str, registry: Registry) -> None:
    reference = registry.push(base_image, "team/base:1")
    digest = registry.digest(reference)
    registry.forget_local(reference)
    docker("pull", "--quiet", reference)
    assert image_id(reference) == image_id(base_image)
    assert registry.digest(reference) == digest
    registry.forget_local(reference)


@pytest.mark.usefixtures("systemd_image")
def test_the_checkout_runs_in_a_container_with_a_real_systemd() -> None:
    with systemd_container() as container:
        assert container.run("cat", "/proc/1/comm") == "systemd"
        program = "import ssl, sqlite3, aiohttp, msgspec, hecaton; print(hecaton.__version__)"
        assert container.run("systemd-run", "--quiet", "--pipe", "--wait", sys.executable, "-c", program) == __version__
    assert docker("ps", "--all", "--quiet", "--filter", f"name={container.name}") == ""


def test_a_process_that_lost_its_parent_is_found(tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    environment = {**os.environ, "HECATON_TEST_RUN": traces.mark}
    subprocess.run(
        ["sh", "-c", "sleep 600 >/dev/null 2>&1 </dev/null &"], env=environment, start_new_session=True, check=True
    )
    assert ["sleep 600" in line for line in traces.found()] == [True]
    traces.remove()
    assert traces.wait_until_none() == []


def test_a_container_and_a_network_of_a_worker_are_found(base_image: str, tmp_path: Path) -> None:
    traces = Traces(tmp_path)
    traces.watch_engine()
    docker("create", "--label", f"{WORKER_LABEL}=w1", "--name", traces.mark, base_image)
    network = docker("network", "create", "--label", f"{WORKER_LABEL}=w1", traces.mark)
    left = traces.found()
    traces.remove()
    docker("network", "rm", network)
    assert len(left) == 2
    assert traces.mark in left[0]
    assert network in left[1]
    assert traces.found() == []


def test_a_folder_in_the_temporary_folder_is_found(traces: Traces) -> None:
    made_by_program = "import tempfile; print(tempfile.mkdtemp())"
    folder = subprocess.run([sys.executable, "-c", made_by_program], stdout=subprocess.PIPE, text=True, check=True)
    left = traces.found()
    Path(folder.stdout.strip()).rmdir()
    assert any(folder.stdout.strip() in line for line in left)
    assert Path(tempfile.gettempdir()) == traces.scratch


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.engine.needs.SEARCH_PATH", "/nowhere")
    monkeypatch.setattr("tests.engine.needs.os_release", lambda: {"ID": "fedora"})
    with pytest.raises(EngineError, match=r"missing here: debootstrap. Install debootstrap"):
        require("debootstrap")


def test_the_command_says_what_runs(engine: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine", "status"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.startswith(f"Docker engine {engine} answers")
