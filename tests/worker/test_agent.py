"""A whole worker with the process runtime, against a server that the test plays: real sockets, real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from hecaton.core.model import Body, Kind, Reason
from hecaton.core.options import Options
from hecaton.wire.channel import (
    Assignment,
    Cancel,
    Draining,
    Note,
    Progress,
    Released,
    Results,
    Retire,
    Revoke,
    Started,
    Warm,
)
from hecaton.worker.agent import Agent
from hecaton.worker.app import FINAL_EXIT, serve
from hecaton.worker.brain import events as ev
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.containers.live_containers import IDLE_INTERVAL, LOG_INTERVAL
from hecaton.worker.link.bodies import Bodies
from hecaton.worker.link.link import ServerLink
from hecaton.worker.link.logs import HEAD, TAIL
from hecaton.worker.link.reaching import session
from hecaton.worker.memory.outbox import shown
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.server.scripted_worker import progress
from tests.worker.brain import assignment, ref
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

HANDLER = """
    import os, sys, time, pathlib
    from hecaton.serverless import progress, start

    class state:
        dead = False

    def handler(data):
        do = data.input
        if isinstance(do, dict) and "touch" in do:
            pathlib.Path(do["touch"]).touch()
        if do == "raise":
            raise ValueError("no good")
        if do == "assert on the card":
            state.dead = True
        if state.dead:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if do == "exit 0":
            os._exit(0)
        if do == "exit 3":
            print("going down")
            sys.stdout.flush()
            os._exit(3)
        if do == "pid":
            return os.getpid()
        if do == "print":
            print("one"); print("two")
        if do == "progress":
            progress(0.5)
        if do == "odd progress":
            progress({"rows": 2 ** 70})
        if do == "nan":
            return {"acc": 0.9, "val_loss": float("nan"), "nul": "\\0"}
        if isinstance(do, dict) and "wait" in do:
            print("waiting", flush=True)
            while not os.path.exists(do["wait"]):
                time.sleep(0.01)
        if isinstance(do, dict) and "print_bytes" in do:
            for _ in range(do["print_bytes"] // 1000):
                print("x" * 999)
        if isinstance(do, dict) and "last" in do:
            print(do["last"])
            raise RuntimeError(do["last"])
        if isinstance(do, dict) and "result_bytes" in do:
            return "r" * do["result_bytes"]
        if data.path is not None:
            return {"size": data.path.stat().st_size, "same": isinstance(do, bytes) and len(do)}
        return {"echo": do} if not isinstance(do, bytes) else len(do)

    start(handler)
"""

LOADS = """
    import os, time
    from hecaton.serverless import start
    print("loading the model", flush=True)
    while not os.path.exists(os.path.dirname(__file__) + "/loaded"):
        time.sleep(0.01)
    print("loaded")
    start(lambda data: print("job", data.input))
"""

Serve = Callable[..., "asyncio.Task[int]"]


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    path = tmp_path / "handler.py"
    path.write_text(textwrap.dedent(HANDLER))
    return path


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def worker(server: ScriptedServer, handler: Path, tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a worker; at the end it is stopped, and nothing of it is left."""
    started: list[asyncio.Task[int]] = []

    def start(settings: WorkerSettings | None = None, ca_file: Path | None = None) -> asyncio.Task[int]:
        crash = tmp_path / "crash.py"
        crash.write_text("print('no start() in here')\n")
        loads = tmp_path / "loads.py"
        loads.write_text(textwrap.dedent(LOADS))
        runtime = ProcessRuntime(WORKER, {"echo": handler, "crash": crash, "loads": loads})
        config = server.config(tmp_path / "state", ca_file)
        task = asyncio.create_task(serve(config, runtime, (), settings or WorkerSettings(grace=2.0, drain_timeout=10)))
        started.append(task)
        return task

    yield start
    for task in started:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, PATIENCE)
    assert await ProcessRuntime(WORKER, {}).found() == []


def json_job(name: str, text: str, *, image: str = "echo", timeout: float | None = None) -> Assignment:
    return assignment(name, image=image, timeout=timeout, payload=Body.inline(Kind.JSON, text.encode()))


A, B, C = ref("a"), ref("b"), ref("c")


