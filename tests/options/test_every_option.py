"""Every option of a job, asked for on both runtimes and seen to hold."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hecaton.client import Client, JobFailed, JobHandle
from hecaton.core.options import OPTIONS
from hecaton.testing.cluster import LocalCluster
from hecaton.worker.capacity import capacity
from hecaton.worker.runtimes.starting import DEFAULT_SHM_SIZE
from tests.e2e import http_server
from tests.e2e.commands import mount
from tests.engine.images import build_image
from tests.worker.driver import compile_driver

IMAGE = "python:3.9-slim"
SLOW_IMAGE = "slow:1"
PATIENCE = 60.0
LOST_AFTER = 2.0
PAGE = os.sysconf("SC_PAGE_SIZE")
HANDLER = """
import os, time
from hecaton.serverless import start

def act(job):
    print("begun", flush=True)
    time.sleep(job.input.get("sleep", 0))
    if job.attempt <= job.input.get("fail", 0):
        raise ValueError("not yet")
    if "read" in job.input:
        return open(job.input["read"]).read() if os.path.exists(job.input["read"]) else None
    if "files" in job.input:
        return next(open(name).read().split() for name in job.input["files"] if os.path.exists(name))
    if "room" in job.input:
        found = os.statvfs(job.input["room"])
        return found.f_blocks * found.f_frsize
    return os.environ.get(job.input.get("name", "SEEN")) if job.input.get("seen") else job.attempt

start(act)
"""

Submit = Callable[..., JobHandle]


class Site:
    def __init__(self, cluster: LocalCluster, client: Client, file: Path, docker: bool) -> None:
        self.cluster, self.client, self.file, self.docker = cluster, client, file, docker
        self._way: dict[str, Any] = {"mode": "handler", "file": file} if docker else {}
        self._slow = file.with_name("slow.py")

    def submit(self, order: dict[str, Any], image: str = IMAGE, **options: Any) -> JobHandle:
        return self.client.submit(image, order, **self._way, **options)

    def submit_slow(self, **options: Any) -> JobHandle:
        """Its container loads, and never asks for work."""
        image = IMAGE if self.docker else SLOW_IMAGE
        way: dict[str, Any] = {"mode": "handler", "file": self._slow} if self.docker else {}
        return self.client.submit(image, {}, **way, **options)

    def begun(self, job: JobHandle) -> JobHandle:
        deadline = time.monotonic() + PATIENCE
        while "begun" not in self.client.logs(job.id):
            assert time.monotonic() < deadline, f"job {job.index} has not begun: {self.client.job(job.id)}"
            time.sleep(0.02)
        return job


@pytest.fixture(scope="module", params=["docker", "process"])
def site(
    request: pytest.FixtureRequest, python39_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server, and a worker with one slot."""
    folder = tmp_path_factory.mktemp(request.param)
    file = folder / "handler.py"
    file.write_text(HANDLER)
    slow = file.with_name("slow.py")
    slow.write_text('import time\nprint("loading layer 1", flush=True)\ntime.sleep(600)\n')
    docker = request.param == "docker"
    with LocalCluster(folder / "home", server_options=("--lost-after", str(LOST_AFTER))) as cluster:
        cluster.register(IMAGE, SLOW_IMAGE)
        (folder / "word").write_text("here")
        mount(cluster, "one", f"data={folder}:ro")
        cluster.start_worker("one", handlers=None if docker else {IMAGE: file, SLOW_IMAGE: slow})
        with cluster.client() as client:
            yield Site(cluster, client, file, docker)


def _timeout(site: Site) -> None:
    view = site.submit({"sleep": PATIENCE}, timeout=0.5).wait(PATIENCE)
    assert (view.state, view.reason) == ("FAILED", "timeout")


def _retries(site: Site) -> None:
    assert site.submit({"fail": 1}, retries=1).result(PATIENCE) > 1
    assert site.submit({"fail": 1}).wait(PATIENCE).state == "FAILED"


def _priority(site: Site) -> None:
    site.client.drain_worker("one")
    low, high = site.submit({}, priority=-1), site.submit({}, priority=1)
    site.client.undrain_worker("one")
    starts = [job.wait(PATIENCE).started_at or 0.0 for job in (high, low)]
    assert starts == sorted(starts)


def _queue_ttl(site: Site) -> None:
    site.client.drain_worker("one")
    view = site.submit({}, queue_ttl=0.2).wait(PATIENCE)
    site.client.undrain_worker("one")
    assert (view.state, view.reason) == ("FAILED", "queue_ttl")


