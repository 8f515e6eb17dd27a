"""`/metrics`: it says what is so and what has happened, on a port of its own, as docs/operations.md has it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from hecaton.core.model import JobState, Reason, WorkerStatus
from hecaton.server.metrics import collector, statistics
from hecaton.server.metrics.collector import Metrics
from hecaton.server.metrics.statistics import OTHERS, Histogram, Statistics
from hecaton.wire.channel import Lost, Warm
from tests.e2e.commands import free_port
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, Running, running
from tests.server.scripted_worker import slots
from tests.server.server_process import ServerProcess
from tests.server.test_batches import batch

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
ROWS = re.findall(r"^\| `(hecaton_\w+)` \|([^|]*)\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
"""Of the page: a metric, its labels, what it is."""
ON = {"metrics": "127.0.0.1:9181"}

Sample = tuple[str, Mapping[str, str]]


class Scraped:
    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """0 where there is none."""
        return sum(one.value for one in self._samples if one.name == name and one.labels == labels)

    def between(self, name: str, low: float, high: float) -> float:
        """Observed above one bucket's bound, and up to another's."""
        buckets = {float(one.labels["le"]): one.value for one in self._samples if one.name == f"{name}_bucket"}
        return buckets[high] - buckets[low]

    def label_names(self, name: str) -> set[str]:
        [family] = (one for one in self.families.values() if one.name == name.removesuffix("_total"))
        return {label for sample in family.samples for label in sample.labels} - {"le"}

    def labels(self, name: str, label: str) -> set[str]:
        return {one.labels[label] for one in self._samples if one.name == name}


async def scraped(server: Running) -> Scraped:
    return Scraped((await Metrics(server.server.parts, server.server.connections).text()).decode())


async def test_what_waits_and_runs_is_counted_as_it_is_now(tmp_path: Path) -> None:
    async with running(tmp_path, **ON) as server:
        await server.image()
        worker = await server.worker("w1", slots=slots(3))
        await server.enrol("away")
        await worker.send(Lost(2, "it fell off the bus"), Warm(1, "key", IMAGE))
        await server.admin.submit(IMAGE, 1)
        running_job = await worker.start()
        given = [await server.admin.submit(IMAGE, number) for number in range(3)]
        server.later(30)
        await eventually(lambda: server.admin.state(running_job.ref.job), "IN_PROGRESS")
        found = await scraped(server)
        jobs = {state: found.value("hecaton_jobs", state=state, image=IMAGE) for state in JobState}
        held = len(worker.assigned)
        assert (jobs[JobState.IN_PROGRESS], jobs[JobState.ASSIGNED]) == (1, held - 1)
        assert jobs[JobState.IN_QUEUE] == found.value("hecaton_queue_jobs") == 1 + len(given) - held > 0
        assert 30 <= found.value("hecaton_queue_oldest_seconds") < 60
        statuses = {status: found.value("hecaton_workers", status=status) for status in WorkerStatus}
        assert statuses == {**dict.fromkeys(WorkerStatus, 0), WorkerStatus.ONLINE: 1, WorkerStatus.OFFLINE: 1}
        assert [found.value("hecaton_slots", state=state) for state in ("busy", "idle", "lost")] == [2, 0, 1]
        assert found.value("hecaton_connections") >= 2
        assert found.value("hecaton_disk_floor_reached") == 0


async def test_each_end_of_a_job_is_counted_once_with_its_reason(tmp_path: Path) -> None:
    async with running(tmp_path, **ON) as server:
        await server.image()
        queued = await server.admin.submit(IMAGE, 0)
        await server.admin.must("POST", f"/v1/jobs/{queued}/cancel")
        cancelled = await batch(server.admin, 3)
        await server.admin.must("POST", f"/v1/batches/{cancelled}/cancel")
        await eventually(lambda: _ended(server, cancelled), 3)
        await server.admin.submit(IMAGE, 0, queue_ttl=5)
        server.later(6)
        await server.server.parts.duties.expire_queued()
        worker = await server.worker()
        for retries, reason in ((0, Reason.OK), (0, Reason.HANDLER_ERROR), (1, Reason.TIMEOUT)):
            job = await server.admin.submit(IMAGE, 1, retries=retries)
            ref = (await worker.start()).ref
            if reason is Reason.OK:
                await worker.finish(ref)
                await worker.answer(ref)
                await worker.finish(ref)  # said again: it is the same end
            else:
                await worker.fail(ref, reason)
            await worker.answer(ref)
            if not retries:
                await server.admin.ended(job)
        await server.admin.submit(IMAGE, 2)
        found = await scraped(server)
        ended = {
            (state, reason): found.value("hecaton_jobs_ended_total", state=state, reason=reason, image=IMAGE)
            for state in JobState
            for reason in Reason
        }
        assert {key: count for key, count in ended.items() if count} == {
            (JobState.CANCELLED, Reason.CANCELLED): 4,
            (JobState.FAILED, Reason.QUEUE_TTL): 1,
            (JobState.FINISHED, Reason.OK): 1,
            (JobState.FAILED, Reason.HANDLER_ERROR): 1,
        }
        assert found.value("hecaton_attempts_requeued_total", reason=Reason.TIMEOUT) == 1
        for name, labels, _ in ROWS:
            assert found.label_names(name) == set(re.findall(r"`(\w+)`", labels)), name


async def _ended(server: Running, batch_id: str) -> int:
    return int((await server.admin.get(f"/v1/batches/{batch_id}"))["cancelled"])


async def test_waits_cold_starts_and_run_times_are_histograms(tmp_path: Path) -> None:
    async with running(tmp_path, **ON) as server:
        await server.image()
        cold = await server.admin.submit(IMAGE, 1)
        server.later(40)
        worker = await server.worker()
        first = await worker.start()
        server.later(20)  # it starts, and runs for 4 s
        await worker.finish(first.ref, ran=4.0)
        await server.admin.ended(cold)
        await worker.send(Warm(0, first.warm_key, IMAGE))
        await eventually(lambda: _warm(server), True)
        warm = await server.admin.submit(IMAGE, 2)
        second = await worker.start()
        await worker.finish(second.ref, ran=0.02)
        await server.admin.ended(warm)
        found = await scraped(server)
        assert found.between("hecaton_job_wait_seconds", 30, 300) == 1
        assert found.between("hecaton_job_cold_start_seconds", 10, 30) == 1
        assert found.between("hecaton_job_run_seconds", 1, 5) == 1
        assert found.value("hecaton_job_cold_start_seconds_count") == 1, "the second one had a warm container"
        assert found.value("hecaton_job_run_seconds_count") == found.value("hecaton_job_wait_seconds_count") == 2
        assert found.value("hecaton_database_seconds_count", kind="write") > 2
        assert found.value("hecaton_database_seconds_sum", kind="read") > 0


async def _warm(server: Running) -> bool:
    return (await scraped(server)).value("hecaton_warm_containers") == 1


async def test_names_of_images_are_labels_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MAX_IMAGES", 2)
    async with running(tmp_path, **ON) as server:
        for number in range(4):
            await server.admin.submit(await server.image(f"team/app:{number}"))
        found = await scraped(server)
        assert found.labels("hecaton_jobs", "image") == {"team/app:0", "team/app:1", "other"}
        assert found.value("hecaton_jobs", state="IN_QUEUE", image="other") == 2


async def test_the_ends_of_an_image_that_goes_stay_under_its_name(tmp_path: Path) -> None:
    async with running(tmp_path, **ON) as server:
        ada, metrics = await server.user("ada"), Metrics(server.server.parts, server.server.connections)
        for scrapes in (1, 2):
            await ada.must("POST", f"/v1/jobs/{await ada.submit('team/app:1')}/cancel")
            found = Scraped((await metrics.text()).decode())
            assert (
                found.value("hecaton_jobs_ended_total", state="CANCELLED", reason="cancelled", image="team/app:1")
                == scrapes
            )
        await ada.must("DELETE", "/v1/images/team/app:1")
        found = Scraped((await metrics.text()).decode())
        assert found.labels("hecaton_jobs_ended_total", "image") == {"team/app:1"}
        assert found.value("hecaton_jobs_ended_total", state="CANCELLED", reason="cancelled", image="team/app:1") == 2


def test_ends_are_kept_for_so_many_images_and_for_the_others_together() -> None:
    counted = Statistics(on=True)
    for image in range(1, statistics.MAX_IMAGES + 10):
        counted.end(image, JobState.FINISHED, Reason.OK, 2)
    assert len(counted.ended) == statistics.MAX_IMAGES + 1
    assert counted.ended[OTHERS, JobState.FINISHED, Reason.OK] == 2 * 9
    assert sum(counted.ended.values()) == 2 * (statistics.MAX_IMAGES + 9)


def test_a_histogram_counts_what_is_at_most_each_bound() -> None:
    histogram = Histogram((0.5, 1, 10))
    for value in (0.1, 0.5, 0.6, 10, 99):
        histogram.observe(value)
    assert histogram.buckets == [(0.5, 2), (1, 3), (10, 4), (math.inf, 5)]
    assert histogram.total == pytest.approx(110.2)


def test_no_sum_sinks_whatever_a_worker_says_of_its_times() -> None:
    histogram = Histogram((0.5, 1))
    for value in (0.25, -1e9):
        histogram.observe(value)
    assert (histogram.total, histogram.buckets) == (0.25, [(0.5, 2), (1, 2), (math.inf, 2)])


async def test_without_the_option_nothing_is_counted(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    job = await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref)
    await server.admin.ended(job)
    counted = server.server.statistics
    assert (counted.ended, counted.runs.total, counted.database["write"].total) == ({}, 0, 0)


async def test_the_page_is_on_its_own_port_alone_and_as_it_is_described(tmp_path: Path) -> None:
    place = f"127.0.0.1:{free_port()}"
    process = ServerProcess(tmp_path / "home", "--port", "0", "--metrics", place)
    try:
        main = process.ready()
        assert f"  metrics          http://{place}/metrics\n" in process.said
        assert "Note: whoever" not in process.said
        async with aiohttp.ClientSession() as session:
            there, elsewhere = Person(session, f"http://{place}"), Person(session, main)
            reply = await there.call("GET", "/metrics")
            assert (reply.status, reply.headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
            said = {m[1]: m[2] for m in re.finditer(r"^# HELP (hecaton_\S+) (.*)$", reply.body.decode(), re.MULTILINE)}
            assert said == {name: summary for name, _, summary in ROWS}
            assert "process_resident_memory_bytes" in reply.body.decode()
            assert (await there.call("HEAD", "/metrics")).body == b""
            for method, path, status in (("GET", "/v1/jobs", 404), ("POST", "/metrics", 405), ("GET", "/", 404)):
                assert (await there.call(method, path)).status == status, path
            assert (await elsewhere.call("GET", "/metrics")).status == 404
            assert (await elsewhere.call("GET", "/healthz")).status == 200
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(f"http://{place}/v1/worker/channel")
    finally:
        assert process.stop() < 20


@pytest.mark.parametrize(
    ("port", "metrics", "said"),
    [
        ("0", "localhost", "is no HOST:PORT"),
        ("0", "http://127.0.0.1:9181", "is no HOST:PORT"),
        ("{port}", "127.0.0.2:{port}", "--metrics and --port are both {port}"),
        ("0", "192.0.2.77:9181", "--metrics chooses another place."),
    ],
)
def test_a_place_that_cannot_be_is_named(tmp_path: Path, port: str, metrics: str, said: str) -> None:
    chosen = str(free_port())
    given = (text.replace("{port}", chosen) for text in (port, metrics))
    refused = ServerProcess(tmp_path / "home", "--port", next(given), "--metrics", next(given)).refused()
    assert said.replace("{port}", chosen) in refused


def test_a_place_that_others_reach_is_pointed_out(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "home", "--port", "0", "--metrics", f"0.0.0.0:{free_port()}")
    process.ready()
    process.stop()
    assert "Note: whoever reaches 0.0.0.0:" in process.said
