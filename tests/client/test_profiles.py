"""The list of servers and tokens on disk: private, whole after any crash, shared by commands that run at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hecaton.client import profiles
from hecaton.client.profiles import Profile
from hecaton.core.errors import BadRequest, Conflict, NotFound


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HECATON_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _names() -> list[str]:
    return [profile.name for profile in profiles.all_servers()]


def test_servers_are_kept_in_the_order_in_which_they_came() -> None:
    assert profiles.all_servers() == []
    first = Profile("lab", "gpu.example.com:8181", scheme="https", ca_file="/etc/lab.pem")
    profiles.add(first)
    profiles.add(Profile("attic", "localhost"))
    assert _names() == ["lab", "attic"]
    assert profiles.get("lab") == first


def test_one_server_at_most_is_active() -> None:
    profiles.add(Profile("lab", "lab:8181"))
    profiles.add(Profile("attic", "attic:8181"))
    assert profiles.active() is None
    profiles.set_active("lab")
    profiles.set_active("attic")
    assert profiles.active() == profiles.get("attic")
    profiles.set_active(None)
    assert profiles.active() is None


def test_removing_the_active_server_leaves_none_active() -> None:
    profiles.add(Profile("lab", "lab:8181"))
    profiles.set_active("lab")
    profiles.remove("lab")
    assert profiles.active() is None
    assert profiles.all_servers() == []


def test_one_that_takes_the_place_of_another_leaves_no_moment_without() -> None:
    profiles.put(Profile("lab", "lab:8181"))
    profiles.set_active("lab")
    with pytest.raises(BadRequest):
        profiles.put(Profile("lab", "no address"))
    assert profiles.get("lab").address == "lab:8181"
    profiles.put(Profile("lab", "other:8181"))
    assert profiles.active() == Profile("lab", "other:8181")
    assert _names() == ["lab"]


def test_a_name_is_taken_once() -> None:
    profiles.add(Profile("lab", "lab:8181"))
    with pytest.raises(Conflict, match="'lab' is registered already"):
        profiles.add(Profile("lab", "other:8181"))
    assert profiles.get("lab").address == "lab:8181"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    profiles.add(Profile("lab", "lab:8181"))
    for act in (profiles.get, profiles.remove, profiles.set_active):
        with pytest.raises(NotFound, match="'moon'") as caught:
            act("moon")
        assert "lab" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", " lab", "a\nb"])
def test_odd_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        profiles.add(Profile(name, "lab:8181"))


def test_a_malformed_address_is_never_stored() -> None:
    with pytest.raises(BadRequest, match="no valid port"):
        profiles.add(Profile("lab", "lab:many"))
    profiles.add(Profile("lab", "lab:1"))
    with pytest.raises(BadRequest, match="no valid port"):
        profiles.update("lab", address="lab:many")
    assert profiles.get("lab").address == "lab:1"


def test_a_login_is_kept_and_forgotten() -> None:
    profiles.add(Profile("lab", "lab:8181"))
    profiles.set_token("lab", "t0ken", "ada")
    assert (profiles.get("lab").token, profiles.get("lab").username) == ("t0ken", "ada")
    profiles.set_token("lab", None)
    assert profiles.get("lab").token is None


def test_a_token_does_not_follow_to_another_address() -> None:
    profiles.add(Profile("lab", "lab:8181", scheme="https", ca_file="/etc/lab.pem"))
    profiles.set_token("lab", "t0ken", "ada")
    assert profiles.update("lab", ca_file="/etc/new.pem").token == "t0ken"
    moved = profiles.update("lab", address="elsewhere:8181")
    assert moved == profiles.get("lab") == Profile("lab", "elsewhere:8181", ca_file="/etc/new.pem")


def test_the_url_follows_the_scheme_that_was_found() -> None:
    profiles.add(Profile("lab", "lab"))
    assert profiles.get("lab").url == "lab"
    profiles.set_scheme("lab", "https")
    assert profiles.get("lab").url == "https://lab:8181"
    assert Profile("attic", "http://attic", scheme="https").url == "http://attic:80"


def test_tokens_are_private_whatever_the_umask(state: Path) -> None:
    before = os.umask(0)
    try:
        profiles.add(Profile("lab", "lab:8181", token="t0ken"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [state, *state.rglob("*")]}
    assert modes == {"home": 0o700, "client": 0o700, "servers.json": 0o600, "servers.lock": 0o600}


def test_a_folder_that_others_can_read_is_closed(state: Path) -> None:
    (state / "client").mkdir(parents=True, mode=0o755)
    profiles.add(Profile("lab", "lab:8181"))
    assert stat.S_IMODE((state / "client").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"", b"{", b'{"servers": 3}', b"\xff", b'{"servers": [{"name": "lab"}]}'])
def test_a_corrupt_file_is_named_and_left_alone(state: Path, content: bytes) -> None:
    profiles.add(Profile("lab", "lab:8181"))
    path = state / "client" / "servers.json"
    path.write_bytes(content)
    for act in (profiles.all_servers, profiles.active, lambda: profiles.add(Profile("attic", "attic"))):
        with pytest.raises(BadRequest) as caught:
            act()
        assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_a_home_that_is_a_file_is_named(state: Path) -> None:
    state.write_text("not a folder")
    with pytest.raises(BadRequest) as caught:
        profiles.add(Profile("lab", "lab:8181"))
    assert str(state) in caught.value.message
    assert "HECATON_HOME" in str(caught.value.hint)


def test_commands_that_run_at_once_lose_nothing() -> None:
    program = (
        "import sys; from hecaton.client import profiles; from hecaton.client.profiles import Profile\n"
        "sys.stdin.readline()\n"
        "for n in range(20):\n"
        "    profiles.add(Profile(f'{sys.argv[1]}-{n}', 'lab:8181')); profiles.set_token(f'{sys.argv[1]}-{n}', 't')\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(number)], stdin=subprocess.PIPE) for number in range(4)
    ]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    assert sorted(_names()) == sorted(f"{number}-{n}" for number in range(4) for n in range(20))
    assert all(profile.token == "t" for profile in profiles.all_servers())


def test_a_command_that_is_killed_while_it_writes_leaves_a_whole_file() -> None:
    profiles.add(Profile("lab", "lab:8181"))
    program = (
        "from hecaton.client import profiles; print(flush=True)\nwhile True: profiles.set_token('lab', 'x' * 100_000)\n"
    )
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writer:
            assert writer.stdout
            writer.stdout.readline()
            while profiles.get("lab").token is None:
                pass
            writer.kill()
        assert profiles.get("lab").token == "x" * 100_000
        profiles.set_token("lab", None)


def test_servers_below_different_paths_of_one_machine_are_different_servers() -> None:
    profiles.add(Profile("one", "https://gpu.example.com/one", token="t"))
    assert profiles.at("https://gpu.example.com/one/").name == "one"
    assert profiles.at("https://gpu.example.com/two").token is None
