"""Cards as the driver's library tells them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

GIB = 1 << 30

PROGRAM = """
import json, sys
from hecaton.worker.cards.discovery import discover
found = discover(deadline=float(sys.argv[1]))
print(json.dumps([[(gpu.uuid, gpu.name, gpu.memory) for gpu in found.gpus], found.reason]))
"""


def discover(driver: Path, deadline: float = 10, **settings: int) -> tuple[list[list[object]], str]:
    """In a process of its own, which finds the driver in `driver`; it must end by itself."""
    environment = os.environ | {name: str(value) for name, value in settings.items()}
    environment["LD_LIBRARY_PATH"] = str(driver)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(deadline)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    gpus, reason = json.loads(done.stdout)
    return gpus, reason


def test_each_card_once_by_its_uuid(driver: Path) -> None:
    assert discover(driver, CARDS=2) == (
        [["GPU-0001", "Test Card 1", 80 * GIB], ["GPU-0002", "Test Card 2", 80 * GIB]],
        "",
    )


def test_the_parts_of_a_divided_card_are_cards(driver: Path) -> None:
    gpus, _ = discover(driver, CARDS=2, MIG=2)
    assert gpus == [
        ["MIG-0100", "Test Card 1", 10 * GIB],
        ["MIG-0101", "Test Card 1", 10 * GIB],
        ["GPU-0002", "Test Card 2", 80 * GIB],
    ]


def test_a_lost_card_does_not_take_the_others_along(driver: Path) -> None:
    gpus, reason = discover(driver, CARDS=3, BROKEN=1)
    assert [gpu[0] for gpu in gpus] == ["GPU-0001", "GPU-0003"]
    assert reason == ""
    assert discover(driver, CARDS=1, BROKEN=0) == ([], "card 0: GPU is lost")


def test_a_machine_without_driver_has_no_card_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"")  # whatever this machine has: here the loader finds no library
    assert discover(tmp_path) == ([], "no NVIDIA driver on this machine")


def test_a_driver_without_card_or_that_fails_says_so(driver: Path) -> None:
    assert discover(driver, CARDS=0) == ([], "the NVIDIA driver knows no card")
    assert discover(driver, CARDS=1, FAILS=1) == ([], "the NVIDIA driver says: Driver Not Loaded")


def test_a_driver_that_hangs_costs_the_deadline_and_no_more(driver: Path) -> None:
    assert discover(driver, deadline=0.2, HANG=1) == ([], "the NVIDIA driver did not answer within 0.2 s")
