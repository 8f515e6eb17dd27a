"""How much of a machine its jobs may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecaton.worker.capacity import LEAST_RESERVE, MOST_RESERVE, capacity, for_jobs

GIB = 1 << 30


@pytest.mark.parametrize(
    ("total", "kept"),
    [(4 * GIB, LEAST_RESERVE), (32 * GIB, 2 * GIB), (2048 * GIB, MOST_RESERVE), (512 << 20, 256 << 20), (0, 0)],
)
def test_the_machine_keeps_a_part_of_its_memory(total: int, kept: int) -> None:
    assert for_jobs(total) == total - kept


def test_it_is_asked_of_the_machine(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:       33554432 kB\nMemFree:         1000000 kB\n")
    assert capacity(file).memory == 30 * GIB
    assert capacity().cpus >= 1


def test_a_machine_that_does_not_say_sets_no_limit(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\n")
    assert capacity(tmp_path / "meminfo").memory == capacity(tmp_path / "none").memory == 0