async def test_a_job_runs_in_a_container_and_its_result_and_log_come_back(
    server: ScriptedServer, worker: Serve
) -> None:
    worker()
    hello = await server.connected()
    assert hello.runtime == "process"
    assert hello.serves == ("echo", "crash", "loads")
    assert hello.doors == ("native",)
    await server.assign(json_job("a", '"print"'))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.OK
    assert outcome.body == Body.inline(Kind.JSON, b'{"echo":"print"}')
    assert outcome.log_size == len(b"one\ntwo\n")
    assert server.log(A) == b"one\ntwo\n"
    assert outcome.ran is not None, "what says that it has started, too"


async def test_the_second_job_finds_the_container_warm(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '"pid"'), json_job("b", '"pid"'))
    first, second = await server.outcome(A), await server.outcome(B)
    assert first.body == second.body


async def test_a_handler_that_raises_fails_its_job_and_the_container_goes_on(
    server: ScriptedServer, worker: Serve
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '"raise"'), json_job("b", '"pid"'))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.HANDLER_ERROR
    assert outcome.failure is not None
    assert outcome.failure.type == "ValueError"
    assert "no good" in outcome.failure.message
    assert "handler.py" in str(outcome.failure.traceback)
    assert (await server.outcome(B)).reason is Reason.OK


async def test_a_process_whose_card_has_failed_it_gets_no_other_job(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '"pid"'), json_job("b", '"assert on the card"'))
    first, failed = [await server.outcome(ref(name)) for name in "ab"]
    await server.assign(json_job("c", '"pid"'))
    last = await server.outcome(ref("c"))
    assert (first.reason, failed.reason, last.reason) == (Reason.OK, Reason.HANDLER_ERROR, Reason.OK)
    assert first.body != last.body


async def test_a_container_that_ends_under_its_job_fails_it_with_exit_code_and_last_lines(
    server: ScriptedServer, worker: Serve
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '"exit 3"'), json_job("b", '"exit 0"'), json_job("c", "1"))
    outcome = await server.outcome(A)
    assert (outcome.reason, outcome.exit_code) == (Reason.HANDLER_EXIT, 3)
    assert outcome.failure is not None
    assert "going down" in outcome.failure.message
    assert (await server.outcome(B)).reason is Reason.NO_RESULT
    assert (await server.outcome(C)).reason is Reason.OK