def _no_overlap(site: Site) -> None:
    """Its worker stops it before the server, which is out of its reach, could give it to another one."""
    job = site.begun(site.submit({"sleep": 1}, no_overlap=True))
    assert job.wait(PATIENCE).attempt == 1, "while the server is there it runs as any other"
    job = site.begun(site.submit({"sleep": 2 * LOST_AFTER}, no_overlap=True))
    server, worker = site.cluster.server, site.cluster.workers["one"]
    assert server is not None
    before = worker.said()
    server.send_signal(signal.SIGSTOP)
    try:
        time.sleep(LOST_AFTER)
    finally:
        server.send_signal(signal.SIGCONT)
    view = job.wait(PATIENCE)
    assert view.state == "FINISHED"
    assert len(view.attempts) == 2, f"it was not stopped: {view.attempts}\n{worker.said()[len(before) :]}"


def _entrypoint(site: Site) -> None:
    """In an image whose ENTRYPOINT shows that it ran; a worker without images says that it does not do this."""
    if not site.docker:
        job = site.submit({}, entrypoint="none")
        assert "does not carry out --entrypoint" in str(site.client.job(job.id).waiting)
        site.client.cancel(job.id)
        return
    name = "hecaton-test/seen:1"
    build_image(name, f'FROM {IMAGE}\nENTRYPOINT ["env", "SEEN=yes"]')
    site.cluster.register(name)
    assert [site.submit({"seen": True}, name, entrypoint=word).result(PATIENCE) for word in ("image", "none")] == [
        "yes",
        None,
    ]


def _startup_timeout(site: Site) -> None:
    """A container that never asks for work is given up after it, and what it said is in the failure."""
    view = site.submit_slow(startup_timeout=1.0).wait(PATIENCE)
    assert (view.state, view.reason) == ("FAILED", "startup_exit")
    assert view.failure is not None
    assert "ran for 1 s (--startup-timeout) without asking for work" in view.failure.message
    assert "loading layer 1" in view.failure.message
    slow = IMAGE if site.docker else SLOW_IMAGE
    site.client.update_image(slow, defaults={"startup_timeout": 1.5})
    view = site.submit_slow().wait(PATIENCE)
    site.client.update_image(slow, defaults={"startup_timeout": None})
    assert "ran for 1.5 s (--startup-timeout)" in str(view.failure), "its image's, where it asks for none"


def _env(site: Site) -> None:
    """Jobs with other values have containers of their own, and those without see nothing of it."""
    order = {"seen": True, "name": "WORD"}
    words = [{"WORD": "one two"}, {"WORD": "three"}, {}, {"WORD": "one two"}]
    assert [site.submit(order, env=env).result(PATIENCE) for env in words] == ["one two", "three", None, "one two"]


def _http(site: Site, **options: Any) -> object:
    """What an image that is a server answers; a worker without images says that it does not speak to such a one."""
    if not site.docker:
        job = site.submit({"path": "/seen"}, protocol="http", **options)
        assert "runs no http jobs" in str(site.client.job(job.id).waiting)
        site.client.cancel(job.id)
        return None
    name = "hecaton-test/served:1"
    server = Path(http_server.__file__).read_bytes()
    build_image(name, f'FROM {IMAGE}\nCOPY server.py /\nCMD ["python", "/server.py"]\n', {"server.py": server})
    return site.client.run(name, "asked", protocol="http", startup_timeout=5.0, wait=PATIENCE, **options)


def _protocol_and_port(site: Site) -> None:
    assert _http(site, port=9100) in ("asked", None)


def _ready(site: Site) -> None:
    assert _http(site, port=9100, ready="/health") in ("asked", None)
    if site.docker:
        with pytest.raises(JobFailed, match="startup_exit"):
            _http(site, port=9100, ready="/nowhere")


def _path(site: Site) -> None:
    if _http(site, port=9100, path="/predict") is not None:
        with pytest.raises(JobFailed, match="POST /fails was answered with 500"):
            _http(site, port=9100, path="/fails")


def _mount(site: Site) -> None:
    """At its place in the containers of those that ask for it, which only a worker gets that has it; a worker without
    containers says that it does not do this."""
    order = {"read": "/mnt/data/word"}
    job = site.submit(order, mount={"data": "/mnt/data"})
    if not site.docker:
        assert "does not carry out --mount" in str(site.client.job(job.id).waiting)
        site.client.cancel(job.id)
        return
    assert (job.result(PATIENCE), site.submit(order).result(PATIENCE)) == ("here", None)
    elsewhere = site.submit({"read": "/a/b/word"}, mount={"data": "/a/b"})
    assert elsewhere.result(PATIENCE) == "here"
    waits = site.submit(order, mount={"data": "/mnt/data", "other": "/mnt/other"})
    assert "has no mount other (it has: data)" in str(site.client.job(waits.id).waiting)
    site.client.cancel(waits.id)


