"""1 GiB up (fsynced before it is acknowledged) and 1 GiB of result down, beside nginx with the same client and file."""

from __future__ import annotations

import hashlib
import shutil
import socket
import time
from pathlib import Path

from benchmarks import services, subject
from benchmarks.load import Connection, Target, parse
from benchmarks.measure import MIB, descendants, forget_peak, peak_memory
from benchmarks.plan import Measurement, Plan, Row

SIZE = 1024 * MIB
PIECE = 1024 * 1024
JOB_TIMEOUT = 300


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    folder.mkdir(mode=0o711)
    file = folder / "payload"
    sha256 = _write(file, plan.size(SIZE, 16 * MIB) // MIB)
    values = _hecaton(folder, file, sha256)
    try:
        theirs = _nginx(folder / "nginx", file)
    except services.Missing as error:
        plan.say(f"payload: nothing to compare with: {error}")
        return values
    values |= {"nginx_up": theirs[0], "nginx_down": theirs[1]}
    values |= {"up_share": values["up"] / theirs[0], "down_share": values["down"] / theirs[1]}
    return values


def _write(file: Path, mebibytes: int) -> str:
    """Bytes that no text decoder takes for text. Gives their SHA-256."""
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(mebibytes):
            out.write(block)
            digest.update(block)
    return digest.hexdigest()


def _hecaton(folder: Path, file: Path, sha256: str) -> dict[str, float]:
    size = file.stat().st_size
    with subject.running(folder / "home", ["--max-payload", "2048", "--max-result", "2048"]) as hecaton:
        worker = hecaton.start_worker()
        processes = [hecaton.server_pid, *descendants([worker])]
        for pid in processes:
            forget_peak(pid)
        target = hecaton.target
        up = _upload(target, f"/v1/blobs/{sha256}", file)
        body = f'{{"image":"{hecaton.image}","payload":{{"sha256":"{sha256}","size":{size},"kind":"bytes"}}}}'
        start = time.perf_counter()
        job = _job(target, body.encode())
        took = time.perf_counter() - start
        down = _download(target, f"/v1/jobs/{job}/result", size)
        peaks = [peak_memory(hecaton.server_pid), peak_memory(worker)]
    return {"up": up, "down": down, "job": took, "server": peaks[0] / MIB, "worker": peaks[1] / MIB}


def _job(target: Target, body: bytes) -> str:
    with Connection(target) as connection:
        submitted = connection.send(target.request("POST", "/v1/jobs", body)).body.decode()
        job = submitted.split('"id":"')[1][:36]
        deadline = time.monotonic() + JOB_TIMEOUT
        while time.monotonic() < deadline:
            view = connection.send(target.request("GET", f"/v1/jobs/{job}?wait=50")).body
            if b'"state":"FINISHED"' in view:
                return job
            if b'"ended_at":null' not in view:
                break
    raise RuntimeError(f"the job did not finish: {view[:1000].decode(errors='replace')}")


def _nginx(folder: Path, file: Path) -> tuple[float, float]:
    folder.mkdir()
    service, port = services.nginx(folder)
    try:
        target = Target(port, "none")
        up = _upload(target, "/payload", file)
        down = _download(target, "/payload", file.stat().st_size)
    finally:
        service.stop()
        shutil.rmtree(folder)
    return up, down


def _upload(target: Target, path: str, file: Path) -> float:
    """MB/s, from the first byte to the answer."""
    size = file.stat().st_size
    head = target.head("PUT", path, size)
    with socket.create_connection(("127.0.0.1", target.port)) as connection, file.open("rb") as data:
        start = time.perf_counter()
        connection.sendall(head)
        connection.sendfile(data)
        received = b""
        while (reply := parse(received)) is None:
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError(f"the server closed the connection in mid-upload: {received[:500]!r}")
            received += piece
        took = time.perf_counter() - start
    if reply.status not in (201, 204):
        raise RuntimeError(f"the upload was refused: {reply}")
    return size / took / 1e6


def _download(target: Target, path: str, size: int) -> float:
    """MB/s, from the request to the last byte."""
    buffer = bytearray(PIECE)
    with socket.create_connection(("127.0.0.1", target.port)) as connection:
        start = time.perf_counter()
        connection.sendall(target.request("GET", path))
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(4096)
        left = size - len(received.partition(b"\r\n\r\n")[2])
        while left > 0:
            got = connection.recv_into(buffer)
            if not got:
                raise RuntimeError(f"the download ended {left} bytes early: {received[:500]!r}")
            left -= got
        return size / (time.perf_counter() - start) / 1e6


MEASUREMENT = Measurement(
    "payload",
    {
        "up_share": Row("1 GiB payload up, share of nginx's rate", "x", "0.7x", 0.7, True),
        "up": Row("1 GiB payload up, fsynced before the answer", "MB/s"),
        "nginx_up": Row("the same file up to nginx, not fsynced", "MB/s"),
        "down_share": Row("1 GiB result down, share of nginx's rate", "x", "0.3x", 0.3, True),
        "down": Row("1 GiB result down", "MB/s"),
        "nginx_down": Row("the same file down from nginx", "MB/s"),
        "job": Row("the job between: to the worker, through the container, back", "s"),
        "server": Row("peak memory of the server meanwhile", "MiB", "200 MB", 200e6 / MIB),
        "worker": Row("peak memory of the worker meanwhile", "MiB", "200 MB", 200e6 / MIB),
    },
    _run,
)
