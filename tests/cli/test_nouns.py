"""`hecaton user`, `image` and `worker`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec

from hecaton.cli.terminal import clock_time
from hecaton.core.model import Gpu
from hecaton.core.options import Options
from hecaton.wire.api import CardView, Holder, MachineView, SlotView
from tests.cli.conftest import Invoke, Process
from tests.cli.views import image, server_info, user, worker
from tests.client.scripted import Answer, ScriptedServer, error, reply

SLIM = "/v1/images/python%3A3.9-slim"


def test_user_create_takes_a_role(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("POST", "/v1/users", reply(user("bob", "worker"), 201))
    ended = invoke("user", "create", "--username", "bob", "--password", "hunter2", "--role", "worker")
    assert (ended.code, ended.out) == (0, "")
    assert server.seen[-1].json() == {"username": "bob", "password": "hunter2", "role": "worker"}
    assert ended.err == "User bob is created with the role worker.\n"
    assert json.loads(invoke("user", "create", "--username", "b", "--password", "p", "--json").out)["username"] == "bob"
    assert invoke("user", "create", "--username", "b", "--password", "p", "--role", "king").code == 2


def test_user_list_is_a_table(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/users", reply([user("admin", "admin"), user("bob\x1b[31m\nroot")]))
    lines = invoke("user", "list").out.splitlines()
    assert lines == [
        "USERNAME  ROLE   UID  CREATED",
        "admin     admin  -    2 h ago",
        "bob root  user   -    2 h ago",
    ]


def test_a_user_gets_another_role(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("PATCH", "/v1/users/bob", reply(user("Bob", "admin")))
    ended = invoke("user", "update", "bob", "--role", "admin")
    assert (ended.code, ended.out, ended.err) == (0, "", "User Bob has the role admin now.\n")
    assert server.seen[-1].json() == {"role": "admin"}
    assert json.loads(invoke("user", "update", "bob", "--role", "admin", "--json").out)["role"] == "admin"
    assert invoke("user", "update", "bob", "--role", "king").code == 2
    assert invoke("user", "update", "bob").code == 2
    server.on("PATCH", "/v1/users/bob", error(409, "conflict", "'Bob' is the last admin"))
    assert "'Bob' is the last admin" in invoke("user", "update", "bob", "--role", "user").err


def test_users_are_deleted_and_get_new_passwords(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("DELETE", "/v1/users/bob", Answer(204))
    server.on("PUT", "/v1/users/bob/password", Answer(204))
    server.on("GET", "/v1/server", reply(server_info("admin")))
    server.on("GET", "/v1/workers", reply([worker("gpu1", registered_by="Bob"), worker("gpu2")]))
    server.on("DELETE", "/v1/workers/gpu1", Answer(204))
    assert invoke("user", "passwd", "bob", "--password", "new").code == 0
    assert server.seen[-1].json() == {"password": "new"}
    assert invoke("user", "delete", "bob").code == 2
    assert invoke("user", "delete", "bob", "--yes").code == 0
    assert "go on: gpu1. To remove one: hecaton worker remove NAME" in invoke("user", "delete", "bob", "--yes").err
    assert [one for one in server.seen if one.path == "/v1/workers/gpu1"] == []
    assert json.loads(invoke("user", "delete", "bob", "--yes", "--workers", "--json").out) == {
        "username": "bob", "deleted": True, "workers": ["gpu1"], "workers_removed": True,
    }  # fmt: skip
    assert (server.seen[-1].method, server.seen[-1].path) == ("DELETE", "/v1/workers/gpu1")
    server.on("DELETE", "/v1/users/bob", error(404, "not_found", "there is no user bob"))
    assert invoke("user", "delete", "bob", "--yes").code == 6


USAGE = {
    "username": "ann", "payloads": 2048, "results": 3 * 1024**2, "logs": 0, "files": 5 * 1024**3, "total": 6 * 1024**3,
    "max_bytes": 100 * 1024**3, "waiting": 5, "max_waiting": 100000, "kinds": 2, "max_kinds": 200, "running": 1,
    "max_running": 4,
}  # fmt: skip


def test_usage_says_what_there_is_of_what_there_may_be(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/usage", reply(USAGE))
    server.on("GET", "/v1/usage/users", reply([USAGE]))
    assert invoke("usage").out.splitlines() == [
        "stored        6.0 GiB of 100.0 GiB", "  payloads    2.0 KiB", "  results     3.0 MiB", "  logs        0 B",
        "  files       5.0 GiB", "waiting jobs  5 of 100000", "  kinds       2 of 200", "places        1 of 4",
    ]  # fmt: skip
    assert json.loads(invoke("usage", "--json").out) == USAGE
    lines = invoke("usage", "--by", "user").out.splitlines()
    assert [line.split() for line in lines] == [
        ["USERNAME", "STORED", "PAYLOADS", "RESULTS", "LOGS", "FILES", "WAITING", "RUNNING"],
        ["ann", "6.0", "GiB", "2.0", "KiB", "3.0", "MiB", "0", "B", "5.0", "GiB", "5", "1"],
    ]
    assert json.loads(invoke("usage", "--by", "user", "--json").out) == [USAGE]
    assert invoke("usage", "--user", "bob").code == 2


def test_usage_makes_room(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("POST", "/v1/usage/clear", reply({"jobs": 12, "usage": USAGE}))
    assert invoke("usage", "--clear", "7d").code == 2, "it is asked for first"
    assert invoke("usage", "--clear", "7d", "--yes").err == (
        "12 jobs are removed. Still stored: 6.0 GiB of 100.0 GiB.\n"
    )
    assert server.seen[-1].json() == {"older_than": 7 * 86400}
    invoke("usage", "--clear", "1h", "--user", "bob", "--yes")
    assert server.seen[-1].json() == {"older_than": 3600, "username": "bob"}


def test_ones_own_password_changes_with_the_old_one(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/server", reply(server_info("Bob")))
    server.on("PUT", "/v1/users/bob/password", Answer(204))
    refused = invoke("user", "passwd", "bob", "--password", "new")
    assert (refused.code, "give it as --old-password" in refused.err) == (2, True)
    assert invoke("user", "passwd", "bob", "--password", "new", "--old-password", "old").code == 0
    assert server.seen[-1].json() == {"password": "new", "old_password": "old"}


def test_passwords_are_not_read_from_a_pipe_by_accident(hecaton: Process, server: ScriptedServer) -> None:
    done = hecaton("user", "passwd", "bob", input="hunter2\n")
    assert done.returncode == 2
    assert "--password is missing" in done.stderr


def test_image_new_shows_the_digest_and_the_registry_s_warning(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("POST", "/v1/images", reply(image(), 201))
    ended = invoke("image", "new", "python:3.9-slim", "--desc", "plain Python")
    assert server.seen[-1].json() == {"name": "python:3.9-slim", "description": "plain Python"}
    assert "sha256:abab" in ended.err
    server.on("POST", "/v1/images", reply(image(digest=None, warning="registry-1.docker.io cannot be reached"), 201))
    ended = invoke("image", "new", "python:3.9-slim", "--no-verify")
    assert server.seen[-1].json()["verify"] is False
    assert (ended.code, ended.err.splitlines()[0]) == (0, "Warning: registry-1.docker.io cannot be reached")


def test_image_update_reads_an_env_file(invoke: Invoke, server: ScriptedServer, tmp_path: Path) -> None:
    server.on("PATCH", SLIM, reply(image()))
    path = tmp_path / "my.env"
    path.write_text("# keys\nexport TOKEN='a=b'\nMODE=fast\n")
    assert invoke("image", "update", "python:3.9-slim", "--fp", str(path)).code == 0
    assert server.seen[-1].json() == {"env": {"TOKEN": "a=b", "MODE": "fast"}}
    assert invoke("image", "update", "python:3.9-slim", "--desc", "new", "--refresh").code == 0
    assert server.seen[-1].json() == {"description": "new", "refresh": True}
    path.write_text("TOKEN\n")
    broken = invoke("image", "update", "python:3.9-slim", "--fp", str(path))
    assert broken.code == 2
    assert "line 1" in broken.err
    assert invoke("image", "update", "python:3.9-slim").code == 2


def test_an_image_is_given_a_start_up_time_out_for_its_jobs(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("POST", "/v1/images", reply(image(), 201))
    server.on("PATCH", SLIM, reply(image()))
    server.on("GET", SLIM, reply(image(defaults=Options(startup_timeout=1200))))
    assert invoke("image", "new", "python:3.9-slim", "--startup-timeout", "20m").code == 0
    assert server.seen[-1].json()["defaults"] == {"startup_timeout": 1200}
    for text, value in (("1h", 3600), ("none", None)):
        assert invoke("image", "update", "python:3.9-slim", "--startup-timeout", text).code == 0
        assert server.seen[-1].json() == {"defaults": {"startup_timeout": value}}
    assert "start-up time-out  20 min" in invoke("image", "show", "python:3.9-slim").out
    wrong = invoke("image", "update", "python:3.9-slim", "--startup-timeout", "soon")
    assert (wrong.code, "is no duration" in wrong.err) == (2, True)


def test_image_show_has_the_environment_for_admins_only(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", SLIM, reply(image(env={"B": "two words", "A": "1"})))
    assert 'environment\n  A=1\n  B="two words"\n' in invoke("image", "show", "python:3.9-slim").out
    server.on("GET", SLIM, reply(image(env=None)))
    assert "admins only" in invoke("image", "show", "python:3.9-slim").out


def test_images_are_listed_and_deleted(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/images", reply([image(description="plain Python")]), reply([]))
    server.on("DELETE", SLIM, Answer(204))
    lines = invoke("image", "list").out.splitlines()
    assert lines[0].split() == ["IMAGE", "DIGEST", "UPDATED", "OF", "DESCRIPTION"]
    assert "abababababab" in lines[1]
    empty = invoke("image", "list")
    assert (empty.out, "hecaton run -i IMAGE FILE" in empty.err) == ("", True)
    assert invoke("image", "delete", "python:3.9-slim", "--yes").code == 0


def test_worker_list_shows_status_last_active_time_and_cards(invoke: Invoke, server: ScriptedServer) -> None:
    card = {"uuid": "GPU-1", "name": "H200", "memory": 150_000_000_000}
    states = [
        {"index": i, "gpu": card, "state": "busy" if i else "idle", "image": "a:1", "jobs": ["x"] if i else []}
        for i in range(2)
    ]
    slots = msgspec.convert(states, tuple[SlotView, ...])
    server.on("GET", "/v1/workers", reply([worker(slots=slots, last_seen=time.time() - 30)]))
    titles, row = invoke("worker", "list").out.splitlines()
    assert titles.split("  ")[0] == "NAME"
    assert row.startswith("gpu-1  ONLINE  30 s ago     1/2   2 x H200 (139.7 GiB)  a:1   docker")
    assert json.loads(invoke("worker", "list", "--json").out)[0]["slots"][0]["gpu"]["name"] == "H200"


def test_worker_show_shows_what_each_card_does_who_works_there_and_what_strangers_hold(
    invoke: Invoke, server: ScriptedServer
) -> None:
    now = time.time()
    job = Holder(398, "bob", "train.py", now - 11_520, now + 3600)
    cards = (
        CardView(Gpu("GPU-1", "RTX 3090", 24 << 30), 20 << 30, 9 << 30, "game", None, 87, 61, 250.0, (job,)),
        CardView(Gpu("GPU-2", "T4", 16 << 30), lost="Xid 79: it fell off the bus"),
    )
    shown = msgspec.structs.asdict(worker(last_seen=now - 30))
    server.on("GET", "/v1/workers/gpu-1", reply(MachineView(**shown, cards=cards)))
    lines = invoke("worker", "show", "gpu-1").out.splitlines()
    assert lines[0].split() == ["worker", "gpu-1"]
    assert lines[lines.index("card 0  RTX 3090  GPU-1") :] == [
        "card 0  RTX 3090  GPU-1",
        "  20.0 GiB of 24.0 GiB used, 87 % busy, 61 °C, 250 W",
        "  9.0 GiB of it is used outside Hecaton, by game",
        f"  job 398 of bob, train.py, for 3 h 12 min, ends by {clock_time(now + 3600, now)} (its time limit)",
        "",
        "card 1  T4  GPU-2",
        "  lost: Xid 79: it fell off the bus",
    ]
    server.on("GET", "/v1/workers/gpu-1", reply(MachineView(**shown, cards=cards)))
    assert json.loads(invoke("worker", "show", "gpu-1", "--json").out)["cards"][0]["outside"] == 9 << 30


def test_worker_remove_asks_first(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("DELETE", "/v1/workers/gpu-1", Answer(204))
    assert invoke("worker", "remove", "gpu-1").code == 2
    assert invoke("worker", "remove", "gpu-1", "--yes").code == 0


def test_a_worker_is_drained_and_used_again(invoke: Invoke, server: ScriptedServer) -> None:
    busy = msgspec.convert(
        [{"index": 0, "gpu": None, "state": "busy", "image": "a:1", "jobs": ["x"]}], tuple[SlotView, ...]
    )
    server.on("POST", "/v1/workers/gpu-1/drain", reply(worker(slots=busy, drained=True)))
    server.on("POST", "/v1/workers/gpu-1/undrain", reply(worker()))
    said = invoke("worker", "drain", "gpu-1")
    drains = "Worker gpu-1 is draining: it gets nothing new and keeps nothing warm. It still has 1 job.\n"
    assert (said.code, said.err) == (0, drains)
    assert json.loads(invoke("worker", "drain", "gpu-1", "--json").out)["drained"] is True
    assert invoke("worker", "undrain", "gpu-1").err == "Worker gpu-1 gets jobs again.\n"


def test_worker_list_says_why_a_worker_gets_nothing(invoke: Invoke, server: ScriptedServer) -> None:
    server.on("GET", "/v1/workers", reply([worker(note="quarantined: broken")]))
    assert json.loads(invoke("worker", "list", "--json").out)[0]["note"] == "quarantined: broken"
