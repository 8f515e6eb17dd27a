"""A worker that was killed comes back to its containers: same attempts, same processes, nothing executed again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import textwrap
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from hecaton.core.errors import Conflict
from hecaton.core.model import AttemptRef, Body, Failure, Kind, Mode, Reason
from hecaton.core.placement.holds import Holds
from hecaton.wire.channel import Assignment, FileRef, Hello, Started
from hecaton.worker import adoption, agent, control, warden
from hecaton.worker.app import serve
from hecaton.worker.brain.failures.words import UNHEARD
from hecaton.worker.no_overlap import Guard, clock
from hecaton.worker.runtimes.port import LABEL_CONTAINER, LABEL_WORKER, Found
from tests.engine.daemon import docker
from tests.worker import killable
from tests.worker.brain import assignment, ref
from tests.worker.killable import SETTINGS
from tests.worker.scripted_server import PATIENCE, WORKER, ScriptedServer

A, B, C = ref("a"), ref("b"), ref("c")

# Counts its executions in a file, waits for another one to appear, and says in which process it ran.
HANDLER = """
    import os, time, uuid
    from hecaton.serverless import start
    me = uuid.uuid4().hex
    out = os.environ["HECATON_DIR"] + "/out/"

    def handler(data):
        if data.input == "me":
            return me
        print("began", flush=True)
        with open(out + data.job_id + ".ran", "a") as file:
            file.write("x")
        while not os.path.exists(out + data.job_id + ".go"):
            time.sleep(0.02)
        print("ended")
        if data.input == "exit":
            os._exit(3)
        return "r" * 3_000_000 if data.input == "large" else me

    start(handler)
"""

SCRIPT = """
    import json, os, time
    out = os.environ["HECATON_DIR"] + "/out/"
    print("began", flush=True)
    open(out + "a.ran", "a").write("x")
    while not os.path.exists(out + "a.go"):
        time.sleep(0.02)
    print("ended")
    json.dump("done", open(os.environ["HECATON_OUTPUT"], "w"))
