"""Whatever a worker says costs its own connection at most: what one cannot store takes no other's work with it, and
nobody is given more than its slots hold."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import aiohttp
import msgspec
import pytest

from hecaton.core.model import AttemptRef, JobId
from hecaton.server.fleet.checks import MAX_AT_ONCE, MAX_NOTE, MAX_SAID_AT_ONCE, MAX_SAID_PER_SECOND, Pace, shares
from hecaton.server.fleet.places.leases import MAX_HELD
from hecaton.wire.bounds import MAX_FRAME, MAX_NAME, MAX_PIECE, MAX_SLOTS
from hecaton.wire.channel import (
    CLOSE_PROTOCOL,
    PROTOCOL,
    Broken,
    Draining,
    FromWorker,
    Have,
    Hello,
    Log,
    Lost,
    SlotInfo,
    Started,
    Warm,
)
from hecaton.wire.frames import frames
from tests.server.people import eventually
from tests.server.running import IMAGE, Running
from tests.server.scripted_worker import ScriptedWorker, holding, slots


def _refuse(server: Running, condition: str) -> None:
    """The store fails whenever it would assign such a job, and does not say why."""
    with sqlite3.connect(server.server.settings.folder / "hecaton.db") as database:
        database.execute(
            f"CREATE TRIGGER odd BEFORE UPDATE ON job WHEN new.state = 'ASSIGNED' AND {condition}"
            " BEGIN SELECT abs(-9223372036854775807 - 1); END"
        )
    database.close()


def _refuse_worker(server: Running, name: str) -> None:
    [worker_id] = [one.id for one in server.server.parts.fleet.members.values() if one.name == name]
    _refuse(server, f"new.worker_id = '{worker_id}'")


async def _served(server: Running, honest: ScriptedWorker, count: int = 3) -> None:
    for _ in range(count):
        job_id = await server.admin.submit(IMAGE)
        job = await honest.start()
        assert job.ref.job == job_id
        await honest.finish(job.ref, "done")
        assert (await server.admin.ended(job_id))["state"] == "FINISHED"


async def test_a_worker_that_can_be_given_nothing_stops_nobodys_submissions(server: Running) -> None:
    await server.image()
    evil, honest = await server.worker("evil"), await server.worker("honest")
    _refuse_worker(server, "evil")
    await _served(server, honest)
    assert await evil.closed() == 1011
    assert evil.assigned == []


async def test_nor_when_it_comes_back_each_time(server: Running) -> None:
    await server.image()
    evil, honest = await server.worker("evil"), await server.worker("honest")
    _refuse_worker(server, "evil")
    first = await server.admin.submit(IMAGE)
    await evil.gone()
    await evil.connect()  # and has the slot that was not used for longest
    assert (await honest.start()).ref.job == first
    await honest.finish(AttemptRef(JobId(first), 1), "done")
    await _served(server, honest, 5)


async def test_nor_another_workers_results(server: Running) -> None:
    await server.image()
    honest = await server.worker("honest")
    ids = [await server.admin.submit(IMAGE) for _ in range(2)]
    job = await honest.start()
    evil = await server.worker("evil", serves=())
    _refuse_worker(server, "evil")
    await evil.gone()
    connecting = asyncio.create_task(evil.connect())
    await honest.finish(job.ref, "done")
    await honest.finish((await honest.start()).ref, "done")
    for job_id in ids:
        assert (await server.admin.ended(job_id))["state"] == "FINISHED"
    await connecting
    assert honest.close_code is None


async def test_a_job_that_can_be_given_to_nobody_stops_no_other(server: Running) -> None:
    await server.image()
    await server.image("team/other:1")
    odd = await server.admin.submit("team/other:1")
    _refuse(server, f"new.id = '{odd}'")
    honest = await server.worker("honest")
    assert await honest.closed() == 1011
    await honest.gone()
    await honest.connect()
    await _served(server, honest)
    assert await server.admin.state(odd) == "IN_QUEUE"
    assert honest.close_code is None


async def test_a_submission_that_is_refused_keeps_no_job_from_a_free_slot(server: Running) -> None:
    """It would have shared its transaction with the job's way to the slot."""
    await server.image()
    await server.image("team/other:1")
    worker = await server.enrol("w1")
    job_id = await server.admin.submit(IMAGE)
    member_joins = server.server.parts.dispatcher.dispatch

    async def later() -> int:
        return 0

    server.server.parts.dispatcher.dispatch = later  # type: ignore[method-assign]
    await worker.connect()
    server.server.parts.dispatcher.dispatch = member_joins  # type: ignore[method-assign]
    refused = await server.admin.call(
        "POST", "/v1/jobs", {"image": "team/other:1", "payload": {"sha256": "ab" * 32, "size": 1}}
    )
    assert refused.status == 404
    assert (await worker.take()).ref.job == job_id


