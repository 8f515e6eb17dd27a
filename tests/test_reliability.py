"""docs/reliability.md names only tests that exist, and has a test or the words "not shown yet" for every fault."""

from __future__ import annotations

import re
from pathlib import Path

from hecaton.core.model import Reason

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [
    row for row in re.findall(r"^\| (.+) \|$", PAGE, re.MULTILINE) if row.count(" | ") == 2 and "shown by" not in row
]


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) > 60
    missing = []
    for path, name in named:
        file = REPOSITORY / path
        if not file.is_file() or f"def {name}(" not in file.read_text(encoding="utf-8"):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_every_fault_is_shown_by_a_test_or_said_not_to_be() -> None:
    assert len(ROWS) > 50
    for row in ROWS:
        fault, _, shown = row.split(" | ")
        assert "::test_" in shown or shown.startswith("not shown yet"), fault


def test_the_page_names_every_reason_with_which_a_job_can_end() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert {reason.value for reason in Reason} - {Reason.RELEASED} <= named
