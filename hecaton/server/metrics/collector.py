"""What is so now and what has happened, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from hecaton import __version__
from hecaton.core.model import JobState, WorkerStatus
from hecaton.server.composition import Composition
from hecaton.server.connections import Connections
from hecaton.server.fleet.places.leases import Member
from hecaton.server.metrics.statistics import MAX_IMAGES, Histogram

Labels = tuple[str, ...]
"""Values of a metric's labels, in their order."""

OTHER = "other"
"""The label of all images that are not told apart, and of those that were gone before their jobs were first counted."""


class Metrics:
    """On the server's event loop. Names of images become labels in the order in which they are met."""

    def __init__(self, parts: Composition, connections: Connections) -> None:
        self._parts, self._connections = parts, connections
        self._statistics = parts.resources.statistics
        self._images: set[str] = set()
        self._for_good: dict[int, str] = {}
        self._process = ProcessCollector(registry=None)

    async def text(self) -> bytes:
        """All of it. Raises what the store raises."""
        workers = await self._parts.resources.database.read(lambda store: len(store.workers()))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected([*self._now(workers), *self._since_the_start()]))
        registry.register(self._process)
        return await asyncio.to_thread(generate_latest, registry)  # thousands of lines may be 20 ms

    def _image(self, image_id: int) -> str:
        image = self._parts.directory.image(image_id)
        if image is None or (image.name not in self._images and len(self._images) >= MAX_IMAGES):
            return OTHER
        self._images.add(image.name)
        return image.name

    def _counted(self, image_id: int) -> str:
        """As before, whatever has become of the image: a count that went over to another label would leap there."""
        if image_id not in self._for_good:
            self._for_good[image_id] = self._image(image_id)
        return self._for_good[image_id]

    def _now(self, registered: int) -> Iterator[Metric]:
        parts, now = self._parts, self._parts.resources.clock.now()
        lanes = parts.scheduler.lanes
        waiting = [state for state in lanes.values() if state.count > 0]
        connected = [member for member in parts.fleet.members.values() if member.link is not None]
        jobs = Counter[Labels]()
        for state in waiting:
            jobs[JobState.IN_QUEUE.value, self._image(state.lane.image_id)] += state.count
        for member in parts.fleet.members.values():
            for lease in member.leases():
                lane = lanes.get(lease.lane)
                state_of_it = JobState.IN_PROGRESS if lease.started else JobState.ASSIGNED
                jobs[state_of_it.value, OTHER if lane is None else self._image(lane.lane.image_id)] += 1
        yield _gauges("hecaton_jobs", "Jobs that wait for a worker, and that one has.", ("state", "image"), jobs)
        yield _gauge("hecaton_queue_jobs", "Jobs that wait for a worker.", sum(state.count for state in waiting))
        oldest = max((now - state.since for state in waiting), default=0.0)
        yield _gauge("hecaton_queue_oldest_seconds", "How long the first of them has waited, at most.", oldest)
        statuses = Counter[Labels]({(status.value,): 0 for status in WorkerStatus})
        statuses.update((member.status.value,) for member in connected)
        statuses[WorkerStatus.OFFLINE.value,] = max(0, registered - len(connected))
        yield _gauges("hecaton_workers", "Registered workers.", ("status",), statuses)
        yield from _slots(connected)
        yield _gauge("hecaton_connections", "Open connections, of people and workers.", len(self._connections))
        low = "1 while the disk is at its floor: nothing is started, admins alone may write."
        yield _gauge("hecaton_disk_floor_reached", low, parts.budget.at_floor)
        yield _gauges("hecaton_build_info", "Always 1.", ("version",), {(__version__,): 1})

    def _since_the_start(self) -> Iterator[Metric]:
        statistics = self._statistics
        ended = Counter[Labels]()
        for (image_id, state, reason), number in statistics.ended.items():
            ended[state.value, reason.value, self._counted(image_id)] += number
        yield _counters("hecaton_jobs_ended", "Jobs that have ended.", ("state", "reason", "image"), ended)
        again: dict[Labels, float] = {(reason.value,): number for reason, number in statistics.requeued.items()}
        yield _counters("hecaton_attempts_requeued", "Attempts after which their job waits again.", ("reason",), again)
        wait = "From a job's submission to the start of its first attempt; known when it has ended."
        yield _histograms("hecaton_job_wait_seconds", wait, {(): statistics.waits})
        cold = "From being given to a slot without a warm container to the job's start: image, container, model."
        yield _histograms("hecaton_job_cold_start_seconds", cold, {(): statistics.cold_starts})
        yield _histograms("hecaton_job_run_seconds", "From a job's start to its end.", {(): statistics.runs})
        database: dict[Labels, Histogram] = {(kind,): its for kind, its in statistics.database.items()}
        yield _histograms("hecaton_database_seconds", "Transactions, commit included.", database, ("kind",))


class _Collected:
    """As a registry wants it."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _slots(connected: list[Member]) -> Iterator[Metric]:
    slots, warm = Counter[Labels]({("idle",): 0, ("busy",): 0, ("lost",): 0}), 0
    for member in connected:
        for slot in member.slots.values():
            slots["lost" if slot.lost is not None else "busy" if slot.held else "idle",] += 1
            warm += slot.warm_key is not None and not slot.held
    yield _gauges("hecaton_slots", "Slots of connected workers; lost: its card can be used no more.", ("state",), slots)
    yield _gauge("hecaton_warm_containers", "Containers that are up and have nothing to do.", warm)


def _gauge(name: str, summary: str, value: float) -> Metric:
    return GaugeMetricFamily(name, summary, value)


def _gauges(name: str, summary: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, summary, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _counters(name: str, summary: str, labels: tuple[str, ...], values: Mapping[Labels, float]) -> Metric:
    family = CounterMetricFamily(name, summary, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _histograms(name: str, summary: str, values: Mapping[Labels, Histogram], labels: tuple[str, ...] = ()) -> Metric:
    family = HistogramMetricFamily(name, summary, labels=labels)
    for key, histogram in values.items():
        buckets = [("+Inf" if bound == math.inf else f"{float(bound)}", count) for bound, count in histogram.buckets]
        family.add_metric(key, buckets, histogram.total)
    return family
