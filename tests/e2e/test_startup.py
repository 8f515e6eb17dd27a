"""What an image's ENTRYPOINT prints, perhaps for minutes, before a job's own code runs: it is seen meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from hecaton.client import Client
from hecaton.core.model import Mode
from hecaton.testing.cluster import LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import ACTOR, PATIENCE, make_image
from tests.engine.daemon import docker
from tests.engine.images import image_id

TAG = "hecaton-test/e2e-entrypoint:1"
ENTRYPOINT = """\
RUN printf '%s\\n' '#!/bin/sh' 'echo fetching weights' 'while [ ! -e /tmp/go ]; do sleep 0.05; done' \\
    'echo they are damaged >&2; [ -z "$DAMAGED" ] || exit 3' 'exec "$@"' > /entrypoint && chmod 755 /entrypoint
ENTRYPOINT ["/entrypoint"]
"""


@pytest.fixture(scope="module")
def image(cluster: LocalCluster) -> str:
    return make_image(cluster, TAG, ENTRYPOINT)


def go(image: str) -> None:
    """The ENTRYPOINT of the container that starts goes on."""
    (container,) = docker("ps", "--filter", f"ancestor={image}", "--format", "{{.ID}}").split()
    docker("exec", container, "touch", "/tmp/go")


@pytest.mark.parametrize("mode", [Mode.NATIVE, Mode.HANDLER, Mode.SCRIPT])
def test_what_it_prints_is_followed_before_the_job_runs_by_whichever_way_it_is_spoken_to(
    image: str, admin: Client, person: Person, tmp_path: Path, mode: Mode
) -> None:
    script = tmp_path / "script.sh"
    script.write_text("echo said\n")
    file = {Mode.NATIVE: None, Mode.HANDLER: ACTOR, Mode.SCRIPT: script}[mode]
    job = admin.submit(image, {"say": "said"} if file is not script else None, mode=mode, file=file)
    with person.starts(f"hecaton job logs -f {job.index}") as follower:
        follower.until("fetching weights\n")
        assert job.status() == "ASSIGNED"
        go(image)
        assert job.wait(PATIENCE).reason == "ok"
        follower.process.wait(PATIENCE)
        first, *others = follower.said().splitlines()
        assert first == "fetching weights"
        assert sorted(others) == ["said", "they are damaged"]  # the last come at once, in two ways, to the worker


def test_one_that_ends_before_the_script_runs_says_in_log_and_failure_why(
    image: str, admin: Client, person: Person, tmp_path: Path
) -> None:
    script = tmp_path / "script.sh"
    script.write_text("echo never\n")
    job = admin.submit(image, mode=Mode.SCRIPT, file=script, env={"DAMAGED": "yes"})
    with person.starts(f"hecaton job logs -f {job.index}") as follower:
        follower.until("fetching weights\n")
        go(image)
        view = job.wait(PATIENCE)
        follower.process.wait(PATIENCE)
        assert follower.said().startswith("fetching weights\nthey are damaged\n")
    assert (view.reason, view.attempts[-1].image_version) == ("startup_exit", image_id(image))
    assert view.failure is not None
    assert "fetching weights\nthey are damaged" in view.failure.message
