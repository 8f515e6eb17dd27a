"""Images in the shapes of popular ones, each with what can go wrong when somebody else starts it: an entrypoint, an
init process, a user, an environment, files that are in the way.

They hold no code of the package, so a change of it builds none of them anew. Each has a native handler of its own."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.engine.daemon import exclusive
from tests.engine.images import build_from_context, context, image_id, key_of, label_of
from tests.engine.needs import require
from tests.engine.python_image import runtime_image

FACTS = '''
def facts(by):
    """What the test compares: which program ran, and what it finds around itself."""
    import os
    import sys
    from importlib.util import find_spec
    import hecaton
    first = open("/proc/1/cmdline").read().split("\\0")
    where = hecaton.__file__.rpartition("/hecaton/")[0]
    return {
        "by": by, "made": find_spec("onlyhere") is not None, "init": " ".join(first[:2]), "user": os.getuid(),
        "long": [len(os.environ.get("LONG_%d" % n, "")) for n in range(40)], "hecaton": where,
    }
'''
NATIVE = f"{FACTS}\nfrom hecaton.serverless import start\nstart(lambda job: facts('image'))\n"
COPY = 'COPY handler.py /app/handler.py\nCMD ["python", "/app/handler.py"]\n'

S6_INIT = """\
#!/bin/sh
# As s6-overlay's: it starts services first, ends them with the command, and is process 1 or nothing.
[ $$ -eq 1 ] || { echo "s6-overlay-suexec: fatal: can only run as pid 1" >&2; exit 100; }
trap 'kill -TERM "$child"' TERM
"$@" &
child=$!
wait "$child"
code=$?
trap - TERM
wait
exit $code
"""
CONDA_ENTRYPOINT = """\
#!/bin/bash
# As that of the images of conda: what is to run is found in an environment that is entered first.
set -e
echo "environment: app"
export PATH=/opt/conda/envs/app/bin:$PATH PYTHONPATH=/opt/conda/own:$PYTHONPATH
exec "$@"
"""
OLD = "raise SystemExit('this is hecaton 1.0.1, which speaks another protocol')\n"
PIP_CONF = b"[global]\nno-index = true\nfind-links = /opt/wheelhouse\n"
LAUNCH = "raise SystemExit('the module `launch` of this image is not to be run')\n"


def _other_program() -> bytes:
    """A wheel like that of the `hecaton` 1.0.1 that an index may have: no version in its code."""
    information = "hecaton-1.0.1.dist-info"
    files = {
        "hecaton/__init__.py": "",
        "hecaton/serverless.py": "def start(handler):\n    raise FileNotFoundError('/shared')\n",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: hecaton\nVersion: 1.0.1\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{information}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{information}/RECORD"])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


class Shape(msgspec.Struct, frozen=True):
    """`deaf`: ways in which its ENTRYPOINT does not run what it is given. `shows`: what is to be seen in it."""

    like: str
    dockerfile: str
    files: Mapping[str, bytes] = {}
    deaf: tuple[str, ...] = ()
    shows: Mapping[str, object] = {}


SHAPES: Mapping[str, Shape] = {
    "plain": Shape("python:3.9-slim", COPY, shows={"init": "/sbin/docker-init --"}),
    "s6": Shape(
        "linuxserver.io",
        f'COPY init /init\nENTRYPOINT ["/init"]\n{COPY}',
        {"init": S6_INIT.encode()},
        shows={"init": "/bin/sh /init"},
    ),
    "conda": Shape(
        "mambaorg/micromamba",
        "RUN python -m venv --without-pip /opt/conda/envs/app"
        " && touch /opt/conda/envs/app/lib/python3.9/site-packages/onlyhere.py\n"
        f'COPY entrypoint.sh /entrypoint.sh\nENTRYPOINT ["/entrypoint.sh"]\n{COPY}',
        {"entrypoint.sh": CONDA_ENTRYPOINT.encode()},
        shows={"made": True},
    ),
    "tool": Shape(
        "a tool such as ffmpeg or python",
        'COPY handler.py /app/handler.py\nENTRYPOINT ["python"]\nCMD ["/app/handler.py"]\n',
        deaf=("handler", "script"),
    ),
    "fixed": Shape(
        "an ENTRYPOINT in the form of a shell line",
        "COPY handler.py /app/handler.py\nENTRYPOINT exec python /app/handler.py\n",
        deaf=("handler", "script"),
    ),
    "tini": Shape(
        "jupyter/base-notebook",
        f'COPY tini /usr/bin/tini\nRUN chmod 755 /usr/bin/tini\nENTRYPOINT ["tini", "-g", "--"]\n{COPY}',
        shows={"init": "tini -g"},
    ),
    "non-root": Shape("bitnami", f"{COPY}USER 4321\nWORKDIR /var\n", shows={"user": 4321}),
    "no-shell": Shape(
        "gcr.io/distroless/python3",
        f'{COPY}RUN rm -f /usr/bin/*sh /usr/bin/env /usr/bin/perl*\nENTRYPOINT ["/usr/local/bin/python3"]\n'
        'CMD ["/app/handler.py"]\n',
    ),
    "own-path": Shape(
        "nvcr.io/nvidia/pytorch",
        "COPY old.py /own/hecaton/__init__.py\nCOPY old.py /own/hecaton/serverless.py\nCOPY launch.py /own/launch.py\n"
        "RUN mkdir /own/hecaton-1.0.1.dist-info && touch /own/onlyhere.py\n"
        f"ENV PYTHONPATH=/own:/app\n{COPY}",
        {"old.py": OLD.encode(), "launch.py": LAUNCH.encode()},
        shows={"made": True, "hecaton": "/run/hecaton/python"},
    ),
    "other-program": Shape(
        "the README's Dockerfile, where the index has another program of that name",
        "COPY pip.conf /etc/pip.conf\nCOPY hecaton-1.0.1-py3-none-any.whl /opt/wheelhouse/\n"
        f"RUN pip install hecaton\n{COPY}",
        {"pip.conf": PIP_CONF, "hecaton-1.0.1-py3-none-any.whl": _other_program()},
        shows={"hecaton": "/run/hecaton/python"},
    ),
    "opt": Shape(
        "an application in /opt/hecaton",
        'COPY handler.py /opt/hecaton/handler.py\nRUN touch /opt/hecaton/onlyhere.py\nENV PYTHONPATH=/opt/hecaton\n'
        'CMD ["python", "/opt/hecaton/handler.py"]\n',
        shows={"made": True},
    ),
    "read-only": Shape(
        "a hardened image: its user can write nowhere",
        f"{COPY}RUN chmod 755 /tmp /var/tmp && rm -rf /run/lock\nUSER 65534:65534\n",
        shows={"user": 65534},
    ),
    "long-env": Shape(
        "an image that was made by a program",
        "".join(f"ENV LONG_{n}={'x' * 20_000}\n" for n in range(40)) + COPY,
        shows={"long": [20_000] * 40},
    ),
}  # fmt: skip


def images() -> dict[str, str]:
    """By shape the name of its image. They are built if the engine lacks them."""
    runtime = runtime_image()
    made_of = image_id(runtime)
    return {shape: _image(shape, runtime, made_of) for shape in SHAPES}


def _image(shape: str, runtime: str, made_of: str) -> str:
    name, one = f"hecaton-test/shape-{shape}:1", SHAPES[shape]
    dockerfile = f"FROM {runtime}\n{one.dockerfile}".encode()
    key = key_of(dockerfile, NATIVE, made_of, *one.files.values())
    if label_of(name) != key:
        with exclusive():
            if label_of(name) != key:
                files = {"Dockerfile": dockerfile, "handler.py": NATIVE.encode(), **one.files}
                if shape == "tini":
                    files["tini"] = _tini()
                build_from_context(name, context(files), key)
    return name


def _tini() -> bytes:
    require("dockerd")  # which comes with it
    return Path(shutil.which("tini-static") or shutil.which("docker-init") or "tini-static").read_bytes()
