"""What server and worker log: what others have said has no power over who reads it, and values stay where they are."""

from __future__ import annotations

import subprocess
import sys

import pytest

EVIL = "\x1b]52;c;cm0gLXJm\x07\x9b31m\u202e\u2066\x08\r\x00\x7fx"
FORGED = "broken\n2026-01-01 00:00:00 [info     ] Audit                  who=admin"

PROGRAM = """
import logging, sys, threading
import structlog
from hecaton.cli.log_lines import log_to_stderr

log_to_stderr()
log = structlog.get_logger("test")
text = sys.argv[1]

class Odd:
    def __repr__(self):
        return text

def work(secret):
    raise ValueError(text)

def failing(say):
    try:
        work("the payload of somebody")
    except ValueError:
        say()

log.info(text, why=text)
log.warning("A worker said something", type=text, items=[text], odd=Odd(), data=text.encode(), fault=ValueError(text))
failing(lambda: log.exception("A request failed", name=text))
failing(lambda: log.error("A duty fails", exc_info=sys.exc_info()[1]))
failing(lambda: logging.getLogger("asyncio").exception("A task failed: %s", text))
logging.getLogger("library").warning("%s", text)
thread = threading.Thread(target=work, args=("the payload of somebody",))
thread.start()
thread.join()
work("the payload of somebody")
"""


@pytest.fixture(scope="module", params=[EVIL, FORGED], ids=["controls", "forged"])
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    text = str(request.param).replace("\0", "")  # no argument may hold one
    program = tmp_path_factory.mktemp("program") / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program), text], capture_output=True, check=False)
    assert done.returncode == 1
    return done.stderr.decode("utf-8")


def test_no_control_character_but_the_line_break_is_in_a_log(said: str) -> None:
    bad = {char for char in said if char != "\n" and not char.isprintable()}
    assert bad == set()
    assert "52;c" not in said or "\\x1b]52;c" in said  # gone, or plain to see


def test_nobody_makes_a_line_of_a_log_but_the_log(said: str) -> None:
    lines = said.splitlines()
    assert len(lines) > 30
    assert not any(line.startswith("2026-01-01") for line in lines)


def test_a_traceback_shows_where_and_no_values(said: str) -> None:
    assert said.count("Traceback (most recent call last)") == 5
    assert said.count("raise ValueError(text)") == 5
    assert "the payload of somebody" not in said.replace('work("the payload of somebody")', "")
