"""`make bench` in its short form: every measurement still runs and gives its row. No time is asserted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import growth, instructions
from benchmarks.__main__ import MEASUREMENTS, VERSUS
from benchmarks.instructions import REFERENCE, Kept, judge, least
from benchmarks.plan import Measurement
from tests.engine.needs import require

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT = 300

ONE_BY_ONE = [measurement for measurement in MEASUREMENTS if measurement is not growth.MEASUREMENT]

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


def measured(folder: Path, name: str) -> Path:
    """The report of a run of one measurement, with real containers."""
    output = folder / "benchmarks.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", name, "--output", str(output)],
        cwd=REPOSITORY,
        env={**os.environ, "ITERATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text = output.read_text()
    assert text == done.stdout
    assert "Linux" in text
    assert "containers of python:3.9-slim" in text
    return output


def _cells(report: Path, row: str) -> list[str]:
    [line] = [line for line in report.read_text().splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def has_its_rows(report: Path, measurement: Measurement) -> None:
    """Those that every machine has; the short form has no more."""
    for row in {row.what for row in measurement.rows.values()}.intersection(ROWS + WITHOUT_TARGET):
        _, target, value, _, mark = _cells(report, row)
        assert re.match(r"-?[\d,.]+ \S", value)
        assert row in WITHOUT_TARGET or (target and mark in ("reached", "**missed**"))


def test_each_row_is_one_of_a_measurement() -> None:
    rows = [row for measurement in MEASUREMENTS for row in measurement.rows.values()]
    assert {row.what for row in rows if row.limit is not None} >= set(ROWS)
    assert {row.what for row in rows if row.limit is None} >= set(WITHOUT_TARGET)


@pytest.mark.sample(2)
@pytest.mark.usefixtures("python39_image")
class TestAMeasurement:
    @pytest.mark.parametrize("measurement", ONE_BY_ONE, ids=lambda measurement: measurement.name)
    def test_gives_its_rows(self, measurement: Measurement, tmp_path: Path) -> None:
        require("valgrind")
        has_its_rows(measured(tmp_path, measurement.name), measurement)

    def test_of_growth_gives_its_rows_and_a_panel_of_the_plot_for_each(self, tmp_path: Path) -> None:
        report = measured(tmp_path, growth.MEASUREMENT.name)
        has_its_rows(report, growth.MEASUREMENT)
        plot = ElementTree.parse(report.with_name("benchmarks.svg"))
        texts = {element.text for element in plot.iter("{http://www.w3.org/2000/svg}text")}
        assert {"jobs waiting", "jobs finished", "workers connected"} <= texts

    def test_of_rivals_shows_hecaton_and_huey_side_by_side(self, tmp_path: Path) -> None:
        report = measured(tmp_path, VERSUS)
        for name in ("Hecaton, HTTP", "Hecaton, Python client", "Huey, SQLite"):
            _, survives, p50, _, ratio, per_second, *_ = _cells(report, name)
            assert survives.startswith("yes")
            assert float(p50) > 0
            assert float(ratio) > 0
            assert float(per_second.replace(",", "")) > 0


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
