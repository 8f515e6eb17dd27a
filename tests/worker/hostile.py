"""A handler file full of handlers that do harm; the payload names one. Run by a worker in `test_hostile`.

What `link()` gives is the connection to the worker: from here on no rule of the protocol is sacred.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from hecaton.serverless import ServerLessInput, loop, progress, start
from hecaton.serverless.protocol import socket_address

FOLDER = os.environ.get("HECATON_DIR", "")
OUT = FOLDER + "/out/"
JOB = ServerLessInput


def good(data: JOB) -> object:
    return "good"


# -- never ends ------------------------------------------------------------------------------------------


def sleeps_for_ever(data: JOB) -> None:
    time.sleep(1e6)


def hangs_in_c_with_the_gil(data: JOB) -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def ignores_sigterm(data: JOB) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1e6)


def deadlocks(data: JOB) -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def cuts_itself_off(data: JOB) -> object:
    """The socket is a folder, the connection is closed: no way back."""
    os.unlink(FOLDER + "/socket")
    os.mkdir(FOLDER + "/socket")
    connection().shutdown(socket.SHUT_RDWR)
    return "nobody will hear of it"


def forges_results_and_never_reads(data: JOB) -> None:
    """Each may be acknowledged; nobody takes the acknowledgements out of the worker's memory."""
    header = {"type": "result", "job": "x" * 200, "attempt": 2**31 - 1, "status": "ok", "kind": "json", "log_end": 0}
    while True:
        connection().sendall(raw(header) * 100)


def floods_with_frames(data: JOB) -> None:
    while True:
        connection().sendall(raw({"type": ""}) * 1000)


def dials_for_ever(data: JOB) -> None:
    while True:
        with contextlib.suppress(OSError):
            dial().close()


# -- ends its process ------------------------------------------------------------------------------------


def exits_with_0(data: JOB) -> None:
    os._exit(0)


def exits_with_7(data: JOB) -> None:
    os._exit(7)


def raises_system_exit(data: JOB) -> None:
    sys.exit(0)


def segfaults(data: JOB) -> None:
    ctypes.string_at(0)


def aborts(data: JOB) -> None:
    os.abort()


def kills_itself(data: JOB) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stops_itself_politely(data: JOB) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


def forks_and_exits(data: JOB) -> None:
    if os.fork():
        os._exit(0)
    time.sleep(1e6)


def dies_within_a_frame(data: JOB) -> None:
    connection().sendall(result(data, b"half")[:-2])
    os._exit(0)


# -- raises ----------------------------------------------------------------------------------------------


def raises(data: JOB) -> None:
    raise ValueError("no good")


def raises_half_a_character(data: JOB) -> None:
    raise ValueError("\ud800 \0")


def raises_what_cannot_be_shown(data: JOB) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    raise Mute


def raises_the_end_of_everything(data: JOB) -> None:
    raise KeyboardInterrupt


def runs_out_of_memory(data: JOB) -> object:
    old = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, old[1]))
    try:
        return len(bytearray(1 << 34))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


def says_more_than_a_failure_may(data: JOB) -> None:
    error = {"type": "\ud800", "message": "\udfff" * 100_000, "traceback": 7}
    connection().sendall(result(data, status="handler_error", error=error))


# -- returns what is no result ---------------------------------------------------------------------------


def returns_nan(data: JOB) -> object:
    return {"loss": float("nan")}


def returns_a_circle(data: JOB) -> object:
    circle: list[object] = []
    circle.append(circle)
    return circle


def returns_a_set(data: JOB) -> object:
    return {"a": {1, 2}}


def returns_an_abyss(data: JOB) -> object:
    abyss: list[object] = []
    for _ in range(10_000):
        abyss = [abyss]
    return abyss


def returns_a_number_of_5000_digits(data: JOB) -> object:
    return 10**5000


def returns_half_a_character(data: JOB) -> object:
    return "\ud800"


def returns_too_much(data: JOB) -> object:
    return bytes(9 << 20)


def yields_for_ever(data: JOB) -> Iterator[str]:
    while True:
        yield "x" * 100_000


def says_what_is_not_json(data: JOB) -> None:
    connection().sendall(result(data, b"{not json"))


def returns_an_endless_device(data: JOB) -> None:
    os.mknod(OUT + "zero", 0o666 | 0o020000, os.makedev(1, 5))
    connection().sendall(result(data, file="zero"))


def returns_a_link(data: JOB) -> None:
    os.symlink("/etc/passwd", OUT + "link")
    connection().sendall(result(data, file="link"))


def returns_a_pipe(data: JOB) -> None:
    os.mkfifo(OUT + "pipe")
    connection().sendall(result(data, file="pipe"))


def returns_a_folder(data: JOB) -> None:
    os.mkdir(OUT + "folder")
    connection().sendall(result(data, file="folder"))


def returns_a_file_of_the_workers(data: JOB) -> None:
    connection().sendall(result(data, file="../../../journal"))


def returns_a_name_that_is_none(data: JOB) -> None:
    connection().sendall(result(data, file="\ud800"))


def returns_a_file_that_is_too_large(data: JOB) -> None:
    with open(OUT + "large", "wb") as file:
        file.truncate(1 << 40)
    connection().sendall(result(data, file="large"))


# -- is noisy, and gives its result all the same ---------------------------------------------------------


def prints_fake_frames(data: JOB) -> object:
    forged = result(data, b'"forged"')
    for _ in range(20_000):
        os.write(1, forged)
    return "true"


