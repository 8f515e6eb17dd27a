"""A thousand workers in one process: the worker's own link and protocol, with an echo where the containers would be.

    python -m benchmarks.herd CREDENTIALS      run it: {"url", "tokens", "unlike"} as JSON in a file

`Herd` does that as a child process. Its lines on stdout say how many are connected."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import PIPE, Popen

import structlog
import uvloop

from benchmarks.measure import MIB
from benchmarks.subject import Subject
from hecaton.core.model import Gpu, Reason
from hecaton.core.options import EVERYWHERE
from hecaton.wire.channel import PROTOCOL, Assign, Hello, Outcome, Results, SlotInfo, Started, ToWorker, Warm, Welcome
from hecaton.worker.link.link import ServerLink
from hecaton.worker.link.reaching import session
from hecaton.worker.link.registration import WorkerConfig

IMAGE = "herd"
"""What these workers serve, and nobody else."""


class _Worker:
    """The link's listener. What it is given it answers at once, and has a warm container for from then on.

    `own`: what no other worker has: an image, a card, an option that it carries out."""

    def __init__(self, herd: _Connected, own: str | None) -> None:
        self._herd = herd
        self._own = own
        self.link: ServerLink | None = None
        self._warm: str | None = None

    def hello(self) -> Hello:
        if self._own is None:
            return Hello(PROTOCOL, "benchmark", "process", (SlotInfo(0, None, None, None),), (), (IMAGE,))
        slot = SlotInfo(0, Gpu(self._own, f"card of {self._own}", 24_000 * MIB), None, None)
        serves, options = (IMAGE, self._own), (*sorted(EVERYWHERE), f"option of {self._own}")
        return Hello(PROTOCOL, self._own, "process", (slot,), (), serves, options=options)

    def welcome(self, message: Welcome) -> None:
        self._herd.change(1)

    def assured(self, at: float) -> None:
        pass  # it has no no-overlap jobs

    def lost(self) -> None:
        self._herd.change(-1)

    def hear(self, message: ToWorker) -> None:
        if isinstance(message, Assign) and self.link is not None:
            if message.jobs[-1].warm_key != self._warm:
                self._warm = message.jobs[-1].warm_key
                self.link.send(Warm(0, self._warm, IMAGE))
            self.link.send(Started(tuple(job.ref for job in message.jobs)))
            self.link.send(Results(tuple(Outcome(job.ref, Reason.OK, job.payload, ran=0.0) for job in message.jobs)))

    def dismissed(self, code: int, message: str) -> None:
        raise SystemExit(f"the server sends a worker of the herd away: {message}")


class _Connected:
    """Counts, and says the count at most 20 times a second."""

    def __init__(self) -> None:
        self._count = 0
        self._pending = False

    def change(self, by: int) -> None:
        self._count += by
        if not self._pending:
            self._pending = True
            asyncio.get_running_loop().call_later(0.05, self._say)

    def _say(self) -> None:
        self._pending = False
        print(self._count, flush=True)


async def _run(url: str, tokens: Sequence[str], unlike: bool) -> None:
    connected = _Connected()
    async with AsyncExitStack() as open_sessions, asyncio.TaskGroup() as group:
        for number, token in enumerate(tokens):
            worker = _Worker(connected, f"herd-{number}" if unlike else None)
            config = WorkerConfig(f"herd-{number}", url, "", token, Path())
            worker.link = ServerLink(config, await open_sessions.enter_async_context(session(config)))
            group.create_task(worker.link.run(worker))


class Herd:
    """So many workers, registered and connected when the block begins. `unlike`: each has what no other one has."""

    def __init__(self, hecaton: Subject, count: int, folder: Path, *, unlike: bool = False) -> None:
        hecaton.cluster.register(IMAGE)
        client = hecaton.cluster.client()
        tokens = [client.add_worker(f"herd-{number}").token for number in range(count)]
        credentials = folder / f"herd-{count}.json"
        credentials.write_text(json.dumps({"url": hecaton.cluster.url, "tokens": tokens, "unlike": unlike}))
        self._log = folder / "herd.log"
        self.count = count
        self.connected = 0
        self._changed = threading.Condition()
        command = [sys.executable, "-m", "benchmarks.herd", str(credentials)]
        with self._log.open("ab") as log:
            self._child = Popen(command, stdout=PIPE, stderr=log, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._changed:
                self.connected = int(line)
                self._changed.notify_all()

    def wait_for(self, connected: int, seconds: float = 120.0) -> float:
        """Until at most (0) or at least so many are connected. Gives the seconds that it took."""
        start = time.monotonic()
        with self._changed:
            done = self._changed.wait_for(
                lambda: self.connected >= connected if connected else not self.connected, seconds
            )
        if not done:
            raise RuntimeError(f"{self.connected} of {connected} workers are connected: see {self._log}")
        return time.monotonic() - start

    def __enter__(self) -> Herd:
        self.wait_for(self.count)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._reader.join()
        self._child.communicate()  # closes its pipe, too


def main() -> None:
    credentials = json.loads(Path(sys.argv[1]).read_text())
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for counts
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(_run(credentials["url"], credentials["tokens"], credentials["unlike"]))


if __name__ == "__main__":
    main()
