"""Two processes of a container that call `start()`, as torchrun makes them: one works, the other is told and ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.core.model import Reason
from tests.worker.brain import ref
from tests.worker.scripted_server import ScriptedServer
from tests.worker.test_adoption import Site

A = ref("a")

# The second process begins while the first is within a job, and would be given that one: so its end can be awaited.
HANDLER = """
    import os, subprocess, sys, time
    from hecaton.serverless import start
    environment = dict(os.environ)
    out = os.environ["HECATON_DIR"] + "/out/"

    def handler(data):
        with open(out + data.job_id + ".ran", "a") as file:
            file.write("x")
        if os.path.getsize(file.name) > 1:
            return "executed twice at once"
        while not os.path.exists(out + data.job_id + ".go"):
            time.sleep(0.02)
        return subprocess.run([sys.executable, __file__], env=environment).returncode

    start(handler)
"""


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Site]:
    async with ScriptedServer() as server:
        site = Site(server, tmp_path / "state", "process", HANDLER)
        yield site
        await site.end()


@pytest.fixture
async def containers(python39_image: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with ScriptedServer() as server:
        site = Site(server, tmp_path / "state", "docker", HANDLER)
        yield site
        await site.end()


@pytest.fixture(params=["process", "docker"])
def site(request: pytest.FixtureRequest) -> Site:
    name = {"process": "processes", "docker": "containers"}[request.param]
    found: Site = request.getfixturevalue(name)
    return found


async def is_told(site: Site) -> None:
    """Once and in words, with an exit code that no launcher takes for a failure; and the job ran once."""
    site.let_go()
    outcome = await site.server.outcome(A)
    assert outcome.reason is Reason.OK
    assert outcome.body is not None
    assert (outcome.body.data, site.executions()) == (b"0", 1)
    log = site.server.log(A).decode()
    assert log.count("another process of this container") == 1
    assert "call start() in one process only" in log


@pytest.mark.parametrize("no_overlap", [False, True])
async def test_the_second_gets_no_job_says_so_and_ends(processes: Site, no_overlap: bool) -> None:
    await processes.comes()
    await processes.begins(processes.job("a", no_overlap=no_overlap))
    await is_told(processes)


async def test_also_when_the_worker_was_killed_and_the_first_has_not_noticed(site: Site) -> None:
    await site.comes()
    await site.begins(site.job("a"))
    await site.is_killed()
    await site.comes_back()
    await is_told(site)
