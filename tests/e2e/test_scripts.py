"""Scripts: a local file runs in a container of any image that has the interpreter, a fresh one each time."""

from __future__ import annotations

import json

from hecaton.client import Client
from hecaton.testing.cluster import LocalCluster
from tests.e2e.commands import Person
from tests.e2e.conftest import PYTHON, ended

TRAIN = """
import argparse, json, os, socket, sys
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int)
arguments = parser.parse_args()
for epoch in range(arguments.epochs):
    print(f"epoch {epoch}")
print("a warning", file=sys.stderr)
with open(os.environ["HECATON_OUTPUT"], "w") as output:
    json.dump({"epochs": arguments.epochs, "container": socket.gethostname()}, output)
"""

SHELL = """\
#!/bin/sh
echo "arguments: $# $1"
echo "{\\"kernel\\": \\"$(uname -s)\\"}" > "$HECATON_OUTPUT"
"""


def test_a_python_script_gets_its_arguments_and_its_result_is_what_it_wrote(person: Person) -> None:
    person.write("train.py", TRAIN)
    results = []
    for _ in range(2):
        done = person.types(f"hecaton job new train.py {PYTHON} --script --wait -- --epochs 3")
        results.append(json.loads(done.out))
        assert "epoch 0\nepoch 1\nepoch 2\n" in done.err, "the live log"
        assert "a warning" in done.err
    assert [result["epochs"] for result in results] == [3, 3]
    assert results[0]["container"] != results[1]["container"], "each attempt has a fresh container"


def test_a_shell_script_runs_in_an_image_without_python(cluster: LocalCluster, person: Person, base_image: str) -> None:
    cluster.register(base_image)
    person.write("job.sh", SHELL)
    done = person.types(f"hecaton job new job.sh {base_image} --script --wait -- 'with spaces'")
    assert json.loads(done.out) == {"kernel": "Linux"}
    assert "arguments: 1 with spaces" in done.err


def test_the_exit_code_decides(person: Person, admin: Client) -> None:
    person.write("fails.py", "import sys\nprint('so far so good')\nsys.exit(7)\n")
    job_id = person.types(f"hecaton job new fails.py {PYTHON} --script").out.strip()
    done = person.types(f"hecaton job wait {job_id}", code=1)
    assert "script_exit\nthe script ended with exit code 7" in done.err
    assert done.out == ""
    view = admin.job(job_id)
    assert (view.state, view.exit_code) == ("FAILED", 7)
    assert "so far so good" in str(view.log_tail)
    assert "so far so good" in person.types(f"hecaton job show {job_id}").out


def test_a_script_without_a_result_file_finishes_without_a_result(person: Person, admin: Client) -> None:
    script = person.write("silent.py", "pass\n")
    assert admin.submit(PYTHON, mode="script", file=script).result(60) is None


def test_a_result_that_is_no_json_fails_the_job_with_that_reason(person: Person, admin: Client) -> None:
    script = person.write("bad.sh", 'echo "not JSON" > "$HECATON_OUTPUT"\n')
    view = ended(admin.submit(PYTHON, mode="script", file=script))
    assert (view.state, view.reason) == ("FAILED", "result_invalid")


def test_a_script_that_raises_shows_its_traceback_in_the_log(person: Person) -> None:
    person.write("raises.py", "def compute():\n    return 1 / 0\ncompute()\n")
    done = person.types(f"hecaton job new raises.py {PYTHON} --script --wait", code=1)
    assert "ZeroDivisionError" in done.err
    assert "line 2, in compute" in done.err


def test_an_unknown_kind_of_file_is_refused_at_once_with_what_to_do(person: Person, admin: Client) -> None:
    person.write("notes.txt", "hello\n")
    before = admin.jobs()
    done = person.types(f"hecaton job new notes.txt {PYTHON} --script --wait", code=2)
    assert "which interpreter runs 'notes.txt'" in done.err
    assert "#!/usr/bin/env python3" in done.err
    assert admin.jobs() == before


def test_lines_that_end_as_on_windows_run_as_they_read(person: Person) -> None:
    person.write("job.sh", "set -e\r\ncp /no/such /x\r\necho done\r\n")
    done = person.types(f"hecaton job new job.sh {PYTHON} --script --wait", code=1)
    assert "cannot stat '/no/such'" in done.err
    assert "invalid option" not in done.err
    assert "done" not in done.err.split()