def prints_binary_without_end_of_line(data: JOB) -> object:
    for _ in range(20):
        os.write(1, os.urandom(1 << 20))
    return "true"


def storms_the_log(data: JOB) -> object:
    for _ in range(100):
        os.write(1, b"x" * (1 << 20))
    return "true"


def writes_to_everything_that_is_open(data: JOB) -> object:
    for fd in range(3, 64):
        try:
            os.write(fd, b"\xff" * 64)
        except OSError:
            continue
    return "true"


def closes_everything(data: JOB) -> object:
    os.closerange(0, 256)
    return "true"


def reports_progress_thousands_of_times(data: JOB) -> object:
    for number in range(20_000):
        progress({"step": number, "of": "x" * 500})
    return "true"


def reports_progress_that_no_message_can_carry(data: JOB) -> object:
    values: list[object] = [10**30, "\ud800", {"\udfff": 10**400}]
    for value in values:
        header = {"type": "progress", "job": data.job_id, "attempt": data.attempt, "value": value}
        connection().sendall(raw(header))
        time.sleep(0.3)  # at least one of the worker's looks at it
    return "true"


def answers_for_others(data: JOB) -> object:
    for job, attempt in (("other", 1), (data.job_id, data.attempt + 1), ("\ud800", 1), ("x" * 1000, 1)):
        header = {"type": "result", "job": job, "attempt": attempt, "status": "ok", "kind": "json", "log_end": 0}
        try:
            connection().sendall(raw(header, b'"forged"'))
        except OSError:
            return "true"  # the worker has hung up: it may
    return "true"


def sends_a_header_of_two_megabytes(data: JOB) -> object:
    say_and_hang_up(struct.pack("!II", 2 << 20, 0) + b"x" * 4096)
    return "true"


def sends_junk(data: JOB) -> object:
    say_and_hang_up(os.urandom(100_000))
    return "true"


def says_hello_again_and_again(data: JOB) -> object:
    for _ in range(200):
        strange = dial()
        strange.sendall(raw({"type": "hello", "protocol": 1, "nonce": link()._nonce, "pending": []}))
        strange.close()
    return "true"


def sends_strangers(data: JOB) -> object:
    crowd = [dial() for _ in range(50)]
    for stranger in crowd:
        try:
            stranger.sendall(raw({"type": "hello", "protocol": 1, "nonce": "guessed", "pending": []}))
        except OSError:
            continue
    return "true"


def leaves_a_thread_that_talks(data: JOB) -> object:
    def talk() -> None:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            os.write(1, b"talk " * 100)
            time.sleep(0.001)

    threading.Thread(target=talk, daemon=True).start()
    return "true"


def leaves_children(data: JOB) -> object:
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(1e6)
    return "true"


def removes_the_socket(data: JOB) -> object:
    os.unlink(FOLDER + "/socket")
    return "true"


def empties_its_folder(data: JOB) -> object:
    for name in ("log", "socket"):
        os.unlink(f"{FOLDER}/{name}")
    for name in ("in", "out"):
        os.rename(f"{FOLDER}/{name}", f"{FOLDER}/old-{name}")
    return "true"


def replaces_its_log(data: JOB) -> object:
    os.unlink(FOLDER + "/log")
    os.symlink("/etc/passwd", FOLDER + "/log")
    return "true"


def replaces_out_by_a_link(data: JOB) -> object:
    os.rename(FOLDER + "/out", FOLDER + "/old")
    os.symlink("/etc", FOLDER + "/out")
    connection().sendall(result(data, file="passwd"))
    return "too late"


def removes_what_is_the_workers(data: JOB) -> object:
    """Jobs after it have larger payloads."""
    shutil.rmtree(FOLDER + "/in")
    return "true"


def fills_its_folder_with_files(data: JOB) -> None:
    for number in range(10_100):
        os.mknod(f"{OUT}{number}")
    time.sleep(1e6)


def nests_folders(data: JOB) -> object:
    folder = os.open(FOLDER + "/in", os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=folder)
        folder, above = os.open("d", os.O_RDONLY, dir_fd=folder), folder
        os.close(above)
    os.close(folder)
    return "true"


def says_two_results(data: JOB) -> object:
    connection().sendall(result(data, b'"true"') + result(data, b'"second"'))
    return "third"


# -- tools -----------------------------------------------------------------------------------------------


def link() -> Any:
    return loop._link


def connection() -> socket.socket:
    found: socket.socket = link()._socket
    return found


def result(data: JOB, body: bytes = b"", **more: object) -> bytes:
    header = {"type": "result", "job": data.job_id, "attempt": data.attempt, "status": "ok", "kind": "json"}
    return raw({**header, "log_end": 0, **more}, body)


def raw(header: dict[str, Any], body: bytes = b"") -> bytes:
    """As `protocol.encode`, for headers that it would refuse."""
    head = json.dumps(header).encode()
    return struct.pack("!II", len(head), len(body)) + head + body


def dial() -> socket.socket:
    folder = os.open(FOLDER, os.O_RDONLY)
    made = socket.socket(socket.AF_UNIX)
    made.connect(socket_address(FOLDER, folder))
    os.close(folder)
    return made


def say_and_hang_up(data: bytes) -> None:
    with contextlib.suppress(OSError):  # the worker may be faster
        connection().sendall(data)


def handler(data: JOB) -> object:
    do: Callable[[JOB], object] = globals()[data.input.strip()]
    return do(data)


if __name__ == "__main__":
    start(handler)
