"""Jobs with needs, from the command to what they see: real server, worker and NVML bindings; the driver is made up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hecaton.client import Client, JobHandle
from hecaton.testing.cluster import LocalCluster
from tests.worker.driver import compile_driver

PATIENCE = 60.0
IMAGE = "cards"
HANDLER = """
import os, pathlib, time
from hecaton.serverless import start

def act(job):
    begun, until = job.input.get("begun"), job.input.get("until")
    if begun:
        pathlib.Path(begun).touch()
    while until and not os.path.exists(until):
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]

start(act)
"""


class Site:
    def __init__(self, client: Client, folder: Path) -> None:
        self.client, self._folder = client, folder

    def sees(self, **options: Any) -> list[str]:
        """The cards of a job that asks for this."""
        seen = str(self.client.submit(IMAGE, {}, **options).result(PATIENCE))
        return sorted(filter(None, seen.split(",")))

    def begin(self, name: str, **options: Any) -> tuple[JobHandle, Path]:
        """One that runs until a file is there."""
        begun, until = self._folder / f"{name}.begun", self._folder / f"{name}.until"
        job = self.client.submit(IMAGE, {"begun": str(begun), "until": str(until)}, **options)
        deadline = time.monotonic() + PATIENCE
        while not begun.exists():
            assert time.monotonic() < deadline, self.client.job(job.id)
            time.sleep(0.02)
        return job, until

    def why(self, **options: Any) -> list[str]:
        """Of a job that waits, and is not wanted any longer."""
        job = self.client.submit(IMAGE, {}, **options)
        lines = [line.why for line in self.client.job(job.id).waiting or ()]
        self.client.cancel(job.id)
        return lines


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One worker with four cards of 80 GB."""
    folder = tmp_path_factory.mktemp("cards")
    compile_driver(folder)
    (folder / "handler.py").write_text(HANDLER)
    with LocalCluster(folder / "home") as cluster:
        cluster.register(IMAGE)
        environment = {"LD_LIBRARY_PATH": str(folder), "CARDS": "4"}
        cluster.start_worker("box", handlers={IMAGE: folder / "handler.py"}, environment=environment)
        with cluster.client() as client:
            yield Site(client, folder)


def test_each_sees_its_own_cards_alone(site: Site) -> None:
    assert len(site.sees()) == 1
    assert len(set(site.sees(gpus=2))) == 2
    assert len(set(site.sees(gpus=4, gpu="test card"))) == 4
    assert len(site.sees(vram="24G")) == 1
    assert site.sees(gpu="card 3") == ["GPU-0003"]


def test_two_jobs_share_one_card_at_the_same_time_and_a_third_waits_for_room(site: Site) -> None:
    first, one = site.begin("one", vram="40G", gpu="card 2")
    second, two = site.begin("two", vram="40G", gpu="card 2")
    assert site.why(vram="8G", gpu="card 2") == ["has at most 0 MB free on one card, of 8 GB"]
    assert site.why(gpus=4) == ["has 3 of 4 cards free"]
    for until in (one, two):
        until.touch()
    assert first.result(PATIENCE) == second.result(PATIENCE) == "GPU-0002"
    assert len(site.sees(gpus=4)) == 4, "what was warm gives way"


def test_what_no_machine_has_says_so_first(site: Site) -> None:
    lines = site.why(vram="141G")
    assert lines[0] == "no machine here has 141 GB; the largest is box, 80 GB"
    assert lines[1].startswith("is too small for 141 GB: it has Test Card 1 80 GB, Test Card 2 80 GB")


def test_a_retry_asks_for_something_else(site: Site) -> None:
    job = site.client.submit(IMAGE, {}, vram="141G")
    site.client.cancel(job.id)
    again = site.client.retry(job.id, vram="16G")
    assert site.client.wait(again.id, PATIENCE).state == "FINISHED"
