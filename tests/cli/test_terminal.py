"""What comes from a server has no power over the terminal, and tables fit it."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.cli.terminal import (
    Column,
    HarmlessStream,
    cells_wide,
    duration,
    harmless,
    harmless_json,
    one_line,
    size,
    table,
)

HOSTILE = st.text(
    st.one_of(
        st.sampled_from("\x1b\x07\r\n\\[]0;mPX^_\u202e\u2066\x9b\x9d\x85\u200b"),
        st.characters(codec="utf-8"),
    )
)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        pytest.param("\x1b]52;c;cm0gLXJmIC8=\x07copied", "copied", id="OSC 52 writes the clipboard"),
        pytest.param("\x1b]0;title\x1b\\text", "text", id="OSC 0 sets the title"),
        pytest.param("\x1b]8;;http://evil\x07link\x1b]8;;\x07", "link", id="OSC 8 hides where a link goes"),
        pytest.param("\x1b[31mred\x1b[0m", "red", id="colours"),
        pytest.param("\x1b[2J\x1b[Hgone", "gone", id="clears the screen"),
        pytest.param("\x1bcreset", "reset", id="resets the terminal"),
        pytest.param("honest\rfalse!", "honest\nfalse!", id="carriage return rewrites the line"),
        pytest.param("a\r\nb", "a\nb", id="lines of Windows are lines"),
        pytest.param("abc\x08\x08\x08xyz", "abc^H^H^Hxyz", id="backspace"),
        pytest.param("\u202etxt.exe", "\\u202etxt.exe", id="bidi override"),
        pytest.param("zero\u200bwidth", "zero\\u200bwidth", id="zero width"),
        pytest.param("\x9b31mred", "\\x9b31mred", id="C1 control"),
        pytest.param("bell\x07", "bell^G", id="bell"),
        pytest.param("\x1b", "^[", id="lone escape"),
    ],
)
def test_control_characters_are_removed_or_made_visible(hostile: str, shown: str) -> None:
    assert harmless(hostile) == shown


def test_ordinary_text_of_any_language_stays_as_it_is() -> None:
    text = "naïve\t日本語\nעברית 🙂 {}"
    assert harmless(text) == text


@given(HOSTILE)
def test_nothing_that_controls_a_terminal_is_ever_left(text: str) -> None:
    left = set(harmless(text)) - {"\n", "\t"}
    assert not [char for char in left if unicodedata.category(char) == "Cc" or char in "\u202e\u2066\u200b"]


@given(st.lists(HOSTILE))
def test_text_in_pieces_is_treated_as_the_whole(pieces: list[str]) -> None:
    stream = HarmlessStream()
    shown = "".join(stream.feed(piece) for piece in pieces)
    assert shown + stream.end() == harmless("".join(pieces))


def test_a_sequence_that_never_ends_is_not_held_for_ever() -> None:
    stream = HarmlessStream()
    shown = stream.feed("\x1b]0;" + "x" * 100_000)
    assert shown.endswith("x" * 1000)


@given(HOSTILE)
def test_json_stays_the_same_value(text: str) -> None:
    assert json.loads(harmless_json(json.dumps({"k": text}, ensure_ascii=False, indent=2))) == {"k": text}


@given(st.lists(st.lists(HOSTILE, min_size=3, max_size=3), max_size=5), st.integers(30, 120))
def test_a_table_has_one_line_for_each_row_and_fits_the_terminal(rows: list[list[str]], width: int) -> None:
    columns = [Column("FIRST", flexible=True), Column("SECOND", flexible=True), Column("THIRD", optional=True)]
    lines = table(columns, rows, width)
    assert len(lines) == len(rows) + 1
    assert all("\n" not in line and cells_wide(line) <= width for line in lines)


def test_columns_line_up_with_wide_characters() -> None:
    lines = table([Column("A"), Column("B")], [["日本", "x"], ["abcd", "y"]], None)
    assert lines == ["A     B", "日本  x", "abcd  y"]


def test_a_narrow_terminal_loses_optional_columns_before_it_cuts() -> None:
    columns = [Column("NAME", flexible=True), Column("ID", optional=True)]
    assert table(columns, [["a" * 20, "b" * 36]], 40) == ["NAME", "a" * 20]
    assert table(columns, [["a" * 50, "b" * 36]], 40) == ["NAME", "a" * 39 + "…"]
    assert table(columns, [["a" * 50, "b" * 36]], None)[1] == "a" * 50 + "  " + "b" * 36


def test_error_messages_are_one_line() -> None:
    assert one_line("first\nsecond\r\n  third\x07") == "first second third^G"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.00 s"),
        (1.239, "1.24 s"),
        (9.999, "10 s"),
        (59.7, "1 min 0 s"),
        (184, "3 min 4 s"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
        (-5, "0 ms"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size(count) == text


def test_states_have_a_colour_and_columns_stay_in_line() -> None:
    columns = [Column("#"), Column("STATUS", state=True), Column("IMAGE")]
    rows = [["1", "FAILED (oom_gpu)", "FAILED"], ["2", "IN_QUEUE", "b"], ["3", "FINISHED", "c"]]
    lines = table(columns, rows, None)
    assert lines[1:] == [
        "1  \x1b[31mFAILED (oom_gpu)\x1b[0m  FAILED",
        "2  IN_QUEUE          b",
        "3  \x1b[32mFINISHED\x1b[0m          c",
    ]
