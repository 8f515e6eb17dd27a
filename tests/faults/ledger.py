"""The oracle of the fault tests: what was acknowledged, executed and read, kept in files that Hecaton knows nothing of.

Any process may write: a record is one line, appended at once. `Ledger(folder).verdict()` compares, after the faults
are over.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import socketserver
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hecaton.client import Client, JobHandle
from hecaton.client.http import may_pass
from hecaton.core.errors import HecatonError
from hecaton.core.model import JobState
from hecaton.wire.api import JobView
from tests.faults.handler import is_silent, line_of, value_of

HANDLER = Path(__file__).with_name("handler.py")
READERS = 4
CLONE_NEWNET = 0x40000000
SHOWN = 10
OF_THE_SDK = "hecaton.serverless: "
"""In front of the lines that are of no handler."""


@dataclass(frozen=True)
class Execution:
    """One call of the handler. Times are of the machine's monotonic clock; `ended` is None for one that was killed.
    `seen`: its last sign of life."""

    job: str
    attempt: int
    where: str
    began: float
    ended: float | None
    seen: float


class Ledger:
    """Four files in `folder`: acknowledged, executed, read, logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._acknowledged = folder / "acknowledged"
        self._executed = folder / "executed"
        self._read = folder / "read"
        self._logs = folder / "logs"
        for path in (self._acknowledged, self._executed, self._read, self._logs):
            path.touch()

    @property
    def environment(self) -> dict[str, str]:
        """For workers on the process runtime: their handlers write into the file themselves."""
        return {"LEDGER": str(self._executed)}

    @contextmanager
    def listening(self, network: Path | None = None) -> Iterator[dict[str, str]]:
        """Takes what containers report, on every address of this machine. Gives the environment for their image.

        `network`: the network namespace of their engine, such as /proc/PID/ns/net, if it has one of its own."""
        with socketserver.ThreadingTCPServer(("", 0), _taker(self._executed), bind_and_activate=False) as server:
            if network is not None:
                server.socket.close()
                server.socket = socket_in(network)
            server.server_bind()
            server.server_activate()
            server.daemon_threads = True
            server.block_on_close = False
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            try:
                yield {"LEDGER": f"tcp:{server.server_address[1]}"}
            finally:
                server.shutdown()

    # -- the client's side ------------------------------------------------------------------------------

    def submit(
        self, client: Client, image: str, n: int, *, sleep: float = 0.0, no_overlap: bool = False, **options: Any
    ) -> JobHandle:
        """Submit one job for the handler, and note it as soon as it was acknowledged. One that may not overlap says all
        the time that it is there.

        Goes on over every error that leaves open whether the job was taken: the key stays, so it is one job."""
        key = str(uuid.uuid4())
        while True:
            try:
                order = {"n": n, "sleep": sleep, "beats": no_overlap}
                job = client.submit(image, order, key=key, no_overlap=no_overlap, **options)
            except HecatonError as error:
                if not may_pass(error):
                    raise
                time.sleep(0.2)
            else:
                self.acknowledged(job.id, key, n, no_overlap=no_overlap)
                return job

    def acknowledged(self, job: str, key: str, n: int, *, no_overlap: bool = False) -> None:
        """To be called right after the server has acknowledged, before anything else."""
        _append(self._acknowledged, {"job": job, "key": key, "n": n, "no_overlap": no_overlap})

    def read(self, view: JobView, result: Any) -> None:
        """A client has seen the job's end; `result` is what it read, None when the job has none."""
        _append(
            self._read,
            {"job": view.id, "state": view.state, "reason": view.reason, "attempt": view.attempt, "result": result},
        )

    def not_read(self, job: str, error: HecatonError) -> None:
        """A client asked for the job's end and got this. Lost is only what nobody could read at any time."""
        _append(self._read, {"job": job, "error": str(error)})

    def read_result(self, client: Client, job: str, timeout: float) -> JobView:
        """Wait for the job's end, and note what was read."""
        view = client.wait(job, timeout)
        self.read(view, client.result(view) if view.state is JobState.FINISHED else None)
        return view

    def log(self, job: str, attempt: int, text: str) -> None:
        """What an attempt printed, as a client has read it after the job's end."""
        _append(self._logs, {"job": job, "attempt": attempt, "text": text})

    def read_all(self, client: Client, seconds: float) -> None:
        """Every acknowledged job once more, with its logs, in time or not: the end of each run. What is not terminal is
        not noted."""
        deadline = time.monotonic() + seconds

        def one(job: str) -> None:
            try:
                view = self.read_result(client, job, max(0.0, deadline - time.monotonic()))
                for attempt in view.attempts:
                    self.log(job, attempt.number, client.logs(job, attempt.number))
            except HecatonError as error:
                self.not_read(job, error)

        with ThreadPoolExecutor(READERS) as readers:
            list(readers.map(one, self.jobs()))

    # -- what it knows ----------------------------------------------------------------------------------

    def jobs(self) -> list[str]:
        """Ids of the acknowledged jobs, in the order of their acknowledgement."""
        return list(dict.fromkeys(record["job"] for record in _records(self._acknowledged)))

    def counts(self) -> str:
        """How far it is, in words."""
        read = {record["job"] for record in _records(self._read) if "state" in record}
        return f"{len(self.jobs())} acknowledged, {len(read)} read"

    def executions(self, job: str | None = None) -> list[Execution]:
        """All that began, or those of one job, in that order."""
        begun: dict[str, Mapping[str, Any]] = {}
        ended: dict[str, float] = {}
        seen: dict[str, float] = {}
        for record in _records(self._executed):
            if job is None or record["job"] == job:
                seen[record["execution"]] = record["time"]
                if record["what"] == "begin":
                    begun.setdefault(record["execution"], record)
                elif record["what"] == "end":
                    ended[record["execution"]] = record["time"]
        made = [
            Execution(record["job"], record["attempt"], record["where"], record["time"], ended.get(name), seen[name])
            for name, record in begun.items()
        ]
        return sorted(made, key=lambda execution: execution.began)

    def _mixed(
        self, reads: Mapping[str, Sequence[Mapping[str, Any]]], numbers: Mapping[str, int]
    ) -> Iterator[tuple[str, str]]:
        """Logs with a line of another job or attempt, or without one that the execution whose result counts printed."""
        for log in _records(self._logs):
            job, attempt = log["job"], log["attempt"]
            lines = [line for line in log["text"].splitlines() if not line.startswith(OF_THE_SDK)]
            foreign = [line for line in lines if not line.startswith(f"{job} {attempt} ")]
            if foreign:
                yield job, f"attempt {attempt} has in its log: {foreign[0]!r}"
                continue
            result = next((read["result"] for read in reads[job] if read.get("attempt") == attempt), None)
            if result is not None and not is_silent(numbers[job]):
                printed = [line_of(job, attempt, result["execution"], what) for what in ("begin", "end")]
                if [line for line in lines if not line.endswith("left over")] != printed:
                    yield job, f"attempt {attempt} has not in its log what it printed: {log['text']!r}"

    def verdict(self) -> Verdict:
        """To be asked when everything is healed and `read_all` is done."""
        acknowledged = list(_records(self._acknowledged))
        expected = {record["job"]: value_of(record["n"]) for record in acknowledged}
        reads: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for record in _records(self._read):
            reads[record["job"]].append(record)
        executions = self.executions()
        runs = Counter(execution.job for execution in executions)
        same_attempt = Counter((execution.job, execution.attempt) for execution in executions)
        executed = list(_records(self._executed))
        names = {record["execution"] for record in executed if record["what"] == "end"}
        return Verdict(
            jobs=len(expected),
            executions=len(executions),
            lost=[f"{job}: {_last(reads[job])}" for job in expected if not _is_read(reads[job])],
            wrong=[f"{job}: {why}" for job in expected for why in _wrong(reads[job], expected[job], names)],
            failed=[f"{job}: {why}" for job in expected for why in _failed(reads[job])],
            duplicates=[
                *(
                    f"{key}: the key made jobs {', '.join(jobs)}"
                    for key, jobs in _jobs_of_keys([*acknowledged, *executed]).items()
                ),
                *(f"{job}: {why}" for job in expected for why in _changed(reads[job])),
            ],
            mixed=[f"{job}: {why}" for job, why in self._mixed(reads, {r["job"]: r["n"] for r in acknowledged})],
            repeated=[f"{job}, attempt {attempt}: {n} times" for (job, attempt), n in same_attempt.items() if n > 1],
            overlaps=list(_overlaps(executions, {record["job"] for record in acknowledged if record["no_overlap"]})),
            extra=sum(count - 1 for count in runs.values()),
        )


