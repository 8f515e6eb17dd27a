"""The images of the tests: a Debian base built from the machine's own package mirror, and what stands on it.

`build_image` is for tests that need an image of their own."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.engine.daemon import docker, exclusive, state_folder
from tests.engine.needs import SEARCH_PATH, EngineError, os_release, require

LABEL = "hecaton.test"
"""On every image made here; its value is the key of what the image was made from."""
BASE_RECIPE = "minbase, documentation removed, 1"
CLUTTER = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


def build_image(tag: str, dockerfile: str, files: Mapping[str, bytes] | None = None) -> str:
    """Build an image and return its id; `files` are the build's context by path. The engine caches unchanged builds."""
    return build_from_context(tag, context({"Dockerfile": dockerfile.encode(), **(files or {})}))


def build_from_context(tag: str, tar: bytes, key: str = "1") -> str:
    """Build an image from a packed build context and return its id."""
    docker("build", "--quiet", "--force-rm", "--label", f"{LABEL}={key}", "--tag", tag, "-", stdin=tar)
    return docker("image", "inspect", "--format", "{{.Id}}", tag)


def context(files: Mapping[str, bytes]) -> bytes:
    """A build context as a tar, with fixed times: the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def key_of(*parts: str | bytes) -> str:
    """A short hash of what an image is made from."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:32]


def label_of(tag: str) -> str | None:
    """The key that an image of this name was built with: '' for an image not made here, None when there is none."""
    try:
        return docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', tag)
    except EngineError:
        return None


def image_id(tag: str) -> str:
    """The id of a local image."""
    return docker("image", "inspect", "--format", "{{.Id}}", tag)


def drop_old_builds() -> None:
    """Remove untagged earlier builds; those of the last hour stay, another test run may still use them."""
    docker("image", "prune", "--force", "--filter", f"label={LABEL}", "--filter", "until=1h")


def base_name() -> str:
    """Name of the base image: Debian's minimal system of this machine's release (libraries of the host fit into it)."""
    return f"hecaton-test/base:{os_release().get('VERSION_CODENAME', 'unknown')}"


def base_image() -> str:
    """The base image's name; builds it once (about a minute), after that the engine has it."""
    name, key = base_name(), key_of(BASE_RECIPE)
    if label_of(name) == key:
        return name
    require("debootstrap")
    with exclusive():
        if label_of(name) != key:
            _bootstrap(name, key)
    return name


def _bootstrap(name: str, key: str) -> None:
    codename = name.partition(":")[2]
    root = Path(tempfile.mkdtemp(prefix="base-", dir=state_folder()))
    try:
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", codename, str(root), _mirror(codename)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": SEARCH_PATH},
        )
        if done.returncode != 0:
            raise EngineError(f"debootstrap could not make {name}:\n{done.stdout[-2000:]}")
        root.chmod(0o755)
        for clutter in CLUTTER:
            shutil.rmtree(root / clutter, ignore_errors=True)
        _import(root, name, key)
    finally:
        if str(root) not in Path("/proc/mounts").read_text():
            shutil.rmtree(root)


def _import(root: Path, name: str, key: str) -> None:
    with subprocess.Popen(
        ["tar", "--create", "--one-file-system", "--numeric-owner", "--directory", str(root), "."],
        stdout=subprocess.PIPE,
    ) as tar:
        subprocess.run(
            ["docker", "import", "--change", f"LABEL {LABEL}={key}", "--change", 'CMD ["sh"]', "-", name],
            stdin=tar.stdout,
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _mirror(codename: str) -> str:
    """The package mirror that this machine itself is configured with."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        name, component, address = line.split(" ", 2)
        if (name, component) == (codename, "main"):
            return address
    raise EngineError(
        f"No package source for {codename} main is configured in /etc/apt; the base image is made from it."
    )
