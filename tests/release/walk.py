"""The first minutes with Hecaton, typed at a terminal of a fresh machine: from the wheel to a job's first line."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import NamedTuple

from tests.cli.screen import Terminal
from tests.engine.desktop import PASSWORD, USER, desktop
from tests.engine.systemd import SystemdContainer

IMAGE = "python:3.9-slim"
SCRIPT = b'print(f"first line of {2026 - 26}")\n'
FIRST_LINE = "first line of 2000"
PROMPT = r"typed \#: "
"""With the number of the line: bash writes a prompt anew when the size of its terminal changes."""
QUESTION = rf"\[sudo\] password for {USER}: "
PATIENCE = 300.0

LINES = (
    "pipx install WHEEL",
    "~/.local/bin/hecaton up",
    "HECATON_HOME=~/laptop hecaton join LINE",
    f"hecaton run -i {IMAGE} train.py",
)
"""The README's three lines, and the one before. LINE is what `up` has printed; the laptop is another folder of the same
machine, and reaches the server by the network's address. The job is sent by whoever has typed `up`."""

UV_LINES = ("uv tool install WHEEL", *LINES[1:])
"""The same for who has uv."""

STEPS = (
    "SUDO PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install WHEEL",
    "SUDO HECATON_ADMIN_PASS=mysecurepassword hecaton-server --port 8181 install",
    "SUDO HECATON_USERNAME=admin HECATON_PASSWORD=mysecurepassword hecaton-gpu install localhost:8181",
    "hecaton server new --ip http://localhost:8181 --name my-server",
    "hecaton server login my-server --username admin --password mysecurepassword",
    f"hecaton run -i {IMAGE} hello.py",
)
"""The README's quick start step by step, on one machine. SUDO is `sudo` for who is not root."""


class Walked(NamedTuple):
    """`seconds`: for each line, what was typed and how long it took; the last one's until its script's first line."""

    seconds: list[tuple[str, float]]
    questions: int
    shown: str

    @property
    def until_first_line(self) -> float:
        return sum(seconds for _, seconds in self.seconds)


def walk(wheel: Path, home: Path, user: str, lines: tuple[str, ...] = LINES) -> Walked:
    """As `root` or as `USER`; the last line runs a script. `home`: see `desktop`; it must not exist yet. AssertionError
    where a step has no end."""
    with desktop(wheel.parent, home) as machine:
        folder = "/root" if user == "root" else f"/home/{user}"
        machine.run("sh", "-c", f"cat > {folder}/{lines[-1].split()[-1]}", stdin=SCRIPT)
        with Terminal(_shell(machine, user, folder, home), columns=200) as terminal:
            terminal.until(_prompt(1), PATIENCE)
            try:
                return _type(terminal, [_line(line, user, wheel) for line in lines])
            except AssertionError as error:
                error.add_note(machine.run("journalctl", "--no-pager", "--lines=100", "--unit=hecaton-*"))
                raise


def _line(line: str, user: str, wheel: Path) -> str:
    return line.replace("SUDO", "env" if user == "root" else "sudo").replace("WHEEL", f"/wheels/{wheel.name}")


def _filled(line: str, shown: str) -> str:
    """With the line to join that stands on the screen."""
    if not line.endswith(" LINE"):
        return line
    printed = re.findall(r"^  hecaton join (\S+)\r?$", shown, re.MULTILINE)
    assert printed, shown
    return line.replace("LINE", printed[-1])


def _prompt(number: int) -> str:
    return PROMPT.replace(r"\#", str(number))


def _shell(machine: SystemdContainer, user: str, folder: str, home: Path) -> list[str]:
    settings = [f"--env=PS1={PROMPT}", f"--env=HOME={folder}", f"--workdir={folder}"]
    if user == "root":
        settings.append(f"--env=HECATON_HOME={home}")
    return ["docker", "exec", "-it", f"--user={user}", *settings, machine.name, "bash", "--norc", "--noprofile"]


def _type(terminal: Terminal, lines: list[str]) -> Walked:
    seconds, questions, shown = [], 0, ""
    for number, line in enumerate(lines, 2):
        begun = time.monotonic()
        terminal.type(f"{_filled(line, shown)}\n")
        prompt = _prompt(number)
        wanted = FIRST_LINE if line is lines[-1] else prompt
        while True:
            shown += (said := terminal.until(f"{wanted}|{prompt}|{QUESTION}", PATIENCE))
            if said.endswith(wanted):
                break
            assert not said.endswith(prompt), shown
            questions += 1
            terminal.type(f"{PASSWORD}\n")
        seconds.append((line, time.monotonic() - begun))
    terminal.until(_prompt(len(lines) + 1), PATIENCE)
    return Walked(seconds, questions, shown)
