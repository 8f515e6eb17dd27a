"""`hecaton run`: what is sent, whose options are whose, with which exit code it leaves, and hecaton.toml."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hecaton.cli.hecaton.project import KEYS
from hecaton.core.files import manifest
from hecaton.core.model import Reason
from hecaton.wire.api import JobView
from tests.cli.conftest import Ended, Invoke
from tests.cli.test_jobs import SUBMITTED, ends_as, event
from tests.cli.test_new import Uploads
from tests.cli.views import JOB_ID, failed, finished, image, job
from tests.client.scripted import ScriptedServer, error, reply

INFO = {"version": "2", "username": "ann", "role": "user", "max_payload": 1, "max_result": 1}
DEFAULT = {**INFO, "default_image": "python:3.12-slim"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a script in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def takes(server: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.setattr(server, "take", Uploads(server))
    server.on("POST", "/v1/jobs", SUBMITTED)
    server.on("GET", "/v1/server", reply(DEFAULT))
    ends_as(server, finished(None, mode="script"), event("log", "step 1\n", attempt=1, offset=7))
    return server


def _sent(server: ScriptedServer) -> dict[str, Any]:
    found: dict[str, Any] = server.asked("POST", "/v1/jobs")[-1].json()
    return found


def _refused(ended: Ended, first: str, second: str) -> None:
    assert (ended.code, ended.out) == (125, "")
    lines = ended.err.splitlines()
    assert lines[0] == f"Error: {first}"
    assert lines[1] == second


# -- what is sent ----------------------------------------------------------------------------------


def test_a_file_is_a_script_in_the_default_image_and_its_output_is_on_stdout(
    invoke: Invoke, takes: ScriptedServer
) -> None:
    ended = invoke("run", "train.py", "--epochs", "3", "--json", "--", "-x")
    assert (ended.code, ended.out) == (0, "step 1\n")
    assert ended.err.splitlines()[0] == "Job 12 is submitted, in python:3.12-slim."
    sent = _sent(takes)
    assert (sent["mode"], sent["image"], sent["file_name"]) == ("script", "python:3.12-slim", "train.py")
    assert sent["args"] == ["--epochs", "3", "--json", "--", "-x"]


def test_our_options_stand_before_the_file(invoke: Invoke, takes: ScriptedServer) -> None:
    line = ["-d", "-i", "team/app:1", "-e", "A=1", "--name", "mine", "--timeout", "2h", "--tag", "k=v", "--no-overlap"]
    ended = invoke("run", *line, "train.py", "-d", "--name", "its")
    assert (ended.code, ended.out) == (0, JOB_ID + "\n")
    sent = _sent(takes)
    assert (sent["image"], sent["env"], sent["name"], sent["timeout"]) == ("team/app:1", {"A": "1"}, "mine", 7200.0)
    assert (sent["tags"], sent["no_overlap"], sent["args"]) == ({"k": "v"}, True, ["-d", "--name", "its"])
    assert takes.asked("GET", "/v1/server") == []


@pytest.mark.parametrize(
    ("words", "name", "script", "args"),
    [
        (["nvidia-smi"], "nvidia-smi", '#!/bin/sh\nexec nvidia-smi "$@"\n', []),
        (["/usr/bin/env", "-i", "a b"], "env", '#!/bin/sh\nexec /usr/bin/env "$@"\n', ["-i", "a b"]),
        (["my tool", "--", "x"], "my tool", "#!/bin/sh\nexec 'my tool' \"$@\"\n", ["--", "x"]),
        (["x" * 300], "x" * 64, f'#!/bin/sh\nexec {"x" * 300} "$@"\n', []),
    ],
)
def test_a_command_is_a_script_of_one_line(
    invoke: Invoke, takes: ScriptedServer, words: list[str], name: str, script: str, args: list[str]
) -> None:
    assert invoke("run", "-d", "--", *words).code == 0
    sent = _sent(takes)
    assert (sent["file_name"], sent.get("args", []), sent["mode"]) == (name, args, "script")
    assert sent["file"] == hashlib.sha256(script.encode()).hexdigest()


def test_what_a_file_lacks_is_said_as_with_job_new(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    (here / "helper.py").write_text("")
    (here / "train.py").write_text("import helper\nimport torch\n")
    ended = invoke("run", "--no-workdir", "train.py")
    assert "Warning: train.py imports helper from beside it, which does not travel: --workdir ." in ended.err
    ended = invoke("run", "train.py")
    assert "helper" not in ended.err
    assert "Warning: train.py imports torch: python:3.12-slim as it is published" in ended.err


def test_an_image_that_is_nearly_another_is_wondered_at(invoke: Invoke, takes: ScriptedServer) -> None:
    new = image("n1-imag", owner="ann", created_at=time.time())
    takes.on("GET", "/v1/images", reply([image("n1-image"), new]))
    assert "Did you mean 'n1-image'?" in invoke("run", "-i", "n1-imag", "train.py").err


# -- the folder that goes along --------------------------------------------------------------------


def _folder_of(server: ScriptedServer) -> list[str]:
    """What is in the folder that went along, by the manifest that was sent."""
    *_, (path, body) = [(seen.path, seen.body) for seen in server.seen if seen.path.startswith("/v1/folders/")]
    assert _sent(server)["workdir"] == path.rpartition("/")[2]
    return [entry.path for entry in manifest.decoded(body).entries]


def test_the_folder_of_the_script_goes_along_and_is_said(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    assert "along" not in invoke("run", "train.py").err
    assert _folder_of(takes) == ["train.py"]
    (here / "lib").mkdir()
    (here / "lib/helper.py").write_text("x = 1\n")
    (here / ".env").write_text("SECRET=1\n")
    assert invoke("run", "train.py").err.splitlines()[0] == f"2 files (15 B) of {here} go along."
    assert _folder_of(takes) == ["lib/helper.py", "train.py"]


def test_the_folder_is_that_of_the_project(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    (here / "src").mkdir()
    (here / "src/main.py").write_text("")
    (here / "data.ckpt").write_text("")
    invoke("run", "src/main.py")
    assert _folder_of(takes) == ["main.py"]
    (here / "hecaton.toml").write_text('exclude = ["*.ckpt"]\n')
    invoke("run", "src/main.py")
    assert _folder_of(takes) == ["hecaton.toml", "src/main.py", "train.py"]
    invoke("run", "--", "ls")
    assert _folder_of(takes) == ["hecaton.toml", "src/main.py", "train.py"]
    invoke("run", "--workdir", "src", "train.py")
    assert _folder_of(takes) == ["main.py"]
    invoke("run", "--no-workdir", "train.py")
    assert "workdir" not in _sent(takes)


def test_a_home_folder_does_not_go_along(
    invoke: Invoke, takes: ScriptedServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / ".git").mkdir()
    ended = invoke("run", "train.py")
    assert f"train.py goes alone: {here} is no folder of a project. --workdir FOLDER sends one along." in ended.err
    assert "workdir" not in _sent(takes)


def test_what_would_go_is_listed_and_nothing_sent(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    (here / ".env").write_text("SECRET=1\n")
    ended = invoke("run", "--dry-run", "train.py")
    assert (ended.code, ended.out) == (0, "       9 B  train.py\n")
    assert "stays here  .env" in ended.err
    assert f"1 file (9 B) of {here} would go along. Nothing was sent." in ended.err
    assert takes.asked("POST", "/v1/jobs") == []
    assert invoke("run", "--dry-run", "--no-workdir", "train.py").err == "train.py would go alone. Nothing was sent.\n"
    alone = invoke("--json", "run", "--dry-run", "--no-workdir", "train.py")
    assert json.loads(alone.out) == {"folder": None, "files": [], "left": []}


def test_what_earlier_jobs_have_brought_back_does_not_go_along(
    invoke: Invoke, takes: ScriptedServer, here: Path
) -> None:
    for name in ("outputs/411/model.pt", "sub/outputs/412/model.pt", "outputs/notes/by_hand.txt"):
        (here / name).parent.mkdir(parents=True)
        (here / name).write_text("x")
    ended = invoke("run", "--dry-run", "train.py")
    assert "by_hand.txt" in ended.out
    assert "model.pt" not in ended.out
    assert "stays here  outputs/411/" in ended.err
    assert "model.pt" in invoke("run", "--dry-run", "--workdir", "outputs/411", "train.py").out
    (here / ".hecatonignore").write_text("!outputs/411/\n")
    assert "outputs/411/model.pt" in invoke("run", "--dry-run", "train.py").out


def test_of_a_job_that_names_no_folder_none_is_listed(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    words = ("job", "new", "train.py", "python:3.12-slim", "--script", "--dry-run")
    ended = invoke(*words)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "No folder would go along: --workdir FOLDER sends one. Nothing was sent.\n"
    assert invoke(*words, "--workdir", ".").out == "       9 B  train.py\n"


def test_a_folder_that_is_too_large_to_be_meant_is_refused_with_the_ways_out(
    invoke: Invoke, takes: ScriptedServer, here: Path
) -> None:
    with open(here / "huge", "wb") as file:
        file.truncate(2 * 1024**3)
    ended = invoke("run", "train.py")
    assert (ended.code, ended.out) == (125, "")
    assert f"Error: the files in {here} have more than 1,024 MiB together" in ended.err
    assert "--no-workdir sends the file alone" in ended.err
    assert takes.asked("POST", "/v1/jobs") == []


def test_exclude_is_a_list(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    (here / "hecaton.toml").write_text('exclude = "*.ckpt"\n')
    assert "hecaton.toml, line 1: exclude has to be a list of texts" in invoke("run", "train.py").err


# -- exit codes ------------------------------------------------------------------------------------


def _failed(reason: Reason, exit_code: int | None = None) -> JobView:
    return failed("it failed", reason=reason, exit_code=exit_code, mode="script")


@pytest.mark.parametrize(
    ("view", "code"),
    [
        (_failed(Reason.SCRIPT_EXIT, 7), 7),
        (_failed(Reason.SCRIPT_EXIT, 139), 139),
        (_failed(Reason.TIMEOUT, 143), 124),
        (_failed(Reason.OOM_HOST, 137), 137),
        (_failed(Reason.OOM_GPU, 1), 1),
        (_failed(Reason.WORKER_LOST), 125),
        (_failed(Reason.IMAGE_DENIED), 125),
        (job("CANCELLED", mode="script"), 130),
        (finished(1, mode="script"), 0),
    ],
)
def test_it_leaves_as_the_script_did(invoke: Invoke, takes: ScriptedServer, view: JobView, code: int) -> None:
    ends_as(takes, view)
    assert invoke("run", "train.py").code == code


def test_what_is_hecaton_s_own_is_125(invoke: Invoke, takes: ScriptedServer) -> None:
    takes.on("POST", "/v1/jobs", error(404, "not_found", "image 'x' is not registered", "Ask an admin."))
    _refused(invoke("run", "-i", "x", "train.py"), "image 'x' is not registered", "Ask an admin.")
    takes.on("GET", "/v1/server", reply(INFO))
    _refused(invoke("run", "train.py"), "this server has no default image: name one", "hecaton run -i IMAGE FILE")


# -- typing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "message", "line"),
    [
        (["nvidia-smi", "-L"], "there is no file nvidia-smi", "hecaton run -- nvidia-smi -L"),
        (["python", "train.py", "--lr", "1"], "there is no file python", "hecaton run train.py --lr 1"),
        (["--epochs", "3", "train.py"], "No such option '--epochs'.", "hecaton run train.py --epochs 3"),
        (["-d", "--lr=1", "train.py", "x"], "No such option '--lr'.", "hecaton run -d train.py --lr=1 x"),
    ],
)
def test_a_line_that_is_nearly_right_gets_the_right_one(
    invoke: Invoke, takes: ScriptedServer, typed: list[str], message: str, line: str
) -> None:
    _refused(invoke("run", *typed), message, f"You may mean: {line}")
    assert takes.seen == []


def test_a_file_that_is_not_there_and_an_option_that_is_not(invoke: Invoke, takes: ScriptedServer) -> None:
    ended = invoke("run", "trian.py")
    assert (ended.code, ended.err) == (125, "Error: there is no file trian.py\n")
    ended = invoke("run", "--tiemout", "1h")
    assert (ended.code, "'--timeout'" in ended.err.splitlines()[0]) == (125, True)
    assert takes.seen == []


def test_the_help_shows_what_is_needed_daily_and_all_of_it_when_asked(invoke: Invoke, here: Path) -> None:
    short, alone, every = invoke("run", "-h"), invoke("run"), invoke("run", "--help-all")
    assert (short.code, alone.code, every.code) == (0, 0, 0)
    assert short.out == alone.out
    for option in ("--detach", "--image", "--env", "--name", "--timeout", "--help-all"):
        assert f"{option} " in short.out
    for option in (
        "--retries",
        "--priority",
        "--queue-ttl",
        "--no-overlap",
        "--entrypoint",
        "--tag",
        "--startup-timeout",
    ):
        assert f"{option} " not in short.out
        assert f"{option} " in every.out
    titles = [line for line in every.out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options:", "Its container:", "Its place in the queue:", "How it is found again:", "This line:"]


# -- hecaton.toml ----------------------------------------------------------------------------------


def test_hecaton_toml_is_what_is_typed_each_time_and_the_line_goes_before_it(
    invoke: Invoke, takes: ScriptedServer, here: Path
) -> None:
    (here / "hecaton.toml").write_text(
        'image = "team/app:1"\nname = "mine"\ntimeout = "2h"\nretries = 3\nno-overlap = true\nserver = "my-server"\n'
        '[env]\nA = "1"\nB = "2"\n[tags]\nk = "v"\n'
    )
    assert invoke("run", "-d", "train.py").code == 0
    sent = _sent(takes)
    assert (sent["image"], sent["name"], sent["timeout"], sent["retries"]) == ("team/app:1", "mine", 7200.0, 3)
    assert (sent["no_overlap"], sent["env"], sent["tags"]) == (True, {"A": "1", "B": "2"}, {"k": "v"})
    assert invoke("run", "-d", "-i", "other:1", "-e", "B=3", "--timeout", "1m", "train.py").code == 0
    sent = _sent(takes)
    assert (sent["image"], sent["timeout"], sent["env"]) == ("other:1", 60.0, {"A": "1", "B": "3"})


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (
            '# mine\nimgae = "x"\n',
            "hecaton.toml, line 2: there is no key 'imgae'. Did you mean 'image'?",
            f"Keys: {', '.join(KEYS)}.",
        ),
        ("image = x\n", "hecaton.toml cannot be read: Invalid value (at line 1, column 9)", None),
        ('\ntimeout = "soon"', "hecaton.toml, line 2: 'soon' is no duration: write seconds, or 90s, 15m, 2h, 1d", None),
        ("retries = 101", "hecaton.toml, line 1: retries is 101: expected a whole number from 0 to 100", None),
        ("image = 3", "hecaton.toml, line 1: image has to be a text in quotes", None),
        (
            "[env]\nA = 1", "hecaton.toml, line 1: env has to be a table of texts",
            'Write { KEY = "value" }, numbers in quotes too.',
        ),
        ('server = "https://x:1"', "hecaton.toml, line 1: server is an address", "Write its name: hecaton server list"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_in_it_is_named_with_its_line(
    invoke: Invoke, takes: ScriptedServer, here: Path, text: str, said: str, hint: str | None
) -> None:
    (here / "hecaton.toml").write_text(text)
    ended = invoke("run", "train.py")
    assert (ended.code, ended.err) == (125, f"Error: {said}\n" + (f"{hint}\n" if hint else ""))
    assert takes.seen == []


def test_save_writes_it_and_leaves_what_else_is_there(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    file = here / "hecaton.toml"
    ended = invoke("run", "--save", "-i", "team/app:1", "-e", 'A=b "c" \\ ü', "--timeout", "2h", "--no-overlap")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "Saved in hecaton.toml, with what A is: as readable as the file.\n"
    assert file.read_text() == (
        'image = "team/app:1"\ntimeout = 7200\nno-overlap = true\nenv = { A = "b \\"c\\" \\\\ ü" }\n'
    )
    file.write_text('# ours\nimage = "old"  # and why\n\n[tags]\nk = "v"')
    assert invoke("run", "--save", "-i", "new", "--name", "x", "-d", "train.py").code == 0
    assert file.read_text() == '# ours\nimage = "new"\nname = "x"\n\n[tags]\nk = "v"'
    assert (_sent(takes)["image"], _sent(takes)["tags"]) == ("new", {"k": "v"})
    ended = invoke("run", "--save", "--tag", "a=b", "train.py")
    assert (ended.code, 'Write there yourself: tags = { k = "v", a = "b" }' in ended.err) == (125, True)
    assert file.read_text().endswith('[tags]\nk = "v"')


def test_what_is_saved_later_stands_beside_what_is_there_and_times_are_written_in_full(
    invoke: Invoke, takes: ScriptedServer, here: Path
) -> None:
    invoke("run", "--save", "-e", "A=1", "-e", "B=1", "--tag", "k=v", "--timeout", "1234567")
    assert invoke("run", "--save", "-e", "B=2", "--tag", "a=b", "-d", "train.py").code == 0
    sent = _sent(takes)
    assert (sent["env"], sent["tags"], sent["timeout"]) == ({"A": "1", "B": "2"}, {"k": "v", "a": "b"}, 1234567.0)
    assert (here / "hecaton.toml").read_text() == (
        'tags = { k = "v", a = "b" }\ntimeout = 1234567\nenv = { A = "1", B = "2" }\n'
    )


FULL = """
import resource, signal, sys
from pathlib import Path
from hecaton.cli.hecaton.project import Project, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, 8))
save(Path(), Project(image="team/another:1"))
"""


def test_a_disk_that_is_full_leaves_the_file_as_it_was_and_a_link_a_link(invoke: Invoke, here: Path) -> None:
    (here / "elsewhere").mkdir()
    (here / "hecaton.toml").symlink_to("elsewhere/shared.toml")
    assert invoke("run", "--save", "-i", "team/app:1").code == 0
    before = 'image = "team/app:1"\n'
    assert (here / "elsewhere" / "shared.toml").read_text() == before
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True)
    assert "hecaton.toml: File too large" in done.stderr
    assert (here / "elsewhere" / "shared.toml").read_text() == before
    assert sorted(path.name for path in (here / "elsewhere").iterdir()) == ["shared.toml"]


@pytest.mark.parametrize(("there", "name"), [(b"# ours\n", "\udcff"), (b"# \xff\n", "x"), (b"image = x\n", "x")])
def test_what_cannot_be_saved_leaves_the_file_as_it_was(
    invoke: Invoke, takes: ScriptedServer, here: Path, there: bytes, name: str
) -> None:
    (here / "hecaton.toml").write_bytes(there)
    ended = invoke("run", "--save", "--name", name)
    assert (ended.code, "fault of hecaton" in ended.err) == (125, False)
    assert (here / "hecaton.toml").read_bytes() == there


def test_a_command_leaves_no_file_here(invoke: Invoke, takes: ScriptedServer, here: Path) -> None:
    assert invoke("run", "-d", "--", "ls").code == 0
    assert sorted(os.listdir(here)) == ["train.py"]