async def test_an_image_that_never_calls_start_fails_its_job_at_once(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", "1", image="crash"))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.STARTUP_EXIT
    assert outcome.failure is not None
    assert "no start() in here" in outcome.failure.message
    assert "--handler" in str(outcome.failure.hint)
    assert b"no start() in here" in server.log(A)


async def test_what_it_says_before_its_first_job_is_seen_live_and_is_the_beginning_of_that_ones_log(
    server: ScriptedServer, worker: Serve, tmp_path: Path
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", "1", image="loads"), json_job("b", "2", image="loads"))
    await server.until(lambda: server.log(A) == b"loading the model\n", "what it says while it starts")
    (tmp_path / "loaded").touch()
    for job in (A, B):
        assert (await server.outcome(job)).reason is Reason.OK
    assert [server.log(job) for job in (A, B)] == [b"loading the model\nloaded\njob 1\n", b"job 2\n"]


async def test_one_that_never_asks_for_work_is_given_up_with_its_last_lines(
    server: ScriptedServer, worker: Serve
) -> None:
    worker(WorkerSettings(startup_timeout=1.0, grace=2.0))
    await server.connected()
    await server.assign(json_job("a", "1", image="loads"))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.STARTUP_EXIT
    assert outcome.failure is not None
    assert "Its last lines:\nloading the model" in outcome.failure.message
    assert server.log(A) == b"loading the model\n"


async def test_an_image_that_the_runtime_does_not_have_is_denied(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", "1", image="unknown"))
    assert (await server.outcome(A)).reason is Reason.IMAGE_DENIED


async def test_progress_and_log_are_live(server: ScriptedServer, worker: Serve, tmp_path: Path) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", f'{{"wait": "{tmp_path}/go"}}'))
    await server.until(lambda: server.log(A) == b"waiting\n", "the log of a job that still runs")
    assert A not in server.outcomes()
    (tmp_path / "go").touch()
    await server.outcome(A)
    await server.assign(json_job("b", '"progress"'))
    assert (await server.message(Progress)) == progress(B, 0.5)


async def test_numbers_that_no_message_carries_are_reported_as_text(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("b", '"odd progress"'))
    assert (await server.message(Progress)) == progress(B, f'{{"rows": {2**70}}}')


async def test_what_a_container_of_another_release_reports_too_large_is_said_not_dropped() -> None:
    assert shown("x" * 100_000) == "(a value of 100002 bytes: up to 65536 are shown)"
    assert shown([0.1] * 10_000) == [0.1] * 10_000, "it counts as JSON, as where it is reported"


async def test_a_result_that_is_refused_arrives_with_its_place_and_how_to_allow_it(
    server: ScriptedServer, worker: Serve
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '"nan"'))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.RESULT_INVALID
    assert outcome.body == Body.inline(Kind.TEXT, b'{"acc": 0.9, "val_loss": NaN, "nul": "\\u0000"}')
    assert outcome.failure is not None
    assert "$.val_loss: NaN" in outcome.failure.message
    assert "json.dumps(result)" in (outcome.failure.hint or "")


async def test_the_log_of_a_job_after_a_pause_is_live_too(
    server: ScriptedServer, worker: Serve, tmp_path: Path
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", "1"))
    await server.outcome(A)
    await asyncio.sleep(2 * LOG_INTERVAL)  # by now the worker looks at idle containers only once in a while
    began = asyncio.get_running_loop().time()
    await server.assign(json_job("b", f'{{"wait": "{tmp_path}/go"}}'))
    await server.until(lambda: server.log(B) == b"waiting\n", "the log of a job that still runs")
    assert asyncio.get_running_loop().time() - began < IDLE_INTERVAL / 2
    (tmp_path / "go").touch()
    assert (await server.outcome(B)).reason is Reason.OK


async def test_large_payloads_and_results_travel_as_files(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    payload = os.urandom(3_000_000)
    blob = Body(Kind.BYTES, b"", server.keep(payload), len(payload))
    await server.assign(assignment("a", image="echo", payload=blob), json_job("b", '{"result_bytes": 5000000}'))
    assert (await server.outcome(A)).body == Body.inline(Kind.JSON, b'{"size":3000000,"same":3000000}')
    body = (await server.outcome(B)).body
    assert body is not None
    assert (body.data, body.size) == (b"", 5_000_002)
    assert server.blobs[str(body.blob)] == b'"' + b"r" * 5_000_000 + b'"'


async def test_a_payload_of_a_middle_size_reaches_the_handler_as_a_value(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    blob = Body(Kind.BYTES, b"", server.keep(b"z" * 200_000), 200_000)
    await server.assign(assignment("a", image="echo", payload=blob))
    assert (await server.outcome(A)).body == Body.inline(Kind.JSON, b"200000")


async def test_a_result_over_the_servers_limit_is_refused_with_that_reason(
    server: ScriptedServer, worker: Serve
) -> None:
    server.max_result = 100_000
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"result_bytes": 200000}'))
    assert (await server.outcome(A)).reason is Reason.RESULT_TOO_LARGE


async def test_a_long_log_arrives_whole_and_before_its_result(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"print_bytes": 3000000}'))
    outcome = await server.outcome(A)
    assert outcome.log_size == 3_000_000
    assert len(server.log(A)) == 3_000_000


async def test_a_job_over_its_timeout_is_killed_from_outside(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"wait": "/never"}', timeout=0.3))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.TIMEOUT
    assert server.log(A) == b"waiting\n"


async def test_a_running_job_is_cancelled_and_its_process_is_gone_by_then(
    server: ScriptedServer, worker: Serve
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"wait": "/never"}'), json_job("b", "1"))
    await server.message(Started)
    await server.say(Cancel((A,)))
    assert (await server.outcome(A)).reason is Reason.CANCELLED
    assert (await server.outcome(B)).reason is Reason.OK


async def test_a_waiting_job_is_given_back_when_revoked(server: ScriptedServer, worker: Serve, tmp_path: Path) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", f'{{"wait": "{tmp_path}/go"}}'), json_job("b", "1"))
    await server.message(Started)
    await server.say(Revoke((B,)))
    assert (await server.message(Released)).refs == (B,)
    (tmp_path / "go").touch()
    await server.outcome(A)
    assert B not in server.outcomes()


async def test_a_job_outlives_a_lost_connection_and_its_result_comes_on_the_next(
    server: ScriptedServer, worker: Serve, tmp_path: Path
) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", f'{{"wait": "{tmp_path}/go"}}'))
    await server.until(lambda: server.log(A) == b"waiting\n")
    await server.stop()
    (tmp_path / "go").touch()
    await server.start()
    hello = await server.connected(2)
    assert [item.ref for item in hello.held] == [A]
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.OK
    assert server.log(A) == b"waiting\n"


async def test_a_result_is_sent_until_it_is_accepted(server: ScriptedServer, worker: Serve) -> None:
    server.accepts = False
    worker()
    await server.connected()
    await server.assign(json_job("a", "1"))
    await server.outcome(A)
    server.accepts = True
    await server.cut()
    await server.connected(2)
    await server.message(Results, 2)
    await server.cut()
    hello = await server.connected(3)
    assert hello.held == ()


async def test_a_no_overlap_job_ends_before_another_worker_may_have_it_and_the_others_go_on(
    server: ScriptedServer, worker: Serve, tmp_path: Path
) -> None:
    server.lost_after = 2.0
    worker(WorkerSettings(slots=2, grace=2.0))
    await server.connected()
    no_overlap = msgspec.structs.replace(json_job("a", '{"wait": "/never"}'), options=Options(no_overlap=True))
    other = msgspec.structs.replace(json_job("b", f'{{"wait": "{tmp_path}/go"}}'), slot=1)
    await server.assign(no_overlap, other)
    await server.until(lambda: (server.log(A), server.log(B)) == (b"waiting\n", b"waiting\n"))
    await server.stop()
    async with asyncio.timeout(PATIENCE):
        while len(await ProcessRuntime(WORKER, {}).found()) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    (tmp_path / "go").touch()
    await server.start()
    assert (await server.outcome(A)).reason is Reason.RELEASED
    assert (await server.outcome(B)).reason is Reason.OK


async def test_what_was_fenced_while_the_worker_was_away_is_stopped(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"wait": "/never"}'))
    await server.message(Started)
    server.drop = (A,)
    await server.cut()
    await server.connected(2)
    server.drop = ()
    await server.assign(json_job("b", "1"))
    assert (await server.outcome(B)).reason is Reason.OK
    assert A not in server.outcomes()


async def test_results_and_logs_outlive_a_worker_that_is_killed(
    server: ScriptedServer, worker: Serve, handler: Path, tmp_path: Path
) -> None:
    server.accepts = False
    first = await killable_worker(server, handler, tmp_path)
    await server.connected()
    await server.assign(json_job("a", '"print"'), json_job("b", '{"result_bytes": 300000}'))
    await server.outcome(A)
    await server.outcome(B)
    await server.stop()
    await until_journalled(tmp_path / "state" / "journal")
    first.kill()
    await first.wait()
    server.heard.clear()
    server.blobs.clear()
    server.accepts = True
    await server.start()
    worker()
    hello = await server.connected(2)
    assert {(item.ref, item.phase) for item in hello.held} == {(A, "done"), (B, "done")}
    assert (await server.outcome(A)).reason is Reason.OK
    assert server.log(A) == b"one\ntwo\n"
    body = (await server.outcome(B)).body
    assert body is not None
    assert len(server.blobs[str(body.blob)]) == 300_002


KILLABLE = """
import asyncio, sys
from pathlib import Path
from hecaton.worker.app import serve
from hecaton.worker.link.registration import WorkerConfig
from hecaton.worker.runtimes.process import ProcessRuntime
from hecaton.worker.brain.settings import WorkerSettings
url, worker, token, folder, handler = sys.argv[1:]
config = WorkerConfig("bench", url, worker, token, Path(folder))
asyncio.run(serve(config, ProcessRuntime(worker, {"echo": Path(handler)}), (), WorkerSettings()))
"""


async def killable_worker(server: ScriptedServer, handler: Path, tmp_path: Path) -> asyncio.subprocess.Process:
    config = server.config(tmp_path / "state")
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLABLE, config.url, config.worker_id, config.token, str(config.folder), str(handler)
    )


async def until_journalled(path: Path) -> None:
    """Until both results are in the file: the worker writes them a moment after they came."""
    async with asyncio.timeout(PATIENCE):  # a file has no event to wait for
        while (await asyncio.to_thread(path.read_bytes)).count(b"ended") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_sigterm_lets_the_running_job_finish_and_hands_the_waiting_one_back(
    server: ScriptedServer, worker: Serve, tmp_path: Path
) -> None:
    task = worker()
    await server.connected()
    await server.assign(json_job("a", f'{{"wait": "{tmp_path}/go"}}'), json_job("b", "1"))
    await server.message(Started)
    os.kill(os.getpid(), signal.SIGTERM)
    await server.message(Draining)
    assert (await server.message(Released)).refs == (B,)
    (tmp_path / "go").touch()
    assert (await server.outcome(A)).reason is Reason.OK
    assert await asyncio.wait_for(task, PATIENCE) == 0


async def test_a_second_sigterm_stops_at_once_and_costs_no_attempt(server: ScriptedServer, worker: Serve) -> None:
    task = worker()
    await server.connected()
    await server.assign(json_job("a", '{"wait": "/never"}'))
    await server.message(Started)
    os.kill(os.getpid(), signal.SIGTERM)
    await server.message(Draining)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, PATIENCE) == 0
    assert (await server.message(Released)).refs == (A,)
    assert await ProcessRuntime(WORKER, {}).found() == []


async def test_a_worker_that_was_removed_ends_with_what_the_server_said(
    server: ScriptedServer, worker: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    task = worker()
    await server.connected()
    await server.say(Retire("by root"))
    assert await asyncio.wait_for(task, PATIENCE) == 0
    assert "by root" in capsys.readouterr().out


async def test_a_worker_whose_name_another_process_took_over_ends_and_does_not_come_back(
    server: ScriptedServer, worker: Serve
) -> None:
    task = worker()
    await server.connected()
    await server.close(4409)
    assert await asyncio.wait_for(task, PATIENCE) == FINAL_EXIT
    assert len(server.hellos) == 1


async def test_an_idle_container_is_stopped_after_the_idle_time(server: ScriptedServer, worker: Serve) -> None:
    worker(WorkerSettings(idle_timeout=0.2))
    await server.connected()
    await server.assign(json_job("a", '"pid"'))
    await server.outcome(A)
    await server.until(lambda: len(server.all(Warm)) > 3, "its end")
    assert [message.warm_key for message in server.all(Warm)[-3:]] == [None, "w1", None]
    assert await ProcessRuntime(WORKER, {}).found() == []


async def test_the_worker_leaves_nothing_behind(server: ScriptedServer, worker: Serve, tmp_path: Path) -> None:
    task = worker()
    await server.connected()
    await server.assign(json_job("a", '"print"'))
    await server.outcome(A)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, PATIENCE) == 0
    assert list((tmp_path / "state" / "c").iterdir()) == []
    assert list((tmp_path / "state" / "results").iterdir()) == []


async def test_it_says_what_it_waits_for(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", "1"))
    assert "waiting for it to ask for work" in (await server.message(Note)).text


async def test_a_large_result_whose_upload_was_cut_off_arrives_on_the_next_connection(
    server: ScriptedServer, worker: Serve
) -> None:
    server.refuse_blobs = 503
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"result_bytes": 300000}'), json_job("b", "1"))
    await server.outcome(B)  # nothing else waits for it
    await server.cut()
    await server.connected(2)
    server.refuse_blobs = 0
    body = (await server.outcome(A)).body
    assert body is not None
    assert len(server.blobs[str(body.blob)]) == 300_002


async def test_a_result_that_a_proxy_does_not_take_is_kept_until_it_does(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    server.proxy_says = lambda: web.Response(status=413, headers={"Server": "nginx"}, body=b"<html></html>")
    await server.assign(json_job("a", '{"result_bytes": 300000}'))
    await server.until(lambda: any("client_max_body_size" in note.text for note in server.all(Note)), "its word of it")
    assert A not in server.outcomes()
    server.proxy_says = None
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.OK
    assert outcome.body is not None
    assert outcome.body.size == 300_002


async def test_of_a_storm_of_output_the_beginning_and_the_end_are_kept(server: ScriptedServer, worker: Serve) -> None:
    worker()
    await server.connected()
    await server.assign(json_job("a", '{"print_bytes": 100000000, "last": "the real reason"}'))
    outcome = await server.outcome(A)
    assert outcome.reason is Reason.HANDLER_ERROR
    log = server.log(A)
    assert outcome.log_size == len(log) > HEAD + TAIL
    assert log.startswith(b"x" * 999)
    assert b"Hecaton left out the" in log[HEAD : HEAD + 100]
    assert log.endswith(b"x\nthe real reason\n")


async def test_a_defect_ends_the_worker_loudly_instead_of_leaving_it_deaf(
    server: ScriptedServer, handler: Path, tmp_path: Path
) -> None:
    class Unknown(ev.Event, frozen=True):
        """Nothing in the brain expects this."""

    runtime = ProcessRuntime(WORKER, {"echo": handler})
    config = server.config(tmp_path / "state")
    async with session(config) as http:
        bodies = Bodies(config.url, http)
        agent = Agent(config, runtime, (), WorkerSettings(), ServerLink(config, http), bodies, tmp_path)
        with pytest.raises(KeyError):
            agent.post(Unknown(0.0))
        with pytest.raises(KeyError):
            await agent.left
    await runtime.close()
