"""The quick start of the README, command by command: real processes, a real Docker engine, over HTTP and over TLS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from tests.client.certificates import self_signed
from tests.e2e import readme
from tests.e2e.commands import Person, Running, free_port
from tests.engine.daemon import docker
from tests.engine.images import build_image
from tests.engine.registry import Registry

PAYLOAD = {"prompt": "a hundred hands", "steps": 3}
ANSWER = {"status": "success", "processed_data": PAYLOAD}

pytestmark = pytest.mark.usefixtures("own_environment")


@dataclass
class Site:
    """Where a server runs, and how one gets there. `trust`: environment of those who have to know its certificate."""

    ip: str
    url: str
    server_options: str = ""
    client_options: str = ""
    trust: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def http(tmp_path: Path) -> Site:
    port = free_port()
    return Site(f"localhost:{port}", f"http://localhost:{port}")


@pytest.fixture
def https(tmp_path: Path) -> Site:
    """A self-signed certificate, as `openssl req -x509` makes it."""
    _, certificate = self_signed(tmp_path, x509.DNSName("localhost"))
    port = free_port()
    return Site(
        f"localhost:{port}",
        f"https://localhost:{port}",
        f"--ssl-keyfile {certificate.with_name('key.pem')} --ssl-certfile {certificate}",
        f"--ca-file {certificate}",
        {"HECATON_CA_FILE": str(certificate)},
    )


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest) -> Site:
    site: Site = request.getfixturevalue(request.param)
    return site


@contextmanager
def serving(person: Person, site: Site) -> Iterator[Running]:
    port = site.ip.rpartition(":")[2]
    line = f"HECATON_ADMIN_PASS=mysecurepassword hecaton-server --port {port} {site.server_options}"
    with person.starts(line) as server:
        server.until(f"serves at {site.url}")
        yield server
        assert server.stop() == 0


@contextmanager
def working(person: Person, site: Site, name: str = "gpu-machine") -> Iterator[Running]:
    """A login in the environment; what a person is asked at a terminal has a test of its own below."""
    login = {"HECATON_USERNAME": "admin", "HECATON_PASSWORD": "mysecurepassword"}
    with person.starts(f"hecaton-gpu run {site.ip} --name {name}", {**login, **site.trust}) as worker:
        worker.until("Connected to the server")
        yield worker
        assert worker.stop() == 0


@pytest.mark.sample(1)
def test_the_quick_start_works_as_it_is_written(
    site: Site, registry: Registry, python39_image: str, tmp_path: Path
) -> None:
    machine, laptop = Person(tmp_path / "machine"), Person(tmp_path / "laptop")
    with serving(machine, site) as server:
        assert "/openapi.json" in server.said()

        made = laptop.types(f"hecaton server new --ip {site.ip} --name my-server {site.client_options}")
        assert ("does not speak TLS" in made.err) == (not site.client_options), "plain HTTP is used with a warning"
        laptop.types("hecaton server login my-server --username admin --password mysecurepassword")

        with working(machine, site):
            assert "gpu-machine  ONLINE" in laptop.types("hecaton worker list").out

            image = image_built_and_pushed(laptop, registry)
            assert registry.digest(image) in laptop.types(f"hecaton image new {image}").err
            docker("image", "rm", image, "my-handler:latest")
            assert image in laptop.types("hecaton image list").out

            laptop.write("payload.json", json.dumps(PAYLOAD))
            job_id = laptop.types(f"hecaton job new payload.json {image}").out
            assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n", job_id)
            assert json.loads(laptop.types(f"hecaton job wait {job_id}").out) == ANSWER

            shown = laptop.types(f"hecaton job show {job_id}").out
            assert re.search(r"^status +FINISHED$", shown, re.MULTILINE)
            assert re.search(r"^index +1$", shown, re.MULTILINE)
            assert '"a hundred hands"' in shown
            assert f"Processing job with data: {PAYLOAD}" in laptop.types(f"hecaton job logs {job_id}").out
            assert "FINISHED" in laptop.types("hecaton job list").out

            token = laptop.types("hecaton server token").out.strip()
            laptop.write("example.py", readme.polling_client(site.url, token, image))
            said = laptop.types("python example.py", site.trust).out
            assert re.fullmatch(r"Submitted Job ID: \S+\nResult: (.*)\n", said)
            assert said.endswith(f"Result: {ANSWER}\n")

            laptop.write("modern.py", modern_client(image))
            assert laptop.types("python modern.py").out == f"{ {**ANSWER, 'processed_data': {'prompt': 'a cat'}} }\n"


def image_built_and_pushed(person: Person, registry: Registry) -> str:
    """The README's handler in the README's image; returns the name under which the registry has it."""
    build_image("my-handler:latest", readme.dockerfile(), {"handler.py": readme.handler().encode()})
    return registry.push("my-handler:latest", f"{person.folder.parent.name[:40].lower().strip('_')}/my-handler:latest")


def modern_client(image: str) -> str:
    return f"""
