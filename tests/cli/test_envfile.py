"""Env files are read as people write them; a mistake is named with its line, and never quoted."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.cli.hecaton.nouns import envfile
from hecaton.core.errors import BadRequest

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("KEY=value", "value"),
        ("  KEY = value  ", "value"),
        ("export KEY=value", "value"),
        ("KEY=", ""),
        ("KEY=a=b=c", "a=b=c"),
        ("KEY=value # a comment", "value"),
        ("KEY=# a comment", ""),
        ("KEY=with#hash", "with#hash"),
        ("KEY=two words", "two words"),
        ("KEY='single $x \\n'", "single $x \\n"),
        ('KEY="a\\nb\\t\\"c\\" \\\\ \\$d"', 'a\nb\t"c" \\ $d'),
        ('KEY="unknown \\d stays"', "unknown \\d stays"),
        ('KEY="# no comment" # a comment', "# no comment"),
        ("KEY=$HOME", "$HOME"),
        ('KEY=it\'s "fine"', 'it\'s "fine"'),
        ("KEY=https://user:pass@host/?q=1", "https://user:pass@host/?q=1"),
    ],
)
def test_lines_as_people_write_them(line: str, value: str) -> None:
    assert envfile.parse(line) == {"KEY": value}


def test_comments_blank_lines_and_lines_of_windows(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"\xef\xbb\xbf# first\r\n\r\nA=1\r\n  # second\r\nB='2'\r\nA=3\r\n")
    assert envfile.read(path) == {"A": "3", "B": "2"}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("hunter2", "no KEY=VALUE"),
        ("=hunter2", "no KEY=VALUE"),
        ("1KEY=hunter2", "not the name of a variable"),
        ('KEY="hunter2', "double quote is never closed"),
        ("KEY='hunter2", "single quote is never closed"),
        ("KEY='hunter2'x", "text after the closing quote"),
        ("KEY=hunter2\0", "NUL"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_without_its_value(line: str, fault: str) -> None:
    with pytest.raises(BadRequest, match="my.env, line 3: .*" + fault) as caught:
        envfile.parse(f"A=1\n\n{line}\nB=2", "my.env")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe=1", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "my.env"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadRequest, match=r"my\.env"):
        envfile.read(path)


@given(st.dictionaries(NAMES, VALUES))
def test_what_is_shown_reads_back_as_the_same_variables(variables: dict[str, str]) -> None:
    text = "\n".join(envfile.line(key, value) for key, value in variables.items())
    assert envfile.parse(text) == variables


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert all(envfile.parse(text))
