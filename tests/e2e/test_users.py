"""Who may do what, typed by the people themselves: admins, users and worker users."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hecaton.testing.cluster import PASSWORD, LocalCluster
from tests.e2e.commands import Person

ECHO = "from hecaton.serverless import start\nstart(lambda data: {'echo': data.input})\n"
NOT_ALLOWED = 5
NOT_FOUND = 6


@dataclass
class People:
    cluster: LocalCluster
    admin: Person
    ann: Person
    bob: Person


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """No Docker here: it is about people. The worker runs the image `echo` as a process."""
    folder = tmp_path_factory.mktemp("people")
    handler = folder / "echo.py"
    handler.write_text(ECHO)
    with LocalCluster(folder / "home") as cluster:
        cluster.start_worker("one", handlers={"echo": handler})
        admin = Person(folder / "admin").logs_in(cluster.url, "admin", PASSWORD)
        admin.types("hecaton image new echo --no-verify")
        made = [Person(folder / name) for name in ("ann", "bob")]
        for name, person in zip(("ann", "bob"), made, strict=True):
            admin.types(f"hecaton user create --username {name} --password 'password of {name}'")
            person.logs_in(cluster.url, name, f"password of {name}")
            person.write("payload.json", json.dumps({"from": name}))
        yield People(cluster, admin, *made)


def test_a_user_submits_jobs_but_changes_nothing(people: People) -> None:
    done = people.ann.types("hecaton job new payload.json echo --wait")
    assert json.loads(done.out) == {"echo": {"from": "ann"}}
    assert "echo" in people.ann.types("hecaton image list").out
    assert "ONLINE" in people.ann.types("hecaton worker list").out
    for line in (
        "hecaton image new other --no-verify",
        "hecaton image update echo --desc mine",
        "hecaton image delete echo --yes",
        "hecaton user create --username eve --password evesdropping",
        "hecaton user list",
        "hecaton worker remove one --yes",
    ):
        refused = people.ann.types(line, code=NOT_ALLOWED)
        assert "admin" in refused.err, line
    assert people.admin.types("hecaton image show echo").out


def test_a_users_login_makes_no_worker(people: People) -> None:
    login = {"HECATON_USERNAME": "ann", "HECATON_PASSWORD": "password of ann"}
    line = f"hecaton-gpu run {people.cluster.url} --name anns --runtime process --handler echo=payload.json"
    refused = people.ann.types(line, login, code=NOT_ALLOWED)
    assert "worker" in refused.err
    assert "anns" not in people.admin.types("hecaton worker list").out


def test_the_job_of_another_is_as_if_it_did_not_exist(people: People) -> None:
    view = json.loads(people.ann.types("hecaton job new payload.json echo --wait --json").out)
    never_given = view["id"][:-4] + ("0000" if view["id"][-4:] != "0000" else "1111")
    for command in ("show", "logs", "cancel", "retry", "wait"):
        of_another, unknown = (
            people.bob.types(f"hecaton job {command} {job}", code=NOT_FOUND).err.replace(job, "ID")
            for job in (view["id"], never_given)
        )
        assert of_another == unknown
    assert view["id"] not in people.bob.types("hecaton job list --json").out
    assert view["id"] in people.ann.types("hecaton job list --json").out
    assert view["id"] in people.admin.types("hecaton job list --json").out
    assert "ann" in people.admin.types(f"hecaton job show {view['id']}").out


def test_a_changed_password_ends_old_logins_and_a_deleted_user_is_out(people: People, tmp_path: Path) -> None:
    people.admin.types("hecaton user create --username carol --password 'first password'")
    carol = Person(tmp_path).logs_in(people.cluster.url, "carol", "first password")
    people.admin.types("hecaton user passwd carol --password 'second password'")
    assert "hecaton server login my-server" in carol.types("hecaton job list", code=NOT_ALLOWED).err
    carol.types("hecaton server login my-server --username carol --password 'first password'", code=NOT_ALLOWED)
    carol.types("hecaton server login my-server --username carol --password 'second password'")
    people.admin.types("hecaton user delete carol --yes")
    carol.types("hecaton job list", code=NOT_ALLOWED)
