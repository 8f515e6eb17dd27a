"""What an image's name means on a machine changes: the next job gets the new one, and the server gets its answers."""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from hecaton.core.model import Body, Kind, Reason
from hecaton.testing.runtime import ScriptedRuntime
from hecaton.wire.channel import Broken, Have, Resolve, Resolved, Results, Warm
from hecaton.worker.app import serve
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.runtimes.port import MachineBroken, Runtime, RuntimeFault
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import Brain, assignment, ref
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

A, B, C = ref("a"), ref("b"), ref("c")
IMAGE = "python:3.9-slim"

Start = Callable[[Runtime], "asyncio.Task[int]"]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def start(server: ScriptedServer, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[asyncio.Task[int]] = []

    def start(runtime: Runtime) -> asyncio.Task[int]:
        settings = WorkerSettings(grace=1.0)
        started.append(asyncio.create_task(serve(server.config(tmp_path / "state"), runtime, (), settings)))
        return started[-1]

    yield start
    for task in started:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        await asyncio.wait_for(task, PATIENCE)


# -- the brain -------------------------------------------------------------------------------------


def moved(brain: Brain, container: str = "c-1") -> None:
    brain.hear(ev.ImageMoved(brain.now, container))


@pytest.fixture
def brain() -> Brain:
    return Brain()


def test_an_idle_container_whose_image_is_another_now_goes_at_once(brain: Brain) -> None:
    brain.running(assignment("a"))
    brain.answer("c-1", A)
    moved(brain)
    assert brain.said(Warm) == [Warm(0, None, None)]
    assert brain.stopped() == ["c-1"]
    brain.gone("c-1")
    brain.assign(assignment("b"))
    assert brain.started() == ["c-2"]


def test_the_job_that_runs_ends_where_it_is_and_the_next_one_gets_the_new_image(brain: Brain) -> None:
    brain.running(assignment("a"), assignment("b"))
    moved(brain)
    assert brain.said(Warm) == [Warm(0, None, None)]
    assert brain.stopped() == []
    moved(brain)
    assert brain.messages() == []  # once is enough
    brain.answer("c-1", A)
    assert (A, Reason.OK) in brain.results()
    assert brain.given() == []
    assert brain.stopped() == ["c-1"]
    brain.gone("c-1")
    assert brain.started() == ["c-2"]


def test_the_job_that_a_container_is_started_for_still_gets_it(brain: Brain) -> None:
    brain.connect()
    brain.assign(assignment("a"))
    brain.hear(ev.ImageReady(brain.now, "c-1", "old"))
    moved(brain)
    brain.hear(ev.ContainerStarted(brain.now, "c-1"))
    brain.hear(ev.ContainerReady(brain.now, "c-1"))
    assert brain.given() == [("c-1", A)]
    assert brain.said(Warm) == []  # nobody else may come
    brain.answer("c-1", A)
    assert brain.stopped() == ["c-1"]


def test_each_outcome_says_which_image_ran(brain: Brain) -> None:
    brain.connect()
    brain.assign(assignment("a", timeout=5), assignment("b"))
    brain.hear(ev.ImageReady(brain.now, "c-1", "sha256:1f3c9e"))
    brain.hear(ev.ContainerStarted(brain.now, "c-1"))
    brain.hear(ev.ContainerReady(brain.now, "c-1"))
    brain.wait(6)
    brain.gone("c-1")
    brain.hear(ev.ImageReady(brain.now, "c-2", "sha256:9ab041"))
    brain.hear(ev.ContainerStarted(brain.now, "c-2"))
    brain.exit("c-2", 1)
    ended = {action.outcome.ref: (action.outcome.reason, action.outcome.image) for action in brain.ever(ev.Deliver)}
    assert ended == {A: (Reason.TIMEOUT, "sha256:1f3c9e"), B: (Reason.STARTUP_EXIT, "sha256:9ab041")}


@pytest.mark.parametrize(("warm_key", "warm"), [("w1", ("w1", IMAGE)), (None, (None, None))])
def test_what_runs_is_said_before_the_first_job_starts_and_again_to_a_server_that_comes_back(
    brain: Brain, warm_key: str | None, warm: tuple[str | None, str | None]
) -> None:
    brain.connect()
    brain.assign(assignment("a", warm_key=warm_key))
    brain.hear(ev.ImageReady(brain.now, "c-1", "sha256:1f3c9e"))
    assert brain.messages() == [Warm(0, None, None, "sha256:1f3c9e")]
    brain.hear(ev.ContainerStarted(brain.now, "c-1"))
    brain.hear(ev.ContainerReady(brain.now, "c-1"))
    brain.disconnect()
    brain.connect()
    assert brain.said(Warm) == [Warm(0, *warm, "sha256:1f3c9e")]
    brain.answer("c-1", A)
    brain.stop(at_once=True)
    brain.gone("c-1")
    assert brain.said(Warm) == [Warm(0, None, None, None)]


# -- a whole worker --------------------------------------------------------------------------------


HANDLER = """
    from hecaton.serverless import start
    start(lambda data: {version!r})
"""


async def test_an_edited_handler_file_is_run_by_the_next_job(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text(textwrap.dedent(HANDLER.format(version="one")))
    start(ProcessRuntime(WORKER, {"app": handler}))
    await server.connected()
    await server.assign(assignment("a", image="app"))
    first = await server.outcome(A)
    warm = next(message for message in server.all(Warm) if message.warm_key)
    assert warm.image == "app"
    handler.write_text(textwrap.dedent(HANDLER.format(version="two")))
    await server.until(lambda: server.all(Warm)[-1].warm_key is None, "the old one is warm no longer")
    await server.assign(assignment("b", image="app"))
    second = await server.outcome(B)
    assert (first.body, second.body) == (Body.inline(Kind.JSON, b'"one"'), Body.inline(Kind.JSON, b'"two"'))
    assert first.image is not None
    assert second.image not in (None, first.image)


async def test_a_container_of_an_image_asked_for_by_digest_stays_warm_wherever_the_name_goes(
    server: ScriptedServer, start: Start
) -> None:
    runtime = ScriptedRuntime()
    start(runtime)
    await server.connected()
    job = assignment("a")
    await server.assign(msgspec.structs.replace(job, image=msgspec.structs.replace(job.image, digest="sha256:00")))
    await server.outcome(A)
    runtime.script.ids[IMAGE] = "another"
    runtime.script.moved.set()
    await server.say(Resolve(1, IMAGE, at_registry=False))
    assert (await server.message(Resolved)).here == "another"
    assert len(runtime.containers) == 1


async def test_a_rebuilt_image_is_run_by_the_next_job(server: ScriptedServer, start: Start) -> None:
    runtime = ScriptedRuntime()
    runtime.script.ids[IMAGE] = "first"
    start(runtime)
    await server.connected()
    await server.assign(assignment("a"))
    assert (await server.outcome(A)).image == "first"
    runtime.script.ids[IMAGE] = "second"
    runtime.script.moved.set()
    await server.until(lambda: server.all(Warm)[-1].warm_key is None, "the old one is warm no longer")
    await server.assign(assignment("b"))
    assert (await server.outcome(B)).image == "second"


async def test_what_could_not_be_had_and_is_here_now_is_told(server: ScriptedServer, start: Start) -> None:
    runtime = ScriptedRuntime()
    start(runtime)
    await server.connected()
    runtime.script.prepare_fault = RuntimeFault(Reason.IMAGE_DENIED, "no such image")
    await server.assign(assignment("a"))
    assert (await server.outcome(A)).reason is Reason.IMAGE_DENIED
    runtime.script.moved.set()
    assert await server.message(Have) == Have((IMAGE,))


async def test_a_machine_that_starts_nothing_says_so_before_the_job_goes_back(
    server: ScriptedServer, start: Start
) -> None:
    runtime = ScriptedRuntime()
    start(runtime)
    await server.connected()
    runtime.script.start_fault = MachineBroken(Reason.WORKER_ERROR, "no container starts", "Reboot.")
    await server.assign(assignment("a"))
    assert (await server.outcome(A)).reason is Reason.WORKER_ERROR
    kinds = [type(message) for message in server.heard]
    assert kinds.index(Broken) < kinds.index(Results)
    assert server.all(Broken) == [Broken("no container starts Reboot.")]


async def test_a_question_about_an_image_is_answered(server: ScriptedServer, start: Start) -> None:
    runtime = ScriptedRuntime()
    runtime.script.ids[IMAGE] = "sha256:1f3c9e"
    start(runtime)
    await server.connected()
    await server.say(Resolve(7, IMAGE, at_registry=True))
    answer = await server.message(Resolved)
    assert answer == Resolved(7, "sha256:1f3c9e", None, None, "the scripted runtime has no registry")
