"""Clients that ask for much and do not read it, go away in the middle, or only sit there: the server's memory stays
flat."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.client import JobHandle
from hecaton.testing.cluster import PASSWORD, LocalCluster
from tests.e2e.conftest import running, until
from tests.e2e.test_payloads import forget_peak, memory
from tests.faults.figures import figure

pytestmark = pytest.mark.sample(1)

MIB = 1024 * 1024
SIZE = 24 * MIB
READERS = figure(60, 200)
PER_READER = 2 * MIB
"""Bytes that a reader may cost while its connection is open: the pieces that are on their way to it."""

HANDLER = f"""\
import time
from hecaton.serverless import start

def talk(data):
    line = "x" * 1023
    for _ in range({SIZE} // 1024):
        print(line)
    if data.input["stay"]:
        time.sleep(600)
    return "y" * {SIZE}

start(talk)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    handler = tmp_path / "talk.py"
    handler.write_text(HANDLER)
    with LocalCluster(tmp_path / "home") as cluster:
        cluster.start_worker("one", handlers={"talk": handler})
        cluster.register("talk")
        yield cluster


def server_of(cluster: LocalCluster) -> int:
    assert cluster.server is not None
    return cluster.server.pid


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def readers(cluster: LocalCluster, *paths: str) -> Iterator[list[socket.socket]]:
    """Connections that have asked for these in turn, have seen that the answer began, and read no further."""
    token = cluster.client().login("admin", PASSWORD).token
    sockets = []
    with contextlib.ExitStack() as open_ones:
        for number in range(READERS):
            reader = open_ones.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(30)
            reader.connect(("127.0.0.1", cluster.port))
            path = paths[number % len(paths)]
            reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            sockets.append(reader)
        for reader in sockets:
            assert reader.recv(12) == b"HTTP/1.1 200"
        yield sockets


def answers(cluster: LocalCluster, job: JobHandle) -> None:
    assert cluster.client().health()
    assert job.view().id == job.id


def stays_flat(cluster: LocalCluster, job: JobHandle, *paths: str) -> None:
    """Whatever the readers do: others are answered, and the memory for each is bounded. When they have gone nothing is
    left of them: another crowd takes no more."""
    server = server_of(cluster)
    answers(cluster, job)
    files, before = open_files(server), forget_peak(server)
    peaks = []
    for _ in range(4):
        with readers(cluster, *paths) as sockets:
            time.sleep(figure(0.5, 20.0))
            for reader in sockets[::3]:
                reader.recv(MIB)  # a little more now and then
            answers(cluster, job)
            for reader in sockets[::2]:
                reader.close()  # with much unread: a reset
            answers(cluster, job)
        until(lambda: open_files(server) <= files + 2, "nothing of them stays open")
        peaks.append((memory(server, "VmHWM") - before) / READERS)
    print("KiB for each reader, in four crowds:", *(f"{peak / 1024:.0f}" for peak in peaks))
    assert peaks[-1] < PER_READER
    assert peaks[-1] - peaks[1] < PER_READER / 4  # the allocator takes its own room with the first ones


def test_readers_of_results_and_logs_who_stop_in_the_middle_cost_no_memory(cluster: LocalCluster) -> None:
    job = cluster.client().submit("talk", {"stay": False})
    job.wait(60)
    path = f"/v1/jobs/{job.id}"
    stays_flat(cluster, job, f"{path}/result", f"{path}/logs", f"{path}/events")
    assert len(job.result(60)) == SIZE


def test_followers_of_a_job_that_talks_who_stop_reading_cost_no_memory(cluster: LocalCluster) -> None:
    """The log is being written meanwhile; whoever goes on reading gets all of it."""
    client = cluster.client()
    job = running(client.submit("talk", {"stay": True}))
    stays_flat(cluster, job, f"/v1/jobs/{job.id}/events")
    seen = 0
    for event in client.events(job.id):
        if event.event == "log":
            seen = event.offset
        if seen >= SIZE:
            break
    job.cancel()
    job.wait(30)


def test_connections_that_ask_for_nothing_cost_no_memory(cluster: LocalCluster) -> None:
    """Half of them never say a word, half stop in the middle of a request."""
    server = server_of(cluster)
    job = cluster.client().submit("talk", {"stay": True})
    answers(cluster, job)
    before = forget_peak(server)
    with contextlib.ExitStack() as open_ones:
        for number in range(READERS):
            idle = open_ones.enter_context(socket.create_connection(("127.0.0.1", cluster.port), 30))
            if number % 2:
                idle.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{")
        answers(cluster, job)
        assert memory(server, "VmHWM") - before < READERS * PER_READER / 8
    job.cancel()
    job.wait(30)
