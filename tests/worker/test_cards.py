"""Cards while the worker runs, as people see them: a real server, a real worker, the real binding, and a library in the
driver's place that a script drives."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import CardView, MachineView
from tests.worker.scripted_driver import GIB, ScriptedDriver, card, mig

A100, L4, RTX = "NVIDIA A100 80GB PCIe", "NVIDIA L4", "NVIDIA GeForce RTX 4090"
EIGHT = (
    card("GPU-a0", A100, 80),
    card("GPU-a1", A100, 80),
    card("GPU-b0", L4, 22),
    card("GPU-b1", L4, 22),
    card("GPU-c0", RTX, 24, 9, "87 61 250000"),
    card("GPU-c1", RTX, 24),
    card("GPU-d0", "Tesla T4", 15),
    card("GPU-e0", "NVIDIA H100 80GB HBM3", 80),
    mig("MIG-e0-0", "GPU-e0", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10),
    mig("MIG-e0-1", "GPU-e0", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10),
)
HANDLER = """
import os, time
from hecaton.serverless import start

def work(data):
    while not os.path.exists(data.input["until"]):
        time.sleep(0.01)
    return os.environ["CUDA_VISIBLE_DEVICES"]

start(work)
"""


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


class Machine:
    """A worker with the scripted driver."""

    def __init__(self, cluster: LocalCluster, driver: ScriptedDriver) -> None:
        self.cluster, self.driver, self.client = cluster, driver, cluster.client()

    @property
    def view(self) -> MachineView:
        return self.client.worker("one")

    @property
    def cards(self) -> dict[str, CardView]:
        return {card.gpu.uuid: card for card in self.view.cards}


@pytest.fixture
def driver(tmp_path: Path) -> ScriptedDriver:
    return ScriptedDriver(tmp_path / "driver")


@pytest.fixture
def machine(driver: ScriptedDriver, tmp_path: Path) -> Iterator[Machine]:
    """Not started: a test says first what the driver tells."""
    (tmp_path / "handler.py").write_text(HANDLER)
    with LocalCluster(tmp_path / "home", environment=driver.environment) as cluster:
        cluster.register("cards")
        yield Machine(cluster, driver)


def start(machine: Machine, tmp_path: Path) -> Client:
    machine.cluster.start_worker("one", handlers={"cards": tmp_path / "handler.py"})
    return machine.client


def test_eight_cards_of_five_models_are_shown_and_the_parts_of_a_divided_one(machine: Machine, tmp_path: Path) -> None:
    machine.driver.say(*EIGHT)
    start(machine, tmp_path)
    until(lambda: "GPU-c0" in (cards := machine.cards) and cards["GPU-c0"].used == 9 * GIB)
    cards = machine.cards
    assert list(cards) == [
        "GPU-a0", "GPU-a1", "GPU-b0", "GPU-b1", "GPU-c0", "GPU-c1", "GPU-d0", "MIG-e0-0", "MIG-e0-1",
    ]  # fmt: skip
    busy = cards["GPU-c0"]
    assert (busy.gpu.name, busy.use, busy.temperature, busy.power) == (RTX, 87, 61, 250.0)
    assert (cards["MIG-e0-0"].gpu.memory, cards["MIG-e0-0"].use) == (10 * GIB, None)


def test_memory_that_a_stranger_holds_is_told_with_the_name_of_its_program(machine: Machine, tmp_path: Path) -> None:
    machine.driver.say(card("GPU-1", RTX, 24))
    start(machine, tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as game:
        machine.driver.say(card("GPU-1", RTX, 24, 9), f"process GPU-1 {game.pid} {9 * GIB}")
        until(lambda: machine.view.cards[0].outside == 9 * GIB)
        name = Path(f"/proc/{game.pid}/comm").read_text().strip()
        assert machine.view.cards[0].holder == name
        machine.driver.say(card("GPU-1", RTX, 24))
        until(lambda: machine.view.cards[0].outside == 0)
        game.communicate(b"\n")


def test_memory_that_a_job_holds_is_not_outside_and_everybody_sees_whose_it_is(
    machine: Machine, tmp_path: Path
) -> None:
    machine.driver.say(card("GPU-1", RTX, 24))
    client = start(machine, tmp_path)
    job = client.submit("cards", {"until": str(tmp_path / "end")}, timeout=3600)
    until(lambda: bool(machine.view.cards[0].jobs))
    until(lambda: client.job(job.id).started_at is not None and bool(_handlers(tmp_path)))
    (pid,) = _handlers(tmp_path)
    own = f"process GPU-1 {pid} {8 * GIB}"
    machine.driver.say(card("GPU-1", RTX, 24, 8), own, f"process GPU-1 {os.getpid()} {GIB}")
    until(lambda: machine.view.cards[0].outside == GIB)
    shown = machine.view.cards[0]
    (holder,) = shown.jobs
    assert (holder.index, holder.owner, holder.ends_by is not None) == (client.job(job.id).index, "admin", True)
    (tmp_path / "end").touch()
    assert job.result(timeout=60) == "GPU-1"


def test_a_card_that_falls_off_and_one_that_the_driver_reports_take_nothing_more(
    machine: Machine, tmp_path: Path
) -> None:
    three = (card("GPU-1", L4, 22), card("GPU-2", L4, 22), card("GPU-3", L4, 22))
    machine.driver.say(*three)
    client = start(machine, tmp_path)
    until(lambda: len(machine.view.cards) == 3)
    # Xid 31 is a program's own fault, and the card is as good as before.
    machine.driver.say(*three, "lost GPU-1", "xid GPU-3 31", "xid GPU-2 48")
    until(lambda: sum(card.lost is not None for card in machine.view.cards) == 2)
    first, second, third = machine.view.cards
    assert "GPU is lost" in str(first.lost)
    assert second.lost == "the NVIDIA driver reports Xid 48: uncorrectable memory error"
    assert third.lost is None
    (tmp_path / "end").touch()
    jobs = [client.submit("cards", {"until": str(tmp_path / "end")}) for _ in range(4)]
    assert [job.result(timeout=60) for job in jobs] == ["GPU-3"] * 4


def test_a_driver_that_is_installed_later_makes_it_a_worker_with_cards(machine: Machine, tmp_path: Path) -> None:
    client = start(machine, tmp_path)
    (tmp_path / "end").touch()
    work = {"until": str(tmp_path / "end")}
    assert client.submit("cards", work).result(timeout=60) == ""
    machine.driver.say(card("GPU-1", L4, 22))
    until(lambda: any(slot.gpu is not None for slot in machine.view.slots))
    without, with_card = machine.view.slots
    assert (without.state, with_card.gpu and with_card.gpu.uuid) == ("lost", "GPU-1")
    client.undrain_worker("one")  # more slots than it was enrolled with are an admin's to allow
    until(lambda: [slot.state for slot in machine.view.slots] == ["lost", "idle"])
    assert client.submit("cards", work).result(timeout=60) == "GPU-1"


def _handlers(folder: Path) -> list[int]:
    """The processes that run the handler, not the worker that names it."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            words = Path(f"/proc/{entry}/cmdline").read_text(errors="replace").split("\0")
            if str(folder / "handler.py") in words:
                found.append(int(entry))
    return found