@pytest.mark.parametrize("index", [MAX_SLOTS, 2**63, 2**64 - 1, -1])
async def test_a_slot_that_no_worker_has_costs_the_connection(server: Running, index: int) -> None:
    await server.image()
    honest = await server.worker("honest")
    evil = await server.enrol("evil")
    await evil.open()
    await evil.socket.send_bytes(
        msgspec.msgpack.encode([["hello", PROTOCOL, "0", "docker", [[index, None, None, None]], [], None, "b", 0.0, 1]])
    )
    assert await evil.closed() == CLOSE_PROTOCOL
    await _served(server, honest)


async def test_a_worker_has_no_more_slots_than_one_may_have(server: Running) -> None:
    worker = await server.enrol("wide")
    await worker.open()
    await worker.send(Hello(PROTOCOL, "0", "docker", (*slots(MAX_SLOTS), SlotInfo(0, None, None, None)), ()))
    assert await worker.closed() == CLOSE_PROTOCOL
    most = await server.worker("most", slots=slots(MAX_SLOTS))
    assert most.close_code is None


async def test_a_worker_whose_jobs_take_no_time_gets_a_share_of_what_waits(server: Running) -> None:
    """However fast it claims to be, and however many slots it has."""
    await server.image()
    many = await server.worker("many", slots=slots(64))
    await server.admin.submit(IMAGE)
    await many.finish((await many.start()).ref, ran=0.0)
    for _ in range(3):
        await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}] * 5000})
    share = MAX_HELD // 64

    async def held() -> int:
        [member] = server.server.parts.fleet.members.values()
        return max(len(slot.held) + slot.reserved for slot in member.slots.values())

    await eventually(held, share)
    await many.finish(many.assigned[1].ref, ran=0.0)
    await _settled(server)
    assert await held() == share


async def _settled(server: Running) -> None:
    await server.server.database.write(lambda store: None)
    await server.server.database.write(lambda store: None)


