"""The handler whose every execution leaves a trace outside Hecaton. Python 3.8+; runs as a process or in a container.

LEDGER in its environment says where: the path of a file, or "tcp:PORT" on the machine that the container's default
route leads to. It may not run unseen: without a place to write to, the job fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import time
import uuid

from hecaton.serverless import ServerLessInput, start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATIENCE = 20.0
"""Seconds to go on trying while the ledger does not answer: an engine that restarts takes its bridge away for a
moment."""

BEAT_SECONDS = 0.2

LEAVES_A_CHILD = 40
"""One of so many jobs leaves a process behind, which prints when the job may have ended, and others run."""

_connection: socket.socket | None = None


def work(data: ServerLessInput) -> dict[str, Any]:
    """Input: {"n": a number, "sleep": seconds, "beats": whether it says meanwhile that it is there}. The result differs
    from one execution to the next in "execution"."""
    order = data.input
    execution = uuid.uuid4().hex
    _record(data, execution, "begin")
    if not is_silent(order["n"]):
        print(line_of(data.job_id, data.attempt, execution, "begin"))
    if order["n"] % LEAVES_A_CHILD == 1:
        left = line_of(data.job_id, data.attempt, execution, "left over")
        subprocess.Popen(["sh", "-c", "sleep 0.3; echo " + left])
    if order.get("beats"):
        end = time.monotonic() + order["sleep"]
        while time.monotonic() < end:
            time.sleep(BEAT_SECONDS)
            _record(data, execution, "beat")
    elif order.get("sleep"):
        time.sleep(order["sleep"])
    result = {"value": value_of(order["n"]), "attempt": data.attempt, "execution": execution}
    _record(data, execution, "end")
    if not is_silent(order["n"]):
        print(line_of(data.job_id, data.attempt, execution, "end"))
    return result


def value_of(n: int) -> str:
    """What the handler makes of the number."""
    return hashlib.sha256(b"%d" % n).hexdigest()


def is_silent(n: int) -> bool:
    """Whether the job prints nothing: such jobs may share a log file with the one behind them."""
    return n % 3 == 0


def line_of(job: str, attempt: int, execution: str, what: str) -> str:
    """In the log: everything says whose it is."""
    return " ".join((job, str(attempt), execution, what))


def _record(data: ServerLessInput, execution: str, what: str) -> None:
    record = {
        "job": data.job_id,
        "attempt": data.attempt,
        "key": data.idempotency_key,
        "execution": execution,
        "what": what,
        "where": f"{socket.gethostname()}:{os.getpid()}",
        "time": time.monotonic(),
    }
    line = (json.dumps(record) + "\n").encode()
    place = os.environ["LEDGER"]
    if place.startswith("tcp:"):
        _send(int(place[4:]), line)
    else:
        _append(place, line)


def _append(path: str, line: bytes) -> None:
    """One write to a file opened for appending: it does not mix with those of others."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        if os.write(file, line) != len(line):
            raise OSError("only a part was written to " + path)
    finally:
        os.close(file)


def _send(port: int, line: bytes) -> None:
    """Until the ledger says that it has it. A line that it gets twice counts once: it bears the execution's name."""
    global _connection
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if _connection is None:
                _connection = socket.create_connection((_gateway(), port), 5)
            _connection.sendall(line)
            if _connection.recv(1) == b"\n":
                return
            raise OSError("the ledger hung up")
        except OSError:
            if _connection is not None:
                _connection.close()
                _connection = None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _gateway() -> str:
    with open("/proc/net/route", encoding="ascii") as routes:
        for fields in (line.split() for line in routes):
            if fields[1] == "00000000":
                return socket.inet_ntoa(struct.pack("<L", int(fields[2], 16)))
    raise OSError("this container has no default route")


if __name__ == "__main__":
    start(work)
