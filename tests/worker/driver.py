"""A stand-in for the NVIDIA driver's library: compiled, loaded by the real bindings, and told by the environment which
cards it has and what is wrong with them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

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
/* LOST names a file with the cards that fell off the bus since the start. */
static int is_lost(const char *uuid) {
    char line[64];
    const char *path = getenv("LOST");
    FILE *file = path ? fopen(path, "r") : 0;
    int found = 0;
    while (file && fgets(line, sizeof line, file)) found |= !strncmp(line, uuid, strlen(uuid));
    if (file) fclose(file);
    return found;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    *device = (void *)atol(uuid + 4);
    return is_lost(uuid) ? 15 : 0;
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


def compile_driver(folder: Path) -> None:
    """For processes that have `folder` in LD_LIBRARY_PATH."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the stand-in for the NVIDIA driver needs a C compiler: install gcc"
    (folder / "driver.c").write_text(DRIVER)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "driver.c")]
    subprocess.run(command, check=True)
