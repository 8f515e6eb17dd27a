"""An admin drains a worker: it lets warm containers go, and is as before when it is in service again."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from hecaton.core.model import Reason
from hecaton.wire.channel import Drain, Warm
from hecaton.worker.app import serve
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import Brain, assignment, ref
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

A, B = ref("a"), ref("b")


@pytest.fixture
def brain() -> Brain:
    return Brain()


def drain(brain: Brain, *, active: bool = True) -> None:
    brain.hear(ev.Drained(brain.now, active))


def test_an_idle_container_goes_at_once(brain: Brain) -> None:
    brain.running(assignment("a"))
    brain.answer("c-1", A)
    drain(brain)
    assert brain.stopped() == ["c-1"]


def test_one_at_work_goes_when_its_job_has_ended(brain: Brain) -> None:
    brain.running(assignment("a"))
    drain(brain)
    assert brain.stopped() == []
    brain.answer("c-1", A)
    assert brain.results() == [(A, Reason.OK)]
    assert brain.stopped() == ["c-1"]


def test_what_was_given_to_the_worker_before_is_done_before_its_container_goes(brain: Brain) -> None:
    brain.running(assignment("a"), assignment("b"))
    drain(brain)
    brain.answer("c-1", A)
    assert (brain.given(), brain.stopped()) == ([("c-1", B)], [])
    brain.answer("c-1", B)
    assert brain.stopped() == ["c-1"]


def test_a_worker_that_is_in_service_again_keeps_what_is_warm(brain: Brain) -> None:
    brain.running(assignment("a"))
    drain(brain)
    drain(brain, active=False)
    brain.answer("c-1", A)
    assert brain.stopped() == []


def test_one_that_was_undrained_while_it_was_away_hears_so_when_it_comes_back(brain: Brain) -> None:
    brain.running(assignment("a"))
    drain(brain)
    brain.disconnect()
    brain.connect()
    brain.answer("c-1", A)
    assert brain.stopped() == []


async def test_a_worker_that_comes_back_drained_keeps_nothing_warm(tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text("from hecaton.serverless import start\nstart(lambda data: None)\n")
    async with ScriptedServer() as server:
        runtime = ProcessRuntime(WORKER, {"app": handler})
        task = asyncio.create_task(serve(server.config(tmp_path / "state"), runtime, (), WorkerSettings(grace=1.0)))
        try:
            await server.connected()
            await server.assign(assignment("a", image="app"))
            assert (await server.outcome(A)).reason is Reason.OK
            server.drained = True
            await server.cut()
            await server.connected(2)
            await server.until(lambda: went(server, 1), "the first one is warm no longer")
            await server.say(Drain(active=False))
            await server.assign(assignment("b", image="app"))
            assert (await server.outcome(B)).reason is Reason.OK
            assert server.all(Warm)[-1].warm_key == "w1"
            await server.say(Drain())
            await server.until(lambda: went(server, 2), "the second one is warm no longer")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, PATIENCE)


def went(server: ScriptedServer, times: int) -> bool:
    """So many containers were warm, and are not any more."""
    keys = [message.warm_key for message in server.all(Warm)]
    return sum(1 for before, now in pairwise(keys) if before and not now) >= times
