"""What a handler may be, is given, and may return; and what becomes of one that fails."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from hecaton.serverless.protocol import PROTOCOL_VERSION
from tests.serverless.worker_side import WorkerSide, opens_for_writing, wait_for

SEED_HANDLER = """
def my_handler(data: ServerLessInput):
    job_payload = data.input
    print(f"Processing job with data: {job_payload}")
    result = {"status": "success", "processed_data": job_payload}
    return result

if __name__ == "__main__":
    start(my_handler)
"""


def test_the_handler_of_the_readme_serves_one_job_after_another(worker: WorkerSide) -> None:
    worker.serve(SEED_HANDLER)
    for index in range(3):
        answer = worker.value({"n": index}, f"job-{index}")
        assert answer == {"status": "success", "processed_data": {"n": index}}


def test_the_hello_says_who_is_there(worker: WorkerSide) -> None:
    worker.serve(SEED_HANDLER)
    assert worker.process is not None
    hello = worker.hello
    assert hello["protocol"] == PROTOCOL_VERSION
    assert hello["nonce"] == "5ec4e7"
    assert hello["pid"] == worker.process.pid
    assert hello["pending"] == []
    assert hello["running"] is None
    assert tuple(map(int, hello["sdk"].split(".")[:2])) >= (2, 0)
    assert f"python{hello['python'].rpartition('.')[0]}" in worker.python


def test_a_payload_arrives_as_json_as_text_or_as_bytes(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: [type(data.input).__name__, repr(data.input), data.path])")
    cases = [("json", b'{"a": [1, null]}'), ("text", "h\u00e9llo".encode()), ("bytes", b"\xff\x00")]
    answers = []
    for kind, body in cases:
        worker.job_of(kind, body, name=f"job-{kind}")
        header, answer = worker.result()
        worker.ack(header)
        answers.append(json.loads(answer))
    assert answers == [
        ["dict", "{'a': [1, None]}", None],
        ["str", "'h\u00e9llo'", None],
        ["bytes", "b'\\xff\\x00'", None],
    ]


def test_a_large_payload_comes_as_a_file_with_its_path(worker: WorkerSide) -> None:
    worker.serve(
        "start(lambda d: [type(d.path).__module__[:7], d.path.name, d.path.stat().st_size, len(d.input['x'])])"
    )
    content = json.dumps({"x": "y" * 2_000_000}).encode()
    (worker.folder / "in" / "big").write_bytes(content)
    worker.job_of("json", b"", file="big")
    _, body = worker.result()
    assert json.loads(body) == ["pathlib", "big", len(content), 2_000_000]


def test_a_handler_knows_its_job_its_attempt_and_its_idempotency_key(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: [data.job_id, data.attempt, data.idempotency_key])")
    worker.job("x", name="job-7", attempt=3)
    header, body = worker.result()
    assert (header["job"], header["attempt"]) == ("job-7", 3)
    assert json.loads(body) == ["job-7", 3, "key-of-job-7"]


def test_a_payload_that_cannot_be_decoded_fails_the_job_only(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: data.input)")
    worker.job_of("json", b'{"a": ')
    header, _ = worker.result()
    assert header["status"] == "handler_error"
    assert "JSONDecodeError" in header["error"]["type"]
    worker.ack(header)
    assert worker.value("next", "job-2") == "next"


@pytest.mark.parametrize(
    "source",
    [
        "async def handler(data): return [data.input]\nstart(handler)",
        "import functools\ndef handler(x, data): return [data.input]\nstart(functools.partial(handler, 1))",
        "import functools\nasync def handler(x, data): return [data.input]\nstart(functools.partial(handler, 1))",
        "class Model:\n    def __call__(self, data): return [data.input]\nstart(Model())",
        "class Model:\n    async def __call__(self, data): return [data.input]\nstart(Model())",
        "class Model:\n    def run(self, data): return (data.input,)\nstart(Model().run)",
        "def handler(data): yield data.input\nstart(handler)",
        "async def handler(data): yield data.input\nstart(handler)",
        "import asyncio\ndef handler(data): return asyncio.run(asyncio.sleep(0, [data.input]))\nstart(handler)",
    ],
    ids=[
        "async",
        "partial",
        "async partial",
        "object",
        "async object",
        "method",
        "generator",
        "async generator",
        "run",
    ],
)
def test_any_callable_is_a_handler(worker: WorkerSide, source: str) -> None:
    worker.serve(source)
    assert worker.value(1, "job-1") == [1]
    assert worker.value({"b": 2}, "job-2") == [{"b": 2}]


def test_async_clients_live_on_in_the_next_job(worker: WorkerSide) -> None:
    worker.serve(
        """
        import asyncio
        loops, queue = [], None
        async def handler(data):
            global queue
            if queue is None:
                queue = asyncio.Queue()
                await queue.put("from the first job")
            loops.append(asyncio.get_running_loop())
            return [await queue.get() if len(loops) == 2 else None, len(set(map(id, loops)))]
        start(handler)
        """
    )
    assert worker.value(name="job-1") == [None, 1]
    assert worker.value(name="job-2") == ["from the first job", 1]


@pytest.mark.parametrize("keyword", ["def", "async def"])
def test_each_item_of_a_generator_is_shown_at_once(worker: WorkerSide, keyword: str) -> None:
    worker.serve(
        f"""
        gate = os.path.join(os.environ["HECATON_DIR"], "gate")
        {keyword} handler(data):
            shared = {{"step": 0}}
            for step in range(3):
                shared["step"] = step
                yield shared
                if step == 0:
                    open(gate).close()  # a FIFO: waits until the test has seen the first item
        start(handler)
        """
    )
    os.mkfifo(worker.folder / "gate")
    worker.job()
    first, _ = worker.read()
    expected = {"type": "progress", "job": "job-1", "attempt": 1, "value": {"step": 0}, "yielded": 0}
    assert first == expected
    wait_for(lambda: opens_for_writing(worker.folder / "gate"))
    header, body = worker.result()
    assert [(item["value"], item["yielded"]) for item in worker.progress] == [({"step": 1}, 1), ({"step": 2}, 2)]
    assert header["status"] == "ok"
    assert json.loads(body) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_a_generator_that_yields_nothing_gives_an_empty_list(worker: WorkerSide) -> None:
    worker.serve("def handler(data):\n    yield from ()\nstart(handler)")
    assert worker.value() == []


def test_a_generator_item_that_is_not_json_or_too_large_to_show(worker: WorkerSide) -> None:
    worker.serve("def handler(data):\n    yield 1\n    yield 'x' * data.input if data.input else {1}\nstart(handler)")
    header, _ = worker.run(0, "job-1")
    assert header["status"] == "result_invalid"
    assert header["error"]["message"].startswith("$[1]: set is not JSON")
    header, body = worker.run(3_000_000, "job-2")
    assert header["status"] == "ok"
    assert body == b""
    assert json.loads((worker.folder / "out" / header["file"]).read_text()) == [1, "x" * 3_000_000]
    assert [(item["value"], item["job"]) for item in worker.progress] == [(1, "job-1"), (1, "job-2")]


def test_progress_is_reported_while_the_handler_runs_from_any_thread(worker: WorkerSide) -> None:
    worker.serve(
        """
        import threading
        def handler(data):
            progress({"percent": 50, "note": "h\u00e4lf"})
            progress(done=12, total=60)
            thread = threading.Thread(target=progress, args=(99,))
            thread.start()
            thread.join()
            progress({"loss": float("nan")})
            progress("x" * (1 << 16))
            child = os.fork()
            if child == 0:
                progress("of a child")
                os._exit(0)
            os.waitpid(child, 0)
            return "trained"
        start(handler)
        """
    )
    assert worker.value() == "trained", "it ends no job"
    half, counted = {"percent": 50, "note": "h\u00e4lf"}, {"done": 12, "total": 60}
    assert [item["value"] for item in worker.progress] == [half, counted, 99, '{"loss": NaN}']
    assert all("yielded" not in item for item in worker.progress)
    large, child = (line for line in worker.log().splitlines() if line.startswith("progress: "))
    assert large == 'progress: "' + "x" * ((1 << 16) - 1) + " [... 65538 bytes in all]"
    assert child == 'progress: "of a child"'


FAILURES = """
class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def fail(how):
    if how == "value":
        raise ValueError("bad \\ud800 input \\0")
    if how == "exit":
        sys.exit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "recursion":
        return fail(how) + 1
    if how == "memory":
        return bytearray(1 << 62)
    if how == "odd":
        raise Odd
    if how == "huge":
        raise ValueError("begin" + "x" * 5_000_000 + "end")
    if how == "chained":
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise LookupError("second") from error
    return "fine"

