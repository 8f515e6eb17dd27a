"""Makes the pictures of the README: real commands on a real terminal, with a server, a worker and a Docker engine.

`make screenshots` runs it. Needs Chromium, which draws what the terminal showed; nothing is made up or retouched, but
for the temporary folder, which is shown as a home folder."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.cli.screen import Terminal
from tests.engine import daemon, python_image

FOLDER = Path(__file__).resolve().parent
COMMANDS = Path(sys.executable).parent
COLUMNS = 104
FONT, LINE, PADDING, MARGIN, BAR = 14, 21, 18, 24, 36
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PASSWORD = "mysecurepassword"
IMAGE = "python:3.9-slim"

THEME = TerminalTheme(
    (22, 27, 38),
    (214, 220, 232),
    [(22, 27, 38), (240, 113, 120), (142, 212, 139), (247, 200, 115),
     (122, 170, 247), (199, 146, 234), (109, 214, 222), (214, 220, 232)],
    [(104, 115, 138), (255, 139, 146), (172, 236, 169), (255, 221, 148),
     (153, 193, 255), (221, 178, 249), (148, 235, 242), (255, 255, 255)],
)  # fmt: skip

HANDLER = """\
import time
from hecaton.serverless import start, ServerLessInput

def my_handler(data: ServerLessInput):
    prompt = data.input["prompt"]
    for step in range(1, 4):
        print(f"step {step} of 3: {prompt}")
        time.sleep(0.3)
    return {"status": "success", "words": len(prompt.split())}

if __name__ == "__main__":
    start(my_handler)
"""


class Scene:
    """What was typed and what came, in the order in which it stood on the terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown = ""
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HECATON_")},
            "PATH": f"{COMMANDS}:{os.environ['PATH']}",
            "HOME": str(folder),
            "HECATON_HOME": str(folder / "hecaton"),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }

    @contextmanager
    def running(self, line: str, ready: str, last: str = "", **environment: str) -> Iterator[None]:
        """The command goes on while the block does things; it is shown up to what it says last."""
        with self._terminal(line, environment) as terminal:
            said = terminal.until(ready)
            yield
            said += terminal.until(last)
            terminal.process.send_signal(signal.SIGTERM)
            terminal.end()
            self._show(line, said)

    def type(self, line: str, **environment: str) -> None:
        """The command runs to its end."""
        with self._terminal(line, environment) as terminal:
            terminal.end(120)
            self._show(line, terminal.seen)

    def _terminal(self, line: str, environment: dict[str, str]) -> Terminal:
        settings = [f"{name}={value}" for name, value in {**self.environment, **environment}.items()]
        command = ["env", "-C", str(self.folder), *settings, "bash", "-c", f"exec env {line}"]
        return Terminal(command, columns=COLUMNS)

    def _show(self, line: str, said: str) -> None:
        lines = said.replace("\r\n", "\n").split("\n")
        # Of a line that was drawn again and again, the last drawing counts.
        text = "\n".join(line.rpartition("\r")[2] for line in lines).strip("\n")
        text = re.sub(r"(\s|\x1b\[\d*[KG])+\Z", "", text.replace(str(self.folder), "/home/you"))
        self.shown += f"\x1b[32m$\x1b[0m \x1b[1m{line}\x1b[0m\n{text}\n\n"


def main() -> None:
    """All pictures, into this folder."""
    daemon.up()
    python_image.python_image()
    with tempfile.TemporaryDirectory(prefix="hecaton-pictures-") as name:
        folder = Path(name)
        server, client = Scene(folder), Scene(folder)
        (folder / "handler.py").write_text(HANDLER)
        (folder / "hello.py").write_text('print("hello from the GPU machine")\n')
        (folder / "payload.json").write_text('{"prompt": "a hundred hands"}\n')
        (folder / "broken.json").write_text('{"promt": "a typo"}\n')
        start = f"HECATON_ADMIN_PASS={PASSWORD} hecaton-server --port 8181"
        with server.running(start, "host 127.0.0.1[^\n]*\n", "Worker connected[^\n]*\n"):
            overview(client)
            failure = Scene(folder)
            why(failure)
        demo = Scene(folder)
        demo.type("hecaton demo")
    for picture, scene in (("server_startup", server), ("overview", client), ("why", failure), ("demo", demo)):
        draw(picture, scene.shown)


