"""Users, passwords and tokens: who gets in, and what ends a token."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from hecaton.core.model import Role
from hecaton.server.accounts.auth import MAX_TOKEN
from tests.server.people import Person, eventually
from tests.server.running import IMAGE, PASSWORD, Running, running
from tests.server.scripted_worker import ScriptedWorker

# -- users -----------------------------------------------------------------------------------------


async def test_an_admin_creates_lists_and_deletes_users(server: Running) -> None:
    await server.user("Ada.Lovelace")
    users = await server.admin.get("/v1/users")
    assert [(user["username"], user["role"]) for user in users] == [("Ada.Lovelace", "user"), ("admin", "admin")]
    taken = await server.admin.call("POST", "/v1/users", {"username": "ada.lovelace", "password": PASSWORD})
    assert (taken.status, "already" in taken.message) == (409, True)
    await server.admin.must("DELETE", "/v1/users/ada.lovelace")
    missing = await server.admin.call("DELETE", "/v1/users/Ada.Lovelace")
    assert (missing.status, "no user 'Ada.Lovelace'" in missing.message) == (404, True)
    await server.user("ada.lovelace")  # the name is free again


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a b",
        "a/b",
        "a\nINFO admin ok",
        "-rf",
        "x" * 65,
        "a\0",
        "<b>",
        "\u0430dmin",
        "\uff41dmin",
        "ad\u200bmin",
        "J\u00f6rg",
        "\u0661",
        "a\n",
    ],
)
async def test_names_that_would_do_harm_in_paths_and_logs_are_refused(server: Running, name: str) -> None:
    reply = await server.admin.call("POST", "/v1/users", {"username": name, "password": PASSWORD})
    assert (reply.status, "is not a name for a user" in reply.message) == (400, True)
    assert (await server.admin.call("POST", "/v1/workers", {"name": name})).status == 400


@pytest.mark.parametrize(("length", "status"), [(7, 400), (8, 201), (128, 201), (129, 400), (100_000, 400)])
async def test_passwords_have_8_to_128_characters(server: Running, length: int, status: int) -> None:
    reply = await server.admin.call("POST", "/v1/users", {"username": "ada", "password": "x" * length})
    assert reply.status == status


async def test_a_new_password_ends_all_tokens_of_the_user_at_once(server: Running) -> None:
    ada = await server.user("ada")
    also_ada = await server.nobody.login("ada", PASSWORD)
    await ada.must("PUT", "/v1/users/ada/password", {"password": "another password", "old_password": PASSWORD})
    for old in (ada, also_ada):
        reply = await old.call("GET", "/v1/jobs")
        assert (reply.status, "password changed" in reply.message) == (401, True)
    assert (await server.nobody.call("POST", "/v1/login", {"username": "ada", "password": PASSWORD})).status == 401
    await (await server.nobody.login("ada", "another password")).get("/v1/jobs")


async def test_ones_own_password_changes_with_the_old_one_alone(server: Running) -> None:
    """A stolen token is not the account. Admins are no exception for their own."""
    for name, person in (("ada", await server.user("ada")), ("admin", server.admin)):
        path = f"/v1/users/{name.upper()}/password"
        for old in ({}, {"old_password": None}, {"old_password": "wrong password"}, {"old_password": "x" * 1000}):
            reply = await person.call("PUT", path, {"password": "another password", **old})
            assert (reply.status, "old" in reply.message) == (403, True)
            await person.get("/v1/server")
        await person.must("PUT", path, {"password": "another password", "old_password": PASSWORD})
        person.token = (await server.nobody.login(name, "another password")).token


async def test_guesses_at_the_old_password_are_counted_as_those_of_a_login(server: Running) -> None:
    ada = await server.user("ada")
    body = {"password": "another password", "old_password": "wrong password"}
    answers = [(await ada.call("PUT", "/v1/users/ada/password", body)).status for _ in range(12)]
    assert (answers[0], answers[-1], set(answers)) == (403, 429, {403, 429})
    right = {"password": "another password", "old_password": PASSWORD}
    assert (await ada.call("PUT", "/v1/users/ada/password", right)).status in (204, 429)


async def test_workers_go_on_when_the_user_is_deleted_that_registered_them(server: Running) -> None:
    """A machine has a token of its own: who leaves a lab does not take its machines along. Only his login is over."""
    await server.image()
    robot = await server.user("robot", role="worker")
    made = await robot.must("POST", "/v1/workers", {"name": "machine"})
    worker = ScriptedWorker(server.session, server.url, made["token"])
    server.workers.append(worker)
    await worker.connect()
    await server.admin.must("DELETE", "/v1/users/robot")
    assert (await robot.call("POST", "/v1/workers", {"name": "another"})).status == 401
    await server.admin.submit(IMAGE)
    await worker.finish((await worker.start()).ref)
    (view,) = await server.admin.get("/v1/workers")
    assert (view["status"], view["registered_by"]) == ("ONLINE", "robot")


async def test_users_change_their_own_password_and_admins_any(server: Running) -> None:
    ada, _ = await server.user("ada"), await server.user("bob")
    refused = await ada.call("PUT", "/v1/users/bob/password", {"password": "another password"})
    assert refused.status == 403
    await server.admin.must("PUT", "/v1/users/bob/password", {"password": "another password"})
    await server.nobody.login("bob", "another password")


async def test_a_deleted_user_is_out_at_once_and_the_jobs_keep_the_name(server: Running) -> None:
    await server.image()
    ada = await server.user("ada")
    job_id = await ada.submit(IMAGE)
    unfinished = await server.admin.call("DELETE", "/v1/users/ada")
    assert (unfinished.status, "has unfinished jobs" in unfinished.message) == (409, True)
    await ada.must("POST", f"/v1/jobs/{job_id}/cancel")
    await server.admin.must("DELETE", "/v1/users/ada")
    assert (await ada.call("GET", "/v1/jobs")).status == 401
    assert (await server.admin.job(job_id))["owner"] == "ada"
    new = await server.user("ada")  # another person of the same name
    assert (await new.call("GET", f"/v1/jobs/{job_id}")).status == 404


async def test_there_is_always_an_admin(server: Running) -> None:
    assert (await server.admin.call("DELETE", "/v1/users/ADMIN")).status == 409
    second = await server.user("second", role="admin")
    await second.must("DELETE", "/v1/users/admin")
    assert (await server.admin.call("GET", "/v1/jobs")).status == 401
    assert (await second.call("DELETE", "/v1/users/second")).status == 409


async def test_names_of_before_go_on_and_none_is_taken_for_another(server: Running) -> None:
    """Names had any letters once. Such an account is found in each form of its letters, after one written just so."""
    database, directory = server.server.database, server.server.parts.directory
    for name in ("J\u00f6rg", "\uff41dmin"):
        hashed = await server.server.passwords.hash(PASSWORD)
        await database.write(lambda store, name=name, hashed=hashed: store.create_user(name, hashed, Role.USER, 1.0))  # type: ignore[misc]
    await directory.load()
    for form in ("J\u00f6rg", "J\u00d6RG", "Jo\u0308rg"):
        joerg = await server.nobody.login(form, PASSWORD)
        assert (await joerg.get("/v1/server"))["username"] == "J\u00f6rg"
    assert (await (await server.nobody.login("admin", PASSWORD)).get("/v1/server"))["role"] == "admin"
    assert (await (await server.nobody.login("\uff41dmin", PASSWORD)).get("/v1/server"))["role"] == "user"
    await server.admin.must("PUT", "/v1/users/Jo%CC%88rg/password", {"password": "another password"})
    await server.nobody.login("J\u00f6rg", "another password")
    assert (await server.admin.call("POST", "/v1/users", {"username": "ADMIN", "password": PASSWORD})).status == 409
    await server.admin.must("DELETE", "/v1/users/Jo%CC%88rg")


# -- logging in ------------------------------------------------------------------------------------


async def _try(person: Person, name: str, password: str) -> tuple[int, str]:
    reply = await person.call("POST", "/v1/login", {"username": name, "password": password})
    return reply.status, reply.message if reply.status >= 400 else ""


async def test_wrong_and_unknown_users_get_the_same_answer(server: Running) -> None:
    await server.user("ada")
    wrong = await _try(server.nobody, "ada", "wrong password")
    unknown = await _try(server.nobody, "nobody", "wrong password")
    assert wrong == unknown == (401, "wrong user name or password")


async def test_a_password_is_hashed_for_unknown_users_too(server: Running) -> None:
    """So that the time does not tell who exists: both cases go through the same verification."""
    passwords = server.server.passwords
    for user in (server.server.parts.directory.user_by_name("admin"), None):
        began = time.process_time()
        assert not await passwords.verify(user, "wrong password")
        assert time.process_time() - began > 0.004  # argon2 was at work


async def test_after_ten_wrong_passwords_the_name_has_to_wait(server: Running) -> None:
    await server.user("ada")
    answers = [await _try(server.nobody, "ada", f"wrong password {n}") for n in range(12)]
    assert [status for status, _ in answers] == [401] * 10 + [429] * 2
    for name in ("ada", "ADA"):
        reply = await server.nobody.call("POST", "/v1/login", {"username": name, "password": PASSWORD})
        assert (reply.status, 1 <= int(reply.headers["Retry-After"]) <= 60) == (429, True)
    await server.nobody.login("admin", PASSWORD)  # others are not locked out


async def test_fifty_guesses_at_once_are_no_way_around_the_limit(server: Running) -> None:
    answers = await asyncio.gather(*(_try(server.nobody, "admin", f"wrong password {n}") for n in range(50)))
    assert sorted(status for status, _ in answers) == [401] * 10 + [429] * 40


async def test_right_passwords_are_not_counted(server: Running) -> None:
    for _ in range(15):
        await server.nobody.login("admin", PASSWORD)


# -- tokens ----------------------------------------------------------------------------------------


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(header: dict[str, Any], claims: dict[str, Any], key: bytes, digest: Any = hashlib.sha256) -> str:
    text = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
    return f"{text}.{_b64(hmac.new(key, text.encode(), digest).digest())}"


def _forged(good: str, secret: bytes, server_id: str) -> dict[str, str]:
    head, body, signature = good.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    h256 = {"alg": "HS256", "typ": "JWT"}

    def without(name: str) -> dict[str, Any]:
        return {key: value for key, value in claims.items() if key != name}

    return {
        "empty": " ",
        "garbage": "garbage",
        "three dots": "...",
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "cut signature": good[:-4],
        "changed signature": f"{head}.{body}.{'A' * len(signature)}",
        "changed claims": f"{head}.{_b64(json.dumps({**claims, 'sub': '2'}).encode())}.{signature}",
        "alg none": f"{_b64(json.dumps({'alg': 'none'}).encode())}.{body}.",
        "alg None": f"{_b64(json.dumps({'alg': 'None'}).encode())}.{body}.{signature}",
        "no alg": f"{_b64(json.dumps({'typ': 'JWT'}).encode())}.{body}.{signature}",
        "HS512 of the right key": _token({"alg": "HS512"}, claims, secret, hashlib.sha512),
        "RS256 by name": f"{_b64(json.dumps({'alg': 'RS256'}).encode())}.{body}.{signature}",
        "another key": _token(h256, claims, b"x" * 32),
        "an empty key": _token(h256, claims, b""),
        "the server id as the key": _token(h256, claims, server_id.encode()),
        "a key named by kid": _token({**h256, "kid": "/dev/null"}, claims, b""),
        "another audience": _token(h256, {**claims, "aud": "other"}, secret),
        "another issuer": _token(h256, {**claims, "iss": "other"}, secret),
        "expired": _token(h256, {**claims, "exp": 1}, secret),
        "expiry no number": _token(h256, {**claims, "exp": "never"}, secret),
        "version no number": _token(h256, {**claims, "ver": []}, secret),
        "an old version": _token(h256, {**claims, "ver": claims["ver"] - 1}, secret),
        "an unknown user": _token(h256, {**claims, "sub": "999999"}, secret),
        "a user that is no number": _token(h256, {**claims, "sub": "admin"}, secret),
        **{f"no {name}": _token(h256, without(name), secret) for name in ("exp", "iat", "iss", "aud", "sub", "jti")},
        "claims that are no object": f"{head}.{_b64(b'[]')}.{signature}",
        "a crowd": good + "." + good,
        "nested in its head": f"{_b64(b'[' * 5900)}.{body}.{signature}",
        "nested in its claims": f"{head}.{_b64(b'[' * 5900)}.{signature}",
        "far longer than any of ours": _token(h256, {**claims, "x": "x" * MAX_TOKEN}, secret),
    }


async def test_forged_tokens_open_nothing(server: Running) -> None:
    secret = (server.server.settings.folder / "secret").read_bytes()
    health = await server.nobody.get("/healthz")
    assert server.admin.token is not None
    forged = _forged(server.admin.token, secret, health["server_id"])
    assert len(forged) >= 25
    for name, token in forged.items():
        reply = await server.nobody.call("GET", "/v1/jobs", headers={"Authorization": f"Bearer {token}"})
        assert reply.status == 401, name
        assert reply.headers["WWW-Authenticate"] == "Bearer"
    good = json.loads(base64.urlsafe_b64decode(server.admin.token.split(".")[1] + "=="))
    own = _token({"alg": "HS256", "typ": "JWT"}, good, secret)
    await Person(server.session, server.url, own).get("/v1/jobs")  # the forger above knows how


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YWRtaW46cGFzcw==", "Token x", "Bearer \xff\xfe"])
async def test_other_authorization_headers_open_nothing(server: Running, header: str) -> None:
    headers = {"Authorization": header} if header else {}
    reply = await server.nobody.call("GET", "/v1/jobs", headers=headers)
    assert (reply.status, reply.json()["error"]["code"]) == (401, "unauthenticated")


async def test_a_token_ends_by_itself_and_says_how_to_get_another(tmp_path: Any) -> None:
    async with running(tmp_path / "server", token_life=2.0) as server:
        await server.admin.get("/v1/jobs")

        async def status() -> int:
            return (await server.admin.call("GET", "/v1/jobs")).status

        await eventually(status, 401)
        reply = await server.admin.call("GET", "/v1/jobs")
    error = reply.json()["error"]
    assert (reply.status, error["message"]) == (401, "the token has expired")
    assert "hecaton server login" in error["hint"]


async def test_who_am_i_and_which_limits_hold(server: Running) -> None:
    ada = await server.user("ada")
    info = await ada.get("/v1/server")
    assert (info["username"], info["role"], info["max_payload"]) == ("ada", "user", 256 * 1024 * 1024)


async def test_worker_tokens_are_long_random_and_stored_as_hashes(server: Running) -> None:
    made = [await server.admin.must("POST", "/v1/workers", {"name": f"w{n}"}) for n in range(2)]
    assert all(len(one["token"]) >= 43 for one in made)
    assert made[0]["token"] != made[1]["token"]
    folder = server.server.settings.folder
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert made[0]["name"].encode() in stored
    assert made[0]["token"].encode() not in stored


# -- as whom on the machines -----------------------------------------------------------------------


async def test_an_admin_says_as_whom_somebodys_jobs_write_and_nobody_else_does(server: Running) -> None:
    ada = await server.user("ada")
    assert (await server.admin.must("PATCH", "/v1/users/ada", {"uid": 1017}))["uid"] == 1017
    assert (await server.admin.must("PATCH", "/v1/users/ada", {"role": "user"}))["uid"] == 1017, "it stays"
    for person, body, status in [
        (ada, {"uid": 0}, 403), (server.admin, {"uid": 0}, 400), (server.admin, {"uid": -1}, 400),
        (server.admin, {"uid": 2**31}, 400), (server.admin, {"uid": "root"}, 400), (server.admin, {}, 400),
    ]:  # fmt: skip
        assert (await person.call("PATCH", "/v1/users/ada", body)).status == status, body
    assert (await server.admin.must("PATCH", "/v1/users/ada", {"uid": None}))["uid"] is None
