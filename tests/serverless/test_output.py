"""What a handler prints is the job's log, however it prints; and it cannot disturb the result."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_handler_that_ruins_its_descriptors_loses_neither_result_nor_later_output(
    worker: WorkerSide, protocol: int
) -> None:
    worker.protocol = protocol
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
        start = header["log_end"] if protocol == 1 else 0
        header, _ = worker.run("print from a child", f"after {how}")
        output = worker.output(worker.log_of(f"after {how}"))[start : header["log_end"]]
        assert output == "before\nfrom a child\n", how
    assert worker.value(name="last") is None
    files = [worker.log(), *(path.read_text() for path in (worker.folder / "out").glob("log.*"))]
    assert "".join(files).count("kept for later") == 1


def test_a_worker_that_removed_the_log_still_gets_the_result(worker: WorkerSide) -> None:
    worker.serve(VANDALS)
    (worker.folder / "log").unlink()
    (worker.folder / "log").mkdir()
    header, body = worker.run("close 1 and 2")
    assert (header["status"], json.loads(body), header["log_end"]) == ("ok", "close 1 and 2", 0)


def test_the_nonce_is_not_in_the_handlers_environment(worker: WorkerSide) -> None:
    worker.serve("start(lambda data: [value for name, value in os.environ.items() if 'HECATON' in name])")
    assert worker.value() == [str(worker.folder)]


class TestAFileForEachJobThatPrints:
    """What a process prints stays with the job that started it."""

    PRINTER = """
    import subprocess
    def handler(data):
        if data.input == "leave a child":
            subprocess.Popen(["sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; echo left over; touch done"])
        elif data.input == "wait for it":
            open("go", "w").close()
            while not os.path.exists("done"):
                time.sleep(0.01)
        elif data.input:
            print(data.input)
    start(handler)
    """

    @pytest.fixture
    def files(self, worker: WorkerSide, tmp_path: Path) -> WorkerSide:
        worker.protocol = 2
        worker.serve(f"import time\nos.chdir({str(tmp_path)!r})\n" + textwrap.dedent(self.PRINTER))
        return worker

    def test_jobs_share_one_until_one_prints(self, files: WorkerSide) -> None:
        for name in ("first", "second"):
            files.run(name, name)
        assert [files.output(files.log_of(name)) for name in ("first", "second")] == ["first\n", "second\n"]
        names = {files.run("", f"silent {number}")[0].get("next_log") for number in range(20)}
        assert None in names  # another process of this machine may have been started meanwhile

    def test_a_child_that_outlives_its_silent_job_prints_into_no_other_log(self, files: WorkerSide) -> None:
        files.run("", "warm up")
        first, _ = files.run("leave a child")
        second, _ = files.run("wait for it", "job-2")
        assert (first["log_end"], second["log_end"]) == (0, 0)
        assert files.output(files.log_of("job-1")) == "left over\n"
        assert files.output(files.log_of("job-2")) == ""

    def test_the_hello_says_which_one_it_is(self, files: WorkerSide) -> None:
        assert files.hello["log"] is None
        name = files.run("x")[0]["next_log"]
        files.hang_up()
        assert files.connect()["log"] == name

    def test_a_worker_of_the_release_before_finds_all_in_one(self, worker: WorkerSide) -> None:
        worker.serve("start(lambda data: print(data.input))")
        headers = [worker.run("x", name)[0] for name in ("a", "b")]
        assert [header["log_end"] for header in headers] == [2, 4]
        assert not any("next_log" in header for header in headers)

    def test_without_a_place_for_a_new_one_all_go_into_the_first(self, files: WorkerSide) -> None:
        (files.folder / "out").rmdir()
        headers = [files.run("x", name)[0] for name in ("a", "b")]
        assert [header["log_end"] for header in headers] == [2, 4]

    def test_names_that_are_taken_are_passed_over(self, files: WorkerSide) -> None:
        (files.folder / "out" / "log.1").touch()
        assert files.run("x")[0]["next_log"] == "log.2"
