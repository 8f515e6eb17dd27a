"""The handler of most jobs here: does what its payload orders, and tells in which container it ran. Python 3.8+."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import hecaton.serverless
from hecaton.serverless import ServerLessInput, start

served = 0


def act(data: ServerLessInput) -> dict[str, Any]:
    global served
    served += 1
    order = data.input if isinstance(data.input, dict) else {}
    if "say" in order:
        print(order["say"], flush=True)
    if "sleep" in order:
        time.sleep(order["sleep"])
    if "raise" in order:
        raise ValueError(order["raise"])
    if "exit" in order:
        os._exit(order["exit"])
    if order.get("succeed_at", 0) > data.attempt:
        raise RuntimeError(f"attempt {data.attempt} is too early")
    return {
        "container": socket.gethostname(),
        "served": served,
        "attempt": data.attempt,
        "user": os.getuid(),
        "greeting": os.environ.get("GREETING"),
        "hecaton": getattr(hecaton.serverless, "FLAVOUR", "as built"),
    }


if __name__ == "__main__":
    start(act)
