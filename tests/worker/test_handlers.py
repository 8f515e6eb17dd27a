"""Native images, handler files and scripts through the worker's door, in containers of a real engine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hecaton.core.model import Body, Kind, Mode, Reason
from hecaton.wire.channel import Assignment, Cancel, FileRef, Started
from hecaton.worker.app import serve
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.doors.channel_folder import name_of
from hecaton.worker.runtimes.docker import DockerRuntime
from tests.engine.daemon import docker
from tests.worker.brain import assignment, ref
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

A, B = ref("a"), ref("b")

HANDLER = b"""
import os, uuid
from hecaton.serverless import start
me = uuid.uuid4().hex
def handler(data):
    print("working on", data.input)
    return {"got": data.input, "me": me, "key": data.idempotency_key}
if __name__ == "__main__":
    start(handler)
"""

SCRIPT = b"""
import json, os, sys
print("arguments:", *sys.argv[1:])
print("to stderr", file=sys.stderr)
with open(os.environ["HECATON_OUTPUT"], "w") as file:
    json.dump({"job": os.environ["HECATON_JOB_ID"], "attempt": os.environ["HECATON_ATTEMPT"]}, file)
"""


@pytest.fixture
async def server(python39_image: str, tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    """With a worker that has a real Docker engine."""
    async with ScriptedServer() as server:
        config = server.config(tmp_path / "state")
        worker = asyncio.create_task(serve(config, DockerRuntime(WORKER), (), WorkerSettings(grace=2.0)))
        await server.connected()
        yield server
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        assert await asyncio.wait_for(worker, PATIENCE) == 0
    runtime = DockerRuntime(WORKER)
    left = await runtime.found()
    await runtime.close()
    assert left == []


def script(server: ScriptedServer, job: str, name: str, code: bytes, *args: str) -> Assignment:
    file = FileRef(server.keep(code), name)
    return assignment(job, mode=Mode.SCRIPT, warm_key=None, file=file, args=args)


def handler(server: ScriptedServer, job: str, code: bytes = HANDLER) -> Assignment:
    file = FileRef(server.keep(code), "handler.py")
    return assignment(job, mode=Mode.HANDLER, file=file)


async def test_a_handler_file_runs_in_an_image_that_knows_nothing_of_hecaton_and_stays_warm(
    server: ScriptedServer,
) -> None:
    await server.assign(handler(server, "a"), handler(server, "b"))
    first, second = await server.outcome(A), await server.outcome(B)
    assert first.reason is Reason.OK, first
    assert first.body is not None
    assert second.body is not None
    assert first.body.data.replace(b"key-a", b"key-b") == second.body.data
    assert server.log(A) == b"working on {'n': 1}\n"


async def test_a_handler_file_that_does_not_call_start_fails_at_once(server: ScriptedServer) -> None:
    await server.assign(handler(server, "a", b"print('I am no handler')\n"))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.STARTUP_EXIT
    assert b"I am no handler" in server.log(A)


async def test_an_image_whose_command_is_no_handler_fails_at_once_with_the_hint(server: ScriptedServer) -> None:
    await server.assign(assignment("a"))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.STARTUP_EXIT
    assert outcome.failure is not None
    assert "--script" in str(outcome.failure.hint)


async def test_a_python_script_gets_its_arguments_and_gives_log_and_result(server: ScriptedServer) -> None:
    await server.assign(script(server, "a", "train.py", SCRIPT, "--epochs", "3"))
    outcome = await server.outcome(A)
    assert outcome.body == Body.inline(Kind.JSON, b'{"job": "a", "attempt": "1"}'), outcome
    assert server.log(A) == b"arguments: --epochs 3\nto stderr\n"


@pytest.mark.parametrize(
    ("name", "code"), [("run.sh", b'echo "hello $1"; exit 7'), ("run", b'#!/bin/sh\necho "hello $1"; exit 7')]
)
async def test_the_exit_code_of_a_shell_script_decides(server: ScriptedServer, name: str, code: bytes) -> None:
    await server.assign(script(server, "a", name, code, "you there"))
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.exit_code) == (Reason.HANDLER_EXIT, 7)
    assert server.log(A) == b"hello you there\n"


async def test_a_script_without_a_result_finishes_with_null(server: ScriptedServer) -> None:
    await server.assign(script(server, "a", "quiet.py", b"pass"))
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.body) == (Reason.OK, Body.inline(Kind.JSON, b"null"))


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        (b"import os; open(os.environ['HECATON_OUTPUT'], 'w').write('{half')", Body.inline(Kind.TEXT, b"{half")),
        (b"import os; os.symlink('/etc/passwd', os.environ['HECATON_OUTPUT'])", None),
        (b"import os; os.mkfifo(os.environ['HECATON_OUTPUT'])", None),
    ],
    ids=["text", "a link", "a pipe"],
)
async def test_what_is_no_json_file_is_no_result(server: ScriptedServer, code: bytes, kept: Body | None) -> None:
    """And what was written is kept as what it is."""
    await server.assign(script(server, "a", "bad.py", code))
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.body) == (Reason.RESULT_INVALID, kept)


async def test_a_file_that_no_known_interpreter_runs_is_refused(server: ScriptedServer) -> None:
    await server.assign(script(server, "a", "run.xyz", b"???"))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.STARTUP_EXIT
    assert outcome.failure is not None
    assert "run.xyz" in outcome.failure.message


async def test_a_running_script_is_cancelled(server: ScriptedServer) -> None:
    await server.assign(script(server, "a", "long.py", b"import time; print('here'); time.sleep(1000)"))
    await server.message(Started)
    await server.until(lambda: server.log(A) == b"here\n", "its live log")
    await server.say(Cancel((A,)))
    assert (await server.outcome(A)).reason is Reason.CANCELLED


@pytest.mark.parametrize(
    ("name", "safe"),
    [("train.py", "train.py"), ("../../etc/x.py", "x.py"), ("-rf", "rf"), ("a b;c.sh", "a_b_c.sh"), ("..", "script")],
)
def test_the_name_of_a_file_is_made_safe(name: str, safe: str) -> None:
    assert name_of(FileRef("0", name)) == safe


async def test_a_container_that_the_kernel_killed_for_its_memory(server: ScriptedServer, tmp_path: Path) -> None:
    eat = b"""
import os, time
from hecaton.serverless import start
def handler(data):
    while not os.path.exists(os.environ["HECATON_DIR"] + "/out/eat"):
        time.sleep(0.01)
    return len(bytearray(os.urandom(1 << 20) * 512))
start(handler)
"""
    file = FileRef(server.keep(eat), "handler.py")
    await server.assign(assignment("a", mode=Mode.HANDLER, file=file))
    await server.message(Started)
    (container,) = docker("ps", "--quiet", "--filter", f"label=hecaton.worker={WORKER}").split()
    await asyncio.to_thread(docker, "update", "--memory", "64m", "--memory-swap", "64m", container)
    (out,) = (tmp_path / "state/c").glob("*/out")
    (out / "eat").touch()
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.OOM_HOST
    assert outcome.failure is not None
    assert "out of memory" in outcome.failure.message
