"""Which faults happen when: drawn from a seed before anything starts, so that the same seed gives the same plan."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

PROCESS_WORKERS = ("process-1", "process-2", "process-3")
DOCKER_WORKER = "docker-1"
WORKERS = (*PROCESS_WORKERS, DOCKER_WORKER)
UPGRADED = ("process-2", DOCKER_WORKER)
"""From its first upgrade on such a worker starts as the newer release: the older one could not read its journal."""
SERVER = "server"
ENGINE = "dockerd"
HANDLERS = "handlers"
CONTAINERS = "containers"
REGISTRY = "registry"
DISK = "worker's disk"

ENGINE_RETURNS = 12.0
"""Seconds that an engine may need after kill -9: it first ends what ran under its predecessor."""


ON_THE_ENGINE = (CONTAINERS, REGISTRY)
"""Striking them takes an engine that answers."""


class Kind(StrEnum):
    KILL = "kill -9"
    PAUSE = "SIGSTOP"
    RESTART = "restart"
    UPGRADE = "restart by a newer release"
    AWAY = "away"
    FULL = "full"


@dataclass(frozen=True)
class Fault:
    """`at`: seconds after the begin. `seconds`: until the target is started again, or goes on. `draw`: from 0 to 1,
    which of several handlers or containers it is. `live_restore`: how an engine is started again."""

    at: float
    kind: Kind
    target: str
    seconds: float = 0.0
    draw: float = 0.0
    live_restore: bool = False

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:6.1f} s  {self.kind} {self.target}{lasting}"


# How often, of a hundred.
WEIGHTS = {
    (Kind.KILL, SERVER): 15,
    **{(Kind.KILL, name): 8 for name in WORKERS},
    (Kind.KILL, HANDLERS): 10,
    (Kind.KILL, CONTAINERS): 10,
    (Kind.KILL, ENGINE): 4,
    (Kind.PAUSE, SERVER): 8,
    **{(Kind.PAUSE, name): 3 for name in WORKERS},
    (Kind.PAUSE, HANDLERS): 4,
    (Kind.PAUSE, ENGINE): 5,
    **{(Kind.RESTART, name): 2 for name in WORKERS},
    **{(Kind.UPGRADE, name): 1 for name in UPGRADED},
    (Kind.AWAY, REGISTRY): 6,
    (Kind.FULL, DISK): 4,
}


def make_plan(seed: int, faults: int, seconds: float) -> tuple[Fault, ...]:
    """So many faults, spread over so many seconds. What is down or paused is not struck again before it is back."""
    draw = random.Random(seed)
    step = seconds / faults
    busy: defaultdict[str, float] = defaultdict(float)
    plan = []
    for number in range(faults):
        at = step * (number + draw.uniform(0.0, 0.9))
        free = [
            (choice, weight)
            for choice, weight in WEIGHTS.items()
            if busy[choice[1]] <= at and not (choice[1] in ON_THE_ENGINE and busy[ENGINE] > at)
        ]
        ((kind, target),) = draw.choices([choice for choice, _ in free], [weight for _, weight in free])
        fault = Fault(at, kind, target, _seconds(draw, kind, target), draw.random(), draw.random() < 0.5)
        returns = ENGINE_RETURNS if target == ENGINE else 1.0
        busy[target] = at + fault.seconds + returns
        plan.append(fault)
    return tuple(plan)


def _seconds(draw: random.Random, kind: Kind, target: str) -> float:
    if kind is Kind.PAUSE:
        return draw.uniform(1.0, 6.0)
    if kind in (Kind.AWAY, Kind.FULL):
        return draw.uniform(3.0, 9.0)
    if target in (HANDLERS, CONTAINERS) or kind in (Kind.RESTART, Kind.UPGRADE):
        return 0.0
    # Most services are started again at once; now and then one stays away for longer than its leases last.
    return draw.uniform(4.0, 8.0) if draw.random() < 0.15 else draw.uniform(0.0, 1.5)


def counts(plan: Sequence[Fault]) -> Counter[str]:
    """Faults by kind and target, the workers together."""
    return Counter(f"{fault.kind} {'worker' if fault.target in WORKERS else fault.target}" for fault in plan)
