"""`python -m benchmarks.instructions [--keep]`: instructions per job of server, worker, container and client,
beside what the repository keeps in `instructions.json`; fails when one of them is more than 3 % above it.

One process at a time runs under callgrind and everything else at full speed beside it, so that what is counted is what
it does while nobody waits for it. Each figure is the least of several pieces and repeats to 1 %: chance adds (a timer
that falls into a piece; on a machine that is busy otherwise, fewer messages share a frame) and takes nothing away. So
what is too much is counted again, too. A worker's part
in a batch is not among them: how many results share a frame with it is chance, and moves it by a tenth.

The count is that of one build of Python: another release, or other flags of the compiler, give other ones. So a fixed
workload of pure Python is counted, too, and the figures are compared as multiples of it; where it differs from the kept
one this is another interpreter, of which the multiples say something, but not to 3 %: then nothing fails, and the
output says so. Each change of a pinned library is compared as a change of ours would be."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import msgspec

from benchmarks import batch, subject
from benchmarks.callgrind import Counted
from benchmarks.load import Connection
from benchmarks.plan import FULL_ROUNDS, Measurement, Plan, Row
from benchmarks.subject import Subject
from hecaton.testing.cluster import LocalCluster

WARM_UP = 100
JOBS, BATCH = 40, 200
PIECES = 7

MOST = 1.03
"""Times the kept figure; below `LEAST` the kept one should follow, or what was won can be lost again unseen."""
LEAST = 0.97
SAME = 0.005
"""Share by which the fixed workload may differ in the same build of Python."""

COUNTS = 3
"""How often is counted before something fails."""

KEPT = Path(__file__).with_suffix(".json")
REFERENCE = "reference"
LIBRARIES = ("aiohttp", "httptools", "msgspec", "starlette", "urllib3", "uvicorn", "uvloop", "websockets")
"""What carries a job beside Hecaton's own code and the standard library."""

WORKLOAD = """
import gc, json, sys

gc.disable()  # how much there is to look at depends on what the environment imports at the start

def work():
    found = {}
    for number in range(5000):
        name = f"{number:x}"
        found[name] = [number, name]
    total = sum(a if b.startswith("a") else len(b) for b, (a, _) in sorted(found.items()))
    return json.loads(json.dumps({"total": total, "found": found}))

for _ in sys.stdin:
    work()
    print("done", flush=True)
"""

PIDFD = """
import os
import threading

def pidfd_open(pid, flags=0):
    readable, writable = os.pipe()

    def wait():
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(writable)

    threading.Thread(target=wait, daemon=True).start()
    return readable

os.pidfd_open = pidfd_open
"""
"""valgrind before 3.23 does not know the system call. The process runtime waits with it for the end of handlers."""

HANDLER = """
import os
with open({pid!r}, "w") as file:
    file.write(str(os.getpid()))
os.execv({command[0]!r}, [*{command!r}, {python!r}, {echo!r}])
"""


CLIENT = """
import sys
from hecaton.client import Client

client = Client({url!r}, {token!r})
for number in sys.stdin:
    for job in range(int(number)):
        client.run({image!r}, job, wait=60)
    print("done", flush=True)
"""


class Kept(msgspec.Struct, frozen=True):
    """`figures`: instructions per job by `ROWS`' keys. `reference`: of the fixed workload."""

    python: str
    libraries: dict[str, str]
    reference: int
    figures: dict[str, int]


def count(plan: Plan, folder: Path) -> dict[str, float]:
    """Instructions per job by `ROWS`' keys, and of the fixed workload."""
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, float] = {REFERENCE: _reference(folder / "reference")}
    for part, start in (("server", _server), ("worker", _worker), ("container", _container)):
        home = folder / part
        counted = Counted(home / "callgrind")
        with LocalCluster(home, server_options=subject.NO_QUOTA, environment={**os.environ, **_ENVIRONMENT}) as cluster:
            hecaton, pid = start(cluster, counted)
            found = _each(plan, counted, hecaton, pid)
            values |= {f"{part}:{what}": each for what, each in found.items() if f"{part}:{what}" in ROWS}
    values["client:single"] = _client(plan, folder / "client")
    return values


_ENVIRONMENT = {"PYTHONHASHSEED": "0"}


def _reference(folder: Path) -> int:
    with _asked(Counted(folder), WORKLOAD) as (during, once):
        once("")
        return min(during("") for _ in range(PIECES))


@contextmanager
def _asked(counted: Counted, program: str) -> Iterator[tuple[Callable[[str], int], Callable[[str], None]]]:
    """A counted process that answers each line with one when it has done what that asks for. Gives what counts the
    instructions for a line, and what just asks."""
    command = [*counted.command, sys.executable, "-c", program]
    environment = {**os.environ, **_ENVIRONMENT}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        asks, answers = child.stdin, child.stdout

        def ask(line: str) -> None:
            asks.write(f"{line}\n")
            asks.flush()
            if not answers.readline():
                raise RuntimeError("the counted process has ended")

        yield lambda line: counted.during(child.pid, lambda: ask(line)), ask


def _client(plan: Plan, folder: Path) -> float:
    """Of the Python client, for `Client.run`; everything else at full speed."""
    jobs = JOBS if plan.full else JOBS // 4
    with LocalCluster(folder, server_options=subject.NO_QUOTA) as cluster:
        hecaton = Subject(cluster, containers=False)
        cluster.start_worker("bench", handlers={hecaton.image: subject.ECHO})
        program = CLIENT.format(url=cluster.url, token=hecaton.target.token, image=hecaton.image)
        with _asked(Counted(folder / "callgrind"), program) as (during, ask):
            ask(str(WARM_UP if plan.full else 10))
            return min(during(str(jobs)) / jobs for _ in range(PIECES if plan.full else 1))


