"""What jobs, workers and clients say is in the logs of server and worker, and has no power over who reads them."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from hecaton.core.errors import JobFailed
from hecaton.core.model import Gpu
from hecaton.testing.cluster import LocalCluster
from hecaton.wire.channel import Broken, Lost, SlotInfo
from tests.server.scripted_worker import ScriptedWorker

CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07\x9b31m\u202e"

HANDLER = """
from hecaton.serverless import start

Evil = type("Evil" + TEXT.replace("\\x00", ""), (Exception,), {})


def handler(data):
    print(TEXT)
    raise Evil(TEXT + "\\n2026-01-01 00:00:00 [info     ] Audit who=admin")


start(handler)
"""


async def _worker(cluster: LocalCluster) -> None:
    """With it in all that a worker says of itself."""
    token = cluster.client().add_worker("evil").token
    async with aiohttp.ClientSession() as session:
        worker = ScriptedWorker(session, cluster.url, token)
        card = Gpu("GPU-0", CLIPBOARD, 1 << 30)
        await worker.connect(runtime=CLIPBOARD, version=CLIPBOARD, slots=(SlotInfo(0, card, None, None),))
        await worker.send(Lost(0, CLIPBOARD), Broken(CLIPBOARD))
        assert cluster.server is not None
        cluster.server.wait_for("has lost a card")
        cluster.server.wait_for("Worker quarantined")
        await worker.gone()


async def test_no_control_character_comes_into_a_log_from_anybody(tmp_path: Path) -> None:
    path = tmp_path / "handler.py"
    path.write_text(f"TEXT = {CLIPBOARD!r}\n{HANDLER}")
    with LocalCluster(tmp_path / "home") as cluster:
        worker = cluster.start_worker("one", handlers={"evil": path})
        cluster.register("evil")
        job = cluster.client().submit("evil", 1)
        with pytest.raises(JobFailed, match="52;c"):
            job.result(60)
        worker.wait_for("A job ended: handler_error")
        await _worker(cluster)
        assert cluster.server is not None
        said = {"server": cluster.server.said(), "worker": worker.said()}
    for who, text in said.items():
        assert {char for char in text if char != "\n" and not char.isprintable()} == set(), who
        assert not re.search(r"^2026-01-01", text, re.MULTILINE), who
