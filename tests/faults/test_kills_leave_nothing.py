"""kill -9 of workers and containers, again and again, while jobs run: nothing of theirs is left, and what is not
theirs is untouched."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from hecaton.core.model import Mode
from hecaton.worker.runtimes.port import LABEL_CONTAINER, LABEL_WORKER
from tests.engine.needs import EngineError
from tests.engine.private import PrivateEngine
from tests.faults.figures import figure
from tests.faults.ledger import HANDLER, Ledger
from tests.faults.site import IMAGE, WORKER, Site, running_site

KILLS = figure(6, 100)
TIDY_SECONDS = 30.0
OTHER = "other:1"
"""The same image under another name: a container that is warm for the one has to go for the other."""

RETRIES = 20
"""A container that is killed from outside looks like a handler that ended itself: that is charged to the user."""


class Neighbours:
    """What is on the machine too, and looks much like ours: a container, a network and a folder of another worker."""

    def __init__(self, site: Site) -> None:
        self._engine = site.engine
        labels = ("--label", f"{LABEL_WORKER}=somebody-elses", "--label", f"{LABEL_CONTAINER}=1")
        self._containers = {
            self._engine.docker("run", "--detach", IMAGE, "sleep", "1d"),
            self._engine.docker("run", "--detach", *labels, IMAGE, "sleep", "1d"),
        }
        self._network = self._engine.docker("network", "create", *labels[:2], "somebody-elses")
        self._file = site.cluster.folder / "worker" / "somebody-elses" / "c" / "1" / "result"
        self._file.parent.mkdir(parents=True)
        self._file.write_text("theirs")

    def check(self) -> None:
        assert set(self._engine.containers("status=running")) >= self._containers
        assert self._network in self.networks()
        assert self._file.read_text() == "theirs"

    def networks(self) -> set[str]:
        return set(self._engine.docker("network", "ls", "--quiet", "--no-trunc").split())

    def beside(self, *filters: str) -> list[str]:
        """Containers that carry the label of a worker and are not of these."""
        return sorted(set(self._engine.containers(f"label={LABEL_WORKER}", *filters)) - self._containers)


def test_killed_workers_and_containers_leave_nothing_behind(
    own_engine: PrivateEngine, ledger: Ledger, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    with running_site(tmp_path / "home", own_engine, ledger) as site:
        site.engine.docker("tag", IMAGE, OTHER)
        site.cluster.register(OTHER)
        site.client.update_image(OTHER, env=site.client.image(IMAGE).env)
        neighbours = Neighbours(site)
        networks = neighbours.networks()
        for _ in range(KILLS // 2):
            _under_load(site, random)
            with suppress(EngineError):  # it ended meanwhile
                site.engine.docker("kill", random.choice(neighbours.beside("status=running")))
            time.sleep(random.uniform(0, 0.5))  # the next container is being made, or about to start
            site.kill_worker()
            site.worker()
        site.ended()
        ledger.verdict().check(extra_percent=100)

        def left() -> list[str]:
            """Beyond the container that each slot keeps warm for its next job."""
            warm = sum(slot.image is not None for worker in site.client.workers() for slot in worker.slots)
            return _beyond(warm, neighbours.beside()) + _beyond(warm, _folders(site))

        print(f"after {KILLS} kills nothing was left within {_until_none(left):.1f} s: {ledger.verdict()}")
        site.cluster.workers[WORKER].stop(seconds=60)
        _until_none(lambda: neighbours.beside() + _folders(site))
        assert neighbours.networks() == networks
        neighbours.check()


def _under_load(site: Site, random: Random) -> None:
    """As many jobs of each image as there are slots, one of them being executed."""
    now = time.monotonic()
    for image in random.sample([IMAGE, OTHER] * site.slots, 2 * site.slots):
        n = len(site.ledger.jobs())
        site.ledger.submit(site.client, image, n, sleep=0.5, mode=Mode.HANDLER, file=HANDLER, retries=RETRIES)
    site.until(lambda: any(one.ended is None for one in site.executions(now)), "a job runs")


def _folders(site: Site) -> list[str]:
    return sorted(path.name for path in (site.cluster.folder / "worker" / WORKER / "c").iterdir())


def _beyond(warm: int, found: list[str]) -> list[str]:
    return found if len(found) > warm else []


def _until_none(look: Callable[[], list[str]]) -> float:
    """Seconds until nothing is found any more."""
    began = time.monotonic()
    while found := look():
        assert time.monotonic() - began < TIDY_SECONDS, f"left behind: {found}"
        time.sleep(0.2)
    return time.monotonic() - began
