"""Puts a worker together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import signal

import structlog

import hecaton
from hecaton.core.model import Gpu
from hecaton.worker.agent import Agent
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.control import Control
from hecaton.worker.endings import Meant, meant_by_sigterm
from hecaton.worker.link.bodies import Bodies
from hecaton.worker.link.link import FINAL_EXIT, ServerLink
from hecaton.worker.link.reaching import session
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.memory.journal import NewerJournal
from hecaton.worker.runtimes import python_mount
from hecaton.worker.runtimes.port import Runtime

FLUSH_SECONDS = 5.0
"""Seconds that the last messages to the server may take."""

_log = structlog.get_logger("hecaton.worker")


def run(config: WorkerConfig, runtime: Runtime, gpus: tuple[Gpu, ...], settings: WorkerSettings) -> int:
    """The worker, in the foreground, until SIGTERM, SIGINT or the server ends it. Returns the exit code.

    Raises RuntimeFault when the engine does not answer at start, OSError for an unusable state folder, NewerJournal."""
    import uvloop  # takes a while to load, and only a running worker needs it

    return uvloop.run(serve(config, runtime, gpus, settings))


async def serve(config: WorkerConfig, runtime: Runtime, gpus: tuple[Gpu, ...], settings: WorkerSettings) -> int:
    """`run` on an event loop that is there already."""
    loop = asyncio.get_running_loop()
    python = await asyncio.to_thread(python_mount.build, config.folder)
    async with session(config) as http:
        link = ServerLink(config, http)
        agent = Agent(config, runtime, gpus, settings, link, Bodies(config.url, http), python)
        signals = Signals(agent)
        control = Control(config.folder, signals.leave)
        try:
            await agent.start()
            await control.open()
            cards = f"GPU slots: {len(gpus)}" if gpus else f"CPU-only, slots: {settings.slots}"
            _log.info(f"Worker {config.name} is up: {cards}", version=hecaton.__version__, runtime=runtime.name)
            talking = loop.create_task(link.run(agent.hearing))
            code, message = await _until_left(agent, talking)
            await link.flush(FLUSH_SECONDS)
            talking.cancel()
            await asyncio.wait([talking])
        finally:
            signals.close()
            await agent.close()
            await runtime.close()
            control.close()  # last: whoever asked it to leave waits for this
    _log.info(f"Worker {config.name} ended: {message}")
    return code


async def _until_left(agent: Agent, talking: asyncio.Task[None]) -> tuple[int, str]:
    """The link ends first only when the server dismissed the worker, or by a defect: never go on without it."""

    def ended(done: asyncio.Task[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None and not agent.left.done():
            agent.left.set_exception(error)

    talking.add_done_callback(ended)
    return await agent.left


class Signals:
    """What makes a worker end. SIGINT (Ctrl-C) drains, SIGTERM does what is meant by it; a second one stops at once."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._loop = asyncio.get_running_loop()
        self._asking: asyncio.Task[None] | None = None
        self._loop.add_signal_handler(signal.SIGINT, self._stop)
        self._loop.add_signal_handler(signal.SIGTERM, self._terminated)

    def leave(self) -> None:
        _log.info("Leaving what runs to the next process of this worker")
        self._agent.post(ev.LeaveAsked(self._loop.time()))

    def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
        if self._asking is not None:
            self._asking.cancel()

    def _stop(self) -> None:
        _log.info("Stopping: running jobs may finish, a second signal stops them at once")
        self._agent.post(ev.StopAsked(self._loop.time()))

    def _terminated(self) -> None:
        if self._asking is None:
            self._asking = self._loop.create_task(self._obey())
        else:
            self._stop()

    async def _obey(self) -> None:
        meant = await asyncio.to_thread(meant_by_sigterm)
        if meant is Meant.LEAVE:
            self.leave()
        elif meant is Meant.POWER_OFF:
            _log.info("The machine goes down: running jobs are stopped and go back to the queue")
            self._agent.post(ev.PowerOffAsked(self._loop.time()))
        else:
            self._stop()


__all__ = ["FINAL_EXIT", "NewerJournal", "WorkerSettings", "run", "serve"]