from hecaton.client import Client

client = Client.from_profile()  # the server and token that `hecaton server login` left
job = client.submit("{image}", {{"prompt": "a cat"}})
print(job.result(timeout=600))
"""


def test_the_readmes_short_tour_works(http: Site, python39_image: str, tmp_path: Path) -> None:
    """The first block under "Quick start", which needs no image of one's own."""
    person = Person(tmp_path / "person")
    with serving(person, http):
        person.logs_in(http.ip, "admin", "mysecurepassword")
        with working(person, http):
            person.types("""echo 'print("hello from the GPU machine")' > hello.py""")
            assert person.types("hecaton run -i python:3.9-slim hello.py").out == "hello from the GPU machine\n"


def test_a_server_with_an_unknown_certificate_is_refused_with_what_to_do(https: Site, tmp_path: Path) -> None:
    machine, stranger = Person(tmp_path / "machine"), Person(tmp_path / "stranger")
    login = {"HECATON_USERNAME": "admin", "HECATON_PASSWORD": "mysecurepassword"}
    with serving(machine, https):
        refused = stranger.types(f"hecaton server new --ip {https.ip} --name my-server", code=4)
        refused_worker = stranger.types(f"hecaton-gpu run {https.ip}", login, code=4)
        code = f"from hecaton.client import Client; Client({https.ip!r}).login('admin', 'mysecurepassword')"
        refused_code = stranger.types(f'python -c "{code}"', code=1)
    for said in (refused.err, refused_worker.err):
        assert "certificate of localhost" in said
        assert "self-signed" in said
        assert "Traceback" not in said
        assert "HECATON_CA_FILE" in said
    assert "self-signed" in refused_code.err.splitlines()[-2] + refused_code.err.splitlines()[-1]
    assert stranger.types("hecaton server list --json").out.strip() == "[]"


def test_without_a_password_in_the_environment_the_shown_one_logs_in(http: Site, tmp_path: Path) -> None:
    person = Person(tmp_path / "person")
    with person.starts(f"hecaton-server --port {http.ip.rpartition(':')[2]}") as server:
        password = server.until(r"shown only this once:\n +(\S+)\n")[1]
        person.types(f"hecaton server new --ip {http.ip} --name my-server")
        person.types("hecaton server login my-server --username admin --password mysecurepassword", code=5)
        person.types(f"hecaton server login my-server --username admin --password '{password}'")
        assert server.stop() == 0


def test_the_worker_asks_for_username_and_password(http: Site, engine: str, tmp_path: Path) -> None:
    machine = Person(tmp_path / "machine")
    with serving(machine, http):
        machine.logs_in(http.ip, "admin", "mysecurepassword")
        machine.types("hecaton user create --username gpu-user --password gpu-password --role worker")
        with machine.at_terminal("hecaton-gpu", "run", http.ip, "--name", "asked") as worker:
            worker.until("Username: ")
            worker.type("gpu-user\n")
            worker.until("Password: ")
            worker.type("gpu-password\n")
            shown = worker.until("Connected to the server")
            assert "gpu-password" not in shown
            assert "CPU-only, 1 slot" in shown
            assert "asked  ONLINE" in machine.types("hecaton worker list").out
            worker.type("\x03")
            assert worker.end() == 0
        kept = [path for path in (machine.folder / "home/worker").rglob("*") if path.is_file()]
        assert kept
        assert [path for path in kept if b"gpu-password" in path.read_bytes()] == []