@dataclass(frozen=True)
class Verdict:
    """`lost`: acknowledged, but not terminal or not to be read. `failed`: the handler never fails by itself, so these
    did for the machines' sake. `duplicates`: a result or an end that changed after it was read, or a key that made two
    jobs. `mixed`: logs that are not what their attempt printed. `repeated`: attempts that were executed twice.
    `overlaps`: jobs that may not, and were alive in two places at once. `extra`: executions beyond one per job.
    """

    jobs: int
    executions: int
    lost: Sequence[str]
    wrong: Sequence[str]
    failed: Sequence[str]
    duplicates: Sequence[str]
    mixed: Sequence[str]
    repeated: Sequence[str]
    overlaps: Sequence[str]
    extra: int

    @property
    def extra_percent(self) -> float:
        return 100 * self.extra / max(1, self.jobs)

    def faults(self, extra_percent: float = 0.0) -> list[str]:
        """What breaks the contract, in words; `extra_percent`: executions that faults may cost."""
        found = []
        for what in ("lost", "wrong", "failed", "duplicates", "mixed", "repeated", "overlaps"):
            if lines := getattr(self, what):
                found += [f"{len(lines)} {what}:", *(f"  {line}" for line in lines[:SHOWN])]
        if self.extra_percent > extra_percent:
            found.append(f"{self.extra} extra executions of {self.jobs} jobs: {self.extra_percent:.1f} %")
        return found

    def check(self, extra_percent: float = 0.0) -> None:
        """AssertionError with all that is wrong."""
        found = self.faults(extra_percent)
        assert not found, "\n".join(found)

    def __str__(self) -> str:
        return (
            f"{self.jobs} jobs, {self.executions} executions ({self.extra} extra: {self.extra_percent:.2f} %), "
            f"{len(self.lost)} lost, {len(self.duplicates)} duplicates, {len(self.wrong)} wrong, "
            f"{len(self.failed)} failed, "
            f"{len(self.mixed)} logs mixed, "
            f"{len(self.repeated)} attempts executed twice, {len(self.overlaps)} overlaps"
        )


