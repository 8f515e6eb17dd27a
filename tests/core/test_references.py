"""Names of images: what the engine takes is taken, what it refuses is refused, and nothing hostile gets through."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecaton.core.errors import BadRequest
from hecaton.core.references import parse

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "registry", "repository", "tag"),
    [
        ("python:3.9-slim", "docker.io", "library/python", "3.9-slim"),
        ("python", "docker.io", "library/python", "latest"),
        ("user/name", "docker.io", "user/name", "latest"),
        ("docker.io/python", "docker.io", "library/python", "latest"),
        ("index.docker.io/user/name:1", "docker.io", "user/name", "1"),
        ("ghcr.io/owner/deep/name:v1.2_3", "ghcr.io", "owner/deep/name", "v1.2_3"),
        ("localhost/name", "localhost", "name", "latest"),
        ("localhost:5000/team/app:1", "localhost:5000", "team/app", "1"),
        ("127.0.0.1:22/x", "127.0.0.1:22", "x", "latest"),
        ("[::1]:5000/x", "[::1]:5000", "x", "latest"),
        ("Registry.Example.com/x", "Registry.Example.com", "x", "latest"),
        ("a__b/c--d", "docker.io", "a__b/c--d", "latest"),
        ("x:" + "t" * 128, "docker.io", "library/x", "t" * 128),
    ],
)
def test_names_are_read_as_the_engine_reads_them(name: str, registry: str, repository: str, tag: str) -> None:
    reference = parse(name)
    assert (reference.registry, reference.repository, reference.tag) == (registry, repository, tag)


def test_a_digest_pins_the_image() -> None:
    reference = parse(f"team/app:1@{DIGEST}")
    assert (reference.tag, reference.digest) == ("1", DIGEST)
    assert reference.by_digest(DIGEST) == f"team/app@{DIGEST}"
    assert parse("python").by_digest(DIGEST) == f"python@{DIGEST}"
    assert parse("ghcr.io/a/b").by_digest(DIGEST) == f"ghcr.io/a/b@{DIGEST}"


HOSTILE = [
    "", " ", "a b", " a", "a ", "a\n", "\na", "a\0", "-v/:/h", "-a", "--privileged", "../x", "./x",
    "/x", "x/", "a//b", "a/../b", "x:", "x:/", "x:-tag", "x:.tag", "x:" + "t" * 129, "x@",
    "x@sha256:short", "x@sha256:" + "g" * 64, "x@" + DIGEST.upper(), "x@md5:" + "0" * 32, "UPPER",
    "user/Name", "User/name", "ＡＢ", "é", "a_", "_a", "a___b", "a..b", "a.", ".a", "a._b",
    "http://x", "https://ghcr.io/x", "x;rm -rf /", "$(x)", "`x`", "x|y", "x&y", "x'y", 'x"y',
    "x\\y", "x*", "~/x", "host:port/x", "host:123456/x", ":5000/x", "@x", "x@y@z", "0" * 64,
    "a" * 256, "\u202ex", "x%2Fy", "x?y", "x#y", "[::1/x",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_engine_takes_is_refused_in_words(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(name)
    assert len(caught.value.message) < 300
    assert "\n" not in caught.value.message


@given(st.text(max_size=300))
def test_whatever_is_accepted_is_plain_text_that_starts_harmlessly(name: str) -> None:
    try:
        reference = parse(name)
    except BadRequest:
        return
    assert re.fullmatch(r"[A-Za-z0-9\[][A-Za-z0-9._:/@\[\]-]{0,254}", name)
    assert ".." not in reference.repository


components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)


@given(
    host=st.sampled_from(["", "ghcr.io/", "localhost:5000/", "10.0.0.1:80/", "my-host.example/"]),
    path=st.lists(components, min_size=1, max_size=4).map("/".join),
    tag=st.from_regex(r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?", fullmatch=True),
)
def test_everything_of_the_grammar_is_accepted_and_read_the_same_again(host: str, path: str, tag: str) -> None:
    if not host and re.match(r"[^/]*\.[^/]*/|localhost/", path):
        return  # its first part looks like a host: the engine takes it for one
    if re.fullmatch("[0-9a-f]{64}", host + path + tag):
        return
    reference = parse(host + path + tag)
    assert (reference.registry == "docker.io") is (host == "")
    assert reference.tag == (tag[1:] or "latest")
    assert parse(f"{reference.familiar}:{reference.tag}") == reference


def test_no_name_takes_long_to_refuse() -> None:
    for name in ("a-" * 127, "a" + "-" * 253, "a." * 120 + "!", "a/" * 120 + "!", "[" + ":" * 250, "a_" * 127 + "!"):
        began = time.process_time()
        with pytest.raises(BadRequest):
            parse(name)
        assert time.process_time() - began < 0.5
