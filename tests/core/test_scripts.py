"""Files that are run as programs: what is refused before anybody waits, and what is made right."""

from __future__ import annotations

import pytest

from hecaton.core.errors import BadRequest
from hecaton.core.scripts import PYTHON, SHELL, check, interpreters, with_unix_lines


@pytest.mark.parametrize(
    ("name", "found"),
    [("train.py", PYTHON), ("run.SH", SHELL), ("run.bash", SHELL), ("notes.txt", ()), ("run", ()), (".sh", ())],
)
def test_a_name_says_what_runs_a_file_that_does_not(name: str, found: tuple[str, ...]) -> None:
    assert interpreters(name) == found


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("train.py", b"import this"),
        ("run", b"#!/usr/bin/perl -w\nprint 1"),
        ("notes.txt", b"\xef\xbb\xbf#! /usr/bin/env -S python3 -u\r\n"),
        ("empty.sh", b""),
    ],
)
def test_what_some_image_can_run_is_taken(name: str, start: bytes) -> None:
    check(name, start)


@pytest.mark.parametrize(
    ("name", "start", "said"),
    [
        ("notes.txt", b"hello", "not clear which interpreter runs 'notes.txt'"),
        ("run", b"", "not clear which interpreter runs 'run'"),
        ("train.py", b"#!python3\n", "'#!python3': the kernel wants the whole path"),
        ("run.sh", b"#!\necho", "'#!': the kernel wants the whole path"),
        ("run.sh", b"\xff\xfee\0c\0h\0o\0", "run.sh is written in UTF-16"),
    ],
)
def test_what_none_can_run_is_refused(name: str, start: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=r"\S") as refused:
        check(name, start)
    assert said in refused.value.message
    assert refused.value.hint


def test_a_handler_file_is_python_whatever_its_name_but_not_the_packages() -> None:
    check("handler", b"import hecaton", PYTHON)
    check("hecaton.py", b"print()")
    with pytest.raises(BadRequest, match=r"hecaton\.py hides the package"):
        check("hecaton.py", b"import hecaton", PYTHON)


@pytest.mark.parametrize(
    ("name", "content", "made"),
    [
        ("run.sh", b"set -e\r\ncp a b\r\n", b"set -e\ncp a b\n"),
        ("run.sh", b"\xef\xbb\xbf#!/bin/sh\r\nx\r\n", b"#!/bin/sh\nx\n"),
        ("run", b"#!/usr/bin/env -S FOO=1 bash -e\r\nx\r\n", b"#!/usr/bin/env -S FOO=1 bash -e\nx\n"),
        ("run.sh", b"#!/usr/bin/python3\r\nx\r\n", b"#!/usr/bin/python3\nx\r\n"),
        ("run.pl", b"#!/opt/bash/bin/perl\r\nx\r\n", b"#!/opt/bash/bin/perl\nx\r\n"),
        ("train.py", b"\xef\xbb\xbfx\r\n", b"\xef\xbb\xbfx\r\n"),
        ("setup.sh", b"#!/bin/sh\r\nexit\r\n\0archive", b"#!/bin/sh\r\nexit\r\n\0archive"),
        ("run.sh", b"#!/bin/sh\nx\n", b"#!/bin/sh\nx\n"),
    ],
)
def test_line_ends_of_another_system_are_no_part_of_a_command(name: str, content: bytes, made: bytes) -> None:
    assert with_unix_lines(name, content) == made
