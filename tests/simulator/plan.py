"""A seed becomes a plan: how large the world is, what is submitted when, how often what breaks.

Profiles differ on purpose: a large calm fleet finds what hours find, a small one under fire what races find.
"""

from __future__ import annotations

import random

import msgspec

HOUR = 3600.0


class JobPlan(msgspec.Struct, frozen=True):
    """`does`: ok, raise, exit, oom, gpu, hang, stall (ends, but late), or `flaky`: fails until attempt `after`."""

    number: int
    at: float
    user: int
    image: int
    runs: float
    does: str = "ok"
    after: int = 0
    timeout: float | None = None
    retries: int = 0
    priority: int = 0
    queue_ttl: float | None = None
    cancel_after: float | None = None
    abandon: bool = False  # the client dies after its first request
    twice: bool = False  # the network delivers the request twice
    again: bool = False  # `job retry` if it fails


class Plan(msgspec.Struct, frozen=True):
    """Times in virtual seconds. `faults`: mean number per hour, of the whole world, by kind."""

    seed: int
    profile: str
    duration: float
    workers: int
    slots: tuple[int, ...]
    images: int
    users: int
    heartbeat: float
    lost_after: float
    latency: float
    commit: float
    jobs: tuple[JobPlan, ...]
    faults: dict[str, float]


KINDS = (
    "server_kill", "server_stop", "server_pause", "server_power", "disk_slow", "disk_full", "wall_jump",
    "link_cut", "link_replay", "link_flap", "link_hole", "link_refuse", "link_slow",
    "worker_kill", "worker_pause", "worker_stop", "host_power", "worker_disk_full",
    "container_exit", "container_oom", "door_break", "engine_down", "registry_down", "client_cut",
)  # fmt: skip

CHEAP = frozenset({"link_cut", "link_replay", "door_break", "client_cut", "container_exit", "link_slow"})
"""Faults that cost little time and may come often."""


def make_plan(seed: int) -> Plan:
    rng = random.Random(f"{seed}/plan")
    profile = rng.choices(("fleet", "calm", "storm", "burst"), (3, 1, 6, 4))[0]
    if profile == "fleet":
        workers, duration, jobs = rng.randint(60, 140), 1.5 * HOUR, rng.randint(50, 200)
    elif profile == "calm":
        workers, duration, jobs = rng.randint(2, 30), 0.5 * HOUR, rng.randint(100, 300)
    elif profile == "storm":
        workers, duration, jobs = rng.randint(1, 8), rng.uniform(0.1, 0.5) * HOUR, rng.randint(40, 150)
    else:
        workers, duration, jobs = rng.randint(1, 5), rng.uniform(30, 300), rng.randint(200, 500)
    users, images = rng.randint(1, 3), rng.randint(1, 4)
    slots = tuple(rng.choice((1, 1, 1, 2, 4)) for _ in range(workers))
    heartbeat = rng.choice((10.0, 20.0)) if profile == "fleet" else rng.choice((2.0, 5.0))
    return Plan(
        seed=seed,
        profile=profile,
        duration=duration,
        workers=workers,
        slots=slots,
        images=images,
        users=users,
        heartbeat=heartbeat,
        lost_after=max(60.0, 6 * heartbeat),  # the server allows no less
        latency=rng.choice((0.0005, 0.005, 0.05, 0.3)),
        commit=rng.choice((0.0005, 0.003, 0.02)),
        jobs=_jobs(rng, profile, duration, jobs, users, images),
        faults=_faults(rng, profile, duration),
    )


def _faults(rng: random.Random, profile: str, duration: float) -> dict[str, float]:
    """Not always all of them: a world with one kind of fault shows best what that kind breaks."""
    if profile == "calm":
        return {}
    chosen = KINDS if rng.random() < 0.4 else tuple(rng.sample(KINDS, rng.randint(1, 6)))
    expected = {"fleet": 3.0, "storm": 6.0, "burst": 2.0}[profile]
    return {
        kind: rng.uniform(0.2, 2.0) * expected * (4.0 if kind in CHEAP else 1.0) / (duration / HOUR) for kind in chosen
    }


def _jobs(
    rng: random.Random, profile: str, duration: float, count: int, users: int, images: int
) -> tuple[JobPlan, ...]:
    short = profile == "burst"
    plain = rng.random() < 0.3  # a world in which every job succeeds, so that every failure is the system's
    jobs = []
    at = 0.0
    for number in range(count):
        if rng.random() < 0.5:  # jobs come in clusters
            at = rng.uniform(0.0, duration * 0.9)
        jobs.append(_job(rng, number, at, rng.randrange(users), rng.randrange(images), short, plain))
    return tuple(jobs)


def _job(
    rng: random.Random, number: int, at: float, user: int, image: int, short: bool, plain: bool
) -> JobPlan:  # fmt: skip
    runs = rng.choice((0.001, 0.005, 0.02, 0.2)) if short else rng.choice((0.01, 0.5, 5.0, 60.0))
    runs *= rng.uniform(0.5, 2.0)
    does = "ok"
    if not plain and rng.random() < 0.3:
        does = rng.choice(("raise", "exit", "oom", "gpu", "hang", "stall", "flaky", "flaky"))
    timeout = rng.uniform(5.0, 100.0) if does == "hang" or rng.random() < 0.1 else None
    if timeout is not None and does not in ("hang", "stall"):
        timeout += runs * 2
    return JobPlan(
        number=number,
        at=at,
        user=user,
        image=image,
        runs=runs + rng.uniform(60.0, 300.0) if does == "stall" else runs,
        does=does,
        after=rng.randint(1, 3) if does == "flaky" else 0,
        timeout=timeout,
        retries=rng.randint(0, 3) if rng.random() < 0.4 else 0,
        priority=rng.randint(-2, 2) if rng.random() < 0.2 else 0,
        queue_ttl=rng.uniform(1.0, 300.0) if rng.random() < 0.05 else None,
        cancel_after=rng.expovariate(1 / 10.0) if rng.random() < 0.08 else None,
        abandon=rng.random() < 0.02,
        twice=rng.random() < 0.05,
        again=rng.random() < 0.1,
    )
