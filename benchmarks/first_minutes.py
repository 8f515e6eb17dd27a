"""How long it takes from the first Enter to the first line that a job prints, on a fresh Debian machine that has the
job's image: `python -m benchmarks.first_minutes [--user root] [WHEEL]`.

Real commands at a real terminal, in a container with a systemd of its own and the engine of this machine. The index is
a folder in it, so what a network costs is not in the figure."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from tests.engine import daemon, python_image
from tests.engine.desktop import USER, desktop_image
from tests.release.walk import walk


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_minutes", description=__doc__)
    parser.add_argument("--user", choices=(USER, "root"), default=USER, help=f"{USER}: has sudo, and is asked by it")
    parser.add_argument("wheel", type=Path, nargs="?", help="default: built from the working tree")
    options = parser.parse_args()
    daemon.up()
    python_image.python_image()
    desktop_image()
    with tempfile.TemporaryDirectory(prefix="hecaton-first-") as name:
        (folder := Path(name) / "wheels").mkdir()
        wheel = options.wheel.resolve() if options.wheel else python_image.build_wheel(folder)
        walked = walk(wheel, Path(name) / "home", options.user)
    for line, seconds in walked.seconds:
        print(f"{seconds:7.1f} s  {line}")
    print(
        f"{walked.until_first_line:7.1f} s  from the first Enter to the job's first line; "
        f"commands: {len(walked.seconds)}, questions: {walked.questions}"
    )


if __name__ == "__main__":
    main()
