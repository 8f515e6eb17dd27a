"""The server's clock: wall time at the start, carried on by the monotonic clock.

A jump of the machine's wall clock (NTP, a person, a resumed VM) therefore expires no lease, queue time or token while
the server runs (docs/reliability.md, C4). In asyncio code `loop.time()` would do for intervals; this one also dates
rows.
"""

from __future__ import annotations

import random
import time

_random = random.Random()  # seeded by the system

_VERSION = 0x7 << 76 | 0x2 << 62
_FREE_BITS = ~(0xF << 76 | 0x3 << 62)


class Clock:
    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.monotonic() + self._offset


def uuid7(now: float) -> str:
    """RFC 9562 UUID version 7: 48 bits of milliseconds, then random bits. Sorts by time, so index pages stay warm."""
    # hot: benchmarks/throughput.py - os.urandom is a system call (80 us on a virtual machine). Ids are unique, not
    # secret.
    value = (int(now * 1000) & 0xFFFF_FFFF_FFFF) << 80 | _random.getrandbits(80) & _FREE_BITS | _VERSION
    text = value.to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def submitted_at(uuid: str) -> float:
    """The time that went into `uuid7`, to the millisecond."""
    return int(uuid[:8] + uuid[9:13], 16) / 1000
