"""Messages are read from any thread, also when several read one of a kind for the first time."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import os, sys, threading
from hecaton.wire import api
from hecaton.wire.decoding import decode

BODY = b'''{"id": "x", "index": 1, "retry_of": null, "state": "FINISHED", "reason": "ok", "attempts": [{"number": 1,
"failure": {"message": "x", "traceback": "x"}}]}'''

def read(barrier):
    barrier.wait()
    try:
        decode(BODY, api.JobView)
    except ValueError:
        pass

sys.setswitchinterval(1e-6)
codes = []
for _ in range(16):
    child = os.fork()  # in which no type is known yet
    if not child:
        barrier = threading.Barrier(32)
        threads = [threading.Thread(target=read, args=[barrier]) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(0)
    codes.append(os.waitpid(child, 0)[1])
print(codes)
"""


def test_many_threads_may_read_the_first_message_of_a_kind_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == f"{[0] * 16}".split(), f"{signal.SIGSEGV} ended some"
