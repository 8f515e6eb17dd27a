"""What breaks, when and for how long: drawn from the seed, told to the oracle, over when the plan's time is over."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from hecaton.worker.runtimes.port import Exit
from tests.simulator.machine import Machine
from tests.simulator.plan import HOUR, KINDS

if TYPE_CHECKING:
    from tests.simulator.world import World

EVERYBODY = "all"


class Faults:
    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._breakers: dict[str, Callable[[], None]] = {kind: getattr(self, f"_{kind}") for kind in KINDS}

    def begin(self) -> None:
        for kind, rate in self._world.plan.faults.items():
            self._next(kind, rate)

    def _next(self, kind: str, rate: float) -> None:
        delay = self._rng.expovariate(rate / HOUR)
        world = self._world
        if world.loop.time() + delay < world.plan.duration:
            world.loop.post(world.process, delay, self._strike, kind, rate)

    def _strike(self, kind: str, rate: float) -> None:
        self._breakers[kind]()
        self._next(kind, rate)

    def _for(self, kind: str, subject: str, seconds: float, after: Callable[[], None] | None = None) -> None:
        """Tell the oracle, and undo it when its time is over; the end of the plan ends it too."""
        world = self._world
        world.oracle.fault(kind, subject, seconds)
        if after is not None:
            world.loop.post(world.process, seconds, after)

    def _machine(self) -> Machine:
        return self._rng.choice(self._world.machines)

    def _seconds(self, least: float, most: float) -> float:
        """Short ones more often than long ones."""
        return least * math.exp(math.log(most / least) * self._rng.random())

    # -- the server ------------------------------------------------------------------------------------

    def _server_kill(self) -> None:
        seconds = self._seconds(0.1, 90.0)
        self._for("server_kill", "server", seconds, self._world.start_server)
        self._world.kill_server()

    def _server_power(self) -> None:
        seconds = self._seconds(5.0, 90.0)
        self._for("server_power", "server", seconds, self._world.start_server)
        self._world.kill_server(silent=True)

    def _server_stop(self) -> None:
        seconds = self._seconds(1.0, 60.0)
        self._for("server_stop", "server", seconds, self._world.start_server)
        self._world.stop_server()

    def _server_pause(self) -> None:
        service = self._world.service
        if service is None:
            return
        loop = self._world.loop
        loop.pause(service.process)
        self._for("server_pause", "server", self._seconds(1.0, 90.0), lambda: loop.resume(service.process))

    def _disk_slow(self) -> None:
        disk = self._world.disk
        disk.slow = self._rng.choice((10.0, 100.0, 1000.0))
        self._for("disk_slow", "server", self._seconds(1.0, 60.0), lambda: setattr(disk, "slow", 1.0))

    def _disk_full(self) -> None:
        disk = self._world.disk
        disk.full = True
        self._for("disk_full", "server", self._seconds(1.0, 60.0), lambda: setattr(disk, "full", False))

    def _wall_jump(self) -> None:
        seconds = self._rng.choice((-1.0, 1.0)) * self._seconds(1.0, 3600.0)
        self._world.wall_offset += seconds
        self._for("wall_jump", "wall", 0.0)

    # -- the network -----------------------------------------------------------------------------------

    def _link_cut(self) -> None:
        machine = self._machine()
        self._for("link_cut", machine.name, 0.0)
        machine.path.cut()

    def _link_replay(self) -> None:
        """A proxy that sends what it had taken once more, on the next connection."""
        machine = self._machine()
        self._for("link_replay", machine.name, 0.0)
        machine.path.replay = True
        machine.path.cut()

    def _link_flap(self) -> None:
        machine = self._machine()
        times, pause = self._rng.randint(2, 20), self._rng.uniform(0.2, 3.0)
        self._for("link_flap", machine.name, times * pause)
        for number in range(times):
            self._world.loop.post(self._world.process, number * pause, machine.path.cut)

    def _link_hole(self) -> None:
        machine = self._machine()
        to_server, to_worker = self._rng.choice(((True, True), (True, False), (False, True)))
        machine.path.set_hole(to_server, to_worker)
        self._for("link_hole", machine.name, self._seconds(1.0, 200.0), lambda: machine.path.set_hole(False, False))

    def _link_refuse(self) -> None:
        machine = self._machine()
        machine.path.refuses = True
        machine.path.cut()
        self._for(
            "link_refuse", machine.name, self._seconds(1.0, 200.0), lambda: setattr(machine.path, "refuses", False)
        )

    def _link_slow(self) -> None:
        machine = self._machine()
        machine.path.slow = min(self._rng.choice((10.0, 100.0)), 3.0 / machine.path.latency)
        self._for("link_slow", machine.name, self._seconds(1.0, 60.0), lambda: setattr(machine.path, "slow", 1.0))

    # -- workers ---------------------------------------------------------------------------------------

    def _worker_kill(self) -> None:
        machine = self._machine()
        self._for("worker_kill", machine.name, self._seconds(0.5, 120.0), machine.start)
        machine.kill()

    def _worker_pause(self) -> None:
        machine = self._machine()
        if machine.worker is None:
            return
        process, loop = machine.worker.process, self._world.loop
        loop.pause(process)
        self._for("worker_pause", machine.name, self._seconds(1.0, 90.0), lambda: loop.resume(process))

    def _worker_stop(self) -> None:
        machine = self._machine()
        if machine.worker is not None:
            self._for("worker_stop", machine.name, 30.0 + self._seconds(5.0, 120.0), machine.start)
            worker = machine.worker
            self._world.loop.post(worker.process, 0.0, worker.stop)

    def _host_power(self) -> None:
        machine = self._machine()

        def back() -> None:
            machine.powered = True
            machine.start()

        self._for("host_power", machine.name, self._seconds(10.0, 200.0), back)
        machine.power_off()

    def _worker_disk_full(self) -> None:
        journal = self._machine().journal
        journal.full = True
        self._for("worker_disk_full", "journal", self._seconds(1.0, 60.0), lambda: setattr(journal, "full", False))

    # -- containers ------------------------------------------------------------------------------------

    def _container_exit(self) -> None:
        self._crash("container_exit", Exit(139))

    def _container_oom(self) -> None:
        self._crash("container_oom", Exit(137, True))

    def _crash(self, kind: str, exit: Exit) -> None:
        machine = self._machine()
        if machine.engine.containers:
            self._for(kind, machine.name, 0.0)
            self._rng.choice(machine.engine.containers).crash(exit)

    def _door_break(self) -> None:
        machine = self._machine()
        if machine.engine.containers:
            self._for("door_break", machine.name, 0.0)
            self._rng.choice(machine.engine.containers).break_door()

    def _engine_down(self) -> None:
        engine = self._machine().engine
        self._for("engine_down", engine.host, self._seconds(0.5, 30.0), engine.come_up)
        engine.go_down(self._rng.random() < 0.5)

    def _registry_down(self) -> None:
        for machine in self._world.machines:
            machine.engine.registry_up = False
            machine.engine.images.clear()

        def up() -> None:
            for machine in self._world.machines:
                machine.engine.registry_up = True

        self._for("registry_down", EVERYBODY, self._seconds(1.0, 60.0), up)

    # -- people ----------------------------------------------------------------------------------------

    def _client_cut(self) -> None:
        people = self._world.people
        people.lossy = self._rng.uniform(0.1, 0.9)
        self._for("client_cut", "people", self._seconds(1.0, 60.0), lambda: setattr(people, "lossy", 0.0))
