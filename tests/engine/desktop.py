"""A machine as people have it before Hecaton: Debian with systemd, sudo, pipx, uv and an externally managed Python.

Its pip and its uv know no index but a folder in which lies what Hecaton needs, and not Hecaton itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.daemon import exclusive, state_folder
from tests.engine.images import base_image, build_from_context, context, image_id, key_of, label_of
from tests.engine.python_image import PIP_CONF, REPOSITORY
from tests.engine.systemd import SystemdContainer, booted

NAME = "hecaton-test/desktop:latest"
USER, PASSWORD = "you", "the-password-of-you"
"""May do what root may, by sudo, which asks for the password."""
SOCKET = Path("/var/run/docker.sock")
SUDO_ENVIRONMENT = "/etc/sudo-environment"
INSTALLERS = REPOSITORY / "tests" / "release" / "requirements.txt"

UV_TOML = b"""no-index = true
find-links = ["/opt/wheelhouse"]
python-downloads = "never"
"""

DOCKERFILE = """\
FROM {base}
RUN apt-get update && apt-get install --yes --no-install-recommends \\
    systemd systemd-sysv dbus ca-certificates sudo pipx python3-pip python3-venv \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY pip.conf /etc/pip.conf
COPY uv.toml /etc/uv/uv.toml
COPY wheelhouse/ /opt/wheelhouse/
RUN pip install --break-system-packages --no-cache-dir uv
RUN systemctl mask systemd-resolved.service systemd-networkd.service systemd-timesyncd.service \\
 && useradd --create-home --shell /bin/bash --groups sudo {user} && echo {user}:{password} | chpasswd \\
 && echo 'Defaults env_file={sudo_environment}' > /etc/sudoers.d/environment
ENV LANG=C.UTF-8
CMD ["/sbin/init"]
"""


def desktop_image() -> str:
    """Its name. It is built once for each set of dependencies; their wheels come from the index of this machine."""
    base = base_image()
    pins = (REPOSITORY / "requirements-dev.txt").read_bytes() + INSTALLERS.read_bytes()
    dockerfile = DOCKERFILE.format(base=base, user=USER, password=PASSWORD, sudo_environment=SUDO_ENVIRONMENT)
    key = key_of(dockerfile, PIP_CONF, UV_TOML, image_id(base), pins, (REPOSITORY / "pyproject.toml").read_bytes())
    if label_of(NAME) != key:
        with exclusive():
            if label_of(NAME) != key:
                files = {"Dockerfile": dockerfile.encode(), "pip.conf": PIP_CONF, "uv.toml": UV_TOML}
                build_from_context(NAME, context(files | _wheelhouse()), key)
    return NAME


def _wheelhouse() -> dict[str, bytes]:
    """All that Hecaton needs at the versions that the tests use, and what pipx puts into its environments."""
    with tempfile.TemporaryDirectory(prefix="wheelhouse-", dir=state_folder()) as name:
        pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "wheel", "--wheel-dir", name]
        files = REPOSITORY / "requirements-dev.txt", INSTALLERS
        pinned = [*(f"--constraint={file}" for file in files), str(REPOSITORY)]
        subprocess.run([*pip, "--no-build-isolation", *pinned, "pip", "setuptools", "wheel", "uv"], check=True)
        wheels = (wheel for wheel in Path(name).glob("*.whl") if not wheel.name.startswith("hecaton-"))
        return {f"wheelhouse/{wheel.name}": wheel.read_bytes() for wheel in wheels}


@contextmanager
def desktop(wheels: Path, home: Path) -> Iterator[SystemdContainer]:
    """One that has booted, with the engine of the tests as its own.

    `wheels`: a folder, there as /wheels. `home`: an empty folder that has the same path there, for what services keep:
    the engine mounts folders of it into containers."""
    home.mkdir()
    volumes = [f"--volume={wheels}:/wheels:ro", f"--volume={home}:{home}", f"--volume={SOCKET}:/run/docker.sock"]
    with booted(desktop_image(), *volumes, "--hostname=desktop") as machine:
        machine.run("sh", "-c", f"echo HECATON_HOME={home} > {SUDO_ENVIRONMENT}")
        try:
            yield machine
        finally:
            machine.run("sh", "-c", f"HECATON_HOME={home} hecaton-gpu uninstall; find {home} -mindepth 1 -delete")
