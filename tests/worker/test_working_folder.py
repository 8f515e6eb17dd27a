"""A folder that goes along with a job: fetched once, each job's own to write to, and its current folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from hecaton.core.files.manifest import Entry
from hecaton.core.model import Body, Kind, Mode, Reason
from hecaton.wire.channel import Assignment, Cancel, FileRef
from hecaton.worker.app import serve
from hecaton.worker.brain.settings import WorkerSettings
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.port import Runtime
from hecaton.worker.runtimes.process import ProcessRuntime
from tests.worker.brain import assignment, ref
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

A, B = ref("a"), ref("b")
FOLDER = {"data.csv": b"1,2\n", "pkg/one.py": b"ONE = 1\n"}

HANDLER = """
    import os
    from hecaton.serverless import start

    def handler(data):
        with open("data.csv", "a") as file:
            file.write("3,4\\n")
        assert os.path.samefile(".", os.environ["HECATON_WORKDIR"])
        return open("data.csv").read() + ",".join(sorted(os.listdir()))

    start(handler)
"""


async def _worker(server: ScriptedServer, folder: Path, runtime: Runtime) -> AsyncIterator[ScriptedServer]:
    settings = WorkerSettings(grace=1.0, slots=2)
    worker = asyncio.create_task(serve(server.config(folder), runtime, (), settings))
    await server.connected()
    yield server
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(worker, PATIENCE) == 0
    assert os.listdir(folder / "work") == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
async def server(tmp_path: Path, disk: Path) -> AsyncIterator[ScriptedServer]:
    """With a worker that runs processes, whose folder is on that disk."""
    handler = tmp_path / "handler.py"
    handler.write_text(textwrap.dedent(HANDLER))
    async with ScriptedServer() as server:
        async for one in _worker(server, disk / "state", ProcessRuntime(WORKER, {"python:3.9-slim": handler})):
            yield one


def with_folder(job: str, folder: FileRef, **facts: object) -> Assignment:
    return msgspec.structs.replace(assignment(job, **facts), workdir=folder)  # type: ignore[arg-type]


class TestFetch:
    async def test_jobs_of_one_folder_share_one_fetch_and_each_has_its_own(self, server: ScriptedServer) -> None:
        folder = server.keep_folder(FOLDER, Entry("empty", "dir"))
        server.hold_bundles = asyncio.Event()
        await server.assign(with_folder("a", folder), with_folder("b", folder, warm_key="w2", slot=1))
        await server.until(lambda: len(server.bundles) == 1, "the request for what is missing")
        server.hold_bundles.set()
        for job in (A, B):
            outcome = await server.outcome(job)
            assert outcome.body == Body.inline(Kind.JSON, b'"1,2\\n3,4\\ndata.csv,empty,pkg"'), outcome
        assert [sorted(names) for names in server.bundles] == [sorted(map(server.keep, FOLDER.values()))]
        assert server.fetched == [folder.sha256]

    async def test_of_a_changed_folder_only_the_change_is_fetched(self, server: ScriptedServer) -> None:
        await server.assign(with_folder("a", server.keep_folder(FOLDER)))
        await server.outcome(A)
        changed = server.keep_folder({**FOLDER, "pkg/one.py": b"ONE = 2\n"})
        await server.assign(with_folder("b", changed, warm_key="w2", slot=1))
        assert (await server.outcome(B)).reason is Reason.OK
        assert server.bundles[1:] == [(server.keep(b"ONE = 2\n"),)]

    @pytest.mark.parametrize(
        "spoils",
        [lambda body: body[:-1] + b"!", lambda body: body[:-1], lambda body: b"x" * len(body), lambda body: body * 2],
        ids=["another byte", "too short", "anything", "twice"],
    )
    async def test_what_is_not_what_was_asked_for_runs_nowhere(
        self, server: ScriptedServer, disk: Path, spoils: object
    ) -> None:
        server.spoils = spoils  # type: ignore[assignment]
        await server.assign(with_folder("a", server.keep_folder(FOLDER)))
        assert (await server.outcome(A)).body == Body.inline(Kind.JSON, b'"1,2\\n3,4\\ndata.csv,pkg"')
        assert {path.read_bytes() for path in (disk / "state/content").iterdir()} <= {*server.blobs.values()}

    async def test_a_manifest_that_no_folder_can_have_is_refused(self, server: ScriptedServer) -> None:
        hostile = msgspec.json.encode((1, [Entry("../../evil", "file", server.keep(b"x"), 1)]))
        await server.assign(with_folder("a", FileRef(server.keep(hostile), "workdir")))
        outcome = await server.outcome(A)
        assert outcome.reason is Reason.WORKER_ERROR
        assert outcome.failure is not None
        assert "'../../evil' in the folder has a name that leads out of its folder" in outcome.failure.message

    async def test_a_cancelled_job_stops_its_fetch(self, server: ScriptedServer) -> None:
        server.hold_bundles = asyncio.Event()
        await server.assign(with_folder("a", server.keep_folder(FOLDER)))
        await server.until(lambda: len(server.bundles) == 1, "the request for what is missing")
        await server.say(Cancel((A,)))
        await server.until(lambda: server.cut_bundles == 1, "the end of the request")
        assert (await server.outcome(A)).reason is Reason.CANCELLED

    async def test_a_folder_that_finds_no_room_goes_elsewhere(self, server: ScriptedServer) -> None:
        large = {"large": bytes(25 << 20)}
        await server.assign(with_folder("a", server.keep_folder(large)))
        outcome = await server.outcome(A)
        assert (outcome.reason, outcome.failure and outcome.failure.type) == (Reason.RELEASED, Reason.NO_ROOM)
        assert outcome.failure is not None
        assert outcome.failure.message.startswith(
            f"the job's folder has {25 << 20} bytes, the disk of this machine has"
        )
        assert server.bundles == []  # which would have filled the disk that others use
        await server.assign(with_folder("b", server.keep_folder(FOLDER)))
        assert (await server.outcome(B)).reason is Reason.OK


SCRIPT = b"""
import os, sys
from pkg.two import TWO
print(os.getcwd(), __file__, TWO, open("data.csv").read().strip(), sys.argv[1:])
with open("data.csv", "a") as file:
    file.write("changed")
