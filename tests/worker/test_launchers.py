"""What runs a job's file in its container: real shells and a real Python, without a container around them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hecaton.worker.doors.channel_folder import ChannelFolder
from hecaton.worker.doors.launch import Launched
from hecaton.worker.runtimes import python_mount
from hecaton.worker.runtimes.port import GROUP_VARIABLE, PYTHON_TARGET
from hecaton.worker.runtimes.python_mount import PYTHON_LAUNCHER, SHELL_LAUNCHER

SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "python": [sys.executable]}
PATIENCE = 20.0
PRINTS = "import os, sys\nprint(sys.argv)\nsys.stderr.write('warn\\n')\nos.write(1, b'raw\\n')\nsys.exit(5)\n"


class Site:
    """A channel folder with the mount in it, as a container sees them."""

    def __init__(self, folder: Path, launcher: list[str]) -> None:
        self.channel = ChannelFolder(folder)
        self.folder = folder
        mount = folder / "python"
        mount.rmdir()
        shutil.copytree(python_mount.build(folder.parent / "state"), mount)
        self.mount = mount
        file = PYTHON_LAUNCHER if launcher == SHELLS["python"] else SHELL_LAUNCHER
        self._command = [*launcher, str(mount / Path(file).relative_to(PYTHON_TARGET))]
        self.launched = Launched(self.channel.launched_fd)

    def file(self, text: str, name: str = "my file.py") -> str:
        self.channel.put_program(name, text.encode())
        return str(self.folder / "in" / name)

    def command(self, file: str, *args: str, by: str = "python3,python", output: str | None = None) -> list[str]:
        return [*self._command, output or str(self.folder / "log"), by, file, *args]

    def run(self, command: list[str], /, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HECATON_DIR": str(self.folder), **changes}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def begin(self, command: list[str], **changes: str) -> subprocess.Popen[bytes]:
        """In a process group of its own; returns when the file has printed something."""
        environment = {"PATH": os.environ["PATH"], "HECATON_DIR": str(self.folder), **changes}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not self.log and time.monotonic() < deadline:
            time.sleep(0.01)
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(params=SHELLS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "c", SHELLS[request.param])
    yield site
    site.channel.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "c", SHELLS["dash"])
    yield site
    site.channel.close()


def test_the_file_runs_as_if_there_were_no_launcher(site: Site) -> None:
    file = site.file(PRINTS)
    assert not site.launched.look()
    done = site.run(site.command(file, "a b", "", "$HOME"), PYTHONUNBUFFERED="1")
    assert (done.returncode, done.stdout, done.stderr) == (5, "", "")
    assert site.log == f"{[file, 'a b', '', '$HOME']}\nwarn\nraw\n"
    assert site.launched.look()


def test_output_that_is_asked_for_nowhere_stays_where_it_is(site: Site) -> None:
    done = site.run(site.command(site.file("print('seen')"), output="-"))
    assert (done.stdout, site.log) == ("seen\n", "")


@pytest.mark.parametrize("signals", ["", "1"])
def test_the_images_variables_are_as_they_were_whatever_their_names(site: Site, signals: str) -> None:
    text = Path(site.command("")[-4]).read_text()
    words = {word: "the image's" for word in re.findall(r"\b[a-z]\w*", text) if not word.startswith("hecaton_")}
    assert "file" in words
    show = f"#!{sys.executable}\nimport os\nprint([name for name in {words} if os.environ.get(name) != {words}[name]])"
    site.run(site.command(site.file(show)), **words, **({GROUP_VARIABLE: signals} if signals else {}))
    assert site.log == "[]\n"


def test_the_kernel_reads_the_first_line(site: Site) -> None:
    file = site.file("#!/bin/bash -e\ncp /no/such /x\necho trained\n", "train.sh")
    assert site.run(site.command(file)).returncode == 1
    assert "trained" not in site.log
    file = site.file(f"#!{sys.executable} -I\nimport sys; print(sys.flags.isolated)", "isolated")
    assert site.run(site.command(file, by="-")).returncode == 0
    assert site.log.endswith("1\n")
    file = site.file("#! /usr/bin/perl\nprint 'from perl'", "job.py")
    assert site.run(site.command(file)).returncode == 0
    assert site.log.endswith("from perl")


def test_an_interpreter_that_is_not_there_is_named(site: Site) -> None:
    file = site.file("#!/no/such/python -u\n")
    assert site.run(site.command(file)).returncode == 127
    assert "/no/such/python" in site.log
    assert site.launched.look()


def test_none_of_the_interpreters_is_there(shell: Site) -> None:
    done = shell.run([shutil.which("dash") or "", *shell.command(shell.file("x"))[1:]], PATH="/no/where")
    assert done.returncode == 127
    assert shell.log == "hecaton: none of these is in this image, in PATH=/no/where: python3,python\n"


def test_a_script_of_the_shell_in_an_image_without_one(tmp_path: Path) -> None:
    site = Site(tmp_path / "c", SHELLS["python"])
    assert site.run(site.command(site.file("echo", "job.sh"), by="bash,sh")).returncode == 1
    assert "none of these is in this image: bash,sh" in site.log
    site.channel.close()


def test_an_entrypoint_that_empties_the_environment_is_told_of(shell: Site) -> None:
    done = shell.run(["env", "-i", *shell.command(shell.file("print('ran')"))])
    assert done.returncode == 127
    assert "took the variables of the job out of the environment" in shell.log
    assert "--entrypoint none" in shell.log
    assert "ran\n" not in shell.log


@pytest.mark.parametrize("own", [{}, {"PYTHONPATH": "/of/the/entrypoint"}])
def test_an_entrypoint_that_sets_its_own_python_path_hides_nothing_of_ours(shell: Site, own: dict[str, str]) -> None:
    file = shell.file("import sys, hecaton.serverless as s; print(s.__file__, *sys.path[1:3])")
    shell.run(shell.command(file), **own)
    first, second, *rest = shell.log.split()
    assert (first, second) == (f"{shell.mount}/hecaton/serverless/__init__.py", str(shell.mount))
    assert rest[: len(own)] == list(own.values())


def test_only_the_file_is_handed_what_it_needs_to_be_given_work(site: Site) -> None:
    file = site.file("import os; print(*(os.environ.get('HECATON_' + name) for name in ('NONCE', 'FILE_NONCE')))")
    site.run(site.command(file), HECATON_FILE_NONCE="ab")
    site.run(site.command(file))
    assert site.log == "ab None\nNone None\n"


def test_a_launcher_waits_for_no_worker(shell: Site) -> None:
    """One that is being restarted, say: nobody has the pipe open."""
    file = shell.file("print('ran')")
    shell.channel.close()
    assert shell.run(shell.command(file)).returncode == 0
    assert shell.log == "ran\n"


def test_signals_are_the_files_own(shell: Site) -> None:
    file = shell.file("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert shell.run(shell.command(file)).returncode == -signal.SIGTERM


SAVES = """\
import signal, sys, time
def save(number, frame):
    time.sleep(0.5)
    print("checkpoint saved", flush=True)
    sys.exit(1)
