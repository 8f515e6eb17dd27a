"""A worker whose engine hangs, refuses and lies: every fault ends in a result with the right reason."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.core.model import Body, Kind, Reason
from hecaton.testing.runtime import ScriptedContainer, ScriptedRuntime
from hecaton.wire.channel import Cancel, Note, Started
from hecaton.worker.app import serve
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.containers import container
from hecaton.worker.runtimes import port as runtime_port
from hecaton.worker.runtimes.port import EngineAway, Exit, RuntimeFault
from tests.worker.brain import assignment, ref
from tests.worker.scripted_server import PATIENCE, ScriptedServer

A, B, C = ref("a"), ref("b"), ref("c")


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime()


@pytest.fixture
async def server(runtime: ScriptedRuntime, tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    """With a worker that is connected to it."""
    async with ScriptedServer() as server:
        worker = asyncio.create_task(serve(server.config(tmp_path / "state"), runtime, (), WorkerSettings(grace=0.1)))
        await server.connected()
        yield server
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        assert await asyncio.wait_for(worker, PATIENCE) == 0
        assert runtime.containers == {}
        assert list((tmp_path / "state" / "c").iterdir()) == []


async def working_container(server: ScriptedServer, runtime: ScriptedRuntime) -> ScriptedContainer:
    """One that is warm, and that will not answer the next job."""
    await server.assign(assignment("warm-up"))
    await server.outcome(ref("warm-up"))
    (container,) = runtime.containers.values()
    container.mute = True
    return container


@pytest.mark.parametrize("reason", [Reason.IMAGE_PULL, Reason.IMAGE_DENIED, Reason.WORKER_ERROR])
async def test_an_image_that_cannot_be_had(server: ScriptedServer, runtime: ScriptedRuntime, reason: Reason) -> None:
    runtime.script.prepare_fault = RuntimeFault(reason, "the registry said no", "ask again")
    await server.assign(assignment("a"))
    outcome = await server.outcome(A)
    assert outcome.reason is reason
    assert outcome.failure is not None
    assert (outcome.failure.message, outcome.failure.hint) == ("the registry said no", "ask again")


async def test_an_engine_that_cannot_start_containers(server: ScriptedServer, runtime: ScriptedRuntime) -> None:
    runtime.script.start_fault = RuntimeFault(Reason.WORKER_ERROR, "no space left")
    await server.assign(assignment("a"), assignment("b"))
    assert (await server.outcome(A)).reason is Reason.WORKER_ERROR
    assert (await server.outcome(B)).reason is Reason.WORKER_ERROR


@pytest.mark.parametrize("where", ["prepare_fault", "start_fault"])
async def test_an_engine_that_is_away_costs_a_start_time_and_no_attempt(
    server: ScriptedServer, runtime: ScriptedRuntime, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(runtime_port, "ENGINE_RETRY", 0.02)
    setattr(runtime.script, where, EngineAway(Reason.WORKER_ERROR, "the engine is away"))
    await server.assign(assignment("a"))
    await server.until(lambda: "waiting: the engine is away" in [note.text for note in server.all(Note)])
    setattr(runtime.script, where, None)
    assert (await server.outcome(A)).reason is Reason.OK


async def test_an_engine_that_stays_away_fails_its_job_in_the_end(
    server: ScriptedServer, runtime: ScriptedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_port, "ENGINE_RETRY", 0.02)
    monkeypatch.setattr(runtime_port, "ENGINE_PATIENCE", 0.1)
    runtime.script.start_fault = EngineAway(Reason.WORKER_ERROR, "the engine is away")
    await server.assign(assignment("a"))
    assert (await server.outcome(A)).reason is Reason.WORKER_ERROR


async def test_a_job_that_waits_for_its_engine_can_be_cancelled(
    server: ScriptedServer, runtime: ScriptedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_port, "ENGINE_RETRY", 0.02)
    runtime.script.start_fault = EngineAway(Reason.WORKER_ERROR, "the engine is away")
    await server.assign(assignment("a"))
    await server.until(lambda: "waiting: the engine is away" in [note.text for note in server.all(Note)])
    await server.say(Cancel((A,)))
    assert (await server.outcome(A)).reason is Reason.CANCELLED
    runtime.script.start_fault = None
    await server.assign(assignment("b"))
    assert (await server.outcome(B)).reason is Reason.OK


async def test_a_pull_that_hangs_can_be_cancelled(server: ScriptedServer, runtime: ScriptedRuntime) -> None:
    runtime.script.hold_prepare = asyncio.Event()
    await server.assign(assignment("a"))
    assert (await server.message(Note)).text == "pulling python:3.9-slim"
    await server.say(Cancel((A,)))
    assert (await server.outcome(A)).reason is Reason.CANCELLED
    runtime.script.hold_prepare = None
    await server.assign(assignment("b"))
    assert (await server.outcome(B)).reason is Reason.OK


async def test_a_container_that_starts_after_it_was_cancelled_is_removed(
    server: ScriptedServer, runtime: ScriptedRuntime
) -> None:
    gate = runtime.script.hold_start = asyncio.Event()
    await server.assign(assignment("a"))
    async with asyncio.timeout(PATIENCE):
        while "start python:3.9-slim" not in runtime.orders:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await server.say(Cancel((A,)))
    assert (await server.outcome(A)).reason is Reason.CANCELLED
    gate.set()
    runtime.script.hold_start = None
    await server.assign(assignment("b"))
    assert (await server.outcome(B)).reason is Reason.OK
    assert len(runtime.containers) == 1


@pytest.mark.parametrize(
    ("exit", "reason"),
    [
        (Exit(0), Reason.NO_RESULT),
        (Exit(137, oom=True), Reason.OOM_HOST),
        (Exit(139), Reason.HANDLER_EXIT),
        (Exit(0, error="the engine was restarted"), Reason.WORKER_ERROR),
    ],
)
async def test_a_container_that_ends_in_the_middle_of_a_job(
    server: ScriptedServer, runtime: ScriptedRuntime, exit: Exit, reason: Reason
) -> None:
    container = await working_container(server, runtime)
    await server.assign(assignment("a"), assignment("b"))
    await server.message(Started, 2)
    await container.end(exit)
    assert (await server.outcome(A)).reason is reason
    assert (await server.outcome(B)).reason is Reason.OK


async def test_a_container_that_ends_before_it_asks_for_work(server: ScriptedServer, runtime: ScriptedRuntime) -> None:
    runtime.script.exits = Exit(1)
    runtime.script.output = b"ModuleNotFoundError: torch\n"
    await server.assign(assignment("a"))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.STARTUP_EXIT
    assert outcome.failure is not None
    assert "ModuleNotFoundError" in outcome.failure.message
    assert server.log(A) == b"ModuleNotFoundError: torch\n"


async def test_an_engine_that_cannot_stop_a_container_is_asked_until_it_can(
    server: ScriptedServer, runtime: ScriptedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "STOP_RETRY", 0.02)
    runtime.script.stop_faults = 3
    await server.assign(assignment("a", warm_key="w1"), assignment("b", warm_key="w2"))
    assert (await server.outcome(B)).reason is Reason.OK
    assert runtime.orders.count("stop") == 4


async def test_a_slot_is_not_used_before_its_old_container_is_really_gone(
    server: ScriptedServer, runtime: ScriptedRuntime
) -> None:
    gate = runtime.script.hold_stop = asyncio.Event()
    await server.assign(assignment("a", warm_key="w1"), assignment("b", warm_key="w2"))
    await server.outcome(A)
    async with asyncio.timeout(PATIENCE):
        while "stop" not in runtime.orders:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert runtime.orders == ["prepare python:3.9-slim", "start python:3.9-slim", "stop"]
    gate.set()
    await server.outcome(B)


async def test_a_container_that_lies_about_a_result(server: ScriptedServer, runtime: ScriptedRuntime) -> None:
    runtime.handler = lambda payload: b"{not json"
    await server.assign(assignment("a"))
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.body) == (Reason.RESULT_INVALID, Body.inline(Kind.TEXT, b"{not json"))


async def test_a_container_that_names_a_file_that_is_none(server: ScriptedServer, runtime: ScriptedRuntime) -> None:
    container = await working_container(server, runtime)
    await server.assign(assignment("a"))
    await server.message(Started, 2)
    answer = {"type": "result", "job": "a", "attempt": 1, "status": "ok", "kind": "bytes", "log_end": 0}
    container.send({**answer, "file": "../../journal"})
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.body) == (Reason.RESULT_INVALID, None)


async def test_a_container_that_answers_for_jobs_of_others(server: ScriptedServer, runtime: ScriptedRuntime) -> None:
    container = await working_container(server, runtime)
    await server.assign(assignment("a"), assignment("b"))
    await server.message(Started, 2)
    for job, attempt in (("b", 1), ("a", 2), ("c", 1), ("a", 1)):
        answer = {"type": "result", "job": job, "attempt": attempt, "status": "ok", "kind": "json", "log_end": 0}
        container.send(answer, b'"mine"')
    assert (await server.outcome(A)).body == Body.inline(Kind.JSON, b'"mine"')
    await server.message(Started, 3)
    assert set(server.outcomes()) == {ref("warm-up"), A}
    container.mute = False
    container.send({"type": "result", "job": "b", "attempt": 1, "status": "ok", "kind": "json", "log_end": 0}, b"1")
    assert (await server.outcome(B)).reason is Reason.OK
