"""Following a job to its end: waits, live events, results; over servers that go away and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hecaton.client import (
    BadRequest,
    BatchHandle,
    Client,
    Conflict,
    HecatonError,
    JobFailed,
    JobHandle,
    NotFound,
    Unreachable,
    WaitTimeout,
)
from hecaton.core.model import Failure, JobState, Kind, Reason
from hecaton.wire.api import JobEvent
from tests.client.scripted import HANG, HTML_502, NO_ANSWER, Answer, ScriptedServer, Seen, error, reply
from tests.client.views import JOB_ID, event_lines, finished, submitted, view

PATH = f"/v1/jobs/{JOB_ID}"


@pytest.fixture
def job(server: ScriptedServer, client: Client) -> JobHandle:
    server.on("POST", "/v1/jobs", submitted())
    made = client.submit("my/image", 1)
    server.seen.clear()
    return made


# -- wait ------------------------------------------------------------------------------------------


def test_a_wait_asks_again_until_the_job_has_ended(server: ScriptedServer, job: JobHandle) -> None:
    server.on("GET", PATH, reply(view()), reply(view(JobState.IN_PROGRESS)), reply(finished(1)))
    assert job.wait().state is JobState.FINISHED
    assert [float(seen.query["wait"]) > 1 for seen in server.seen] == [True, True, True]


def test_a_wait_ends_with_its_time_and_the_job_goes_on(server: ScriptedServer, job: JobHandle) -> None:
    def after_the_wait(seen: Seen) -> Answer:
        time.sleep(float(seen.query["wait"]))
        return reply(view(JobState.IN_PROGRESS))

    server.on("GET", PATH, after_the_wait)
    started = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"job 7 .* is still IN_PROGRESS after 0\.3 s") as caught:
        job.wait(timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 10
    assert "hecaton job show 7" in str(caught.value.hint)


def test_a_wait_of_nothing_is_a_look(server: ScriptedServer, job: JobHandle) -> None:
    server.on("GET", PATH, reply(view()))
    with pytest.raises(WaitTimeout):
        job.wait(timeout=0)
    assert len(server.seen) == 1


def test_a_server_that_answers_waits_at_once_is_not_flooded(
    server: ScriptedServer, job: JobHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hecaton.client.jobs.PACE", 0.2)
    server.on("GET", PATH, reply(view()))
    with pytest.raises(WaitTimeout):
        job.wait(timeout=1.0)
    assert len(server.seen) <= 7


@pytest.mark.parametrize("fault", [NO_ANSWER, HTML_502, Answer(503)], ids=["reset", "502", "503"])
def test_a_wait_outlives_more_faults_than_one_call_would(server: ScriptedServer, job: JobHandle, fault: Answer) -> None:
    server.on("GET", PATH, *[fault] * 12, reply(finished("done")))
    assert job.result(timeout=20) == "done"


def _over_a_restart(server: ScriptedServer, client: Client) -> Any:
    """What a wait gives that was under way when the server was killed."""
    arrived = threading.Event()

    def hang(_: Seen) -> Answer:
        arrived.set()
        return HANG

    server.on("GET", PATH, hang)
    results: list[Any] = []
    waiting = threading.Thread(target=lambda: results.append(client.result(client.wait(JOB_ID, timeout=30))))
    waiting.start()
    assert arrived.wait(5)
    server.stop()
    _until_refused(client)
    again = ScriptedServer(port=server.port)
    again.on("GET", PATH, reply(finished({"a": 1})))
    with again:
        waiting.join(20)
        client.close()
    return results


def _until_refused(client: Client) -> None:
    """Until more tries have found nobody there than one call makes."""
    until = time.monotonic() + 5
    while not client._transport.reached and time.monotonic() < until:
        time.sleep(0.01)


def test_a_wait_outlives_a_restart_of_the_server(server: ScriptedServer, client: Client, job: JobHandle) -> None:
    assert _over_a_restart(server, client) == [{"a": 1}]


def test_so_does_one_that_is_the_first_request(server: ScriptedServer, client: Client) -> None:
    assert _over_a_restart(server, client) == [{"a": 1}]


def test_a_wait_at_a_program_that_takes_requests_and_never_answers_is_an_error(
    server: ScriptedServer, client: Client
) -> None:
    server.on("GET", PATH, NO_ANSWER)
    with pytest.raises(Unreachable, match="broke off"):
        client.wait(JOB_ID)


def test_a_wait_at_a_web_server_of_another_kind_is_an_error(server: ScriptedServer, client: Client) -> None:
    server.on("GET", PATH, Answer(404, b"<html>Not Found</html>"))
    with pytest.raises(Unreachable, match="not from a Hecaton server"):
        client.wait(JOB_ID)


def test_a_wait_for_a_server_that_never_answered_is_an_error(server: ScriptedServer) -> None:
    server.stop()
    with Client(server.url) as client, pytest.raises(Unreachable):
        client.wait(JOB_ID)


def test_a_wait_for_a_job_that_is_not_there_is_an_error(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/jobs/9", error(404, "not_found", "no job '9'"))
    with pytest.raises(NotFound, match="no job '9'"):
        client.wait(9)


def test_the_status_is_one_look(server: ScriptedServer, job: JobHandle) -> None:
    server.on("GET", PATH, reply(view(JobState.ASSIGNED)))
    assert job.status() is JobState.ASSIGNED
    assert server.seen[0].query == {}


def test_cancelling_a_handle_cancels_its_job(server: ScriptedServer, job: JobHandle) -> None:
    server.on("POST", PATH + "/cancel", reply(view(cancel_requested=True)))
    assert job.cancel().cancel_requested


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": None}], {"status": "success"}])
def test_a_json_result_is_that_value(server: ScriptedServer, job: JobHandle, value: Any) -> None:
    server.on("GET", PATH, reply(finished(value)))
    assert job.result() == value
    assert len(server.seen) == 1


def test_text_and_bytes_come_back_as_such(server: ScriptedServer, client: Client) -> None:
    def done(kind: Kind, size: int, **fields: Any) -> Answer:
        state = {"state": "FINISHED", "reason": "ok", "result_kind": kind, "result_size": size}
        return reply({**_as_dict(view()), **state, **fields})

    server.on("GET", PATH, done(Kind.TEXT, 4, result="null"), done(Kind.BYTES, 2, result_base64="AP8="))
    assert client.result(JOB_ID) == "null"
    assert client.result(JOB_ID) == b"\x00\xff"


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        (Kind.JSON, b"[" + b"1," * 10 + b"1]", [1] * 11),
        (Kind.TEXT, "é".encode() * 5, "ééééé"),
        (Kind.BYTES, b"\x00\xff", b"\x00\xff"),
        (Kind.BYTES, b"", b""),
    ],
)
def test_a_result_that_is_not_in_the_view_is_fetched(
    server: ScriptedServer, job: JobHandle, kind: Kind, body: bytes, value: Any
) -> None:
    server.on("GET", PATH, reply(view(JobState.FINISHED, result_kind=kind, result_size=2_000_000)))
    server.on("GET", PATH + "/result", Answer(200, body))
    assert job.result() == value


def test_a_script_without_result_gives_none(server: ScriptedServer, job: JobHandle) -> None:
    server.on("GET", PATH, reply(view(JobState.FINISHED, exit_code=0)))
    assert job.result() is None


def test_a_failed_job_raises_with_reason_message_and_traceback(server: ScriptedServer, job: JobHandle) -> None:
    trace = 'Traceback (most recent call last):\n  File "handler.py", line 3\nValueError: no cat\n'
    why = Failure("no cat", type="ValueError", traceback=trace, hint="show a cat")
    server.on("GET", PATH, reply(view(JobState.FAILED, reason=Reason.HANDLER_ERROR, failure=why)))
    with pytest.raises(JobFailed, match=r"job 7 .* is FAILED \(handler_error\): ValueError: no cat") as caught:
        job.result()
    failure = caught.value
    assert (failure.job_id, failure.reason, failure.traceback) == (JOB_ID, "handler_error", trace)
    assert failure.hint == "show a cat"
    assert any("handler.py" in note for note in failure.__notes__), "an uncaught error shows where the handler failed"


def test_a_refused_result_is_named_as_kept(server: ScriptedServer, job: JobHandle) -> None:
    refused = view(JobState.FAILED, reason=Reason.RESULT_INVALID, result_kind=Kind.TEXT, result_size=26)
    why = Failure("$.val_loss: NaN is not JSON", hint="give null")
    server.on("GET", PATH, reply(msgspec.structs.replace(refused, failure=why)))
    with pytest.raises(JobFailed, match=r"\$\.val_loss: NaN") as caught:
        job.result()
    assert "hecaton job wait 7 -o FILE" in (caught.value.hint or "")
    assert "give null" in (caught.value.hint or "")


@pytest.mark.parametrize(("kind", "body"), [(Kind.JSON, b"[NaN]"), (Kind.JSON, b"[1e999]"), (Kind.TEXT, b"\xff")])
def test_a_result_that_is_not_what_it_says_is_an_error_of_ours(
    server: ScriptedServer, job: JobHandle, kind: Kind, body: bytes
) -> None:
    server.on("GET", PATH, reply(view(JobState.FINISHED, result_kind=kind, result_size=2_000_000)))
    server.on("GET", PATH + "/result", Answer(200, body))
    with pytest.raises(HecatonError, match=f"is not the {kind} that it is said to be"):
        job.result()


def test_a_cancelled_job_has_no_result(server: ScriptedServer, job: JobHandle) -> None:
    server.on("GET", PATH, reply(view(JobState.CANCELLED, reason=Reason.CANCELLED)))
    with pytest.raises(JobFailed, match="CANCELLED"):
        job.result()


def test_a_result_before_the_end_is_a_conflict(server: ScriptedServer, client: Client) -> None:
    server.on("GET", PATH, reply(view(JobState.IN_PROGRESS)))
    with pytest.raises(Conflict, match="no result yet: it is IN_PROGRESS"):
        client.result(JOB_ID)


# -- downloads -------------------------------------------------------------------------------------


def test_a_result_is_downloaded_to_a_file(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    server.on("GET", PATH + "/result", Answer(200, b"\x00" * 3_000_000))
    target = tmp_path / "result.bin"
    assert client.download_result(JOB_ID, target) == 3_000_000
    assert target.read_bytes() == b"\x00" * 3_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["result.bin"]


def test_a_download_that_breaks_off_starts_again(server: ScriptedServer, client: Client, tmp_path: Path) -> None:
    whole = bytes(range(256)) * 10_000
    server.on("GET", PATH + "/result", Answer(200, whole, cut=100_000), Answer(200, whole, cut=0), Answer(200, whole))
    client.download_result(JOB_ID, tmp_path / "result")
    assert (tmp_path / "result").read_bytes() == whole


def test_a_download_that_ends_in_good_order_but_too_early_starts_again(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    whole = bytes(range(256)) * 10_000
    server.on("GET", PATH + "/result", Answer(200, whole, cut=100_000, then="close"), Answer(200, whole))
    client.download_result(JOB_ID, tmp_path / "result")
    assert (tmp_path / "result").read_bytes() == whole


def test_a_download_that_fails_leaves_the_old_file_and_nothing_else(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    target = tmp_path / "result"
    target.write_text("old")
    server.on("GET", PATH + "/result", Answer(200, b"x" * 100, cut=50))
    with pytest.raises(Unreachable, match="broke off"):
        client.download_result(JOB_ID, target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_download_to_a_place_that_cannot_be_written_names_it(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    server.on("GET", PATH + "/result", Answer(200, b"x"))
    for place in (tmp_path, tmp_path / "missing" / "result"):
        with pytest.raises(BadRequest, match="cannot write") as caught:
            client.download_result(JOB_ID, place)
        assert str(place) in caught.value.message


def test_a_download_writes_into_a_device_and_through_a_link(
    server: ScriptedServer, client: Client, tmp_path: Path
) -> None:
    server.on("GET", PATH + "/result", Answer(200, b"x"))
    client.download_result(JOB_ID, "/dev/null")
    assert Path("/dev/null").is_char_device()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    client.download_result(JOB_ID, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


@pytest.mark.parametrize("then", ["", "close"], ids=["reset", "closed"])
def test_half_a_log_is_not_taken_for_the_whole(server: ScriptedServer, client: Client, then: str) -> None:
    half = Answer(200, lines=(b"one\n",), cut=None if then else 0, then=then)
    server.on("GET", PATH + "/logs", half, Answer(200, lines=(b"one\n", b"two\n")))
    assert client.logs(JOB_ID) == "one\ntwo\n"


def test_logs_are_bytes_of_one_attempt(server: ScriptedServer, client: Client) -> None:
    server.on("GET", PATH + "/logs", Answer(200, b"caf\xc3\xa9 \xff\n"))
    assert client.logs(JOB_ID, attempt=2) == "café \ufffd\n"
    assert client.download_log(JOB_ID, attempt=2) == b"caf\xc3\xa9 \xff\n"
    assert server.seen[0].query == {"attempt": "2"}


# -- events ----------------------------------------------------------------------------------------


def _state(state: JobState, attempt: int = 1) -> JobEvent:
    return JobEvent("state", state.value, attempt)


def _log(text: str, offset: int, attempt: int = 1) -> JobEvent:
    return JobEvent("log", text, attempt, offset)


RUNNING = _state(JobState.IN_PROGRESS)
END = JobEvent("end", {"state": "FINISHED"}, 1)


def _stream(*events: JobEvent, then: str = "", cut: int | None = None) -> Answer:
    return Answer(200, lines=event_lines(*events), then=then, cut=cut)


def test_events_come_one_by_one_up_to_the_end(server: ScriptedServer, client: Client) -> None:
    happened = (RUNNING, JobEvent("progress", 0.5, 1), _log("hello\n", 6), END)
    server.on("GET", PATH + "/events", _stream(*happened))
    assert tuple(client.events(JOB_ID)) == happened
    assert server.seen[0].query == {}


def test_events_arrive_while_the_stream_is_open(server: ScriptedServer, client: Client) -> None:
    server.on("GET", PATH + "/events", _stream(RUNNING, then="hang"))
    events = client.events(JOB_ID)
    assert next(events) == RUNNING
    _close(events)


def test_keep_alives_and_pieces_of_lines_are_no_events(server: ScriptedServer, client: Client) -> None:
    (line,) = event_lines(_log("hello", 5))
    (end,) = event_lines(END)
    server.on("GET", PATH + "/events", Answer(200, lines=(b"\n", line[:9], line[9:] + b"\n\n", end)))
    assert list(client.events(JOB_ID)) == [_log("hello", 5), END]


@pytest.mark.parametrize(("cut", "then"), [(None, ""), (None, "close"), (0, "")], ids=["ended", "closed", "reset"])
def test_events_go_on_where_they_were_after_a_break(
    server: ScriptedServer, client: Client, cut: int | None, then: str
) -> None:
    server.on(
        "GET",
        PATH + "/events",
        _stream(RUNNING, _log("one\n", 4), cut=cut, then=then),
        *[NO_ANSWER, HTML_502] * 5,
        _stream(RUNNING, _log("two\n", 8), END),
    )
    assert list(client.events(JOB_ID)) == [RUNNING, _log("one\n", 4), _log("two\n", 8), END]
    assert server.seen[-1].query == {"offset": "4"}


def test_events_go_on_over_a_restart_of_the_server(server: ScriptedServer, client: Client) -> None:
    server.on("GET", PATH + "/events", _stream(RUNNING, _log("one\n", 4), then="hang"))
    events = client.events(JOB_ID)
    assert [next(events), next(events)] == [RUNNING, _log("one\n", 4)]
    server.stop()
    with ScriptedServer(port=server.port) as again:
        again.on("GET", PATH + "/events", _stream(RUNNING, _log("two\n", 8), END))
        assert list(events) == [_log("two\n", 8), END]
        client.close()


def test_a_new_attempt_has_a_new_log(server: ScriptedServer, client: Client) -> None:
    server.on(
        "GET",
        PATH + "/events",
        _stream(RUNNING, _log("first try\n", 10), _state(JobState.ASSIGNED, 2), _log("again\n", 6, 2)),
        _stream(_state(JobState.IN_PROGRESS, 2), _log("!\n", 8, 2), END),
    )
    texts = [event.value for event in client.events(JOB_ID) if event.event == "log"]
    assert texts == ["first try\n", "again\n", "!\n"]
    assert server.seen[1].query == {"offset": "6"}


def test_an_attempt_that_began_during_a_break_is_read_from_its_first_byte(
    server: ScriptedServer, client: Client
) -> None:
    second = _state(JobState.IN_PROGRESS, 2)
    server.on(
        "GET",
        PATH + "/events",
        _stream(RUNNING, _log("first try\n", 10)),
        _stream(second, _log("th byte of the second\n", 32, 2)),
        _stream(second, _log("from the first byte of the second\n", 34, 2), END),
    )
    texts = [event.value for event in client.events(JOB_ID) if event.event == "log"]
    assert texts == ["first try\n", "from the first byte of the second\n"]
    assert [seen.query for seen in server.seen] == [{}, {"offset": "10"}, {}]


def test_reconnects_keep_a_pace(server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hecaton.client.jobs.PACE", 0.1)
    server.on("GET", PATH + "/events", *[_stream(RUNNING)] * 5, _stream(END))
    started = time.monotonic()
    assert list(client.events(JOB_ID)) == [RUNNING, END]
    assert time.monotonic() - started >= 0.5


def test_a_silent_stream_is_a_dead_one(server: ScriptedServer) -> None:
    server.on("GET", PATH + "/events", _stream(RUNNING, then="hang"), _stream(RUNNING, END))
    with Client(server.url, timeout=0.3) as client:
        assert list(client.events(JOB_ID)) == [RUNNING, END]


def test_events_of_a_job_that_is_not_there_are_an_error(server: ScriptedServer, client: Client) -> None:
    server.on("GET", "/v1/jobs/9/events", error(404, "not_found", "no job '9'"))
    with pytest.raises(NotFound, match="no job '9'"):
        next(client.events(9))


def test_events_of_a_server_that_never_answered_are_an_error(server: ScriptedServer) -> None:
    server.stop()
    with Client(server.url) as client, pytest.raises(Unreachable):
        next(client.events(JOB_ID))


def test_events_that_are_none_are_an_error_of_ours(server: ScriptedServer, client: Client) -> None:
    server.on("GET", PATH + "/events", Answer(200, lines=(b"<html>\n",)))
    with pytest.raises(HecatonError, match="an event that is none"):
        next(client.events(JOB_ID))


@pytest.mark.parametrize("line", [b"<html>\n", b'{"index": "x"}\n', b"\xff\n"])
def test_lines_about_a_batch_that_are_none_are_an_error_of_ours(
    server: ScriptedServer, client: Client, line: bytes
) -> None:
    batch = BatchHandle(client._transport, "b", 1)
    for part in ("events", "results"):
        server.on("GET", f"/v1/batches/b/{part}", Answer(lines=(line,)))
    for lines in (batch.events(), batch.items()):
        with pytest.raises(HecatonError, match="sent a line that is no Batch"):
            next(lines)


def test_a_handle_has_the_events_and_logs_of_its_job(server: ScriptedServer, job: JobHandle) -> None:
    server.on("GET", PATH + "/events", _stream(END))
    server.on("GET", PATH + "/logs", Answer(200, b"hello"))
    assert list(job.events(offset=3)) == [END]
    assert server.seen[0].query == {"offset": "3"}
    assert job.logs() == "hello"


def _close(events: Iterator[JobEvent]) -> None:
    """What a `for` loop that is left early leads to."""
    close = getattr(events, "close", None)
    assert close
    close()


def _as_dict(job: Any) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(job))
    return built
