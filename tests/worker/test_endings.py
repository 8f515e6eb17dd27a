"""What is meant by a SIGTERM, from what systemd says; and the control socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hecaton.worker import control
from hecaton.worker.endings import Unit, is_restarted, unit_of

JOBS = """\
 1093 hecaton-gpu.service       restart running
 1094 hecaton-gpu-two.service   stop    running
 1095 docker.service            restart waiting
"""


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/hecaton-gpu.service\n", Unit("hecaton-gpu.service", of_user=False)),
        (
            "12:pids:/system.slice/other.service\n1:name=systemd:/system.slice/hecaton-gpu-two.service\n",
            Unit("hecaton-gpu-two.service", of_user=False),
        ),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/gpu.service\n",
            Unit("gpu.service", of_user=True),
        ),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("12:pids:/docker/ab12\n1:name=systemd:/docker/ab12\n0::/\n", None),
    ],
)
def test_a_process_knows_its_service(cgroup: str, unit: Unit | None) -> None:
    assert unit_of(cgroup) == unit


@pytest.mark.parametrize(
    ("unit", "restarted"),
    [
        ("hecaton-gpu.service", True),
        ("hecaton-gpu-two.service", False),
        ("gpu.service", False),
        ("hecaton-gpu", False),
    ],
)
def test_its_service_is_restarted_and_no_other(unit: str, restarted: bool) -> None:
    assert is_restarted(unit, JOBS) is restarted


def test_a_systemd_that_says_nothing_restarts_nothing() -> None:
    assert not is_restarted("hecaton-gpu.service", "")


async def test_who_asks_a_worker_to_leave_waits_until_it_has(tmp_path: Path) -> None:
    folder = tmp_path / ("a folder with a long name " * 5).strip()
    folder.mkdir()
    asked = asyncio.Event()
    end = control.Control(folder, asked.set)
    await end.open()
    asking = asyncio.create_task(asyncio.to_thread(control.leave, folder))
    await asked.wait()
    assert not asking.done()
    end.close()
    assert await asking is True


async def test_one_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    assert control.leave(tmp_path) is False
    end = control.Control(tmp_path, lambda: None)
    await end.open()
    end.close()
    assert await asyncio.to_thread(control.leave, tmp_path) is False
    again = control.Control(tmp_path, lambda: None)
    await again.open()  # in the place of what it left
    again.close()


async def test_other_words_end_the_connection_and_nothing_else(tmp_path: Path) -> None:
    end = control.Control(tmp_path, lambda: pytest.fail("it left"))
    await end.open()
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / control.NAME))
    writer.write(b"stop\n")
    assert await reader.read() == b""
    writer.close()
    end.close()