os.rename("pkg/one.py", "data.csv")
"""

PROJECT = {
    **FOLDER,
    "pkg/__init__.py": b"",
    "pkg/two.py": b"from .one import ONE\nTWO = ONE + 1\n",
    "train.py": SCRIPT,
    "jobs/helper.py": b"WORD = 'beside'\n",
    "jobs/other.py": b"import os, helper\nprint(os.getcwd(), helper.WORD)\n",
    "handler.py": b"import helper2\nfrom hecaton.serverless import start\nstart(lambda data: helper2.value())\n",
    "helper2.py": b"import os, uuid\nME = uuid.uuid4().hex\ndef value():\n    return [os.getcwd(), ME]\n",
}


@pytest.fixture
async def engine_server(python39_image: str, tmp_path: Path) -> AsyncIterator[ScriptedServer]:
    """With a worker that has a real Docker engine."""
    async with ScriptedServer() as server:
        async for one in _worker(server, tmp_path / "state", DockerRuntime(WORKER)):
            yield one


class TestInAContainer:
    def job(self, server: ScriptedServer, job: str, name: str, mode: Mode, *args: str) -> Assignment:
        file = FileRef(server.keep(PROJECT[name]), name)
        warm = "w1" if mode is Mode.HANDLER else None
        return with_folder(job, server.keep_folder(PROJECT), mode=mode, file=file, args=args, warm_key=warm)

    async def test_a_script_runs_where_it_was_with_what_was_beside_it(self, engine_server: ScriptedServer) -> None:
        server = engine_server
        jobs = [self.job(server, name, "train.py", Mode.SCRIPT, "--epochs", "3") for name in ("a", "b")]
        other = self.job(server, "c", "jobs/other.py", Mode.SCRIPT)
        await server.assign(jobs[0])
        assert (await server.outcome(A)).reason is Reason.OK, server.log(A)
        await server.assign(jobs[1], other)
        for one in (B, ref("c")):
            assert (await server.outcome(one)).reason is Reason.OK, server.log(one)
        expected = b"/workdir /workdir/train.py 2 1,2 ['--epochs', '3']\n"
        await server.until(lambda: server.log(A) == server.log(B) == expected, "the same for both")
        await server.until(lambda: server.log(ref("c")) == b"/workdir beside\n", "what the third prints")

    async def test_a_handler_file_too_and_its_container_stays_warm(self, engine_server: ScriptedServer) -> None:
        server = engine_server
        await server.assign(*(self.job(server, name, "handler.py", Mode.HANDLER) for name in ("a", "b")))
        first, second = await server.outcome(A), await server.outcome(B)
        assert first.body is not None, first
        assert first.body.data.startswith(b'["/workdir"')
        assert first.body == second.body
