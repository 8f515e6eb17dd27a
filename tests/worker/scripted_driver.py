"""A stand-in for the NVIDIA driver's library, which does what a file says at each moment: compiled, and loaded by the
real binding. All between the library and what a test sees is real."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

GIB = 1 << 30

# The functions that are asked for, with the signatures of nvml.h. NVML_SCRIPT names the file; without it no driver is
# there. Its lines:
#   card UUID TOTAL USED USE TEMPERATURE MILLIWATTS NAME...     (bytes, percent, degrees)
#   mig UUID PARENT TOTAL USED NAME...
#   process UUID PID BYTES          lost UUID          xid UUID CODE (each is reported once)
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, NOT_LOADED = 9, TIMEOUT = 10, LOST = 15, MOST = 64 };
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } use_t;
typedef struct { unsigned pid; u64 bytes; unsigned instance, part; } process_t;
typedef struct { void *device; u64 type, data; unsigned instance, part; } event_t;
struct card { char uuid[64], parent[64], name[64]; u64 total, used; unsigned use, heat, power; int there, lost; };
struct held { char uuid[64]; unsigned pid; u64 bytes; };
static struct card cards[MOST];  /* a card keeps its place, and its handle is its address */
static struct held held[MOST];
static struct { char uuid[64]; u64 code; } xids[MOST];
static int known, holders, reports, reported;

static struct card *find(const char *uuid) {
    for (int i = 0; i < known; i++) if (!strcmp(cards[i].uuid, uuid)) return &cards[i];
    return 0;
}
static struct card *named(const char *uuid) {
    struct card *card = find(uuid);
    if (!card) strcpy((card = &cards[known++])->uuid, uuid);
    card->there = 1;
    return card;
}
static int load(void) {
    const char *path = getenv("NVML_SCRIPT");
    FILE *file = path ? fopen(path, "r") : 0;
    char line[512], uuid[64], parent[64];
    struct card seen;
    u64 code;
    int at;
    if (!file) return NOT_LOADED;
    for (int i = 0; i < known; i++) cards[i].there = cards[i].lost = 0;
    holders = reports = 0;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "card %63s %llu %llu %u %u %u %n", uuid, &seen.total, &seen.used, &seen.use, &seen.heat,
                   &seen.power, &at) == 6) {
            struct card *card = named(uuid);
            card->total = seen.total, card->used = seen.used, card->use = seen.use;
            card->heat = seen.heat, card->power = seen.power;
            strncpy(card->name, line + at, 63);
        } else if (sscanf(line, "mig %63s %63s %llu %llu %n", uuid, parent, &seen.total, &seen.used, &at) == 4) {
            struct card *card = named(uuid);
            card->total = seen.total, card->used = seen.used;
            strcpy(card->parent, parent);
            strncpy(card->name, line + at, 63);
        } else if (sscanf(line, "process %63s %u %llu", uuid, &held[holders].pid, &held[holders].bytes) == 3) {
            strcpy(held[holders++].uuid, uuid);
        } else if (sscanf(line, "lost %63s", uuid) == 1) {
            named(uuid)->lost = 1;
        } else if (sscanf(line, "xid %63s %llu", uuid, &code) == 2) {
            strcpy(xids[reports].uuid, uuid);
            xids[reports++].code = code;
        }
    }
    fclose(file);
    return OK;
}
static struct card *of(void *device) { load(); return device; }
int nvmlInitWithFlags(unsigned flags) { return load(); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    return code == NOT_LOADED ? "Driver Not Loaded" : code == LOST ? "GPU is lost" : "Not Found";
}
static int whole(int i) { return cards[i].there && !cards[i].parent[0]; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    int code = load();
    *count = 0;
    for (int i = 0; i < known; i++) *count += whole(i);
    return code;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    for (int i = 0; i < known; i++)
        if (whole(i) && !index--) { *device = &cards[i]; return cards[i].lost ? LOST : OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    load();
    struct card *card = find(uuid);
    *device = card;
    return !card || !card->there ? NOT_FOUND : card->lost ? LOST : OK;
}
int nvmlDeviceGetName(void *device, char *name, unsigned size) {
    snprintf(name, size, "%s", of(device)->name);
    return OK;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
    snprintf(uuid, size, "%s", of(device)->uuid);
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
    struct card *card = of(device);
    memory->total = card->total, memory->used = card->used, memory->free = card->total - card->used;
    return card->lost ? LOST : OK;
}
int nvmlDeviceGetUtilizationRates(void *device, use_t *use) {
    if (of(device)->parent[0]) return NOT_SUPPORTED;
    use->gpu = ((struct card *)device)->use, use->memory = 0;
    return OK;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) {
    if (of(device)->parent[0]) return NOT_SUPPORTED;
    *degrees = ((struct card *)device)->heat;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    if (of(device)->parent[0]) return NOT_SUPPORTED;
    *milliwatts = ((struct card *)device)->power;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
    unsigned room = *count, n = 0;
    struct card *card = of(device);
    for (int i = 0; i < holders; i++)
        if (!strcmp(held[i].uuid, card->uuid)) {
            if (found && n < room) found[n] = (process_t){held[i].pid, held[i].bytes, 0, 0};
            n++;
        }
    *count = n;
    return n > room ? TOO_SMALL : OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, process_t *found) {
    *count = 0;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **instance) {
    struct card *card = of(device);
    for (int i = 0; i < known; i++)
        if (cards[i].there && !strcmp(cards[i].parent, card->uuid) && !index--) { *instance = &cards[i]; return OK; }
    return NOT_FOUND;
}
int nvmlEventSetCreate(void **set) { *set = &reports; return OK; }
int nvmlDeviceRegisterEvents(void *device, u64 kinds, void *set) { return OK; }
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned milliseconds) {
    load();
    if (reported >= reports) return TIMEOUT;
    event->device = find(xids[reported].uuid), event->type = 8, event->data = xids[reported++].code;
    return OK;
}
"""


class ScriptedDriver:
    """`environment`: for the processes that are to have this driver. Without a script there is none."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        assert compiler, "the stand-in for the NVIDIA driver needs a C compiler: install gcc"
        folder.mkdir(exist_ok=True)
        (folder / "driver.c").write_text(DRIVER)
        library = folder / "libnvidia-ml.so.1"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(folder / "driver.c")], check=True)
        self._script = folder / "script"
        self.environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "NVML_SCRIPT": str(self._script)}

    def say(self, *lines: str) -> None:
        """In one step: a process that looks sees all of it or nothing."""
        new = self._script.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in lines))
        new.replace(self._script)


def card(uuid: str, name: str, size: int, used: int = 0, figures: str = "0 30 15000") -> str:
    """`size` and `used` in GiB; `figures`: percent, degrees, milliwatts."""
    return f"card {uuid} {size * GIB} {used * GIB} {figures} {name}"


def mig(uuid: str, parent: str, name: str, size: int) -> str:
    return f"mig {uuid} {parent} {size * GIB} 0 {name}"


__all__ = ["GIB", "ScriptedDriver", "card", "mig"]
