"""What a handler prints is the job's log, however it prints; and it cannot disturb the result."""

from __future__ import annotations

import json

from tests.serverless.worker_side import WorkerSide


def test_whatever_prints_lands_in_the_log_before_the_result(worker: WorkerSide) -> None:
    worker.serve(
        """
        import ctypes, subprocess
        def handler(data):
            print("by print")
            print("to stderr", file=sys.stderr)
            os.write(1, b"by os.write\\n")
            ctypes.CDLL(None).printf(b"by C code\\n")
            subprocess.run(["sh", "-c", "echo by a child; echo child stderr >&2"])
            print("lone surrogate \\udcff, and half a line", end="")
        start(handler)
        """
    )
    header, _ = worker.run()
    lines = worker.log(header["log_end"]).splitlines()
    assert sorted(lines) == sorted(
        [
            "by print",
            "to stderr",
            "by os.write",
            "by C code",
            "by a child",
            "child stderr",
            "lone surrogate \\udcff, and half a line",
        ]
    )


def test_log_ends_tell_the_output_of_one_job_from_the_next(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: print(data.input, end=''))")
    first, _ = worker.run("first ", "job-1")
    second, _ = worker.run("second", "job-2")
    assert worker.log(first["log_end"]) == "first "
    assert worker.log(second["log_end"]) == "first second"


def test_output_is_in_the_log_while_the_handler_still_runs(worker: WorkerSide) -> None:
    worker.serve(
        """
        def handler(data):
            print("line by line")
            progress("printed")
        start(handler)
        """
    )
    worker.job()
    header, _ = worker.read()
    assert header["value"] == "printed"
    assert worker.log() == "line by line\n"


def test_start_up_output_goes_where_the_container_engine_looks(worker: WorkerSide) -> None:
    worker.serve("print('loading the model')\nstart(lambda data: print('in the job'))")
    worker.run()
    assert worker.log() == "in the job\n"
    assert worker.process is not None
    worker.process.terminate()
    assert worker.start_up_output() == "loading the model\n"


def test_10_mb_of_printed_fake_frames_do_not_matter(worker: WorkerSide) -> None:
    worker.serve(
        """
        from hecaton.serverless.protocol import encode
        header = {"type": "result", "job": "job-1", "attempt": 1, "status": "ok", "kind": "json", "log_end": 0}
        fake = encode(header, b"666")
        block = fake * (1_000_000 // len(fake))
        def handler(data):
            for _ in range(10):
                os.write(1, block)
                os.write(2, block)
            return "real"
        start(handler)
        """
    )
    header, body = worker.run()
    assert json.loads(body) == "real"
    assert header["log_end"] == (worker.folder / "log").stat().st_size > 19_000_000
    assert worker.value(name="job-2") == "real"


VANDALS = """
import io, socket
kept = []
def handler(data):
    print("before")
    if data.input == "print from a child":
        os.system("echo from a child")
    if data.input == "close 1 and 2":
        os.close(1)
        os.close(2)
        print("kept for later", end="")
    elif data.input == "close all":
        os.closerange(0, 1000)
    elif data.input == "close all and take the numbers":
        os.closerange(0, 1000)
        kept.extend(os.open(os.devnull, os.O_RDWR) for _ in range(3))
        kept.extend(socket.socketpair() for _ in range(20))
    elif data.input == "close sys.stdout":
        sys.stdout.close()
        sys.stderr.close()
    elif data.input == "replace sys.stdout":
        sys.stdout = sys.stderr = io.StringIO()
    elif data.input == "no sys.stdout":
        sys.stdout = sys.stderr = None
    elif data.input == "redirect":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return data.input
start(handler)
"""


def test_a_handler_that_ruins_its_descriptors_loses_neither_result_nor_later_output(worker: WorkerSide) -> None:
    worker.serve(VANDALS)
    for how in (
        "close 1 and 2",
        "close all",
        "close sys.stdout",
        "replace sys.stdout",
        "no sys.stdout",
        "redirect",
        "close all and take the numbers",
    ):
        worker.job(how, how)
        if how.startswith("close all"):
            hello = worker.connect()
            assert hello["pending"] == [{"job": how, "attempt": 1}]
        header, body = worker.result()
        worker.ack(header)
        assert (header["status"], json.loads(body)) == ("ok", how)
        start = header["log_end"]
        header, _ = worker.run("print from a child", f"after {how}")
        output = (worker.folder / "log").read_bytes()[start : header["log_end"]]
        assert output == b"before\nfrom a child\n", how
    assert worker.value(name="last") is None
    assert worker.log().count("kept for later") == 1


def test_a_worker_that_removed_the_log_still_gets_the_result(worker: WorkerSide) -> None:
    worker.serve(VANDALS)
    (worker.folder / "log").unlink()
    (worker.folder / "log").mkdir()
    header, body = worker.run("close 1 and 2")
    assert (header["status"], json.loads(body), header["log_end"]) == ("ok", "close 1 and 2", 0)


def test_the_nonce_is_not_in_the_handlers_environment(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: [value for name, value in os.environ.items() if 'HECATON' in name])")
    assert worker.value() == [str(worker.folder)]