async def _shut_out(worker: ScriptedWorker, size: int) -> None:
    """The connection ends with a frame of this size, perhaps while it is still being sent."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        await worker.socket.send_bytes(bytes(size))
    assert await worker.closed() in (1006, 1009)


async def test_a_frame_has_an_end(server: Running) -> None:
    await _shut_out(await server.worker(), MAX_FRAME + 1)


async def test_jobs_with_large_payloads_come_in_frames_that_can_be_read(server: Running) -> None:
    """Sixteen of 1 MiB, decided at once."""
    await server.image()
    value = "x" * (MAX_PIECE - 2)
    for _ in range(2):
        await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": value}] * 8})
    worker = await server.enrol("w1")
    await worker.connect(slots=slots(16))
    for _ in range(16):
        await worker.take()
    assert len({job.slot for job in worker.assigned}) == 16
    assert worker.longest <= MAX_FRAME


async def test_parts_of_a_frame_that_never_ends_are_not_kept(server: Running) -> None:
    worker = await server.worker()
    writer = worker.socket._writer
    await writer.send_frame(b"", 0x2 | 0)
    transport = writer.transport
    empty = b"\x00\x80\x00\x00\x00\x00"  # a part of nothing, behind which more comes
    transport.write(b"\x02\x80\x00\x00\x00\x00" + empty * 2000)
    assert await worker.closed() == 1006


async def test_one_who_asks_for_signs_of_life_and_does_not_read_them_is_cut_off(server: Running) -> None:
    worker = await server.worker()
    transport = worker.socket._writer.transport
    transport.pause_reading()
    ping = b"\x89\xfd\x00\x00\x00\x00" + b"x" * 125

    async def flood() -> bool:
        transport.write(ping * 1000)
        return transport.is_closing()

    await eventually(flood, True)


def test_a_worker_that_talks_without_end_is_listened_to_more_slowly() -> None:
    pace = Pace()
    assert pace.wait(MAX_SAID_AT_ONCE, 100.0) == 0
    assert pace.wait(MAX_SAID_PER_SECOND, 100.0) == 1
    assert pace.wait(0, 103.0) == 0


def test_what_takes_long_is_dealt_with_a_message_at_a_time() -> None:
    few: list[FromWorker] = [Started((AttemptRef(JobId("j"), 1),)), Draining(True)]
    many: list[FromWorker] = [Started((AttemptRef(JobId("j"), 1),) * MAX_AT_ONCE), *few]
    assert [messages for _, messages in shares(few)] == [few]
    assert [messages for _, messages in shares(many)] == [[message] for message in many]
    assert [weight for weight, _ in shares(many)] == [MAX_AT_ONCE + 1, 2, 100]


async def test_what_a_worker_says_of_images_that_nobody_knows_is_forgotten(server: Running) -> None:
    await server.image()
    worker = await server.worker()
    await worker.send(Have((IMAGE, "x" * MAX_NAME, *(f"image{number}" for number in range(1000)))))
    await worker.send(Warm(0, "key", "nobody/knows:1"))
    pulls = server.server.parts.scheduler.pulls

    async def had() -> set[str]:
        return set(pulls._had)

    await eventually(had, {IMAGE})


async def test_what_is_said_again_is_no_news(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    worker = await server.worker(slots=(SlotInfo(0, None, None, None, "l" * 10_000), *slots(3)[1:]))
    await worker.send(*[Lost(1, "gone" * 1000)] * 50, *[Broken("no engine" + "!" * 10_000)] * 50)

    async def note() -> str:
        [view] = await server.admin.get("/v1/workers")
        return str(view["status"])

    await eventually(note, "QUARANTINED")
    [member] = server.server.parts.fleet.members.values()
    assert [len(slot.lost or "") for slot in member.slots.values()] == [MAX_NOTE, MAX_NOTE, 0]
    said = capsys.readouterr().out
    assert said.count("A worker has lost a card") == 1
    assert said.count("Worker quarantined") == 1


async def test_a_return_with_thousands_of_jobs_fits(server: Running) -> None:
    await server.image()
    worker = await server.worker("many", slots=slots(8))
    await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref, ran=0.0)
    await server.admin.must("POST", "/v1/batches", {"image": IMAGE, "items": [{"input": 1}] * (MAX_HELD + 100)})
    await worker.until(lambda: len(worker.assigned) > MAX_HELD or None)
    jobs = worker.assigned[1:]
    await worker.gone()
    welcome = await worker.connect(slots=slots(8), held=tuple(holding(job) for job in jobs))
    assert set(welcome.keep) == {job.ref for job in jobs}


def test_what_is_too_long_for_one_frame_comes_in_several_and_in_order() -> None:
    refs = tuple(AttemptRef(JobId(f"{number:036}"), number) for number in range(150_000))
    log = [Log(refs[0], offset, bytes(MAX_PIECE)) for offset in range(9)]
    messages: list[FromWorker] = [*log, Started(refs), Draining(True)]
    pieces = frames(messages)
    assert max(map(len, pieces)) <= MAX_FRAME
    read = [message for piece in pieces for message in msgspec.msgpack.decode(piece)]
    assert [message[2] for message in read if message[0] == "log"] == list(range(9))
    assert tuple(AttemptRef(*ref) for message in read if message[0] == "started" for ref in message[1]) == refs
    assert read[-1][0] == "draining"