def overview(scene: Scene) -> None:
    """From nothing to a result."""
    login = {"HECATON_USERNAME": "admin", "HECATON_PASSWORD": PASSWORD}
    scene.type("hecaton server new --ip http://localhost:8181 --name my-server")
    scene.type(f"hecaton server login my-server --username admin --password {PASSWORD}")
    quiet = Scene(scene.folder)
    with quiet.running("hecaton-gpu run http://localhost:8181 --name gpu-machine", "Connected to the server", **login):
        scene.type("hecaton worker list")
        scene.type(f"hecaton run -i {IMAGE} hello.py")
        scene.type(f"hecaton job new payload.json {IMAGE} --handler handler.py --wait")
        quiet.type(f"hecaton job new broken.json {IMAGE} --handler handler.py --wait")
        scene.type("hecaton job list")


def why(scene: Scene) -> None:
    """A job that failed, and one that waits: the worker is gone by now."""
    scene.type("hecaton job show 3")
    Scene(scene.folder).type(f"hecaton job new payload.json {IMAGE} --handler handler.py")
    scene.type("hecaton job show 4")


def draw(name: str, shown: str) -> None:
    """The text with its colours as a window, into NAME.png."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    text = Text.from_ansi(shown.rstrip())
    console.print(text, overflow="fold")
    pre = console.export_html(theme=THEME, inline_styles=True, code_format="{code}")
    lines = len(re.findall("\n", pre.rstrip())) + 1
    width = round(COLUMNS * FONT * 0.602) + 2 * (PADDING + MARGIN)
    height = lines * LINE + BAR + PADDING + 2 * MARGIN
    target = FOLDER / f"{name}.png"
    with tempfile.TemporaryDirectory(prefix="hecaton-picture-") as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE.format(code=pre, **SIZES))
        photograph(page, target, width, height)
    print(f"{target.relative_to(FOLDER.parents[1])}  {target.stat().st_size // 1024} KiB")


def photograph(page: Path, target: Path, width: int, height: int) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1.5"]
    options += [f"--user-data-dir={page.parent / 'profile'}", "--default-background-color=00000000"]
    subprocess.run(
        [browser(), *options, f"--window-size={width},{height}", f"--screenshot={target}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=60,
    )


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit("The pictures need Chromium. On Debian and Ubuntu: apt-get install chromium")
    return found


SIZES: dict[str, object] = {"font": FONT, "line": LINE, "padding": PADDING, "margin": MARGIN, "bar": BAR}
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: {margin}px }}
.window {{ background: #161b26; border-radius: 10px; box-shadow: 0 4px 18px rgba(0, 0, 0, .35); overflow: hidden }}
.bar {{ height: {bar}px; display: flex; align-items: center; gap: 8px; padding: 0 {padding}px; position: relative }}
.bar i {{ width: 12px; height: 12px; border-radius: 6px }}
.bar b {{ position: absolute; left: 0; right: 0; text-align: center; color: #68738a; font: 13px "DejaVu Sans" }}
pre {{ margin: 0; padding: 0 {padding}px {padding}px; color: #d6dce8;
  font: {font}px/{line}px "DejaVu Sans Mono", monospace }}
pre span {{ line-height: {line}px }}
</style><div class="window"><div class="bar"><i style="background:#ff5f57"></i><i style="background:#febc2e"></i>
<i style="background:#28c840"></i><b>hecaton</b></div><pre>{code}</pre></div>"""

if __name__ == "__main__":
    main()
