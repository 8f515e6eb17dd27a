"""`make bench` in its short form: every measurement still runs and gives its row. No time is asserted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

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
)


WITHOUT_TARGET = (
    "1 GiB payload up, fsynced before the answer",
    "1 GiB result down",
    "idle server, memory",
    "the same over that with one worker, where dozens of jobs share each frame",
)


@pytest.fixture(scope="module")
def report(python39_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of everything, with real containers."""
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