def handler(data):
    return fail(data.input)

async def async_handler(data):
    return fail(data.input)

def generator(data):
    yield fail(data.input)
"""


@pytest.mark.parametrize("shape", ["handler", "async_handler", "generator"])
def test_a_handler_that_raises_fails_its_job_and_the_next_one_runs(worker: WorkerSide, shape: str) -> None:
    worker.serve(FAILURES + f"start({shape})\n")
    errors: dict[str, Any] = {}
    for how in ("value", "exit", "interrupt", "recursion", "memory", "odd", "huge", "chained"):
        header, body = worker.run(how, f"job-{how}")
        assert header["status"] == "handler_error", how
        assert body == b""
        errors[how] = header["error"]
    assert worker.value("nothing", "job-last") in ("fine", ["fine"])
    assert {how: error["type"] for how, error in errors.items()} == {
        "value": "ValueError",
        "exit": "SystemExit",
        "interrupt": "KeyboardInterrupt",
        "recursion": "RecursionError",
        "memory": "MemoryError",
        "odd": "__main__.Odd",
        "huge": "ValueError",
        "chained": "LookupError",
    }
    assert errors["value"]["message"] == "bad \\ud800 input \\x00"
    assert errors["exit"]["message"] == "3"
    assert len(errors["huge"]["message"]) <= 8 << 10
    assert errors["huge"]["message"].endswith("end")
    assert all(len(error["traceback"]) <= 64 << 10 for error in errors.values())
    assert "ZeroDivisionError" in errors["chained"]["traceback"]
    assert "direct cause" in errors["chained"]["traceback"]


@pytest.mark.parametrize("shape", ["handler", "async_handler"])
def test_a_traceback_begins_with_the_users_own_code(worker: WorkerSide, shape: str) -> None:
    worker.serve(FAILURES + f"start({shape})\n")
    header, _ = worker.run("value")
    lines = header["error"]["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].strip().startswith(f'File "{worker.folder.parent}/handler.py"')
    assert lines[1].endswith(f"in {shape}")
    assert 'raise ValueError("bad' in header["error"]["traceback"]
    assert "hecaton/serverless" not in header["error"]["traceback"]
    assert "asyncio" not in header["error"]["traceback"]


def test_a_handler_that_takes_no_argument_is_told_so(worker: WorkerSide) -> None:
    worker.serve("def handler(): return 1\nstart(handler)")
    header, _ = worker.run()
    assert header["status"] == "handler_error"
    assert "handler() takes 0 positional arguments" in header["error"]["message"]