"""


class Site:
    """A server that the test plays, and a worker that the test starts and kills. Jobs run on `runtime`."""

    def __init__(self, server: ScriptedServer, folder: Path, runtime: str, handler: str = HANDLER) -> None:
        self.server, self.folder, self.runtime = server, folder, runtime
        self.handler = folder.parent / "handler.py"
        self.handler.write_text(textwrap.dedent(handler))
        self._file = server.keep(self.handler.read_bytes())
        self._connections = 0
        self.process: asyncio.subprocess.Process | None = None
        self._worker: asyncio.Task[int] | None = None

    def job(
        self, name: str, payload: str = "wait", timeout: float | None = None, *, no_overlap: bool = False
    ) -> Assignment:
        body = Body.inline(Kind.JSON, json.dumps(payload).encode())
        if self.runtime == "process":
            return assignment(name, image="echo", payload=body, timeout=timeout, no_overlap=no_overlap)
        file = FileRef(self._file, "handler.py")
        return assignment(name, mode=Mode.HANDLER, file=file, payload=body, timeout=timeout, no_overlap=no_overlap)

    def script(self, *, no_overlap: bool = False) -> Assignment:
        file = FileRef(self.server.keep(textwrap.dedent(SCRIPT).encode()), "job.py")
        return assignment("a", warm_key=None, mode=Mode.SCRIPT, file=file, no_overlap=no_overlap)

    async def comes(self, release: str = "") -> Hello:
        """The worker, in a process that can be killed; of another release (see `releases`)."""
        self.process = await killable.start(self.server, self.folder, self.runtime, self.handler, release)
        return await self._connected()

    async def is_killed(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()
        self.server.heard.clear()
        self._connections = len(self.server.hellos)

    async def leaves(self) -> None:
        """As it is restarted: by its own decision, and its containers stay."""
        assert self.process is not None
        assert await asyncio.to_thread(control.leave, self.folder)
        assert await self.process.wait() == 0
        self.server.heard.clear()

    def stop(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def until_nothing_runs(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while any(found.running for found in await self.found()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def until_cleared_away(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while list((self.folder / "c").iterdir()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def until_lease_is_over(self) -> None:
        _, _, over = json.loads((self.folder / "lease").read_text())
        await asyncio.sleep(max(0.0, over - clock()) + 2 * warden.TICK)

    async def comes_back(self) -> Hello:
        """The worker again, in the process of the test."""
        runtime = killable.runtime_of(self.runtime, self.handler)
        self._worker = asyncio.create_task(serve(self.server.config(self.folder), runtime, (), SETTINGS))
        return await self._connected()

    async def fails_to_come_back(self) -> None:
        runtime = killable.runtime_of(self.runtime, self.handler)
        await serve(self.server.config(self.folder), runtime, (), SETTINGS)

    async def _connected(self) -> Hello:
        self._connections += 1
        return await self.server.connected(self._connections)

    async def begins(self, job: Assignment) -> None:
        await self.server.assign(job)
        await self.until_file(f"{job.ref.job}.ran")

    async def until_file(self, name: str) -> None:
        async with asyncio.timeout(PATIENCE):  # the handler's own work: the worker does not see it
            while not self._outs(name):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def executions(self, name: str = "a") -> int:
        return sum(path.stat().st_size for path in self._outs(f"{name}.ran"))

    def let_go(self, name: str = "a") -> None:
        for path in self._outs(f"{name}.ran"):
            path.with_suffix(".go").touch()

    def _outs(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"c/*/out/{name}"))

    async def found(self) -> list[Found]:
        runtime = killable.runtime_of(self.runtime, self.handler)
        try:
            return await runtime.found()
        finally:
            await runtime.close()

    async def remove_containers(self) -> None:
        """What somebody else may do to them."""
        runtime = killable.runtime_of(self.runtime, self.handler)
        for item in await runtime.found():
            await runtime.stop(item.handle, 0)
        await runtime.close()

    async def stop_containers(self) -> None:
        """As an engine does that goes down: they stay, ended."""
        docker("stop", "--time", "5", *[item.handle for item in await self.found()])

    async def until_ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not all(item.ended for item in await self.found()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        """Nothing of the worker is left then."""
        if self.process is not None and self.process.returncode is None:  # the test has failed; it may be stopped
            await self.is_killed()
        if self._worker is None:
            await self.comes_back()
        assert self._worker is not None
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        await asyncio.wait_for(self._worker, PATIENCE)
        assert await self.found() == []
        assert list((self.folder / "c").iterdir()) == []


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Site]:
    async with ScriptedServer() as server:
        site = Site(server, tmp_path / "state", "process")
        yield site
        await site.end()


@pytest.fixture
async def containers(python39_image: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with ScriptedServer() as server:
        site = Site(server, tmp_path / "state", "docker")
        yield site
        await site.end()


@pytest.fixture(params=["process", "docker"])
def site(request: pytest.FixtureRequest) -> Site:
    name = {"process": "processes", "docker": "containers"}[request.param]
    found: Site = request.getfixturevalue(name)
    return found


def phases(hello: Hello) -> dict[AttemptRef, str]:
    return {item.ref: item.phase for item in hello.held}


class TestAWorkerThatWasKilled:
    async def test_goes_on_with_the_job_that_runs(self, site: Site) -> None:
        await site.comes()
        await site.begins(site.job("a"))
        await site.is_killed()
        hello = await site.comes_back()
        assert phases(hello) == {A: "running"}
        assert hello.held[0].age > 0
        assert (await site.server.message(Started)).refs == (A,)
        site.let_go()
        outcome = await site.server.outcome(A)
        assert (outcome.reason, site.executions()) == (Reason.OK, 1)
        assert site.server.log(A) == b"began\nended\n"
        assert outcome.ran is not None
        assert outcome.ran > hello.held[0].age

    async def test_goes_on_with_a_place_that_an_assignment_had_opened(self, site: Site) -> None:
        await site.comes()
        await site.begins(msgspec.structs.replace(site.job("a"), slot=5, holds=Holds()))
        await site.is_killed()
        hello = await site.comes_back()
        assert [(info.index, info.holds) for info in hello.slots] == [(0, None), (1, None), (5, Holds())]
        assert [(held.ref, held.slot, held.phase) for held in hello.held] == [(A, 5, "running")]
        site.let_go()
        assert (await site.server.outcome(A)).reason is Reason.OK
        assert site.executions() == 1

    async def test_gives_the_next_job_to_the_same_container(self, site: Site) -> None:
        await site.comes()
        await site.server.assign(site.job("a", "me"))
        before = (await site.server.outcome(A)).body
        await site.is_killed()
        assert "running" not in phases(await site.comes_back()).values()
        await site.server.assign(site.job("b", "me"))
        assert (await site.server.outcome(B)).body == before

    async def test_delivers_what_was_finished_while_it_was_away(self, site: Site) -> None:
        await site.comes()
        await site.begins(site.job("a"))
        await site.is_killed()
        site.let_go()
        assert phases(await site.comes_back()).keys() == {A}
        assert (await site.server.outcome(A)).reason is Reason.OK
        assert site.executions() == 1

    async def test_takes_a_large_result_that_was_finished_while_it_was_away(self, processes: Site) -> None:
        await processes.comes()
        await processes.begins(processes.job("a", "large"))
        await processes.is_killed()
        processes.let_go()
        await processes.comes_back()
        body = (await processes.server.outcome(A)).body
        assert body is not None
        assert len(processes.server.blobs[str(body.blob)]) == 3_000_002

    async def test_keeps_results_that_the_server_did_not_have_and_the_container_that_made_them(
        self, processes: Site
    ) -> None:
        processes.server.accepts = False
        await processes.comes()
        await processes.server.assign(processes.job("a", "me"))
        before = (await processes.server.outcome(A)).body
        await processes.is_killed()  # at once: the result is not synced yet
        processes.server.accepts = True
        hello = await processes.comes_back()
        assert phases(hello) == {A: "done"}
        await processes.server.assign(processes.job("b", "me"))
        assert (await processes.server.outcome(B)).body == before == (await processes.server.outcome(A)).body

    async def test_leaves_no_folder_of_a_container_that_was_needed_for_its_results_alone(self, processes: Site) -> None:
        processes.server.accepts = False
        await processes.comes()
        await processes.server.assign(processes.job("a", "me"))
        await processes.server.outcome(A)
        await processes.is_killed()
        await processes.remove_containers()
        processes.server.accepts = True
        await processes.comes_back()
        await processes.server.outcome(A)
        await processes.server.assign(processes.job("b", "me"))  # behind the word that it has been taken
        await processes.server.outcome(B)  # and at the end of the worker no folder is there

    async def test_says_what_is_lost_with_its_container(self, site: Site) -> None:
        await site.comes()
        await site.begins(site.job("a"))
        await site.is_killed()
        await site.remove_containers()
        hello = await site.comes_back()
        assert phases(hello) == {A: "done"}
        outcome = await site.server.outcome(A)
        assert outcome.reason is Reason.WORKER_ERROR
        assert outcome.failure is not None
        assert "container was lost" in outcome.failure.message

    async def test_blames_no_handler_for_a_container_that_went_down_with_the_engine(self, containers: Site) -> None:
        """As with `docker stop`: exit code 143, or 0 where the handler sees to SIGTERM itself."""
        await containers.comes()
        await containers.begins(containers.job("a"))
        await containers.is_killed()
        await containers.stop_containers()
        await containers.comes_back()
        outcome = await containers.server.outcome(A)
        assert outcome.reason is Reason.WORKER_ERROR
        assert outcome.failure is not None
        assert "while the worker was away" in outcome.failure.message

    async def test_blames_the_handler_for_an_exit_code_of_its_own(self, containers: Site) -> None:
        await containers.comes()
        await containers.begins(containers.job("a", "exit"))
        await containers.is_killed()
        containers.let_go()
        await containers.until_ended()
        await containers.comes_back()
        outcome = await containers.server.outcome(A)
        assert (outcome.reason, outcome.exit_code) == (Reason.HANDLER_EXIT, 3)

    async def test_stops_what_the_server_gave_to_another_worker(self, processes: Site) -> None:
        await processes.comes()
        await processes.begins(processes.job("a"))
        await processes.is_killed()
        processes.server.drop = (A,)
        await processes.comes_back()
        await processes.server.assign(processes.job("b", "me"))
        assert (await processes.server.outcome(B)).reason is Reason.OK
        assert A not in processes.server.outcomes()

    async def test_still_knows_when_the_job_has_to_end(self, processes: Site) -> None:
        await processes.comes()
        await processes.begins(processes.job("a", timeout=5.0))
        await processes.is_killed()
        await processes.comes_back()
        outcome = await processes.server.outcome(A)
        assert outcome.reason is Reason.TIMEOUT
        assert outcome.ran is not None
        assert outcome.ran < 20

    async def test_still_knows_that_a_job_must_not_overlap(self, processes: Site) -> None:
        server = processes.server
        await processes.comes()
        await server.assign(processes.job("b", "me"))  # the container was started for one that is not
        await server.outcome(B)
        await processes.begins(processes.job("a", no_overlap=True))
        await processes.is_killed()
        server.lost_after = 2.0
        assert phases(await processes.comes_back())[A] == "running"
        await server.stop()
        async with asyncio.timeout(PATIENCE):
            while await processes.found():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await server.start()
        assert (await server.outcome(A)).reason is Reason.RELEASED

    async def test_may_be_killed_again_and_again(self, processes: Site) -> None:
        await processes.comes()
        await processes.begins(processes.job("a"))
        for _ in range(3):
            await processes.is_killed()
            hello = await processes.comes()
            assert phases(hello) == {A: "running"}
        processes.let_go()
        assert (await processes.server.outcome(A)).reason is Reason.OK
        assert processes.executions() == 1
        await processes.is_killed()

    @pytest.mark.parametrize("left", ["its containers are there", "nothing is left of its containers"])
    async def test_reports_jobs_of_before_a_reboot_as_released(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, left: str
    ) -> None:
        await site.comes()
        await site.begins(site.job("a"))
        await site.is_killed()
        if left.startswith("nothing"):
            await site.remove_containers()
        monkeypatch.setattr(agent, "boot_id", lambda: "the next boot")
        hello = await site.comes_back()
        assert phases(hello) == {A: "done"}
        assert (await site.server.outcome(A)).reason is Reason.RELEASED  # charged to nobody
        assert await site.found() == []


class TestNoOverlap:
    """The server gives such a job to another worker after `lost_after`, whatever has become of this one."""

    async def begins(self, site: Site, job: Assignment | None = None) -> None:
        site.server.lost_after, site.server.heartbeat = 4.0, 0.5
        await site.comes()
        await site.begins(job or site.job("a", no_overlap=True))

    async def test_it_ends_though_its_worker_was_killed_and_does_not_come_back(self, site: Site) -> None:
        await self.begins(site)
        await site.is_killed()
        killed = clock()
        await site.until_nothing_runs()
        _, until, over = json.loads((site.folder / "lease").read_text())
        assert until < over < killed + site.server.lost_after
        await site.comes_back()
        outcome = await site.server.outcome(A)
        assert (outcome.reason, outcome.failure) == (Reason.RELEASED, UNHEARD)
        assert site.executions() <= 1

    async def test_it_ends_though_its_worker_stands_still(self, site: Site) -> None:
        await self.begins(site)
        site.stop(signal.SIGSTOP)
        await site.until_nothing_runs()
        site.stop(signal.SIGCONT)
        outcome = await site.server.outcome(A)
        assert (outcome.reason, outcome.failure) == (Reason.RELEASED, UNHEARD)
        await site.until_cleared_away()
        await site.is_killed()

    async def test_one_that_was_done_by_then_is_delivered(self, site: Site) -> None:
        await self.begins(site)
        await site.is_killed()
        site.let_go()
        await site.until_file("a.1.answered")
        await site.until_lease_is_over()
        await site.comes_back()
        assert (await site.server.outcome(A)).reason is Reason.OK
        assert site.executions() == 1

    async def test_so_is_one_whose_worker_stands_still(self, site: Site) -> None:
        await self.begins(site)
        site.stop(signal.SIGSTOP)
        site.let_go()
        await site.until_lease_is_over()
        site.stop(signal.SIGCONT)
        assert (await site.server.outcome(A)).reason is Reason.OK
        await site.until_cleared_away()
        await site.is_killed()

    async def test_a_script_ends_too_and_one_that_was_done_is_delivered(self, containers: Site) -> None:
        await self.begins(containers, containers.script(no_overlap=True))
        await containers.is_killed()
        containers.let_go()
        await containers.until_nothing_runs()
        await containers.until_lease_is_over()
        await containers.comes_back()
        assert (await containers.server.outcome(A)).reason is Reason.OK

    async def test_it_waits_for_the_warden(self, processes: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Guard, "start", lambda self: None)
        await processes.comes_back()
        other = msgspec.structs.replace(processes.job("b", "me"), slot=1)
        await processes.server.assign(processes.job("a", no_overlap=True), other)
        assert (await processes.server.outcome(B)).reason is Reason.OK
        assert processes.executions() == 0


class TestAWorkerThatIsRestarted:
    """An orderly end costs no more than one by force."""

    async def test_goes_on_with_the_job_that_runs_and_hands_back_what_waits(self, site: Site) -> None:
        await site.comes()
        await site.begins(site.job("a"))
        await site.server.assign(site.job("b", "me"))
        await site.leaves()
        assert phases(await site.comes_back()) == {A: "running"}
        site.let_go()
        assert (await site.server.outcome(A)).reason is Reason.OK
        assert site.executions() == 1
        assert site.server.log(A) == b"began\nended\n"

    async def test_gives_the_next_job_to_the_container_that_is_warm(self, site: Site) -> None:
        await site.comes()
        await site.server.assign(site.job("a", "me"))
        before = (await site.server.outcome(A)).body
        await site.leaves()
        await site.comes_back()
        await site.server.assign(site.job("b", "me"))
        assert (await site.server.outcome(B)).body == before


class TestAnotherRelease:
    async def test_goes_on_with_what_the_release_before_left(self, site: Site) -> None:
        await site.comes("before")
        await site.begins(site.job("a"))
        await site.server.assign(site.job("b", "me"))
        await site.is_killed()
        hello = await site.comes_back()
        assert phases(hello) == {A: "running"}
        site.let_go()
        outcome = await site.server.outcome(A)
        assert (outcome.reason, site.executions()) == (Reason.OK, 1)
        assert site.server.log(A) == b"began\nended\n"
        await site.server.assign(site.job("c", "me"))
        assert (await site.server.outcome(C)).body == outcome.body  # in the same container

    async def test_is_a_newer_one_that_goes_on_and_an_older_one_that_refuses_to(self, processes: Site) -> None:
        await processes.comes()
        processes.server.accepts = False
        await processes.server.assign(processes.job("b", "me"))
        before = (await processes.server.outcome(B)).body
        await processes.begins(processes.job("a"))
        await processes.is_killed()
        assert phases(await processes.comes("after")) == {A: "running", B: "done"}
        await processes.server.assign(msgspec.structs.replace(processes.job("c", "me"), slot=1))
        await processes.server.outcome(C)  # until it has a record of its own to write, the journal is the older one's
        await processes.is_killed()
        with pytest.raises(Conflict, match="newer release"):
            await processes.fails_to_come_back()
        assert len(await processes.found()) == 2  # they run on
        processes.server.accepts = True
        assert phases(await processes.comes("after")) == {A: "running", B: "done", C: "done"}
        assert (await processes.server.outcome(B)).body == before
        processes.let_go()
        assert ((await processes.server.outcome(A)).body, processes.executions()) == (before, 1)
        await processes.is_killed()
        for path in processes.folder.glob("journal*"):  # as the refusal says
            path.unlink()


class TestScripts:
    async def test_one_that_runs_goes_on(self, containers: Site) -> None:
        await containers.comes()
        await containers.begins(containers.script())
        await containers.is_killed()
        assert phases(await containers.comes_back()) == {A: "running"}
        containers.let_go()
        outcome = await containers.server.outcome(A)
        assert (outcome.reason, outcome.body) == (Reason.OK, Body.inline(Kind.JSON, b'"done"'))
        assert containers.server.log(A) == b"began\nended\n"

    async def test_one_that_ended_meanwhile_is_delivered(self, containers: Site) -> None:
        await containers.comes()
        await containers.begins(containers.script())
        await containers.is_killed()
        containers.let_go()
        await containers.until_file("result.json")
        await containers.comes_back()
        assert (await containers.server.outcome(A)).body == Body.inline(Kind.JSON, b'"done"')


class TestWhatBelongsToNothing:
    """Is removed at the start and by a look every half minute; what is not the worker's is never touched."""

    async def test_containers_and_folders(
        self, containers: Site, monkeypatch: pytest.MonkeyPatch, base_image: str
    ) -> None:
        monkeypatch.setattr(adoption, "SWEEP_INTERVAL", 0.2)
        decoys = [run_container(base_image), run_container(base_image, f"{LABEL_WORKER}=another")]
        try:
            orphan = run_container(base_image, f"{LABEL_WORKER}={WORKER}", f"{LABEL_CONTAINER}=lost")
            (containers.folder / "c/lost/out").mkdir(parents=True)
            await containers.comes_back()
            assert await containers.found() == []
            await containers.begins(containers.job("a"))
            later = run_container(base_image, f"{LABEL_WORKER}={WORKER}", f"{LABEL_CONTAINER}=later")
            (containers.folder / "c/later").mkdir()
            deadline = time.monotonic() + PATIENCE
            while len(await containers.found()) > 1 or (containers.folder / "c/later").exists():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert {orphan, later}.isdisjoint(running())
            containers.let_go()
            assert (await containers.server.outcome(A)).reason is Reason.OK
            assert set(decoys) <= running()
        finally:
            docker("rm", "--force", *decoys)

    async def test_containers_of_a_worker_that_lost_its_journal(self, processes: Site) -> None:
        await processes.comes()
        await processes.begins(processes.job("a"))
        await processes.is_killed()
        for path in processes.folder.glob("journal*"):
            path.unlink()
        assert phases(await processes.comes_back()) == {}
        assert await processes.found() == []

    async def test_a_container_that_spoilt_its_folder_is_not_taken_over(self, processes: Site) -> None:
        await processes.comes()
        await processes.begins(processes.job("a"))
        await processes.is_killed()
        (log,) = processes.folder.glob("c/*/log")
        log.unlink()
        log.symlink_to("/etc/passwd")
        await processes.comes_back()
        outcome = await processes.server.outcome(A)
        assert outcome.reason is Reason.HANDLER_ERROR  # no failure of this machine
        assert "changed its channel folder" in (outcome.failure or Failure("")).message
        assert processes.server.log(A) == b""
        assert await processes.found() == []


def run_container(image: str, *labels: str) -> str:
    options = [word for label in labels for word in ("--label", label)]
    name = f"hecaton-test-{uuid.uuid4().hex[:8]}"
    docker("run", "--detach", "--name", name, *options, image, "sleep", "600")
    return name


def running() -> set[str]:
    return set(docker("ps", "--format", "{{.Names}}").split())
