"""Clients that others generate from the description work against a real server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hecaton.wire.channel import Log
from tests.description.tools import python_tools, run, type_script
from tests.server.running import PASSWORD, Running, running
from tests.server.scripted_worker import ScriptedWorker

pytestmark = pytest.mark.sample(1)

HERE = Path(__file__).parent

# Lines of JSON are text to it.
SETTINGS = """
package_name_override: hecaton_api
post_hooks: []
content_type_overrides:
  application/x-ndjson: text/plain
"""


async def _described(server: Running, folder: Path) -> Path:
    description = folder / "openapi.json"
    description.write_text(json.dumps(await server.nobody.get("/openapi.json")))
    return description


async def test_a_generated_python_client_submits_a_job_and_waits_for_it(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.image()
        worker = await server.worker()
        description = await _described(server, tmp_path)
        (tmp_path / "settings.yaml").write_text(SETTINGS)
        tools = await asyncio.to_thread(python_tools)
        command = [
            str(tools / "openapi-python-client"), "generate", "--path", str(description), "--meta", "none",
            "--config", str(tmp_path / "settings.yaml"), "--output-path", str(tmp_path / "hecaton_api"),
            "--fail-on-warning",
        ]  # fmt: skip
        await asyncio.to_thread(lambda: run(*command, within=tmp_path))
        script = [str(tools / "python"), str(HERE / "first_job.py"), str(tmp_path), server.url, PASSWORD]
        async with asyncio.TaskGroup() as both:
            using = both.create_task(asyncio.to_thread(lambda: run(*script, within=tmp_path)))
            both.create_task(_serve(worker))
        assert "all of it worked" in using.result()


async def _serve(worker: ScriptedWorker) -> None:
    for _ in range(2):
        assignment = await worker.start()
        await worker.send(Log(assignment.ref, 0, b"meow\n"))
        await worker.finish(assignment.ref, {"cats": 1})


async def test_generated_typescript_takes_what_is_right_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        description = await _described(server, tmp_path)
    (tmp_path / "usage.ts").write_text((HERE / "usage.ts").read_text())
    await asyncio.to_thread(lambda: _type_check(description, tmp_path))


def _type_check(description: Path, folder: Path) -> None:
    type_script(
        "openapi-typescript", str(description), "-o", "api.d.ts", "--default-non-nullable", "false", within=folder
    )
    type_script("tsc", "--noEmit", "--strict", "usage.ts", within=folder)
