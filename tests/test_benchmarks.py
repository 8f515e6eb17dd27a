"""`make bench` in its short form: every measurement still runs and gives its row. No time is asserted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import instructions
from benchmarks.instructions import REFERENCE, Kept, judge, least
from tests.engine.needs import require

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT = 540

ROWS = (
    "warm no-op job, one client, submit to result, p50",
    "jobs submitted one by one, 64 clients, results read",
    "jobs submitted 100 in a request, 4,000 on their way, results read",
    "jobs submitted 1,000 in a request, 4,000 on their way, results read",
    "with 1,000,000 jobs waiting, share of the rate with an empty queue",
    "gap on a slot from one job to the next of the same image, p50",
    "cold start of a job, over `docker run` of the same image",
    "1,000 connected idle workers: memory of the server",
    "all 1,000 back after kill -9 of the server",
    "idle server and idle worker together, CPU",
    "peak memory of the server meanwhile",
    "peak memory of the worker meanwhile",
    "`hecaton --version`",
    "`hecaton job list` on loopback",
    "cost per job with 1,000 workers, over that with one, one client",
    "the same with 64 clients, over that with 64 workers",
    "cost per job with 1,000 workers that all differ and 1,000 lanes waiting, over that with one and one",
    "the most that one of these is over what the repository keeps",
)


WITHOUT_TARGET = (
    "1 GiB payload up, fsynced before the answer",
    "1 GiB result down",
    "idle server, memory",
    "the same over that with one worker, where dozens of jobs share each frame",
    *(row.what for row in instructions.ROWS.values()),
)


@pytest.fixture(scope="module")
def report(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of everything, with real containers."""
    require("valgrind")
    output = tmp_path_factory.mktemp("benchmark") / "benchmarks.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--output", str(output)],
        cwd=REPOSITORY,
        env={**os.environ, "ITERATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert output.read_text() == done.stdout
    return output


def _cells(report: Path, row: str) -> list[str]:
    [line] = [line for line in report.read_text().splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_hecaton_and_huey_stand_side_by_side(report: Path) -> None:
    for name in ("Hecaton, HTTP", "Hecaton, Python client", "Huey, SQLite"):
        _, survives, p50, _, ratio, per_second, *_ = _cells(report, name)
        assert survives.startswith("yes")
        assert float(p50) > 0
        assert float(ratio) > 0
        assert float(per_second.replace(",", "")) > 0


@pytest.mark.parametrize("row", ROWS)
def test_a_row_stands_beside_its_target(report: Path, row: str) -> None:
    _, target, measured, _, mark = _cells(report, row)
    assert target
    assert re.match(r"-?[\d,.]+ \S", measured)
    assert mark in ("reached", "**missed**")


@pytest.mark.parametrize("row", WITHOUT_TARGET)
def test_a_row_without_a_target_has_a_number(report: Path, row: str) -> None:
    assert re.match(r"[\d,.]+ \S", _cells(report, row)[2])


def test_the_report_says_where_it_was_made(report: Path) -> None:
    text = report.read_text()
    assert "Linux" in text
    assert "containers of python:3.9-slim" in text


def test_the_plot_has_a_panel_for_each_thing_that_grows(report: Path) -> None:
    plot = ElementTree.parse(report.with_name("benchmarks.svg"))
    texts = {element.text for element in plot.iter("{http://www.w3.org/2000/svg}text")}
    assert {"jobs waiting", "jobs finished", "workers connected"} <= texts


KEPT = Kept("CPython 3.11.7, x86_64", {}, 1000, {"server:single": 100_000, "worker:single": 50_000})


def _found(server: float, worker: float, reference: float = 1000) -> dict[str, float]:
    return {"server:single": server, "worker:single": worker, REFERENCE: reference}


def test_a_job_may_cost_three_percent_more_instructions_than_are_kept_and_no_more() -> None:
    assert judge(KEPT, _found(102_900, 50_000), KEPT.python)[1]
    lines, well = judge(KEPT, _found(103_100, 50_000), KEPT.python)
    assert not well
    assert (
        lines[0]
        == "server, one warm job at a time: 103,100 instructions, +3.1 % against the kept ones (at most 3 %): FAILED"
    )


def test_what_was_won_is_not_kept_by_itself_but_said() -> None:
    lines, well = judge(KEPT, _found(100_000, 48_000), KEPT.python)
    assert well
    assert "better; keep it" in lines[1]
    assert "KEEP=1" in lines[1]


@pytest.mark.parametrize(("python", "reference"), [("CPython 3.12.1, x86_64", 1000), (KEPT.python, 1010)])
def test_another_build_of_python_is_not_judged_and_says_so(python: str, reference: float) -> None:
    lines, well = judge(KEPT, _found(120_000, 40_000, reference), python)
    assert well
    assert "FAILED" not in "".join(lines)
    assert lines[-1].startswith("Nothing is judged")


def test_of_several_counts_the_least_is_judged() -> None:
    assert least(_found(104_000, 50_000), _found(101_000, 51_000)) == _found(101_000, 50_000)


def test_every_figure_is_kept() -> None:
    assert instructions.load().figures.keys() == instructions.ROWS.keys()
