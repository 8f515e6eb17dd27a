"""The stand-in for `python:3.9-slim`: a real Python 3.9 on the base image, with the project's wheel where pip finds it.

`RUN pip install hecaton`, the README's Dockerfile line, works in it offline and unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.engine.daemon import exclusive, state_folder
from tests.engine.images import (
    base_image,
    build_from_context,
    context,
    drop_old_builds,
    image_id,
    key_of,
    label_of,
)
from tests.engine.needs import EngineError, find

NAME = "python:3.9-slim"
RUNTIME = "hecaton-test/python:3.9"
REPOSITORY = Path(__file__).resolve().parents[2]
WHEEL_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "hecaton")
# What a slim image has no use for. ensurepip stays: it installs pip.
NOT_IN_IMAGE = ("test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "site-packages", "config-3.*", "*.a")
EXTENSIONS_NOT_IN_IMAGE = ("_tkinter*", "_test*", "xx*")

RUNTIME_DOCKERFILE = """\
FROM {base}
COPY root/ /
ENV LANG=C.UTF-8 PYTHON_VERSION={version}
RUN ldconfig && python3.9 -m ensurepip && rm -rf /usr/local/lib/python3.9/ensurepip \\
 && for name in python python3; do ln -s python3.9 /usr/local/bin/$name; done \\
 && ln -sf pip3.9 /usr/local/bin/pip \\
 && python3.9 -m compileall -q /usr/local/lib/python3.9
CMD ["python3"]
"""
DOCKERFILE = """\
FROM {runtime}
COPY pip.conf /etc/pip.conf
COPY wheelhouse/ /opt/wheelhouse/
"""
PIP_CONF = b"""\
[global]
no-index = true
find-links = /opt/wheelhouse
root-user-action = ignore
disable-pip-version-check = true
"""


def python_image() -> str:
    """`python:3.9-slim` with the wheel of the working tree; built again when the wheel's sources have changed."""
    found = label_of(NAME)
    if found == "":
        raise EngineError(
            f"This engine has a {NAME} that the tests did not make. They need the name for a stand-in and do not"
            f" replace yours: give it another name (docker tag {NAME} NAME; docker rmi {NAME}) and run them again."
        )
    runtime = runtime_image()
    key = key_of(DOCKERFILE, PIP_CONF, image_id(runtime), *_source_contents())
    if found != key:
        with exclusive():
            if label_of(NAME) != key:  # another process of this run may have built it meanwhile
                files = {"Dockerfile": DOCKERFILE.format(runtime=runtime).encode(), "pip.conf": PIP_CONF}
                build_from_context(NAME, context(files | _wheelhouse()), key)
        drop_old_builds()
    return NAME


def _source_contents() -> Iterator[bytes]:
    for source in WHEEL_SOURCES:
        path = REPOSITORY / source
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(file.relative_to(REPOSITORY)).encode()
                yield file.read_bytes()


def _wheelhouse() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=state_folder()) as folder:
        build_wheel(Path(folder))
        return {f"wheelhouse/{wheel.name}": wheel.read_bytes() for wheel in Path(folder).glob("*.whl")}


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel from the working tree into the folder; needs no network."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise EngineError(f"Could not build the wheel (is requirements-dev.txt installed?):\n{done.stdout[-2000:]}")
    return next(folder.glob("*.whl"))


def runtime_image() -> str:
    base = base_image()
    executable = _python39()
    key = key_of(RUNTIME_DOCKERFILE, *NOT_IN_IMAGE, image_id(base), str(executable), _ask(executable, "sys.version"))
    if label_of(RUNTIME) == key:
        return RUNTIME
    with exclusive(), tempfile.TemporaryDirectory(prefix="python-", dir=state_folder()) as folder:
        if label_of(RUNTIME) == key:
            return RUNTIME
        _unpack(executable, Path(folder) / "root")
        version = _ask(executable, "sys.version.split()[0]")
        (Path(folder) / "Dockerfile").write_text(RUNTIME_DOCKERFILE.format(base=base, version=version))
        packed = subprocess.run(
            ["tar", "--create", "--owner=0", "--group=0", "--directory", folder, "."],
            stdout=subprocess.PIPE,
            check=True,
        )
        build_from_context(RUNTIME, packed.stdout, key)
    return RUNTIME


def _python39() -> Path:
    roots = [os.environ.get("PYENV_ROOT"), str(Path.home() / ".pyenv")]
    if pyenv := find("pyenv"):
        roots.append(subprocess.run([pyenv, "root"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    for root in filter(None, roots):
        for found in sorted(Path(root).glob("versions/3.9.*/bin/python3.9"), reverse=True):
            return found
    if Path("/usr/bin/python3.9").exists():
        return Path("/usr/bin/python3.9")
    raise EngineError(
        f"The stand-in for {NAME} needs a real Python 3.9: none in pyenv's versions and no /usr/bin/python3.9."
        " `pyenv install 3.9` gives one."
    )


def _unpack(executable: Path, root: Path) -> None:
    """Lay out the interpreter under usr/local, with the shared libraries that the base image may lack."""
    standard_library = Path(_ask(executable, "__import__('sysconfig').get_path('stdlib')"))
    target = root / "usr/local/lib/python3.9"
    shutil.copytree(standard_library, target, ignore=_ignore)
    (target / "site-packages").mkdir()
    (root / "usr/local/bin").mkdir(parents=True)
    shutil.copy2(executable, root / "usr/local/bin/python3.9")
    for library in libraries([executable, *target.glob("lib-dynload/*.so")]):
        shutil.copy2(library, root / "usr/local/lib" / library.name)


def _ignore(folder: str, names: list[str]) -> set[str]:
    patterns = [*NOT_IN_IMAGE, "__pycache__"]
    if folder.endswith("lib-dynload"):
        patterns += EXTENSIONS_NOT_IN_IMAGE
    return set(shutil.ignore_patterns(*patterns)(folder, names))


def libraries(binaries: list[Path]) -> set[Path]:
    """The shared libraries that the binaries load, but not the C library's own: that one comes with the base image."""
    done = subprocess.run(["ldd", *map(str, binaries)], stdout=subprocess.PIPE, text=True, check=True)
    found = {Path(path) for path in re.findall(r"=> (/\S+)", done.stdout)}
    own = re.compile(r"(libc|libm|libdl|libpthread|librt|libutil|libresolv)\.so")
    return {path for path in found if not own.match(path.name)}


def _ask(executable: Path, expression: str) -> str:
    command = [str(executable), "-I", "-c", f"import sys; print({expression})"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
