"""Images in the shapes of popular ones: each is run natively, with a handler file and with a script, or the user reads
what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from hecaton.client import Client, JobHandle
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.api import JobView
from tests.engine.shapes import FACTS, SHAPES, images

PATIENCE = 120.0
WAYS = ("native", "handler", "script")
HANDLER = f"{FACTS}\nfrom hecaton.serverless import start\nstart(lambda job: facts('handler'))\n"
SCRIPT = f"""{FACTS}
import json, os, sys
if "/own" in sys.path:
    try:
        import launch
    except SystemExit as error:
        assert "launch" in str(error)
    else:
        raise AssertionError("another module `launch` than the image's was imported")
assert sys.argv[1:] == ["--epochs", "3 4"]
with open(os.environ["HECATON_OUTPUT"], "w") as output:
    json.dump(facts("script"), output)
print("printed by the script")
"""

CASES = list(product(SHAPES, WAYS))
DEAF = [(name, way) for name, way in CASES if way in SHAPES[name].deaf]


class Fleet:
    """All jobs are submitted at once; each test waits for its own."""

    def __init__(self, client: Client, images: dict[str, str], folder: Path) -> None:
        self._files = {"handler": folder / "handler.py", "script": folder / "script.py"}
        self._files["handler"].write_text(HANDLER)
        self._files["script"].write_text(SCRIPT)
        self.client, self.images = client, images
        self.jobs: dict[tuple[str, str, str], JobHandle] = {}

    def submit(self, shape: str, way: str, entrypoint: str = "image") -> None:
        name, file = self.images[shape], self._files.get(way)
        if way == "script":
            job = self.client.submit(
                name, mode="script", file=file, args=("--epochs", "3 4"), entrypoint=entrypoint, priority=1
            )
        elif way == "handler":
            job = self.client.submit(name, {}, mode="handler", file=file, entrypoint=entrypoint, priority=2)
        else:
            job = self.client.submit(name, {}, entrypoint=entrypoint)
        self.jobs[shape, way, entrypoint] = job

    def ended(self, shape: str, way: str, entrypoint: str = "image") -> JobView:
        return self.jobs[shape, way, entrypoint].wait(PATIENCE)

    def seen(self, shape: str, way: str, entrypoint: str = "image") -> dict[str, object]:
        found = self.jobs[shape, way, entrypoint].result(PATIENCE)
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def fleet(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("shapes")
    with LocalCluster(folder / "home") as cluster:
        made = images()
        cluster.register(*made.values())
        cluster.start_worker("one", options=("--slots", "3"))
        with cluster.client() as client:
            fleet = Fleet(client, made, folder)
            for shape, way in CASES:
                fleet.submit(shape, way)
            for shape, way in DEAF:
                fleet.submit(shape, way, "none")
            yield fleet


def test_there_are_thirteen() -> None:
    assert len(SHAPES) == 13


@pytest.mark.parametrize(("shape", "way"), [case for case in CASES if case not in DEAF])
def test_it_runs_as_its_image_has_it(fleet: Fleet, shape: str, way: str) -> None:
    seen = fleet.seen(shape, way)
    assert seen["by"] == ("image" if way == "native" else way)
    assert {name: seen[name] for name in SHAPES[shape].shows} == SHAPES[shape].shows


@pytest.mark.parametrize("way", WAYS)
def test_another_program_of_that_name_in_the_image_is_passed_over_and_the_log_says_so_once(
    fleet: Fleet, way: str
) -> None:
    fleet.ended("other-program", way)
    log = fleet.jobs["other-program", way, "image"].logs()
    assert log.count("the image has hecaton 1.0.1, another program;") == 1


@pytest.mark.parametrize(("shape", "way"), DEAF)
def test_an_entrypoint_that_does_not_run_it_is_said_and_can_be_left_out(fleet: Fleet, shape: str, way: str) -> None:
    view = fleet.ended(shape, way)
    assert (view.state, view.reason) == ("FAILED", "startup_exit")
    assert view.failure is not None
    assert f"before the {'handler file' if way == 'handler' else 'script'} was run" in view.failure.message
    assert "--entrypoint none" in str(view.failure.hint)
    assert fleet.seen(shape, way, "none")["by"] == way


@pytest.mark.parametrize("way", WAYS)
def test_what_an_entrypoint_says_is_the_beginning_of_the_log(fleet: Fleet, way: str) -> None:
    fleet.ended("conda", way)
    log = fleet.client.logs(fleet.jobs["conda", way, "image"].id)
    assert log.startswith("environment: app\n")
    assert log.endswith("printed by the script\n") == (way == "script")
