"""The folder that appears read-only at PYTHON_TARGET in every container: `hecaton.serverless` for images that lack it,
and the launcher of scripts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import hecaton

LAUNCHER = "launch.py"
"""Name of the script launcher in the folder: `python PYTHON_TARGET/launch.py FILE ARGUMENTS...`."""

# The mount comes before site-packages on the image's sys.path, so this file has to step aside for an installed hecaton:
# an image may have pinned another version. Python 3.8 syntax and the standard library only.
_SHIM = '''\
"""Mounted by the Hecaton worker; gives way to a hecaton package that the image itself has."""

import importlib  # `importlib.util` has the same two names, but imports typing: 3 ms of every start
import os
import sys

__version__ = "{version}"


def _load_the_images_own():
    mount = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    rest = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != mount]
    spec = importlib._bootstrap_external.PathFinder.find_spec("hecaton", rest)
    if spec is None or spec.loader is None or not spec.origin:
        return
    module = importlib._bootstrap.module_from_spec(spec)
    sys.modules["hecaton"] = module  # the import system hands out what it finds here when this file has run
    spec.loader.exec_module(module)


_load_the_images_own()
'''

# The interpreter is started anew rather than the script run in this one: then __main__, sys.argv, tracebacks and
# multiprocessing are exactly as without a launcher.
_LAUNCH = '''\
"""Runs a Python file with its output appended to the job's log: launch.py FILE ARGUMENTS..."""

import os
import sys

log = os.open(os.path.join(os.environ["HECATON_DIR"], "log"), os.O_WRONLY | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
os.close(log)
os.execv(sys.executable, [sys.executable] + sys.argv[1:])
'''


def build(state: Path) -> Path:
    """Make the folder below `state` unless it is there and whole, and return it.

    Nothing is synced: a power cut may leave empty files, and the next start finds them so. Its name holds the version
    and a hash of the content: containers that run keep the one they were started with. Readable for everyone whatever
    the umask, since images run as any user. Raises OSError."""
    files = _files()
    parent = state / "python"
    folder = parent / f"{hecaton.__version__}-{_hash(files)}"
    if _is_whole(folder, files):
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    parent.chmod(0o755)
    unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    try:
        _write(unfinished, files)
        if folder.is_dir() and not _is_whole(folder, files):
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not _is_whole(folder, files):  # else another worker of this host was faster
            raise
    return folder


def _files() -> dict[str, bytes]:
    source = Path(hecaton.__file__).parent / "serverless"
    files = {f"hecaton/serverless/{path.name}": path.read_bytes() for path in sorted(source.glob("*.py"))}
    files["hecaton/__init__.py"] = _SHIM.format(version=hecaton.__version__).encode()
    files[LAUNCHER] = _LAUNCH.encode()
    return files


def _is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    try:
        return all((folder / name).read_bytes() == content for name, content in files.items())
    except OSError:
        return False


def _hash(files: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    for directory, _, _ in os.walk(folder):
        os.chmod(directory, 0o755)


__all__ = ["LAUNCHER", "build"]
