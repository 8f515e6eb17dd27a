"""Jobs that fail, are cancelled or wait: what became of them, why, and what the commands say and exit with."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from hecaton.client import Client
from hecaton.testing.cluster import LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import ACTOR, PATIENCE, PYTHON, Act, ended, running, until
from tests.engine.registry import Registry

NEW = f"hecaton job new order.json {PYTHON} --handler {ACTOR}"


def orders(person: Person, **order: object) -> None:
    person.write("order.json", json.dumps(order))


def test_a_handler_that_raises_fails_its_job_and_serves_the_next(act: Act, person: Person) -> None:
    before = act().result(PATIENCE)
    orders(person, **{"say": "here we go", "raise": "no such model"})
    done = person.types(f"{NEW} --wait", code=1)
    assert "handler_error" in done.err
    assert "ValueError: no such model" in done.err
    assert re.search(r"actor\.py\", line \d+, in act", done.err), "the traceback of the handler"
    assert done.out == ""
    shown = person.types("hecaton job list --limit 1 --json").out
    (failed,) = json.loads(shown)
    details = person.types(f"hecaton job show {failed['index']}").out
    assert "ValueError: no such model" in details
    assert "here we go" in details, "the last lines of the log"
    after = act().result(PATIENCE)
    assert after["container"] == before["container"], "the container goes on"
    assert after["served"] == before["served"] + 2


def test_a_handler_that_ends_its_process_fails_its_job_and_the_next_gets_a_new_container(act: Act) -> None:
    crashed, silent, next_one = act({"exit": 3}), act({"exit": 0}), act()
    view = ended(crashed)
    assert (view.reason, view.exit_code) == ("handler_exit", 3)
    assert ended(silent).reason == "no_result"
    assert next_one.result(PATIENCE)["served"] == 1


def test_a_job_over_its_time_is_stopped_and_the_next_runs(act: Act, person: Person) -> None:
    orders(person, sleep=600)
    done = person.types(f"{NEW} --timeout 1s --wait", code=1)
    assert "timeout" in done.err
    assert act().result(PATIENCE)["served"] == 1


def test_retries_run_it_again_and_the_attempts_are_told(act: Act, person: Person) -> None:
    job = act({"succeed_at": 2}, retries=3)
    assert job.result(PATIENCE)["attempt"] == 2
    assert re.search(r"1 +gpu-machine +handler_error", person.types(f"hecaton job show {job.index}").out)


def test_cancelling_stops_a_running_job_and_takes_a_waiting_one_out(act: Act, person: Person) -> None:
    first = running(act({"sleep": 600}))
    waiting = act()
    person.types(f"hecaton job cancel {waiting.index}")
    assert ended(waiting).state == "CANCELLED"
    assert first.status() == "IN_PROGRESS"
    person.types(f"hecaton job cancel {first.id}")
    assert ended(first).state == "CANCELLED"
    assert "is CANCELLED" in person.types(f"hecaton job cancel {first.id}").err, "once more changes nothing"
    person.types(f"hecaton job wait {first.id}", code=3)
    assert act().result(PATIENCE)["served"] == 1, "the container of the cancelled job is not used again"


def test_an_ended_job_can_be_submitted_again(act: Act, admin: Client, person: Person) -> None:
    failed = act({"raise": "once"})
    ended(failed)
    again = person.types(f"hecaton job retry {failed.index}").out.strip()
    view = admin.wait(again, PATIENCE)
    assert (view.retry_of, view.state) == (failed.id, "FAILED")


def test_a_job_whose_container_never_asks_for_work_fails_at_once_with_a_hint(person: Person) -> None:
    person.write("order.json", "{}")
    done = person.types(f"hecaton job new order.json {PYTHON} --wait", code=1)
    assert "without ever asking for work" in done.err
    assert "--script" in done.err
    assert "--handler" in done.err


def test_an_image_that_does_not_exist_fails_its_job_with_that_reason(
    cluster: LocalCluster, admin: Client, registry: Registry
) -> None:
    name = f"{registry.address}/no/such:image"
    cluster.register(name)
    view = ended(admin.submit(name, 1))
    assert (view.state, view.reason) == ("FAILED", "image_denied")
    assert view.failure is not None
    assert name in view.failure.message


def test_an_image_whose_registry_is_away_is_waited_for_and_the_job_says_why(
    cluster: LocalCluster, admin: Client
) -> None:
    cluster.register("localhost:1/away:1")
    job = admin.submit("localhost:1/away:1", 1)

    def why() -> bool:
        said.extend(line.why for line in admin.job(job.id).waiting if line.why.startswith("cannot get the image: "))
        return bool(said)

    said: list[str] = []
    until(why, "the job says why it waits")
    assert "connection refused" in said[0]
    assert not admin.job(job.id).state.terminal
    admin.cancel(job.id)


def test_a_waiting_job_says_why_it_waits(act: Act, person: Person, ann: Client) -> None:
    busy = running(act({"sleep": 600}))
    waiting = act(client=ann)
    until(lambda: "is busy" in person.types(f"hecaton job show {waiting.index}").out, "the reason is shown")
    assert re.search(r"gpu-machine is busy: 1 of 1 slots", person.types(f"hecaton job show {waiting.index}").out)
    busy.cancel()
    assert waiting.result(PATIENCE)["served"] == 1


def test_logs_are_live_and_ctrl_c_leaves_the_job(act: Act, admin: Client, person: Person) -> None:
    orders(person, say="working on it", sleep=600)
    with person.starts(f"{NEW} --wait") as waiting:
        waiting.until("working on it")
        job = admin.job(int(waiting.until(r"Job (\d+) ")[1]))
        with person.starts(f"hecaton job logs -f {job.index}") as following:
            following.until("working on it")
            assert waiting.stop(signal.SIGINT) == 130
            assert f"hecaton job wait {job.index}" in waiting.said()
            assert admin.job(job.id).state == "IN_PROGRESS"
            admin.cancel(job.id)
            assert following.process.wait(PATIENCE) == 0


def test_waiting_for_a_limited_time_leaves_the_job(act: Act, admin: Client, person: Person) -> None:
    job = running(act({"sleep": 600}))
    assert "goes on" in person.types(f"hecaton job wait {job.index} --timeout 0.5", code=8).err
    assert job.status() == "IN_PROGRESS"
    job.cancel()
    ended(job)


def test_the_same_idempotency_key_makes_one_job(person: Person) -> None:
    orders(person)
    ids = {person.types(f"{NEW} --idempotency-key the-only-one").out for _ in range(2)}
    assert len(ids) == 1


def test_a_submission_that_cannot_work_is_refused_before_it_is_stored(person: Person, admin: Client) -> None:
    newest = admin.jobs(limit=1).jobs[0].id
    assert "missing.json" in person.types(f"hecaton job new missing.json {PYTHON}", code=2).err
    assert "missing.py" in person.types(f"hecaton job new order.json {PYTHON} --handler missing.py", code=2).err
    assert admin.jobs(limit=1).jobs[0].id == newest


def test_a_server_that_is_down_costs_one_line(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.types("hecaton server new --ip http://127.0.0.1:9 --name nobody")
    done = person.types("hecaton job list", {"HECATON_TOKEN": "x"}, code=4)
    assert "127.0.0.1:9" in done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2
