"""Images on a real engine: by digest, by tag, from a real registry, and from registries that do not deliver."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from aiodocker import DockerError

from hecaton.core.model import Reason
from hecaton.worker.runtimes import docker_images, port
from hecaton.worker.runtimes.docker import DockerRuntime
from hecaton.worker.runtimes.docker_faults import pull_fault
from hecaton.worker.runtimes.docker_images import repository
from hecaton.worker.runtimes.docker_logins import RegistryLogin, login_for
from hecaton.worker.runtimes.port import RuntimeFault
from tests.contracts.runtime_contract import WORKER, reference, until
from tests.engine.daemon import docker
from tests.engine.images import build_image, image_id
from tests.engine.registry import PASSWORD, USER, Registry, running_registry

Push = Callable[[str, str], str]


@pytest_asyncio.fixture
async def runtime(engine: str) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(WORKER)
    yield runtime
    await runtime.close()


@pytest.fixture
def push(registry: Registry, base_image: str) -> Push:
    """Build a new image that says `word`, push it under a name and forget it here; returns the full name."""

    def push(name: str, word: str) -> str:
        build_image("hecaton-test/pushed:1", f"FROM {base_image}\nENV WORD={word}\nCMD echo {word}")
        full = registry.push("hecaton-test/pushed:1", name)
        docker("image", "rm", "hecaton-test/pushed:1")
        return full

    return push


@pytest.fixture
def name() -> str:
    return f"team/app-{uuid.uuid4().hex[:8]}:1"


def ignore(text: str) -> None:
    pass


class TestPulls:
    async def test_by_digest_and_says_how_far_it_is(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        digest = registry.digest(full)
        registry.forget_local(full)
        notes: list[str] = []
        image = await runtime.prepare(reference(full, digest), notes.append)
        assert image.env["WORD"] == "one"
        assert image.command
        assert notes[0] == f"pulling {full}"
        assert image.image_id == image_id(f"{repository(full)}@{digest}") == image_id(full)  # people find it by its tag

    async def test_by_tag_where_no_digest_is_known(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        registry.forget_local(full)
        assert (await runtime.prepare(reference(full), ignore)).env["WORD"] == "one"

    async def test_what_was_registered_though_the_tag_moved_on(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "old")
        digest = registry.digest(full)
        push(name, "new")
        docker("image", "rm", "--force", f"{repository(full)}@{digest}")
        image = await runtime.prepare(reference(full, digest), ignore)
        assert image.env["WORD"] == "old"
        moved = json.loads(docker("image", "inspect", "--format", "{{json .Config.Env}}", full))
        assert "WORD=new" in moved  # a tag that is here belongs to its owner and stays where it points

    async def test_once_for_all_who_wait(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        digest = registry.digest(full)
        registry.forget_local(full)
        heard: list[list[str]] = [[], [], []]
        waiting = [asyncio.create_task(runtime.prepare(reference(full, digest), notes.append)) for notes in heard]
        # One who asks late may find it here already.
        await until(lambda: all(notes or task.done() for notes, task in zip(heard, waiting, strict=True)))
        waiting[0].cancel()  # one who gives up takes nothing away from the others
        images = await asyncio.gather(*waiting[1:])
        assert images[0] == images[1]
        assert waiting[0].cancelled() or waiting[0].result() == images[0]

    async def test_again_after_somebody_removed_the_image(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        digest = registry.digest(full)
        first = await runtime.prepare(reference(full, digest), ignore)
        docker("image", "rm", "--force", first.image_id)
        assert await runtime.prepare(reference(full, digest), ignore) == first


class TestUsesWhatIsHere:
    async def test_an_image_that_was_never_pushed(self, runtime: DockerRuntime, base_image: str) -> None:
        build_image("never-pushed:1", f"FROM {base_image}\nENV WORD=local")
        notes: list[str] = []
        image = await runtime.prepare(reference("never-pushed:1"), notes.append)
        assert (image.image_id, image.env["WORD"], notes) == (image_id("never-pushed:1"), "local", [])
        assert await runtime.prepare(reference("never-pushed:1", image.image_id), notes.append) == image
        assert notes == []

    async def test_without_asking_the_registry(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        notes: list[str] = []
        await runtime.prepare(reference(full, registry.digest(full)), notes.append)
        assert notes == []

    async def test_the_same_digest_under_another_repository(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        docker("tag", full, "renamed:1")
        notes: list[str] = []
        await runtime.prepare(reference("renamed:1", registry.digest(full)), notes.append)
        assert notes == []


class _Stub(BaseHTTPRequestHandler):
    """A registry that answers every question about an image in one way."""

    status = 200
    body = b""
    hang: threading.Event | None = None

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.hang is not None:
            self.hang.wait(60)
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Callable[..., str]]:
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int = 200, code: str = "", message: str = "", hang: threading.Event | None = None) -> str:
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        handler = type("Handler", (_Stub,), {"status": status, "body": body, "hang": hang})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        return f"localhost:{server.server_port}/app:1"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "MANIFEST_UNKNOWN", Reason.IMAGE_DENIED),
        (401, "UNAUTHORIZED", Reason.IMAGE_DENIED),
        (403, "DENIED", Reason.IMAGE_DENIED),
        (429, "TOOMANYREQUESTS", Reason.IMAGE_PULL),
        (500, "UNKNOWN", Reason.IMAGE_PULL),
        (503, "UNAVAILABLE", Reason.IMAGE_PULL),
    ],
)
async def test_what_a_registry_answers_decides_whether_it_is_worth_another_try(
    runtime: DockerRuntime, stub: Callable[..., str], status: int, code: str, reason: Reason
) -> None:
    name = stub(status, code, code.lower())
    with pytest.raises(RuntimeFault, match=name) as fault:
        await runtime.prepare(reference(name), ignore)
    assert fault.value.reason == reason, fault.value.message


async def test_a_registry_that_is_down_may_come_back(runtime: DockerRuntime) -> None:
    with pytest.raises(RuntimeFault, match="connection refused") as fault:
        await runtime.prepare(reference("localhost:9/app:1"), ignore)
    assert fault.value.reason == Reason.IMAGE_PULL


async def test_a_pull_that_stands_still_is_given_up(
    runtime: DockerRuntime, stub: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_images, "STALL_SECONDS", 0.5)
    released = threading.Event()
    name = stub(404, "MANIFEST_UNKNOWN", hang=released)
    try:
        with pytest.raises(RuntimeFault, match=r"no progress for 0\.5 s") as fault:
            await runtime.prepare(reference(name), ignore)
    finally:
        released.set()
    assert fault.value.reason == Reason.IMAGE_PULL


async def test_a_pull_that_nobody_waits_for_any_more_ends(runtime: DockerRuntime, stub: Callable[..., str]) -> None:
    released = threading.Event()
    name = stub(404, "MANIFEST_UNKNOWN", hang=released)
    heard: list[str] = []
    pulling = asyncio.create_task(runtime.prepare(reference(name), heard.append))
    await until(lambda: bool(heard))
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    released.set()
    with pytest.raises(RuntimeFault, match=name):  # the next one starts a pull of its own
        await runtime.prepare(reference(name), ignore)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("python:3.9-slim", "python"),
        ("python", "python"),
        ("localhost:5000/team/app:1", "localhost:5000/team/app"),
        ("localhost:5000/app", "localhost:5000/app"),
        ("ghcr.io/a/b:1@sha256:00", "ghcr.io/a/b"),
    ],
)
def test_repository_of_a_name(name: str, expected: str) -> None:
    assert repository(name) == expected


def said(login: RegistryLogin) -> dict[str, str] | None:
    """What the registry is told."""
    header = login.headers.get("X-Registry-Auth")
    return None if header is None else dict(json.loads(base64.urlsafe_b64decode(header)))


@pytest.fixture
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write(**config: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps(config))

    return write


async def test_logins_of_the_host_are_used(docker_config: Callable[..., None]) -> None:
    assert said(await login_for("ghcr.io/a/b")) is None
    login = {"auth": base64.b64encode(b"me:pass:word").decode()}
    hub = {"auth": base64.b64encode(b"hubber:x").decode()}
    docker_config(
        auths={"ghcr.io": login, "https://index.docker.io/v1/": hub, "helped.io": {}, "https://old.io/v1/": login}
    )
    assert said(await login_for("ghcr.io/a/b@sha256:00")) == {
        "username": "me",
        "password": "pass:word",
        "serveraddress": "ghcr.io",
    }
    assert (said(await login_for("old.io/app")) or {})["username"] == "me"
    for official in ("python:3.9-slim", "user/app", "docker.io/user/app"):
        assert (said(await login_for(official)) or {})["username"] == "hubber"
    assert said(await login_for("helped.io/app")) is None
    assert said(await login_for("localhost:5000/app")) is None


HELPER = """#!/bin/sh
read registry
case "$registry" in
    ghcr.io) echo '{"ServerURL": "ghcr.io", "Username": "helped", "Secret": "by me"}' ;;
    https://index.docker.io/v1/) echo '{"Username": "<token>", "Secret": "a token"}' ;;
    broken.io) echo "the vault is sealed"; exit 1 ;;
    silly.io) echo "no JSON" ;;
    *) echo "credentials not found in native keychain"; exit 1 ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A credential helper that is in the PATH."""
    program = tmp_path / "docker-credential-vault"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return "vault"


async def test_credential_helpers_are_asked_as_docker_asks_them(
    docker_config: Callable[..., None], helper: str
) -> None:
    login = {"auth": base64.b64encode(b"me:kept").decode()}
    docker_config(credsStore=helper, auths={"kept.io": login})
    assert said(await login_for("ghcr.io/a")) == {"username": "helped", "password": "by me", "serveraddress": "ghcr.io"}
    assert said(await login_for("python:3.9-slim")) == {"identitytoken": "a token"}
    assert (said(await login_for("kept.io/a")) or {})["username"] == "me"
    unknown = await login_for("unknown.io/a")
    assert (said(unknown), unknown.problem) == (None, None)
    docker_config(credHelpers={"ghcr.io": helper})
    assert said(await login_for("ghcr.io/a")) is not None
    assert said(await login_for("python:3.9-slim")) is None


async def test_a_credential_helper_that_fails_is_named(docker_config: Callable[..., None], helper: str) -> None:
    docker_config(credsStore=helper)
    assert (await login_for("broken.io/a")).hint.endswith("docker-credential-vault failed: the vault is sealed.")
    assert (await login_for("silly.io/a")).problem == "docker-credential-vault gave no login"
    docker_config(credsStore="nowhere")
    assert "docker-credential-nowhere, which Docker's configuration names, cannot be run" in (
        (await login_for("ghcr.io/a")).problem or ""
    )


@pytest.mark.parametrize("text", ["no basic auth credentials", "unauthorized: authentication required", "denied: no"])
def test_no_access_is_said_as_such(text: str) -> None:
    """With what the engine says for registries of each kind: basic (ECR, GitLab, htpasswd) and bearer."""
    fault = pull_fault("ghcr.io/a:1", DockerError(500, f'Head "https://ghcr.io/v2/": {text}'), RegistryLogin("ghcr.io"))
    assert (fault.reason, fault.message.startswith("no access to ghcr.io/a:1: ")) == (Reason.IMAGE_DENIED, True)
    assert "run `docker login ghcr.io` on the worker as " in (fault.hint or "")


class TestNames:
    async def test_what_a_name_means_here(self, runtime: DockerRuntime, base_image: str) -> None:
        build_image("moving:1", f"FROM {base_image}\nENV WORD=one")
        first = await runtime.here(reference("moving:1"))
        assert first is not None
        assert first.image_id == image_id("moving:1")
        assert first.made is not None
        assert await runtime.here(reference("no-such:1")) is None

    async def test_a_rebuilt_image_is_noticed(
        self, runtime: DockerRuntime, base_image: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(port, "LOOK_AGAIN", 3600.0)
        await runtime.until_names_move()  # it listens from here on
        moved = asyncio.create_task(runtime.until_names_move())
        await asyncio.sleep(0)
        build_image("moving:1", f"FROM {base_image}\nENV WORD=two")
        await asyncio.wait_for(moved, 20)

    async def test_names_are_looked_up_again_though_nobody_says_anything(
        self, runtime: DockerRuntime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await runtime.until_names_move()
        monkeypatch.setattr(port, "LOOK_AGAIN", 0.05)
        await asyncio.wait_for(runtime.until_names_move(), 20)

    async def test_what_a_tag_is_at_its_registry(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        first = registry.digest(full)
        assert await runtime.resolve(full) == first
        push(name, "two")
        assert await runtime.resolve(full) == registry.digest(full) != first
        with pytest.raises(RuntimeFault, match="cannot pull") as fault:
            await runtime.resolve(f"{registry.address}/no/such:1")
        assert fault.value.reason == Reason.IMAGE_DENIED

    async def test_a_pull_by_tag_says_which_digest_it_got(
        self, runtime: DockerRuntime, registry: Registry, push: Push, name: str
    ) -> None:
        full = push(name, "one")
        digest = registry.digest(full)
        registry.forget_local(full)
        assert (await runtime.prepare(reference(full), ignore)).pulled == digest
        assert (await runtime.prepare(reference(full), ignore)).pulled is None  # it was here


class TestPrivateRegistry:
    """With basic authentication, as ECR, GitLab and htpasswd have it."""

    @pytest.fixture
    def closed(self, engine: str, tmp_path: Path) -> Iterator[Registry]:
        (tmp_path / "registry").mkdir()
        with running_registry(tmp_path / "registry", private=True) as registry:
            yield registry

    async def test_without_a_login_there_is_no_access(
        self, runtime: DockerRuntime, closed: Registry, docker_config: Callable[..., None]
    ) -> None:
        docker_config(auths={})
        for call in (
            runtime.resolve(f"{closed.address}/app:1"),
            runtime.prepare(reference(f"{closed.address}/app:1"), ignore),
        ):
            with pytest.raises(RuntimeFault, match=r"^no access to localhost") as fault:
                await call
            assert fault.value.reason is Reason.IMAGE_DENIED
            assert f"docker login {closed.address}" in (fault.value.hint or "")

    async def test_a_login_sees_what_a_tag_means_and_pulls_it(
        self, runtime: DockerRuntime, closed: Registry, base_image: str, docker_config: Callable[..., None]
    ) -> None:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        docker_config(auths={closed.address: {"auth": login}})
        digests = []
        for word in ("one", "two"):
            build_image("hecaton-test/private:1", f"FROM {base_image}\nENV WORD={word}")
            full = closed.push("hecaton-test/private:1", "app:1")
            digests.append(closed.digest(full))
            assert await runtime.resolve(full) == digests[-1]
            closed.forget_local(full)
        assert digests[0] != digests[1]
        found = await runtime.prepare(reference(full), ignore)
        assert (found.env["WORD"], found.pulled) == ("two", digests[1])
