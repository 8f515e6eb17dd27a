"""A worker in a process of its own, so that a test can kill it: `python -m tests.worker.killable URL WORKER TOKEN
FOLDER RUNTIME HANDLER RELEASE SHORT LOOK`; an empty HANDLER or RELEASE: none, today's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from hecaton.worker.app import serve
from hecaton.worker.brain import slots, steps
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.containers import live_containers
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.port import Runtime
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker import releases
from tests.worker.scripted_server import WORKER, ScriptedServer

LOG_INTERVAL = live_containers.LOG_INTERVAL
SETTINGS = WorkerSettings(slots=2, grace=2.0, drain_timeout=10)


def runtime_of(name: str, handler: Path | None, worker: str = WORKER) -> Runtime:
    return DockerRuntime(worker) if name == "docker" else ProcessRuntime(worker, {"echo": handler or Path()})


async def start(
    server: ScriptedServer, folder: Path, runtime: str, handler: Path | None = None, release: str = ""
) -> asyncio.subprocess.Process:
    """`release`: see `releases`. What counts as a short job in the test's process does so there too; it looks at
    logs each LOG_INTERVAL."""
    config = server.config(folder)
    arguments = [config.url, config.worker_id, config.token, str(folder), runtime, str(handler or ""), release]
    arguments += [str(slots.AHEAD_SECONDS), str(LOG_INTERVAL)]
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.worker.killable", *arguments)


async def _main(
    url: str, worker: str, token: str, folder: str, runtime: str, handler: str, release: str, short: str, look: str
) -> int:
    live_containers.LOG_INTERVAL = float(look)
    for module in (slots, steps):
        vars(module)["AHEAD_SECONDS"] = float(short)
    if release:
        releases.become(release)
    config = WorkerConfig("bench", url, worker, token, Path(folder))
    return await serve(config, runtime_of(runtime, Path(handler) if handler else None, worker), (), SETTINGS)


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
