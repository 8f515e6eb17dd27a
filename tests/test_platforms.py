"""The client installs and runs on Windows and macOS, the server on macOS; what cannot run somewhere says so.

There is no other system here: the index says what installs there, the types of the standard library what it has there
(`make check`), and `tests.elsewhere` runs our own code without what it lacks there.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.elsewhere import Elsewhere, holds, requirements
from tests.server.running import PASSWORD, running

CLIENT = {"click", "msgspec", "platformdirs", "prompt-toolkit", "rich", "urllib3"}
SERVER = {
    "argon2-cffi",
    "cryptography",
    "httptools",
    "prometheus-client",
    "pyjwt",
    "starlette",
    "structlog",
    "uvicorn",
    "uvloop",
    "websockets",
}
WORKER = {"aiodocker", "aiohttp", "nvidia-ml-py"}
NEEDED = {"win32": CLIENT, "darwin": CLIENT | SERVER, "linux": CLIENT | SERVER | WORKER}

PYTHON = "3.12"
TAGS = {"win32": "win_amd64", "darwin": "macosx_11_0_arm64"}


@pytest.fixture(scope="module")
def windows() -> Iterator[Elsewhere]:
    with Elsewhere("win32") as there:
        yield there


@pytest.fixture(scope="module")
def macos() -> Iterator[Elsewhere]:
    with Elsewhere("darwin") as there:
        yield there


@pytest.fixture(params=["win32", "darwin"])
def there(request: pytest.FixtureRequest, windows: Elsewhere, macos: Elsewhere) -> Elsewhere:
    """Both, one after the other."""
    return windows if request.param == "win32" else macos


# -- what installs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("system", sorted(NEEDED))
def test_each_system_gets_what_runs_there_and_nothing_else(system: str) -> None:
    assert {canonicalize_name(one.name) for one in requirements(system)} == NEEDED[system]


def test_images_of_an_old_python_get_nothing() -> None:
    for system in NEEDED:
        assert requirements(system, "3.8") == []


def test_the_index_has_a_wheel_of_everything_that_is_needed_there(tmp_path: Path) -> None:
    """pip evaluates markers for the Python that runs it, so those of the other system are evaluated here, until nothing
    is missing in what it has found."""
    with ThreadPoolExecutor() as threads:
        missing = threads.map(lambda system: _not_found(system, tmp_path / system), TAGS)
    assert list(missing) == [set(), set()]


def _not_found(system: str, folder: Path) -> set[NormalizedName]:
    folder.mkdir()
    wanted = {canonicalize_name(one.name): str(_bare(one)) for one in requirements(system, PYTHON)}
    while True:
        found = _resolved(list(wanted.values()), TAGS[system], folder)
        needed = [one for requires in found.values() for one in requires if holds(one, system, PYTHON)]
        more = {name: str(_bare(one)) for one in needed if (name := canonicalize_name(one.name)) not in found}
        if not more:
            return set(wanted) - set(found)
        wanted |= more


def _bare(requirement: Requirement) -> Requirement:
    """Without its marker, which holds there."""
    copy = Requirement(str(requirement))
    copy.marker = None
    return copy


def _resolved(wanted: list[str], tag: str, folder: Path) -> dict[str, list[Requirement]]:
    """What pip would install there, by name, each with its own requirements. Wheels alone."""
    report = folder / "report.json"
    options = ["--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", str(folder / "none")]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    there = ["--platform", tag, "--python-version", PYTHON, "--implementation", "cp", "--report", str(report)]
    done = subprocess.run([*pip, *there, *wanted], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    metadata = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {
        canonicalize_name(one["name"]): [Requirement(text) for text in one.get("requires_dist") or ()]
        for one in metadata
    }


# -- what runs -------------------------------------------------------------------------------------

IMPORT_CLIENT = """
from importlib import import_module
for module in modules_of("hecaton.client", "hecaton.core", "hecaton.wire", "hecaton.cli.hecaton"):
    if module.startswith("hecaton.cli.hecaton.machine.") and not module.endswith((".join", ".up")):
        continue  # what `up` does, on Linux alone
    import_module(module)
"""

EVERY_HELP = """
import click
from hecaton.cli.hecaton.main import root, run

def walk(command, words):
    assert run([*words, "--help"]) == 0, words
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            walk(command.get_command(click.Context(command), name), [*words, name])

walk(root, [])
assert run(["--version"]) == 0
"""


def test_client_command_line_and_shell_load_and_every_command_explains_itself(there: Elsewhere) -> None:
    said = there.must(IMPORT_CLIENT + EVERY_HELP)
    assert said.count("Usage: ") > 30
    assert "hecaton 2." in said


def test_the_server_loads_on_macos_and_stores_large_uploads(macos: Elsewhere, tmp_path: Path) -> None:
    code = """
import os, sys
from importlib import import_module
from pathlib import Path
for module in modules_of("hecaton.server", "hecaton.store", "hecaton.cli.hecaton_server"):
    import_module(module)
from hecaton.store.blobs import AHEAD, FolderBlobs
writer = FolderBlobs(Path(os.environ["HECATON_HOME"])).writer()
writer.write(bytes(2 * AHEAD))
print(len(writer.commit()))
from hecaton._entry import server
sys.argv[1:] = ["--help"]
server()
"""
    said = macos.must(code, HECATON_HOME=str(tmp_path))
    assert said.startswith("64\n")
    assert "Usage: hecaton-server" in said


def test_the_server_serves_on_macos_until_it_is_told_to_stop(macos: Elsewhere, tmp_path: Path) -> None:
    code = """
