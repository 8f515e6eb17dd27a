"""Cards as the driver's library tells them; the driver is a small library that the test compiles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

GIB = 1 << 30

# The functions that are asked for, with the signatures of nvml.h. CARDS: how many; BROKEN: index of a failed card;
# MIG: instances of card 0; HANG: the driver never answers; FAILS: the driver cannot be initialised.
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct { unsigned long long total, free, used; } memory_t;
static long setting(const char *name) { const char *text = getenv(name); return text ? atol(text) : -1; }
static int mig(long device) { return device >= 100; }
int nvmlInitWithFlags(unsigned flags) {
    if (setting("HANG") > 0) sleep(600);
    return setting("FAILS") > 0 ? 9 : 0;  /* NVML_ERROR_DRIVER_NOT_LOADED */
}
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "GPU is lost"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = setting("CARDS"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index == setting("BROKEN")) return 15;  /* NVML_ERROR_GPU_IS_LOST */
    *device = (void *)(long)(index + 1);
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned size) {
    if (mig((long)device)) return 3;  /* NVML_ERROR_NOT_SUPPORTED */
    snprintf(name, size, "Test Card %ld", (long)device);
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
    snprintf(uuid, size, "%s-%04ld", mig((long)device) ? "MIG" : "GPU", (long)device);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    memory->total = (mig((long)device) ? 10ull : 80ull) << 30;
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    if (setting("MIG") < 0) return 3;
    *count = 7;
    return 0;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    if ((long)device != 1 || index >= setting("MIG")) return 6;  /* NVML_ERROR_NOT_FOUND */
    *instance = (void *)(long)(100 + index);
    return 0;
}
"""

PROGRAM = """
import json, sys
from hecaton.worker.gpus import discover
found = discover(deadline=float(sys.argv[1]))
print(json.dumps([[(gpu.uuid, gpu.name, gpu.memory) for gpu in found.gpus], found.reason]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the stand-in for the NVIDIA driver needs a C compiler: install gcc"
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return folder


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
