"""Hecaton and its rivals in turn: each in a process, an environment and a folder of its own, on this machine, now."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import subject
from benchmarks.measure import median
from benchmarks.plan import Plan
from benchmarks.services import Missing

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENTS = REPOSITORY / ".cache" / "benchmarks"
PINS = Path(__file__).with_name("requirements-rivals.txt")
TIMEOUT = 400.0
CALLS = 300
JOBS = 5000


class Entrant(NamedTuple):
    """`packages`: what its environment needs; none for Hecaton. `survives`: does what it has acknowledged outlive
    kill -9 of whatever keeps the queue, as it is set up here."""

    name: str
    module: str
    packages: tuple[str, ...]
    survives: str


OURS = (
    Entrant("Hecaton, HTTP", "benchmarks.hecaton_http", (), "yes: fsync before the answer"),
    Entrant("Hecaton, Python client", "benchmarks.hecaton_client", (), "yes: fsync before the answer"),
)
HUEY = Entrant("Huey, SQLite", "benchmarks.rivals.huey_sqlite", ("huey",), "yes: fsync of its file")
RIVALS = (
    HUEY,
    Entrant(
        "Celery, Redis", "benchmarks.rivals.celery_redis", ("celery", "redis", "packaging"), "yes: `appendfsync always`"
    ),
    Entrant("Dramatiq, Redis", "benchmarks.rivals.dramatiq_redis", ("dramatiq", "redis"), "no: Redis in memory"),
    Entrant("Ray", "benchmarks.rivals.ray_core", ("ray",), "no: state in memory"),
    Entrant(
        "Procrastinate, PostgreSQL",
        "benchmarks.rivals.procrastinate_postgres",
        ("procrastinate", "psycopg-binary"),
        "yes: PostgreSQL's defaults",
    ),
    Entrant("RunPod local API", "benchmarks.rivals.runpod_local", ("runpod",), "no: a dict, no queue"),
)


class Standing(NamedTuple):
    """The medians of an entrant, or why there are none."""

    entrant: Entrant
    version: str
    numbers: dict[str, float]
    memory: dict[str, float]
    missing: str | None


class Contest:
    """Call `round` as often as the plan says, then `standings`."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._entrants = (*OURS, *(RIVALS if plan.full else (HUEY,)))
        self._results: dict[str, list[dict[str, Any]]] = {entrant.name: [] for entrant in self._entrants}
        self._missing: dict[str, str] = {}

    def round(self, number: int) -> None:
        for entrant in self._entrants:
            if entrant.name in self._missing:
                continue
            result = self._run(entrant, number)
            if "missing" in result:
                self._missing[entrant.name] = result["missing"]
                self._plan.say(f"{entrant.name}: not run: {result['missing']}")
            else:
                self._results[entrant.name].append(result)
                self._plan.say(f"{entrant.name}: p50 {result['p50_ms']:.2f} ms, {result['jobs_per_s']:.0f} jobs/s")

    def _run(self, entrant: Entrant, number: int) -> dict[str, Any]:
        folder = self._folder / f"{number}-{entrant.module.rpartition('.')[2]}"
        folder.mkdir(mode=0o711)  # a service that refuses to run as root must reach its folder inside
        sizes = ["--calls", str(self._plan.size(CALLS, 20)), "--jobs", str(self._plan.size(JOBS, 100))]
        try:
            command = [str(python_of(entrant)), "-m", "benchmarks.contest", entrant.module, str(folder), *sizes]
            return _result(command)
        except Missing as error:
            return {"missing": str(error)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def standings(self) -> list[Standing]:
        found = []
        for entrant in self._entrants:
            results, missing = self._results[entrant.name], self._missing.get(entrant.name)
            if not results:
                found.append(Standing(entrant, version_of(entrant), {}, {}, missing))
                continue
            numbers = {key: median(result[key] for result in results) for key in results[0] if key != "memory"}
            memory = {
                role: median(result["memory"].get(role, 0) for result in results) for role in results[0]["memory"]
            }
            found.append(Standing(entrant, version_of(entrant), numbers, memory, None))
        return found


def _result(command: list[str]) -> dict[str, Any]:
    """What `benchmarks.contest` says in the last line of its stdout. Missing when it fails or takes too long."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            said, complained = child.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Missing(f"it did not end within {TIMEOUT:.0f} s") from None
        finally:
            child.terminate()  # it stops its services then
    if child.returncode != 0:
        raise Missing(complained.strip().rpartition("\n")[2] or f"exit code {child.returncode}")
    result: dict[str, Any] = json.loads(said.strip().rpartition("\n")[2])
    return result


def python_of(entrant: Entrant) -> Path:
    """The Python of the entrant's environment, which is made when it is not there or its pins have changed."""
    if not entrant.packages:
        return Path(sys.executable)
    folder = ENVIRONMENTS / entrant.module.rpartition(".")[2]
    stamp = folder / "made-from"
    made_from = hashlib.sha256(PINS.read_bytes() + " ".join(entrant.packages).encode()).hexdigest()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != made_from:
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--constraint", str(PINS), *entrant.packages]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            last = done.stderr.strip().rpartition("\n")[2]
            raise Missing(f"cannot install {' '.join(entrant.packages)}: {last}")
        stamp.write_text(made_from)
    return python


def version_of(entrant: Entrant) -> str:
    if not entrant.packages:
        from hecaton import __version__

        return f"{__version__}; {subject.runtime()}"
    pins = dict(line.split("==") for line in PINS.read_text().splitlines() if "==" in line)
    return ", ".join(f"{package} {pins[package]}" for package in entrant.packages)