def _server(cluster: LocalCluster, counted: Counted) -> tuple[Subject, int]:
    assert cluster.server is not None
    cluster.server.stop()
    server = cluster.start_server(under=counted.command)
    hecaton = Subject(cluster, containers=False)
    cluster.start_worker("bench", handlers={hecaton.image: subject.ECHO})
    return hecaton, server.pid


def _worker(cluster: LocalCluster, counted: Counted) -> tuple[Subject, int]:
    hecaton = Subject(cluster, containers=False)
    site = cluster.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(PIDFD)
    worker = cluster.start_worker(
        "bench",
        handlers={hecaton.image: subject.ECHO},
        environment={"PYTHONPATH": str(site)},
        under=counted.command,
    )
    return hecaton, worker.pid


def _container(cluster: LocalCluster, counted: Counted) -> tuple[Subject, int]:
    """The handler file's process, as it stands in a container. It becomes the counted process by itself."""
    hecaton = Subject(cluster, containers=False)
    said, handler = cluster.folder / "pid", cluster.folder / "handler.py"
    names = {"pid": str(said), "command": counted.command, "python": sys.executable, "echo": str(subject.ECHO)}
    handler.write_text(HANDLER.format(**names))
    cluster.start_worker("bench", handlers={hecaton.image: handler})
    with Connection(hecaton.target) as connection:
        connection.run_job(hecaton.body(1))
    return hecaton, int(said.read_text())


def _each(plan: Plan, counted: Counted, hecaton: Subject, pid: int) -> dict[str, float]:
    """Instructions per job of the process: `single` and `batch`."""
    pieces = PIECES if plan.full else 1
    jobs, size = (JOBS, BATCH) if plan.full else (JOBS // 4, BATCH // 4)

    def piece(work: Callable[[], object], of: int) -> float:
        return min(counted.during(pid, work) / of for _ in range(pieces))

    with Connection(hecaton.target) as connection:

        def one_by_one(count: int) -> None:
            for number in range(count):
                connection.run_job(hecaton.body(number))

        one_by_one(WARM_UP if plan.full else 10)
        single = piece(lambda: one_by_one(jobs), jobs)
    batch.run(hecaton, size)
    return {"single": single, "batch": piece(lambda: batch.run(hecaton, size), size)}


# -- beside what is kept ---------------------------------------------------------------------------


def interpreter() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}"


def load() -> Kept:
    return msgspec.json.decode(KEPT.read_bytes(), type=Kept)


def save(found: dict[str, float]) -> None:
    figures = {key: round(found[key]) for key in ROWS if key in found}
    libraries = {name: version(name) for name in LIBRARIES}
    kept = Kept(interpreter(), libraries, round(found[REFERENCE]), figures)
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")


def over(kept: Kept, found: dict[str, float]) -> dict[str, float]:
    """How many times the kept figure each is, both as multiples of the fixed workload."""
    speed = kept.reference / found[REFERENCE]
    return {key: found[key] * speed / figure for key, figure in kept.figures.items() if key in found}


def same_python(kept: Kept, python: str, reference: float) -> bool:
    return python == kept.python and abs(reference / kept.reference - 1) <= SAME


def judge(kept: Kept, found: dict[str, float], python: str) -> tuple[list[str], bool]:
    """Lines to print, and whether all is well."""
    same = same_python(kept, python, found[REFERENCE])
    lines, well = [], True
    for key, times in over(kept, found).items():
        what = f"{ROWS[key].what}: {found[key]:,.0f} instructions, {(times - 1) * 100:+.1f} % against the kept ones"
        if times > MOST and same:
            well = False
            what += f" (at most {(MOST - 1) * 100:.0f} %): FAILED"
        elif times < LEAST and same:
            what += ": better; keep it, or it can be lost again unseen (make instructions KEEP=1)"
        lines.append(what)
    if not well:
        lines.append(
            "Find out what a job does more (callgrind_annotate), or keep it and say why: make instructions KEEP=1"
        )
    if not same:
        lines.append(
            f"Nothing is judged: this is not the build of Python that the figures were kept with. Here {python}, "
            f"{found[REFERENCE]:,.0f} for the fixed workload; there {kept.python}, {kept.reference:,}."
        )
    return lines, well


def least(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Of two counts."""
    return {key: min(value, other[key]) for key, value in one.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="write what was counted into the repository's file")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hecaton-instructions-"))
    try:
        found = count(Plan(FULL_ROUNDS), folder / "1")
        if options.keep:
            save(found)
        lines, well = judge(load(), found, interpreter())
        for number in range(2, COUNTS + 1):
            if not well:
                found = least(found, count(Plan(FULL_ROUNDS), folder / str(number)))
                lines, well = judge(load(), found, interpreter())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(lines), flush=True)
    sys.exit(not well)


def _run(plan: Plan, folder: Path) -> dict[str, float]:
    found = count(plan, folder)
    return {**found, "over": max(over(load(), found).values())}


ROWS = {
    "server:single": Row("server, one warm job at a time", "instructions"),
    "server:batch": Row("server, a job of a batch", "instructions"),
    "worker:single": Row("worker, one warm job at a time", "instructions"),
    "container:single": Row("container, one warm job at a time", "instructions"),
    "container:batch": Row("container, a job of a batch", "instructions"),
    "client:single": Row("Python client, `Client.run`, one warm job at a time", "instructions"),
}

MEASUREMENT = Measurement(
    "instructions",
    {**ROWS, "over": Row("the most that one of these is over what the repository keeps", "x", "1.03x", MOST)},
    _run,
)

if __name__ == "__main__":
    main()
