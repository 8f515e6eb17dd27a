"""What holds for the repository as a whole: nothing of one machine in it, no left-overs, links that lead somewhere."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

import hecaton

REPOSITORY = Path(__file__).resolve().parents[1]
MEBIBYTE = 1024 * 1024

# Written in pieces, so that this file does not match itself.
MACHINE_PATHS = re.compile(r"(?<![\w.-])/(?:" + "|".join(["wo" + "rk", "ro" + "ot", "fa" + "rm"]) + r")/")
PACKAGE_REGISTRIES = re.compile(
    "|".join(
        re.escape(host + domain)
        for host, domain in [
            ("pypi", ".org"),
            ("pythonhosted", ".org"),
            ("npmjs", ".org"),
            ("yarnpkg", ".com"),
            ("deb.debian", ".org"),
            ("security.debian", ".org"),
            ("snapshot.debian", ".org"),
            ("archive.ubuntu", ".com"),
        ]
    )
)
DOWNLOADS = re.compile(r"https?://[^\s\"']+\.(?:whl|deb|tgz)\b")
LEFT_OVERS = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX"]) + r")\b")
SECRETS = re.compile("-----BEGIN [A-Z ]*PRIVATE" + " KEY-----")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


@cache
def _files() -> tuple[Path, ...]:
    """All files that are tracked or about to be, relative to the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    names = sorted(set(filter(None, listed.stdout.split("\0"))))
    return tuple(Path(name) for name in names if (REPOSITORY / name).is_file())


def _matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for file in _files():
        content = (REPOSITORY / file).read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode().splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{file}:{number}: {line.strip()[:120]}")
    return found


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(MACHINE_PATHS, id="paths of one machine"),
        pytest.param(PACKAGE_REGISTRIES, id="addresses of package registries"),
        pytest.param(DOWNLOADS, id="download addresses"),
        pytest.param(LEFT_OVERS, id="left-over notes"),
        pytest.param(SECRETS, id="private keys"),
    ],
)
def test_the_repository_is_free_of(pattern: re.Pattern[str]) -> None:
    assert _matches(pattern) == []


def test_the_patterns_find_what_they_are_for() -> None:
    assert MACHINE_PATHS.search('"/ro' + 'ot/x"')
    assert not MACHINE_PATHS.search("net" + "wo" + "rk/wo" + "rk/")
    assert PACKAGE_REGISTRIES.search("https://py" + "pi.org/simple")
    assert LEFT_OVERS.search("# TO" + "DO: later")


def test_no_file_is_larger_than_a_mebibyte_except_screenshots() -> None:
    large = [file for file in _files() if (REPOSITORY / file).stat().st_size > MEBIBYTE]
    assert [file for file in large if file.parent != Path("docs/screenshots")] == []


def test_the_newest_entry_of_the_changelog_is_the_packages_version() -> None:
    entries = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == hecaton.__version__


def test_links_in_documents_lead_to_files_that_exist() -> None:
    broken = []
    for document in (file for file in _files() if file.suffix == ".md"):
        for groups in LINK.findall((REPOSITORY / document).read_text()):
            target = "".join(groups).partition("#")[0]
            if target and "://" not in target and not (REPOSITORY / document.parent / target).exists():
                broken.append(f"{document}: {target}")
    assert broken == []


def test_every_development_version_is_pinned_and_every_dependency_is_among_them() -> None:
    lines = (REPOSITORY / "requirements-dev.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in requirements if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pinned = {_normal(line.partition("==")[0]) for line in requirements}
    declared = re.findall(
        r'^  "([\w.-]+)[^"]*python_version', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert declared
    assert {_normal(name) for name in declared} - pinned == set()


def test_make_alone_lists_every_target_with_a_line() -> None:
    listed = subprocess.run(["make"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = dict(re.findall(r"^  make (\w+) +(\S.*)$", listed, re.MULTILINE))
    targets = re.findall(r"^\.PHONY: (\w+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert list(rows) == targets
    assert {"setup", "demo", "test", "check", "bench", "screenshots", "clean"} <= set(rows)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
