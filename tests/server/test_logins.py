"""Guessing passwords, and asking for so many checks that nobody else gets one: both have an end, and honest people log
in meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import unicodedata
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Literal

import aiohttp
import pytest

from hecaton.core.errors import TooMany, Unavailable
from hecaton.server.accounts.auth import MAX_CHECKS, MAX_CHECKS_OF_ONE, Passwords
from hecaton.server.accounts.directory import MAX_NAME
from hecaton.server.accounts.homes import HOME_AGE, MAX_HOMES, Homes
from hecaton.server.accounts.throttle import IN_ALL, OF_ADDRESS, OF_NAME, OF_PAIR, Throttle
from hecaton.server.web.api import PASSWORD_BODY_LIMIT
from hecaton.store.port import Store
from tests.server.people import Person, eventually
from tests.server.running import PASSWORD, Running, running
from tests.server.server_process import ServerProcess
from tests.server.test_heads import ROOM, memory

# -- guesses ---------------------------------------------------------------------------------------


def _guesses(throttle: Throttle, pairs: Iterator[tuple[str, str]], now: float = 0.0, *, at_home: bool = False) -> int:
    """How many of them are let through."""
    allowed = 0
    for name, address in pairs:
        with contextlib.suppress(TooMany):
            throttle.guess(name, address, now, at_home)
            allowed += 1
    return allowed


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def test_guesses_are_counted_by_pair_name_address_and_in_all() -> None:
    assert _guesses(Throttle(), (("ada", "10.0.0.1") for _ in range(1000))) == OF_PAIR.burst
    assert _guesses(Throttle(), (("ada", _address(n)) for n in range(1000))) == OF_NAME.burst
    assert _guesses(Throttle(), ((f"u{n}", "10.0.0.1") for n in range(1000))) == OF_ADDRESS.burst
    assert _guesses(Throttle(), ((f"u{n}", _address(n)) for n in range(1000))) == IN_ALL.burst


def test_nobody_is_told_to_try_again_in_no_time() -> None:
    throttle = Throttle()
    assert _guesses(throttle, (("ada", "10.0.0.1") for _ in range(20))) == OF_PAIR.burst
    for left in (0.3, 0.7, 1.2, 29.9):
        with pytest.raises(TooMany) as refused:
            throttle.guess("ada", "10.0.0.1", OF_PAIR.interval - left)
        assert (refused.value.hint, refused.value.retry_after) == (f"Try again in {ceil(left)} s.", ceil(left))


@pytest.mark.parametrize("path", ["/v1/login/key", "/v1/enrol"])
async def test_keys_are_guessed_as_often_as_passwords_and_right_ones_do_not_count(server: Running, path: str) -> None:
    scope = "login" if path.endswith("key") else "enrol"
    named = {} if scope == "login" else {"name": "box"}
    keys = [(await server.admin.must("POST", "/v1/keys", {"scope": scope}))["key"] for _ in range(2)]
    await server.nobody.must("POST", path, {"key": keys[0], **named})
    if named:  # it is right, though the name is taken
        assert (await server.nobody.call("POST", path, {"key": keys[1], **named})).status == 409
    for _ in range(OF_ADDRESS.burst):
        assert (await server.nobody.call("POST", path, {"key": "wrong", **named})).status == 401
    refused = await server.nobody.call("POST", path, {"key": keys[1], "name": "other"} if named else {"key": keys[1]})
    assert (refused.status, refused.message) == (429, "too many wrong passwords and keys from your address")
    assert int(refused.headers["Retry-After"]) >= 1


def test_one_guess_comes_back_at_a_time() -> None:
    throttle = Throttle()
    assert _guesses(throttle, (("ada", "10.0.0.1") for _ in range(20))) == OF_PAIR.burst
    assert _guesses(throttle, (("ada", "10.0.0.1") for _ in range(20)), OF_PAIR.interval * 3) == 3


def test_a_network_of_ipv6_addresses_counts_as_one_and_those_of_ipv4_in_it_do_not() -> None:
    throttle = Throttle()
    assert _guesses(throttle, (("ada", f"2001:db8::{n:x}") for n in range(20))) == OF_PAIR.burst
    assert _guesses(throttle, (("ada", "2001:db8:0:1::1") for _ in range(1))) == 1
    assert _guesses(throttle, (("bob", f"::ffff:10.0.0.{n}") for n in range(20))) == 20
    assert _guesses(throttle, (("bob", "10.0.0.1") for _ in range(20))) == OF_PAIR.burst - 1


def test_no_flood_makes_it_forget_and_all_of_it_ages() -> None:
    throttle = Throttle()
    assert _guesses(throttle, (("ada", "10.0.0.1") for _ in range(10))) == 10
    for second in range(20):
        _guesses(throttle, ((f"u{second}-{n}", _address(n)) for n in range(1000)), float(second))
        assert _guesses(throttle, iter([("ada", "10.0.0.1")]), float(second)) == 0
    assert len(throttle) < 3 * (IN_ALL.burst + 20 / IN_ALL.interval) + 3
    assert _guesses(throttle, iter([("ada", "10.0.0.1")]), 10_000.0) == 1
    assert len(throttle) == 4


def test_where_somebody_was_right_nobody_elses_guesses_keep_him_out() -> None:
    throttle = Throttle()
    throttle.guess("Ada", "10.0.0.1", 0.0)
    throttle.withdraw("Ada", "10.0.0.1", 0.0)
    _guesses(throttle, (("ada", _address(n)) for n in range(2, 2000)))
    _guesses(throttle, ((f"u{n}", "10.0.0.1") for n in range(2000)))
    _guesses(throttle, ((f"u{n}", _address(n)) for n in range(2000)))
    assert _guesses(throttle, (("bob", "10.0.0.1") for _ in range(20))) == 0
    assert _guesses(throttle, (("ada", "10.0.0.1") for _ in range(20)), at_home=True) == OF_PAIR.burst


async def test_the_newest_places_are_remembered_for_a_time_by_the_next_process_too(server: Running) -> None:
    await server.user("ada")
    ada = server.server.parts.directory.user_by_name("ada")
    assert ada is not None
    clock = server.server.parts.resources.clock
    homes, others = Homes(server.server.database, clock), Homes(server.server.database, clock)
    for number in range(MAX_HOMES + 1):
        await homes.add(ada, _address(number))
        server.later(1)
    await others.load()
    for one in (homes, others):
        found = [one.has(ada, _address(number)) for number in range(MAX_HOMES + 1)]
        assert found == [False] + [True] * MAX_HOMES
        assert not one.has(None, _address(1))
    server.later(HOME_AGE - 86400)
    await homes.add(ada, _address(3))
    server.later(86400)
    await others.load()
    for one in (homes, others):
        assert [number for number in range(MAX_HOMES + 1) if one.has(ada, _address(number))] == [3]


async def test_a_restart_lets_nobody_keep_people_out_where_they_were_before(tmp_path: Path) -> None:
    async with running(tmp_path / "server") as server:
        await server.user("ada")
        await server.admin.must("POST", "/v1/users", {"username": "bob", "password": PASSWORD})
    async with running(tmp_path / "server") as server:
        clock, throttle = server.server.parts.resources.clock, server.server.parts.logins._throttle
        assert _guesses(throttle, ((f"u{n}", _address(n)) for n in range(1000)), clock.now()) >= IN_ALL.burst
        assert (await server.nobody.call("POST", "/v1/login", {"username": "bob", "password": PASSWORD})).status == 429
        await server.nobody.login("ada", PASSWORD)


async def test_a_full_disk_keeps_nobody_from_logging_in(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.admin.must("POST", "/v1/users", {"username": "ada", "password": PASSWORD})

    async def full(work: Callable[[Store], object]) -> object:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(server.server.database, "write", full)
    await server.nobody.login("ada", PASSWORD)


async def test_who_was_not_looked_at_has_not_guessed(server: Running) -> None:
    busy = Busy(server.server.passwords)
    await asyncio.sleep(0)
    waiting = [_check(server.server.passwords, f"c{n}", known=True) for n in range(MAX_CHECKS)]
    await asyncio.sleep(0)
    for _ in range(OF_PAIR.burst + 1):
        refused = await server.nobody.call("POST", "/v1/login", {"username": "admin", "password": PASSWORD})
        assert (refused.status, refused.message) == (429, "too many passwords are waiting to be checked")
    await busy.over()
    assert await _outcomes(waiting) == (MAX_CHECKS, 0)
    for _ in range(OF_PAIR.burst + 1):  # nor is a guess what was right
        await server.nobody.login("admin", PASSWORD)


async def test_one_name_is_one_however_it_is_spelt(server: Running) -> None:
    spellings = ["admin", "ADMIN", "\uff41dmin", "a\uff44min", "ad\uff4din", "adm\uff49n"]  # NFKC: the same
    statuses = []
    for number in range(OF_PAIR.burst + 1):
        guess = {"username": spellings[number % len(spellings)], "password": f"wrong-{number:04}"}
        statuses.append((await server.nobody.call("POST", "/v1/login", guess)).status)
    assert statuses == [401] * OF_PAIR.burst + [429]


async def test_a_name_that_is_too_long_for_one_costs_nothing(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFKC takes half an hour for a mebibyte of marks that combine."""
    longest = 0

    def normalize(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
        nonlocal longest
        longest = max(longest, len(text))
        return normal(form, text)

    normal = unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", normalize)
    strange = "\u0345" * 500 + "\u0334" * 500
    assert (await server.nobody.call("POST", "/v1/login", {"username": strange, "password": "x" * 9})).status == 401
    clear = {"older_than": 0, "username": strange}
    assert (await (await server.user("bob")).call("POST", "/v1/usage/clear", clear)).status == 404
    assert longest <= MAX_NAME


async def test_what_is_no_guess_is_not_counted(server: Running) -> None:
    for password in ("x" * 129, "x" * 2000):
        for _ in range(OF_PAIR.burst):
            reply = await server.nobody.call("POST", "/v1/login", {"username": "admin", "password": password})
            assert reply.status == 401
    await server.nobody.login("admin", PASSWORD)


async def test_the_body_of_a_login_has_4_kib(server: Running) -> None:
    big = {"username": "admin", "password": "x" * PASSWORD_BODY_LIMIT}
    assert (await server.nobody.call("POST", "/v1/login", big)).status == 413
    assert (await server.admin.call("PUT", "/v1/users/admin/password", big)).status == 413


# -- checks ----------------------------------------------------------------------------------------


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


class Busy:
    """Both threads of the checks, until it is over."""

    def __init__(self, passwords: Passwords) -> None:
        self._over = threading.Event()
        self._work = [asyncio.ensure_future(passwords._in_turn("", 1, self._wait)) for _ in range(2)]

    def _wait(self, *_: str) -> bool:
        return self._over.wait(60)

    async def over(self) -> None:
        self._over.set()
        await asyncio.gather(*self._work)


async def _outcomes(checks: list[asyncio.Task[bool]]) -> tuple[int, int]:
    """How many were looked at, and how many refused."""
    found = await asyncio.gather(*checks, return_exceptions=True)
    return sum(isinstance(one, bool) for one in found), sum(isinstance(one, TooMany) for one in found)


def _check(passwords: Passwords, whose: str, known: bool = False) -> asyncio.Task[bool]:
    return asyncio.ensure_future(passwords.verify(None, "wrong password", whose, known))


async def test_few_checks_wait_fewer_of_one_and_some_room_is_for_the_known(passwords: Passwords) -> None:
    busy = Busy(passwords)
    await asyncio.sleep(0)
    one = [_check(passwords, "a") for _ in range(20)]
    others = [_check(passwords, f"b{n}") for n in range(20)]
    known = [_check(passwords, f"c{n}", known=True) for n in range(20)]
    await asyncio.sleep(0)
    assert all(check.done() for check in one[MAX_CHECKS_OF_ONE:])  # at once, before anything is hashed
    hashes = [asyncio.ensure_future(passwords.hash("a good password", "user 1")) for _ in range(3)]
    await busy.over()
    assert await _outcomes(one) == (MAX_CHECKS_OF_ONE, 20 - MAX_CHECKS_OF_ONE)
    assert await _outcomes(others) == (4, 16)
    assert await _outcomes(known) == (4, 16)
    assert MAX_CHECKS_OF_ONE + 4 + 4 == MAX_CHECKS
    refused = await asyncio.gather(*hashes, return_exceptions=True)
    assert all(isinstance(one, TooMany) for one in refused)


async def test_who_leaves_makes_room_also_in_the_moment_when_it_is_his_turn(passwords: Passwords) -> None:
    busy = Busy(passwords)
    await asyncio.sleep(0)
    first = [_check(passwords, "a") for _ in range(MAX_CHECKS_OF_ONE)]
    await asyncio.sleep(0)
    for check in first[1:]:
        check.cancel()
    await asyncio.gather(*first[1:], return_exceptions=True)
    second = [_check(passwords, "a") for _ in range(MAX_CHECKS_OF_ONE - 1)]
    await asyncio.sleep(0)
    assert not any(check.done() for check in second)
    passwords._done()  # the first one's turn comes, as he leaves
    first[0].cancel()
    await asyncio.gather(*first, return_exceptions=True)
    await busy.over()
    assert await _outcomes(second) == (MAX_CHECKS_OF_ONE - 1, 0)
    assert await passwords.verify(None, "wrong password", "a") is False


async def test_a_login_whose_client_has_left_is_dropped(server: Running) -> None:
    passwords = server.server.passwords
    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"username": "nobody", "password": "wrong password"}).encode()

    async def waiting() -> int:
        return len(passwords._waiting)

    busy = Busy(passwords)
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(MAX_CHECKS_OF_ONE)]
    for writer in writers:
        writer.write(b"POST /v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await eventually(waiting, MAX_CHECKS_OF_ONE)
    late = await server.nobody.call("POST", "/v1/login", {"username": "admin", "password": PASSWORD})
    assert (late.status, late.headers["Retry-After"]) == (429, "1")
    for writer in writers:
        writer.close()
    await eventually(waiting, 0)
    again = asyncio.ensure_future(server.nobody.login("admin", PASSWORD))
    await eventually(waiting, 1)
    await busy.over()
    await again


async def test_fifty_clients_of_distinct_names_keep_nobody_else_out(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path / "home")
    url = process.ready()
    before = memory(process)
    statuses = []
    flood = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.2", 0), limit=0))
    honest = aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=("127.0.0.9", 0)))

    async def attack(client: int) -> None:
        number = 0
        while True:
            number += 1
            guess = {"username": f"u{client}-{number}", "password": "x" * 100}
            statuses.append((await Person(flood, url).call("POST", "/v1/login", guess)).status)

    try:
        async with flood, honest:
            attacks = [asyncio.create_task(attack(client)) for client in range(50)]
            while len(statuses) < 200:
                await Person(honest, url).get("/healthz")
            for _ in range(5):
                admin = await Person(honest, url).login("admin", PASSWORD)
                await admin.get("/v1/users")
            for task in attacks:
                task.cancel()
            await asyncio.gather(*attacks, return_exceptions=True)
        grown = memory(process) - before
        print(f"{len(statuses)} logins of others, grew by {grown // 1024} KiB")
        assert set(statuses) == {401, 429}
        assert statuses.count(401) <= OF_ADDRESS.burst + 10
        assert grown < ROOM + 2 * 19 * 1024 * 1024  # two hashes
    finally:
        process.kill()
