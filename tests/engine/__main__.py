"""`python -m tests.engine up|down|status|images`: the engine of the tests by hand."""

from __future__ import annotations

import sys

from tests.engine import daemon, images, python_image, systemd
from tests.engine.needs import EngineError, require

USAGE = """\
usage: python -m tests.engine COMMAND

  up      install what is missing (as root on Debian), start dockerd if none answers, build the images
  down    stop the dockerd that `up` started; images stay in the engine
  status  say what runs
  images  build the images that are missing or stale, and list them"""


def up() -> None:
    require("docker", "dockerd", "iptables", "docker-registry", "debootstrap")
    daemon.up()
    build()
    status()


def down() -> None:
    print("dockerd stopped" if daemon.down() else "nothing to stop: no dockerd was started here")


def status() -> None:
    version = daemon.answers()
    pid = daemon.started_pid()
    how = f"process {pid}, log {daemon.log_path()}, stop it with python -m tests.engine down"
    started = f", started here: {how}" if pid else ""
    print(f"Docker engine {version} answers{started}" if version else "no Docker engine answers")


def build() -> None:
    daemon.up()
    for name in (images.base_image(), python_image.python_image(), systemd.systemd_image()):
        print(f"{name}  {images.image_id(name)}")


def main(arguments: list[str]) -> int:
    commands = {"up": up, "down": down, "status": status, "images": build}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        commands[arguments[0]]()
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
