"""Patterns of .gitignore: read as the library reads them that has git's own cases."""

from __future__ import annotations

import pytest
from pathspec import GitIgnoreSpec

from hecaton.client.files.ignored import Patterns, Rules

PATHS = [
    "a", "a.txt", "b/a.txt", "b/c/a.txt", "data/x.bin", "src/data/x.bin", "build", "src/build", "doc/frotz",
    "a/doc/frotz", "foo/bar", "foo/x/bar", "foo/x/y/bar", "!odd", "#odd", "x y", "x1", "x2",
    "xa", "[x]", "a\\b", "deep/er/log.txt",
]  # fmt: skip


@pytest.mark.parametrize(
    "lines",
    [
        ["*.txt"], ["/a.txt"], ["data"], ["/data"], ["build"], ["doc/frotz"], ["/doc/*"], ["**/bar"], ["foo/**"],
        ["foo/**/bar"], ["**/data/*.bin"], ["*", "!*.txt"], ["*.txt", "!a.txt"], ["!a.txt", "*.txt"], ["\\!odd"],
        ["\\#odd", "# odd"], ["x y "], ["x[0-9]"], ["x[!0-9]"], ["x[^0-9]"], ["x?"], ["", "  "],
        ["deep/*/log.txt"], ["a*t"], ["*/a.txt"], ["f**r"], ["x["],
    ],
    ids=" ".join,
)  # fmt: skip
def test_they_mean_what_git_means(lines: list[str]) -> None:
    ours, theirs = Patterns(lines), GitIgnoreSpec.from_lines(lines)
    told = {path: theirs.check_file(path).include for path in PATHS}
    # What lies in a folder that stays here is not looked at: theirs names it, ours need not.
    above = {path for path in PATHS if any(ours.say(path[: i + 1]) for i, char in enumerate(path) if char == "/")}
    assert {path: ours.say(path) for path in PATHS if path not in above} == {
        path: said for path, said in told.items() if path not in above
    }


def test_what_is_no_pattern_says_nothing() -> None:
    assert [Patterns([line]).say("z") for line in ("[z-a]", "/", "!", "#z", "[z")] == [None] * 5


def test_our_own_file_has_the_last_word_and_nothing_else_sends_a_key() -> None:
    rules = Rules.of_all(["big/"]).within("", Patterns(["*.bin", "!.env"]), Patterns(["!model.bin", "!public.pem"]))
    sent = [
        path
        for path in (
            ".env",
            "id_rsa",
            "a/key.pem",
            "public.pem",
            "x.bin",
            "model.bin",
            "big/",
            "a/big/",
            ".git/",
            "src/",
        )
        if not rules.leave(path)
    ]
    assert sent == ["public.pem", "model.bin", "src/"]


def test_what_jobs_have_made_does_not_go_along_with_the_next_one() -> None:
    rules = Rules.of_all()
    paths = ("outputs/412/", "sub/outputs/7/", "outputs/", "outputs/notes.txt", "outputs/final/", "inputs/412/")
    assert [path for path in paths if rules.leave(path)] == ["outputs/412/", "sub/outputs/7/"]
    assert not rules.within("", None, Patterns(["!outputs/412/"])).leave("outputs/412/")


def test_a_key_stays_in_whatever_folder_it_lies() -> None:
    assert Rules.of_all(["/data/**/raw"]).leave("line\nbreak/.env")
    assert Rules.of_all(["/data/**/raw"]).leave("data/line\nbreak/raw")