signal.signal(signal.SIGTERM, save)
print("training", flush=True)
time.sleep(60)
"""
WAITS = {
    "train.sh": f"#!/bin/sh\n{sys.executable} -c '{SAVES}'\n",
    "train.py": f"#!{sys.executable}\nimport subprocess, sys\nsubprocess.run([sys.executable, '-c', {SAVES!r}])\n",
}


class TestWhereASignalIsForTheWholeGroup:
    """As it is below an engine's init process, where the end of the launcher is the end of the container."""

    @pytest.mark.parametrize("name", WAITS)
    def test_the_launcher_outlives_the_file_until_all_have_saved_their_work(self, site: Site, name: str) -> None:
        launcher = site.begin(site.command(site.file(WAITS[name], name)), **{GROUP_VARIABLE: "1"})
        os.killpg(launcher.pid, signal.SIGTERM)
        assert launcher.wait(PATIENCE) == 128 + signal.SIGTERM
        assert site.log == "training\ncheckpoint saved\n"

    def test_nobody_waits_for_an_entrypoint_that_waits_for_the_launcher(self, site: Site) -> None:
        command = site.command(site.file(WAITS["train.py"], "train.py"))
        log = '>>"$HECATON_DIR/log"'
        waits = f"trap 'echo told {log}' TERM; \"$@\"; code=$?; echo cleanup {log}; exit $code"
        entrypoint = site.begin(["sh", "-c", waits, "entrypoint", *command], **{GROUP_VARIABLE: "1"})
        os.killpg(entrypoint.pid, signal.SIGTERM)
        assert entrypoint.wait(PATIENCE) == 128 + signal.SIGTERM
        assert site.log == "training\ncheckpoint saved\ntold\ncleanup\n"

    @pytest.mark.parametrize("name", ["INT", "HUP", "QUIT", "USR1", "USR2"])
    def test_what_the_file_sends_to_its_own_group_and_lives_through_ends_nothing(self, site: Site, name: str) -> None:
        text = (
            f"import os, signal\nsignal.signal(signal.SIG{name}, lambda *_: print('heard', flush=True))\n"
            f"os.killpg(0, signal.SIG{name})\nprint('goes on', flush=True)\nraise SystemExit(4)"
        )
        launcher = site.begin(site.command(site.file(text)), **{GROUP_VARIABLE: "1"})
        assert launcher.wait(PATIENCE) == 4
        assert site.log == "heard\ngoes on\n"

    def test_what_ends_by_itself_ends_the_launcher_whoever_is_left(self, site: Site) -> None:
        leaves = "import subprocess, sys\nsubprocess.Popen(['sleep', '60'])\nprint('training', flush=True)\nsys.exit(5)"
        launcher = site.begin(site.command(site.file(leaves)), **{GROUP_VARIABLE: "1"})
        assert launcher.wait(PATIENCE) == 5
        os.killpg(launcher.pid, signal.SIGKILL)

    def test_an_end_by_a_signal_is_one(self, site: Site) -> None:
        file = site.file(
            "import os, signal, sys\nprint(sys.argv[1:], flush=True)\nos.kill(os.getpid(), int(sys.argv[1]))"
        )
        assert site.run(site.command(file, "9", "a b"), **{GROUP_VARIABLE: "1"}).returncode == 128 + signal.SIGKILL
        assert site.log == "['9', 'a b']\n", "and no shell says anything of it"
        assert site.run(site.command(file, "2"), **{GROUP_VARIABLE: "1"}).returncode == 128 + signal.SIGINT
        assert "KeyboardInterrupt" in site.log

    def test_the_file_does_not_hear_of_it(self, site: Site) -> None:
        site.run(
            site.command(site.file(f"import os; print(os.environ.get('{GROUP_VARIABLE}'))")), **{GROUP_VARIABLE: "1"}
        )
        assert site.log == "None\n"
