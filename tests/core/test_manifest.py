"""A folder has one text; a text that names what no folder can hold is refused, whoever has written it."""

from __future__ import annotations

import msgspec
import pytest

from hecaton.core.errors import BadRequest
from hecaton.core.files import manifest
from hecaton.core.files.manifest import Entry

SHA = "ab" * 32


def file(path: str, **facts: object) -> Entry:
    return Entry(path, "file", SHA, 3, **facts)  # type: ignore[arg-type]


def test_the_same_folder_has_the_same_text_whatever_the_order() -> None:
    entries = [
        file("b/ü.py"),
        file("a", executable=True),
        Entry("empty", "dir"),
        Entry("b/up", "link", target="../a"),
    ]
    data = manifest.encoded(entries)
    assert data == manifest.encoded(reversed(entries))
    assert [entry.path for entry in manifest.decoded(data).entries] == ["a", "b/up", "b/ü.py", "empty"]
    assert [entry.path for entry in manifest.decoded(data).files] == ["a", "b/ü.py"]


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([file("../a")], "has a name that"),
        ([file("/etc/passwd")], "has a name that"),
        ([file("a//b")], "has a name that"),
        ([file("a\0b")], "has a name that"),
        ([file("a" * 5000)], "has a name that"),
        ([file("a"), file("a")], "or twice"),
        ([file("a"), file("a/b")], "lies in what is no folder"),
        ([Entry("a", "link", target="b"), file("a/b")], "lies in what is no folder"),
        ([Entry("a", "link", target="/etc/passwd")], "leaves the folder"),
        ([Entry("a/b", "link", target="../../x")], "leaves the folder"),
        ([Entry("a", "link")], "a link to nothing"),
        ([Entry("a", "file", "../../x", 3)], "has no content"),
        ([Entry("a", "file", SHA, -1)], "has no content"),
        ([Entry("a", "dir", SHA)], "is a folder and has content"),
        ([Entry("a", "file", SHA, 3, target="b")], "is no link"),
    ],
)
def test_what_no_folder_can_hold_is_refused(entries: list[Entry], why: str) -> None:
    for refused in (lambda: manifest.encoded(entries), lambda: manifest.decoded(msgspec.json.encode((1, entries)))):
        with pytest.raises(BadRequest, match=why):
            refused()


@pytest.mark.parametrize("data", [b"", b"{}", b"[2,[]]", b"[1, []]", b'[1,[["b","dir"],["a","dir"]]]', b"\xff"])
def test_any_other_text_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        manifest.decoded(data)
