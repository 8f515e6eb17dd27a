"""Schemathesis reads the description and asks everything in it, as everybody who may ask: no answer is a 5xx, none is
other than described, and what the description forbids is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.conftest import SEED
from tests.description.tools import python_tools
from tests.faults.figures import FULL, figure
from tests.server.running import IMAGE, PASSWORD
from tests.server.server_process import ServerProcess

CHECKS = ",".join((
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance", "negative_data_rejection",
))  # fmt: skip
# A request may wait for a minute: not here.
SETTINGS = """
[parameters]
"path.job" = "{job}"
"path.batch" = "{batch}"
"query.wait" = 0.05
[auth]
auto-signup = false
"""
CALLERS = ("nobody", "user", "admin", "role worker", "worker")


class _Site:
    """A server with a job and a batch that have ended, and a token of every kind."""

    def __init__(self, home: Path) -> None:
        self.process = ServerProcess(home)
        self.url = self.process.ready()
        self.tokens: dict[str, str | None] = {"nobody": None, "admin": self._login("admin")}
        for caller, role in (("user", "user"), ("role worker", "worker")):
            self._post("/v1/users", {"username": role, "password": PASSWORD, "role": role})
            self.tokens[caller] = self._login(role)
        self.tokens["worker"] = self._post("/v1/workers", {"name": "machine"})["token"]
        self._post("/v1/images", {"name": IMAGE, "verify": False})
        self.job = self._post("/v1/jobs", {"image": IMAGE, "input": 1}, "user")["id"]
        self.batch = self._post("/v1/batches", {"image": IMAGE, "items": [{"input": 1}]}, "user")["id"]
        self._post(f"/v1/jobs/{self.job}/cancel", None, "user")
        self._post(f"/v1/batches/{self.batch}/cancel", None, "user")

    def _login(self, name: str) -> str:
        return str(self._post("/v1/login", {"username": name, "password": PASSWORD}, "nobody")["token"])

    def _post(self, path: str, body: object, caller: str = "admin") -> Any:
        token = self.tokens[caller] if hasattr(self, "tokens") else None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, data, headers, method="POST")) as reply:
            return json.load(reply)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Site]:
    made = _Site(tmp_path_factory.mktemp("fuzzed") / "home")
    yield made
    made.process.kill()


@pytest.mark.sample(1)
@pytest.mark.parametrize("caller", CALLERS)
def test_no_question_that_can_be_made_of_the_description_breaks_an_answer(
    site: _Site, caller: str, tmp_path: Path
) -> None:
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS.format(job=site.job, batch=site.batch))
    token = site.tokens[caller]
    command = [
        str(python_tools() / "schemathesis"), "--config-file", str(settings), "run", f"{site.url}/openapi.json",
        "--phases", "examples,coverage,fuzzing" if FULL else "examples,fuzzing", "--max-examples", str(figure(4, 40)),
        "--seed", os.environ[SEED], "--checks", CHECKS, "--continue-on-failure", "--no-color", "--no-shrink",
        "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off",
        "--request-timeout", "60", *(["-H", f"Authorization: Bearer {token}"] if token else []),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9]\d* generated", done.stdout), done.stdout
    assert "Traceback" not in site.process.said
