"""The server as users start it: the console script as a process of its own, to be stopped and killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.server.running import PASSWORD

COMMAND = Path(sys.executable).with_name("hecaton-server")


class ServerProcess:
    """`home` is its HECATON_HOME. Started by the constructor; `ready` waits until it serves. `files`: as
    many as it may have open."""

    def __init__(
        self,
        home: Path,
        *options: str,
        password: str | None = PASSWORD,
        extra: dict[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        self.home = home
        self.output = home.with_name(f"{home.name}.log")
        environment = {name: value for name, value in os.environ.items() if name != "HECATON_ADMIN_PASS"}
        environment |= {"HECATON_HOME": str(home), **(extra or {})}
        if password is not None:
            environment["HECATON_ADMIN_PASS"] = password
        with self.output.open("ab") as log:
            self._start = log.tell()
            limited = [] if files is None else ["bash", "-c", f'ulimit -n {files}; exec "$@"', "limited"]
            self.process = subprocess.Popen(
                [*limited, str(COMMAND), "--host", "127.0.0.1", *(options or ("--port", "0"))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    @property
    def said(self) -> str:
        with self.output.open("rb") as log:
            log.seek(self._start)
            return log.read().decode()

    def ready(self) -> str:
        """The address once it serves."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            if found := re.search(r"serves at (https?://\S+)", self.said):
                return found[1].replace("localhost", "127.0.0.1")
            time.sleep(0.02)
        raise AssertionError(f"hecaton-server did not start:\n{self.said}")

    def refused(self) -> str:
        """What it says when it ends by itself with an error."""
        code = self.process.wait(20)
        assert code in (1, 2, 3), self.said
        return self.said

    def stop(self) -> float:
        """SIGTERM; gives the seconds until it was gone."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        return time.monotonic() - began

    def kill(self) -> None:
        """As a power cut would: no chance to tidy up."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
