"""What must hold in the worker's brain after every event.

And what `agent` may rely on when it looks up the container that an order names (`check_orders`): the brain names one
from its `StartContainer` or `ContainerAdopted` on, and no more once it has heard that it failed or is gone. It hears
that in the same step of the loop in which the container counts as gone, orders are carried out before the next event is
handled, and the agent drops no container that is not gone.
"""

from __future__ import annotations

from collections.abc import Iterable

from hecaton.worker.brain import events as ev
from hecaton.worker.brain.holdings import Holdings
from hecaton.worker.brain.slots import Container, HeldJob, Phase, WorkerSlot

OF_CONTAINERS = (ev.StartContainer, ev.StopContainer, ev.GiveJob, ev.GiveAhead, ev.Withdraw, ev.Acknowledge)
"""The orders that the agent hands to a container."""


def check(held: Holdings) -> None:
    """Raises AssertionError that names the broken rule."""
    placed = [job for slot in held.slots.values() for job in slot.jobs]
    assert len(placed) == len({job.ref for job in placed}), "a job stands in two places"
    assert {id(job) for job in placed} == {id(job) for job in held.jobs.values()}, "a held job stands in no slot"
    assert all(held.jobs[job.ref.job] is job for job in placed), "a job is filed under another's id"
    assert not {job.ref for job in placed} & held.done.keys(), "a job that has a result is still held"
    living = [slot.container for slot in held.slots.values() if slot.container is not None]
    assert {c.id: c for c in living} == held.containers, "a container is on no slot, or on two"
    for slot in held.slots.values():
        _check_slot(slot)
        if held.leaving is None:
            _check_liveness(held, slot)
    _check_cards(held)


def check_orders(held: Holdings, actions: Iterable[ev.Action]) -> None:
    """`actions`: of the event after which this is held. Raises AssertionError."""
    for action in actions:
        if isinstance(action, OF_CONTAINERS):
            assert action.container in held.containers, f"{type(action).__name__} names a container that is no more"


def _check_slot(slot: WorkerSlot) -> None:
    container = slot.container
    running = [job for job in slot.jobs if job.started_at is not None]
    assert all(job.assignment.slot == slot.index for job in slot.jobs), "a job waits beside the wrong slot"
    assert len(running) <= 1, "a slot runs two jobs"
    if running:
        assert running[0] is slot.jobs[0], "a job overtook another"
        assert container is not None, "a job runs without a container"
        assert container.running is running[0], "a job runs in no container"
    if container is not None:
        assert container.slot == slot.index, "a container stands on the wrong slot"
        _check_container(container, slot)
    for job in slot.jobs:
        if job.ending is not None:
            assert container is not None, "a job waits for the end of a container that is not there"
            asked = container.withdrawing and job in container.ahead
            assert asked or container.phase is Phase.STOPPING, "a job is to end and its container is not being stopped"


def _check_container(container: Container, slot: WorkerSlot) -> None:
    begun = container.begun()
    assert begun == list(slot.jobs)[: len(begun)], "jobs ahead stand in another order than on their slot"
    assert all(container.suits(job) and job.here for job in begun), "a job is ahead in a container that is not for it"
    job = container.running
    if job is None:
        assert not container.ahead, "a container has jobs ahead and none that runs"
        return
    assert job is slot.jobs[0], "a container works on a job that is not the slot's first"
    assert container.suits(job), "a job runs in a container that is not for it"
    assert container.phase >= Phase.READY, "a container that never asked for work has a job"
    assert job.here, "a job runs whose payload is not here"


def _check_cards(held: Holdings) -> None:
    """Nothing is given twice, and nothing that is lost is given."""
    given: dict[str, list[int]] = {}
    for container in held.containers.values():
        for part in container.holds.cards:
            given.setdefault(part.card, []).append(part.bytes)
    for card, parts in given.items():
        assert len(parts) == 1 or all(parts), f"the card {card} is held as a whole and by somebody else"
        assert sum(parts) <= held.places.gpus[card].memory, f"more of the card {card} is held than there is"
    for slot in held.slots.values():
        assert not slot.empty or slot.own is not None, "a place that was opened stays without job and container"


def _check_liveness(held: Holdings, slot: WorkerSlot) -> None:
    """No job waits for nothing."""
    if not slot.jobs:
        return
    first: HeldJob = slot.jobs[0]
    container = slot.container
    if first.assignment.options.no_overlap and not held.guarded:
        return  # for the warden
    if container is None:
        assert slot.index in held.places.waiting, "jobs wait and no container is being started"
        way = held.places.in_the_way(slot, first.holds)
        assert way != [], "a place waits and nothing is in the way"
        stopping = [other.container is not None and other.container.phase is Phase.STOPPING for other in way or ()]
        assert all(stopping), "an idle container keeps a job waiting"
        return
    if container.phase is Phase.READY and container.running is None:
        assert not first.here, "a job is ready, its container too, and it does not run"
        assert container.suits(first), "a container that nobody can use stays on a slot where a job waits"
