"""nginx and Caddy in front of a server, with TLS, as docs/operations.md sets them up: the page is read and run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.e2e.commands import Running, free_port
from tests.engine.needs import find, require

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
NAME = "localhost"


class Certificate:
    """Of `NAME`, by an authority of its own: `ca`, `chain` and `key` are files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        made = authority.issue_cert(NAME)
        self.ca, self.chain, self.key = (folder / name for name in ("ca.pem", "chain.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        made.private_key_pem.write_to_path(self.key)
        self.chain.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))


def shown(language: str) -> str:
    """The page's block in that language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{PAGE} has {len(found)} blocks of {language}"
    return str(found[0])


def changed(text: str, *changes: tuple[str, str]) -> str:
    for before, after in changes:
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in:\n{text}"
        text = text.replace(before, after)
    return text


def nginx_server(certificate: Certificate, port: int, upstream: int, *changes: tuple[str, str]) -> str:
    """The page's block for this machine, with more changes to it."""
    return changed(
        shown("nginx"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("gpu.example.com;", f"{NAME};"),
        ("/etc/ssl/gpu.example.com.pem", str(certificate.chain)),
        ("/etc/ssl/gpu.example.com.key", str(certificate.key)),
        ("127.0.0.1:8181", f"127.0.0.1:{upstream}"),
        *changes,
    )


@contextmanager
def nginx(folder: Path, servers: Sequence[str]) -> Iterator[None]:
    """Debian's own, with its defaults but for its folders; serves until the block ends."""
    require("nginx")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    kept = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; error_log stderr notice;\nevents {{}}\n"
        f"http {{ access_log off;\n{kept}\n{''.join(servers)} }}\n"
    )
    command = [find("nginx") or "nginx", "-e", "stderr", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    with _running(command, folder / "nginx.log", "start worker processes"):
        yield


@contextmanager
def caddy(folder: Path, certificate: Certificate, upstream: int, *changes: tuple[str, str]) -> Iterator[str]:
    """Gives its address. Without the certificate that it would get by itself: no authority knows this machine."""
    require("caddy")
    port = free_port()
    own = f"https://{NAME}:{port} {{\n    tls {certificate.chain} {certificate.key}"
    here = (("gpu.example.com {", own), ("127.0.0.1:8181", f"127.0.0.1:{upstream}"))
    options = "{\n    admin off\n    auto_https disable_redirects\n    skip_install_trust\n}\n"
    (folder / "Caddyfile").write_text(options + changed(shown("caddy"), *here, *changes))
    command = [
        "env",
        f"HOME={folder}",
        f"XDG_DATA_HOME={folder}",
        f"XDG_CONFIG_HOME={folder}",
        find("caddy") or "caddy",
    ]
    command += ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    with _running(command, folder / "caddy.log", "serving initial configuration"):
        yield f"https://{NAME}:{port}"


@contextmanager
def _running(command: Sequence[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        Running(process, log).until(ready)
        yield
    finally:
        process.terminate()
        process.wait(20)