def _is_read(reads: Iterable[Mapping[str, Any]]) -> bool:
    return any("state" in record for record in reads)


def _last(reads: Sequence[Mapping[str, Any]]) -> str:
    return str(reads[-1]["error"]) if reads else "nobody asked for it"


def _wrong(reads: Iterable[Mapping[str, Any]], value: str, executions: set[str]) -> Iterator[str]:
    for record in reads:
        if "error" in record or record["state"] != JobState.FINISHED:
            continue
        if not isinstance(record["result"], dict) or record["result"].get("value") != value:
            yield f"{record['result']} in place of {value}"
        elif record["result"]["execution"] not in executions:
            yield f"the result of an execution that nobody saw end: {record['result']}"
        elif record["result"]["attempt"] != record["attempt"]:
            yield f"attempt {record['attempt']} has the result of attempt {record['result']['attempt']}"


def _failed(reads: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for record in reads:
        if "error" not in record and record["state"] != JobState.FINISHED:
            yield f"{record['state']} ({record['reason']}) in attempt {record['attempt']}"


def _overlaps(executions: Iterable[Execution], jobs: Set[str]) -> Iterator[str]:
    """`executions`: in the order in which they began."""
    latest: dict[str, Execution] = {}
    for execution in executions:
        before = latest.get(execution.job)
        if before is not None and execution.job in jobs and before.seen > execution.began:
            both = f"attempts {before.attempt} and {execution.attempt}"
            yield f"{execution.job}: {both} for {before.seen - execution.began:.1f} s"
        if before is None or execution.seen > before.seen:
            latest[execution.job] = execution


def _changed(reads: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    seen = {json.dumps(record, sort_keys=True) for record in reads if "error" not in record}
    if len(seen) > 1:
        yield "read with different ends: " + " and ".join(sorted(seen))


def _jobs_of_keys(records: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Keys that made more than one job, also one that was executed and never acknowledged."""
    jobs: dict[str, set[str]] = defaultdict(set)
    for record in records:
        jobs[record["key"]].add(record["job"])
    return {key: sorted(ids) for key, ids in jobs.items() if len(ids) > 1}


def _append(path: Path, record: Mapping[str, Any]) -> None:
    line = (json.dumps(record) + "\n").encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line)


def socket_in(network: Path) -> socket.socket:
    """A socket stays in the network of the thread that made it."""
    with network.open() as namespace, ThreadPoolExecutor(1) as thread:
        return thread.submit(_enter_and_make, namespace.fileno()).result()


def _enter_and_make(namespace: int) -> socket.socket:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "this thread cannot enter the network namespace: tests run as root")
    return socket.socket()


def _taker(path: Path) -> type[socketserver.StreamRequestHandler]:
    """Each line that a container sends goes into the file, and is then acknowledged."""

    class Taker(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                for line in self.rfile:
                    if line.endswith(b"\n"):
                        _append(path, json.loads(line))
                        self.wfile.write(b"\n")
            except OSError:
                pass  # the container was killed

    return Taker