def _refused(site: Site, flag: str, **option: Any) -> None:
    job = site.submit({}, **option)
    assert f"does not carry out {flag}" in str(site.client.job(job.id).waiting)
    site.client.cancel(job.id)


def _seen(site: Site, *files: str, **option: Any) -> list[str]:
    """What control groups of either version say within the container."""
    answer = site.submit({"files": [f"/sys/fs/cgroup/{name}" for name in files]}, **option).result(PATIENCE)
    assert isinstance(answer, list)
    return answer


def _cpus(site: Site) -> None:
    if not site.docker:
        return _refused(site, "--cpus", cpus=1.5)
    quota = int(_seen(site, "cpu.max", "cpu/cpu.cfs_quota_us", cpus=1.5)[0])
    assert quota == 1.5 * int(_seen(site, "cpu.max", "cpu/cpu.cfs_period_us", cpus=1.5)[-1])
    assert _seen(site, "cpu.max", "cpu/cpu.cfs_quota_us")[0] in ("max", "-1")
    return None


def _memory(site: Site) -> None:
    if not site.docker:
        return _refused(site, "--memory", memory="512M")
    files = ("memory.max", "memory/memory.limit_in_bytes")
    assert _seen(site, *files, memory="512M") == [str(512 << 20)]
    assert _seen(site, *files) == [str(capacity().memory // PAGE * PAGE)], "all but the reserve"
    swap = _seen(site, "memory.swap.max", "memory/memory.memsw.limit_in_bytes", *files, memory="512M")
    assert swap in (["0"], [str(512 << 20)])
    return None


def _shm(site: Site) -> None:
    if not site.docker:
        return _refused(site, "--shm", shm="80M")
    assert site.submit({"room": "/dev/shm"}, shm="80M").result(PATIENCE) == 80 << 20
    assert site.submit({"room": "/dev/shm"}).result(PATIENCE) == DEFAULT_SHM_SIZE
    return None


@contextmanager
def _cards(site: Site) -> Iterator[None]:
    """A worker beside the other one, of the process runtime, with two cards that the driver's stand-in has."""
    folder = site.cluster.folder / "driver"
    folder.mkdir(exist_ok=True)
    compile_driver(folder)
    environment = {"LD_LIBRARY_PATH": str(folder), "CARDS": "2"}
    worker = site.cluster.start_worker("cards", handlers={IMAGE: site.file}, environment=environment)
    try:
        yield
    finally:
        worker.stop()


def _seen_of_cards(site: Site, **asked: Any) -> list[str]:
    """By the job; where there is no card, it waits and says so."""
    order = {"seen": True, "name": "CUDA_VISIBLE_DEVICES"}
    job = site.submit(order, **asked)
    assert "has no card" in {line.worker: line.why for line in site.client.job(job.id).waiting or ()}["one"]
    if site.docker:
        site.client.cancel(job.id)
        return []
    with _cards(site):
        return sorted(str(job.result(PATIENCE)).split(","))


def _gpus(site: Site) -> None:
    assert _seen_of_cards(site, gpus=2) == ([] if site.docker else ["GPU-0001", "GPU-0002"])


def _gpu(site: Site) -> None:
    assert _seen_of_cards(site, gpu="card 2") == ([] if site.docker else ["GPU-0002"])


def _vram(site: Site) -> None:
    assert _seen_of_cards(site, vram="80G", gpu="card 1") == ([] if site.docker else ["GPU-0001"])


def _on(site: Site) -> None:
    """Not there where it may not run, until another one comes."""
    job = site.submit({}, on="!one,two")
    [why] = [line.why for line in site.client.job(job.id).waiting or () if line.worker == "one"]
    assert why == "is not asked for (--on)"
    site.client.cancel(job.id)
    assert site.submit({}, on="one").wait(PATIENCE).worker == "one"


HOLDS: dict[str, Callable[[Site], None]] = {
    "timeout": _timeout,
    "retries": _retries,
    "priority": _priority,
    "queue_ttl": _queue_ttl,
    "no_overlap": _no_overlap,
    "entrypoint": _entrypoint,
    "startup_timeout": _startup_timeout,
    "env": _env,
    "gpus": _gpus,
    "gpu": _gpu,
    "vram": _vram,
    "on": _on,
    "protocol": _protocol_and_port,
    "port": _protocol_and_port,
    "ready": _ready,
    "path": _path,
    "mount": _mount,
    "cpus": _cpus,
    "memory": _memory,
    "shm": _shm,
}


@pytest.mark.parametrize("name", OPTIONS)
def test_it_holds(site: Site, name: str) -> None:
    """Whoever adds an option says here how it is seen to hold."""
    HOLDS[name](site)
