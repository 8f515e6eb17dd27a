"""How a container's process starts, ends, and behaves when a handler multiplies it."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.serverless.worker_side import WorkerSide, unshare

BUSY = {
    "waiting": "def handler(data):\n    progress(1)\n    open(data.input).close()\nstart(handler)",
    "computing": "def handler(data):\n    progress(1)\n    while True: pass\nstart(handler)",
    "in C code": "import re\ndef handler(data):\n    progress(1)\n    re.match('(a*)*b', 'a' * 40)\nstart(handler)",
    "catching everything": """
        def handler(data):
            while True:
                try:
                    progress(1)
                    open(data.input).close()
                except BaseException:
                    pass
        start(handler)
        """,
}


def test_sigterm_ends_an_idle_container_at_once(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: 1)")
    assert worker.value() == 1
    assert worker.process is not None
    worker.process.terminate()
    assert worker.exit_code() == -signal.SIGTERM


@pytest.mark.parametrize("how", BUSY)
def test_sigterm_ends_a_busy_handler_at_once(worker: WorkerSide, how: str) -> None:
    os.mkfifo(worker.folder / "never")
    worker.serve(BUSY[how])
    worker.job(str(worker.folder / "never"))
    assert worker.read()[0]["type"] == "progress"
    assert worker.process is not None
    worker.process.terminate()
    assert worker.exit_code() == -signal.SIGTERM


@pytest.mark.parametrize("how", ["idle", "waiting", "catching everything"])
def test_sigterm_ends_process_1_too(worker: WorkerSide, how: str) -> None:
    os.mkfifo(worker.folder / "never")
    worker.listen()
    worker.start(BUSY["waiting" if how == "idle" else how], *unshare())
    assert worker.connect()["pid"] == 1
    if how != "idle":
        worker.job(str(worker.folder / "never"))
        assert worker.read()[0]["type"] == "progress"
    assert worker.process is not None
    with open(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children") as children:
        os.kill(int(children.read()), signal.SIGTERM)
    assert worker.exit_code() == 128 + signal.SIGTERM


def test_a_handler_for_sigterm_of_the_users_own_is_kept(worker: WorkerSide) -> None:
    worker.serve("import signal\nsignal.signal(signal.SIGTERM, lambda *_: os._exit(42))\nstart(lambda data: 1)")
    assert worker.value() == 1
    assert worker.process is not None
    worker.process.terminate()
    assert worker.exit_code() == 42


FORKING = """
def handler(data):
    child = os.fork()
    if child:
        return ["parent", os.WEXITSTATUS(os.waitpid(child, 0)[1])]
    print("child")
    if data.input == "raises":
        raise ValueError("in the child")
    if data.input == "exits":
        sys.exit(7)
    if data.input == "reports":
        progress("from the child")
    return "child"
def generator(data):
    yield handler(data)
async def coroutine(data):
    return handler(data)
"""


@pytest.mark.parametrize("shape", ["handler", "coroutine"])
def test_only_the_parent_answers_when_a_handler_forks(worker: WorkerSide, shape: str) -> None:
    worker.serve(FORKING + f"start({shape})\n")
    for how, code in (("returns", 0), ("raises", 1), ("exits", 7), ("reports", 0)):
        assert worker.value(how, how) == ["parent", code]
    assert worker.progress == []
    assert worker.log().count("child\n") == 4 + worker.log().count("in the child\n")
    assert "ValueError: in the child" in worker.log()
    assert "from the child" in worker.log()


def test_only_the_parent_answers_when_a_generator_forks(worker: WorkerSide) -> None:
    worker.serve(FORKING + "start(generator)\n")
    assert worker.value("returns") == [["parent", 0]]
    assert [item["value"] for item in worker.progress] == [["parent", 0]]


def test_multiprocessing_works_in_a_handler(worker: WorkerSide) -> None:
    worker.serve(
        """
        import multiprocessing
        def square(number):
            return number * number
        def handler(data):
            with multiprocessing.get_context(data.input).Pool(2) as pool:
                return pool.map(square, range(4))
        if __name__ == "__main__":
            start(handler)
        """
    )
    for method in ("fork", "spawn"):
        assert worker.value(method, method) == [0, 1, 4, 9]


@pytest.mark.parametrize(
    "source",
    ["os._exit(0)", "os.kill(os.getpid(), 9)", "import ctypes; ctypes.string_at(0)"],
    ids=lambda text: text[:8],
)
def test_a_handler_that_ends_its_process_closes_the_connection(worker: WorkerSide, source: str) -> None:
    worker.serve(f"def handler(data):\n    {source}\nstart(handler)")
    worker.job()
    with pytest.raises(ConnectionError):
        worker.result()


@pytest.mark.parametrize(
    ("handler", "kind"), [("{'handler': print}", "dict"), ("None", "NoneType"), ("print()", "None")]
)
def test_what_cannot_be_called_is_refused_at_once(worker: WorkerSide, handler: str, kind: str) -> None:
    worker.listen()
    worker.start(f"start({handler})")
    output = worker.start_up_output()
    assert worker.exit_code() == 1
    assert "TypeError: start() needs the handler function itself, as in start(my_handler); it got a " + kind in output


def test_a_second_start_says_what_is_wrong(worker: WorkerSide) -> None:
    worker.listen()
    worker.start("os.environ.pop('HECATON_NONCE')\nstart(print)")
    output = worker.start_up_output()
    assert worker.exit_code() == 1
    assert "start() was called twice, or in a child process" in output


def test_a_log_that_cannot_be_opened_is_said_at_start(worker: WorkerSide) -> None:
    (worker.folder / "log").unlink()
    (worker.folder / "log").mkdir()
    worker.start("start(print)")
    output = worker.start_up_output()
    assert worker.exit_code() == 1
    assert "the worker's log file cannot be opened" in output


def test_nothing_of_a_job_stays_in_memory_while_the_next_is_awaited(worker: WorkerSide) -> None:
    worker.serve(
        """
        import gc, weakref
        class Tensor: pass
        seen = []
        def handler(data):
            alive = [ref for ref in seen if ref() is not None]
            tensor = Tensor()
            seen.append(weakref.ref(tensor))
            data.tensor = tensor
            if data.input:
                raise ValueError
            return len(alive)
        start(handler)
        """
    )
    worker.run(1, "job-1")
    worker.run(1, "job-2")
    header, body = worker.run(0, "job-3")
    assert json.loads(body) == 0
    assert header["status"] == "ok"
