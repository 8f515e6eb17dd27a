"""What the changelog says about the newest version: the notes of a release."""

from __future__ import annotations

import re

from tests.engine.python_image import REPOSITORY

CHANGELOG = REPOSITORY / "CHANGELOG.md"
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\] - (?P<date>.+)$", re.MULTILINE)


def newest(changelog: str) -> tuple[str, str, str]:
    """Its version, its date (`Unreleased` until it has one) and what is said about it. ValueError if there is none."""
    headings = list(HEADING.finditer(changelog))
    if not headings:
        raise ValueError("the changelog has no section: a heading is `## [VERSION] - DATE`")
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    return headings[0]["version"], headings[0]["date"], changelog[headings[0].end() : end].strip() + "\n"