import os, resource, signal, threading
from pathlib import Path
import uvloop
from hecaton.client import Client
from hecaton.server.app import serve
from hecaton.server.settings import Settings

def visit(port):
    client = Client(f"http://127.0.0.1:{port}")
    client.login("admin", os.environ["PASSWORD"])
    client.add_image("team/app:1", verify=False)
    print(client.submit("team/app:1", {"a": 1}).index, resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 10240)
    os.kill(os.getpid(), signal.SIGTERM)

def say(started):
    threading.Thread(target=visit, args=(started.port,)).start()

settings = Settings(folder=Path(os.environ["HECATON_HOME"]), host="127.0.0.1", port=0)
uvloop.run(serve(settings, os.environ["PASSWORD"], say))
"""
    assert macos.must(code, HECATON_HOME=str(tmp_path / "home"), PASSWORD=PASSWORD).endswith("\n1 True\n")


def test_what_cannot_run_there_says_where_it_runs(windows: Elsewhere, macos: Elsewhere) -> None:
    for there, part, sentence in (
        (
            windows,
            "server",
            "hecaton-server runs on Linux and macOS; on this system (win32) there is the client: hecaton.",
        ),
        (windows, "worker", "hecaton-gpu runs on Linux, also inside WSL 2; on this system (win32)"),
        (macos, "worker", "hecaton-gpu runs on Linux, also inside WSL 2; on this system (darwin)"),
    ):
        done = there.run(f"from hecaton._entry import {part}; {part}()")
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith(sentence)


def test_the_demo_says_that_workers_run_on_linux(there: Elsewhere) -> None:
    done = there.run("from hecaton.cli.hecaton.main import run; raise SystemExit(run(['demo']))")
    assert (done.code, done.out) == (2, "")
    assert "workers run on Linux" in done.err
    assert "hecaton server new" in done.err


async def test_a_session_with_a_real_server(there: Elsewhere, tmp_path: Path) -> None:
    payload = tmp_path / "payload.json"
    payload.write_text('{"a": 1}')
    lines = [
        "server login lab --username admin",
        "image new team/app:1 --no-verify",
        f"job new {payload} team/app:1",
        "job list",
        "job cancel 1",
        "job show 1 --json",
        "server list",
    ]
    async with running(tmp_path / "server") as server:
        lines.insert(0, f"server new --ip {server.url} --name lab")
        code = (
            f"from hecaton.cli.hecaton.main import run\nfor line in {lines}: assert run(line.split()) in (0, 3), line"
        )
        environment = {"HECATON_HOME": str(tmp_path / "home"), "HECATON_PASSWORD": PASSWORD}
        assert "CANCELLED" in await asyncio.to_thread(there.must, code, **environment)


# -- what is different on Windows ------------------------------------------------------------------


def test_commands_that_run_at_once_lose_no_server(windows: Elsewhere, tmp_path: Path) -> None:
    """Behind Windows' lock, which `tests.elsewhere` plays."""
    code = """
from hecaton.client import profiles
for count in range(10):
    profiles.add(profiles.Profile(f"{number}-{count}", "lab:8181"))
"""
    done = windows.run_copies(4, code, HECATON_HOME=str(tmp_path))
    assert [(one.code, one.err) for one in done] == [(0, "")] * 4
    stored = json.loads((tmp_path / "client" / "servers.json").read_text())
    assert len({server["name"] for server in stored["servers"]}) == 40
    assert sorted(path.name for path in (tmp_path / "client").iterdir()) == ["servers.json", "servers.lock"]


def test_a_list_that_somebody_reads_at_that_moment_is_replaced_a_little_later(
    windows: Elsewhere, tmp_path: Path
) -> None:
    code = """
import os
from pathlib import Path
from hecaton.client import shared_file
replace, refused = os.replace, []
def busy(old, new):
    if len(refused) < 3:
        refused.append(new)
        raise PermissionError(13, "The process cannot access the file", new)
    replace(old, new)
os.replace = busy
path = Path(os.environ["HECATON_HOME"]) / "list"
shared_file.replace(path, b"new")
print(path.read_text(), len(refused))
"""
    assert windows.must(code, HECATON_HOME=str(tmp_path)).split() == ["new", "3"]


def test_paths_keep_their_backslashes_in_the_shell_of_windows(windows: Elsewhere, macos: Elsewhere) -> None:
    code = r"""
from hecaton.cli.hecaton.main import root
from hecaton.cli.hecaton.shell import completions, run_line
for line in (r'job new C:\data\x.json "two words" a\ b', r'"C:\Program Files\x"'):
    run_line(line, None, lambda words, server: print(words))
print(completions(root, r'job new C:\da', None)[0])
"""
    assert windows.must(code).splitlines() == [
        r"['job', 'new', 'C:\\data\\x.json', 'two words', 'a\\', 'b']",
        r"['C:\\Program Files\\x']",
        r"C:\da",
    ]
    assert macos.must(code).splitlines()[0] == "['job', 'new', 'C:datax.json', 'two words', 'a b']"


def test_output_into_a_file_is_utf8_on_windows(windows: Elsewhere, tmp_path: Path) -> None:
    code = """
import sys
from hecaton._entry import client
from hecaton.client import profiles
sys.stdout.reconfigure(encoding="cp1252", errors="strict")
profiles.add(profiles.Profile("\u6f22\u5b57", "lab:8181"))
sys.argv[1:] = ["server", "list"]
client()
"""
    assert "漢字" in windows.must(code, HECATON_HOME=str(tmp_path))
