"""A card that fails while the worker runs: its job is charged to nobody, its slot takes nothing more, the others go
on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hecaton.core.model import AttemptRef, Gpu, JobId, Reason
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.channel import Lost, Released
from hecaton.worker.brain import events as ev
from tests.worker.brain import Brain, assignment

A, B, C = (AttemptRef(JobId(name), 1) for name in "abc")
CARDS = (Gpu("GPU-0001", "H", 1), Gpu("GPU-0002", "H", 1))


class TestTheBrain:
    @pytest.fixture
    def brain(self) -> Brain:
        """`a` runs on the first card and `c` waits there; `b` runs on the second."""
        brain = Brain(gpus=CARDS)
        brain.running(assignment("a"), assignment("b", slot=1), assignment("c"))
        brain.boot("c-2")
        return brain

    def lose(self, brain: Brain) -> None:
        brain.hear(ev.GpuLost(brain.now, "GPU-0001", "it fell off the bus"))

    def test_fails_what_runs_there_when_its_container_is_gone_and_hands_back_what_waits(self, brain: Brain) -> None:
        self.lose(brain)
        assert brain.said(Lost) == [Lost(0, "it fell off the bus")]
        assert brain.said(Released) == [Released((C,))]
        assert brain.stopped() == ["c-1"]
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.GPU_LOST)]
        assert brain.started() == []

    def test_goes_on_with_the_other_card(self, brain: Brain) -> None:
        self.lose(brain)
        assert brain.stopped() == ["c-1"]
        brain.answer("c-2", B)
        assert brain.results() == [(B, Reason.OK)]

    def test_takes_nothing_more_for_the_slot(self, brain: Brain) -> None:
        self.lose(brain)
        brain.gone("c-1")
        brain.assign(assignment("d"))
        assert brain.said(Released) == [Released((AttemptRef(JobId("d"), 1),))]
        assert [info.lost for info in brain.state.holdings.slot_infos()] == ["it fell off the bus", None]

    def test_ignores_what_the_handler_says_of_it(self, brain: Brain) -> None:
        """A handler on a lost card raises: that is not its failure."""
        self.lose(brain)
        brain.answer("c-1", A, Reason.HANDLER_ERROR)
        assert brain.results() == []
        brain.gone("c-1")
        assert brain.results() == [(A, Reason.GPU_LOST)]


HANDLER = """
import os, time
from hecaton.serverless import start

def work(data):
    card, lost = os.environ["CUDA_VISIBLE_DEVICES"], data.input["lost"]
    if os.path.exists(lost):
        return card
    with open(lost, "w") as file:  # the card of this very job falls off the bus
        file.write(card)
    if data.input["then"] == "hang":
        time.sleep(600)
    raise RuntimeError("CUDA error: unspecified launch failure")

start(work)
"""


@pytest.mark.parametrize("then", ["raise", "hang"])
def test_a_job_whose_card_is_lost_is_run_on_the_other_one(driver: Path, tmp_path: Path, then: str) -> None:
    handler, lost = tmp_path / "handler.py", tmp_path / "lost"
    handler.write_text(HANDLER)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "CARDS": "2", "LOST": str(lost)}
    with LocalCluster(tmp_path / "home", environment=environment) as cluster:
        cluster.register("cards")
        cluster.start_worker("one", handlers={"cards": handler})
        client = cluster.client()
        job = client.submit("cards", {"lost": str(lost), "then": then})
        card = job.result(timeout=60)
        assert {card, lost.read_text()} == {gpu.uuid for gpu in CARDS}
        attempts = client.job(job.id).attempts
        assert [attempt.reason for attempt in attempts] == [Reason.GPU_LOST, Reason.OK]
        assert "GPU is lost" in str(attempts[0].failure)
        (worker,) = client.workers()
        assert sorted(slot.state for slot in worker.slots) == ["idle", "lost"]
        assert "GPU is lost" in str(worker.note)
        again = [client.submit("cards", {"lost": str(lost)}) for _ in range(5)]
        assert [job.result(timeout=60) for job in again] == [card] * 5
