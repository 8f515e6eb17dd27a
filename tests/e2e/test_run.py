"""`hecaton run` as a user types it, who has registered nothing, on a real engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hecaton.core.model import Role
from hecaton.testing.cluster import LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import PYTHON
from tests.engine.daemon import docker

ALIAS = "e2e/first-use:1"


@pytest.fixture(scope="module")
def ann(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """No admin."""
    cluster.client().create_user("runner", "password of runner", Role.USER)
    return Person(tmp_path_factory.mktemp("runner")).logs_in(cluster.url, "runner", "password of runner")


@pytest.fixture(scope="module")
def alias(python39_image: str) -> Iterator[str]:
    """An image on the worker's machine that nobody has registered."""
    docker("tag", python39_image, ALIAS)
    yield ALIAS
    docker("rmi", ALIAS)


def test_a_script_runs_where_nothing_is_said_of_an_image(ann: Person) -> None:
    ann.write("train.py", "import sys\nprint('lr', *sys.argv[1:])\nsys.exit(len(sys.argv))\n")
    done = ann.types("hecaton run train.py --lr 0.1", code=3)
    assert done.out == "lr --lr 0.1\n"
    first, second, *_ = done.err.splitlines()
    assert first.startswith("train.py goes alone: ")  # where ann works is her home folder
    assert second.endswith(f"is submitted, in {PYTHON}.")
    assert "script_exit" in done.err


PROJECT = {
    "hecaton.toml": "",
    "train.py": "import helper, pack.model\nprint(helper.X, pack.model.Y, open('data/in.txt').read())\n",
    "helper.py": "X = 1\n",
    "pack/__init__.py": "",
    "pack/model.py": "from .parts import Y\n",
    "pack/parts.py": "Y = 2\n",
    "data/in.txt": "three",
    ".env": "SECRET=1\n",
}


def test_what_lies_beside_a_script_is_there_and_keys_are_not(ann: Person) -> None:
    for name, content in PROJECT.items():
        (ann.folder / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        ann.write(f"project/{name}", content)
    done = ann.types("cd project && hecaton run train.py")
    assert done.out == "1 2 three\n"
    assert done.err.startswith("7 files (")
    ann.write("project/helper.py", "X = 'changed'\n")
    assert ann.types("hecaton run project/train.py").out == "changed 2 three\n"
    listed = ann.types("cd project && hecaton run -- sh -c 'pwd; ls -A'").out.split()
    assert listed[0] == "/workdir"
    assert "train.py" in listed
    assert ".env" not in listed


def test_a_command_is_piped_on_as_if_it_ran_here(ann: Person) -> None:
    assert ann.types("hecaton run -e A='b c' -- env | grep ^A=").out == "A=b c\n"
    missing = ann.types("hecaton run -- no-such-program", code=127)
    assert "no-such-program: not found" in missing.out


def test_an_image_that_nobody_has_registered_is_his_who_uses_it(ann: Person, person: Person, alias: str) -> None:
    assert ann.types(f"hecaton run -i {alias} -- echo hello").out == "hello\n"
    assert alias in ann.types("hecaton image list").out
    assert alias not in person.types("hecaton image list").out


def test_what_takes_too_long_is_124(ann: Person) -> None:
    done = ann.types("hecaton run --timeout 1 -- sleep 60", code=124)
    assert "timeout" in done.err


def test_a_run_that_is_detached_is_there_for_later(ann: Person) -> None:
    job = ann.types("hecaton run -d -- echo later").out.strip()
    assert "later" in ann.types(f"hecaton job wait {job}").err


MAKES = """
import os, sys, pathlib
out = pathlib.Path("/outputs")
assert os.environ["HECATON_OUTPUTS"] == "/outputs"
(out / "plots").mkdir()
(out / "plots/loss.txt").write_text("0.1")
(out / "last").symlink_to("plots")
(out / "model.bin").write_bytes(bytes(range(256)) * 8192)  # 2 MiB: not with the others
sys.exit(len(sys.argv) - 1)
"""


@pytest.mark.parametrize("arguments", ["", "fail fail"])
def test_what_a_script_puts_into_outputs_comes_back_also_when_it_fails(ann: Person, arguments: str) -> None:
    ann.write("makes.py", MAKES)
    done = ann.types(f"hecaton run makes.py {arguments}", code=len(arguments.split()))
    number = done.err.rpartition("outputs/")[2].strip()
    assert number.isdecimal()
    assert done.err.splitlines()[-2:] == [
        "last was not kept: it is a link",
        f"2 files, 2.0 MiB: outputs/{number}",
    ]
    assert (ann.folder / f"outputs/{number}/plots/loss.txt").read_text() == "0.1"
    listed = ann.types(f"hecaton get {number} '*.bin' --list").out
    assert "2.0 MiB  model.bin" in listed
    assert "loss" not in listed
    assert ann.types(f"hecaton get {number} plots -o of-{number}").err == f"1 file, 3 B: of-{number}\n"
