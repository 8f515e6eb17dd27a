"""Which job meets which container: warm ones, other owners, files and environments, and images of all kinds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.testing.cluster import LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import ACTOR, PATIENCE, PYTHON, WORKER, Act, make_image, until
from tests.engine.daemon import docker
from tests.engine.images import build_image, image_id


def containers() -> dict[str, str]:
    """Containers of workers that run now: their host names, by which the actor knows them, and their images."""
    rows = docker("ps", "--filter", "label=hecaton.worker", "--format", "{{.ID}} {{.Image}}").splitlines()
    return dict((row.split()[0], row.split()[1]) for row in rows)


@pytest.fixture
def warm_slot(cluster: LocalCluster, tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster of its own whose worker lets containers go after a second without work."""
    with LocalCluster(tmp_path / "home") as own:
        own.start_worker("hasty", options=("--idle-timeout", "1"))
        own.register(PYTHON)
        yield own


def test_the_second_job_finds_the_container_of_the_first_warm(act: Act) -> None:
    first, second = act().result(PATIENCE), act().result(PATIENCE)
    assert first["container"] == second["container"]
    assert second["served"] == first["served"] + 1


def test_an_image_that_is_built_anew_runs_with_the_next_job(cluster: LocalCluster, admin: Client) -> None:
    tag = make_image(cluster, "hecaton-test/e2e-rebuilt:1", "ENV VERSION=one")
    first = admin.submit(tag)
    old = first.result(PATIENCE)
    build_image(tag, f"FROM {tag}\nENV VERSION=two")
    until(lambda: old["container"] not in containers(), "the container of the old one has gone")
    second = admin.submit(tag)
    assert second.result(PATIENCE)["container"] != old["container"]
    versions = [job.wait(PATIENCE).attempts[-1].image_version for job in (first, second)]
    assert versions[0] != versions[1] == image_id(tag)
    (here,) = admin.image(tag).versions
    assert (here.worker, here.version) == (WORKER, versions[1])


def test_a_changed_handler_file_gets_another_container(act: Act, tmp_path: Path) -> None:
    changed = tmp_path / "actor.py"
    changed.write_text(ACTOR.read_text().replace('"as built"', '"changed"'))
    first, second = act().result(PATIENCE), act(file=changed).result(PATIENCE)
    assert (first["hecaton"], second["hecaton"]) == ("as built", "changed")
    assert first["container"] != second["container"]
    assert second["served"] == 1


def test_two_users_never_share_a_container(act: Act, ann: Client, bob: Client) -> None:
    of_ann, of_bob, again = (act(client=who).result(PATIENCE) for who in (ann, bob, bob))
    assert of_ann["container"] != of_bob["container"]
    assert of_bob["served"] == 1
    assert again["container"] == of_bob["container"]


def test_an_image_gives_its_slot_to_another_and_comes_back(act: Act, admin: Client, actor_image: str) -> None:
    first = act().result(PATIENCE)
    other = admin.submit(actor_image).result(PATIENCE)
    until(lambda: other["container"] in containers(), "the container of the other image stays warm")
    until(lambda: first["container"] not in containers(), "the first one has given way")
    again = act().result(PATIENCE)
    assert again["container"] != first["container"]
    assert again["served"] == 1


def test_a_changed_environment_takes_effect_with_the_next_job(admin: Client, person: Person, actor_image: str) -> None:
    person.write("first.env", '# for the actor\nGREETING="hello = world"\n')
    person.types(f"hecaton image update {actor_image} --fp first.env")
    assert admin.submit(actor_image).result(PATIENCE)["greeting"] == "hello = world"
    assert 'GREETING="hello = world"' in person.types(f"hecaton image show {actor_image}").out
    person.write("second.env", "GREETING=good bye\n")
    person.types(f"hecaton image update {actor_image} --fp second.env")
    changed = admin.submit(actor_image).result(PATIENCE)
    assert (changed["greeting"], changed["served"]) == ("good bye", 1)


def test_the_environment_of_an_image_is_shown_to_admins_only(ann: Client, admin: Client, actor_image: str) -> None:
    admin.update_image(actor_image, env={"SECRET": "sesame"})
    assert admin.image(actor_image).env == {"SECRET": "sesame"}
    assert ann.image(actor_image).env is None
    assert ann.submit(actor_image).result(PATIENCE)["served"] == 1, "and used by all"


def test_images_whose_user_is_not_root_work(cluster: LocalCluster, admin: Client) -> None:
    image = make_image(cluster, "hecaton-test/e2e-nobody:1", "USER 1000")
    assert admin.submit(image).result(PATIENCE)["user"] == 1000


def test_an_image_with_its_own_hecaton_keeps_it(cluster: LocalCluster, admin: Client) -> None:
    mark = "RUN echo 'FLAVOUR = \"of the image\"' >> $(python -c 'import hecaton.serverless as s; print(s.__file__)')"
    image = make_image(cluster, "hecaton-test/e2e-own:1", mark)
    assert admin.submit(image).result(PATIENCE)["hecaton"] == "of the image"


def test_an_image_without_hecaton_gets_the_workers(act: Act) -> None:
    """The actor as a handler file runs in plain `python:3.9-slim`, in which nothing is installed."""
    assert "hecaton" not in docker("run", "--rm", PYTHON, "pip", "list")
    assert act().result(PATIENCE)["hecaton"] == "as built"


def test_containers_have_no_more_rights_than_they_need(act: Act) -> None:
    container = act().result(PATIENCE)["container"]
    form = "{{.HostConfig.SecurityOpt}} {{.HostConfig.CapDrop}} {{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}}"
    limits = docker("inspect", "--format", form, container)
    assert "no-new-privileges" in limits
    assert "NET_RAW" in limits
    assert limits.endswith(" 4096 false")
    assert "docker.sock" not in docker("inspect", "--format", "{{json .Mounts}}", container)


def test_a_container_without_work_is_stopped_after_the_idle_time(warm_slot: LocalCluster, act: Act) -> None:
    client = warm_slot.client()
    first = act(client=client).result(PATIENCE)["container"]
    until(lambda: first not in containers(), "the idle container is gone")
    until(lambda: client.workers()[0].slots[0].image is None, "the worker says so")
    assert act(client=client).result(PATIENCE)["container"] != first
