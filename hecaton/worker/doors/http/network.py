"""Sockets in the network of a container, made from outside: its 127.0.0.1 is reached though it publishes no port, and
also where it has no network but that.

A socket belongs to the network namespace of the thread that makes it, for good. So a thread of its own goes there
(setns(2), which moves the calling thread alone), makes it and ends; what is done with the socket is done elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable

_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def socket_factory(namespace: int) -> Callable[[object], socket.socket]:
    """For aiohttp's connector. `namespace`: a descriptor of /proc/PID/ns/net, open as long as the factory is used.

    What it gives raises OSError, PermissionError where this process may not go there."""

    def make(_: object) -> socket.socket:
        return _made_in(namespace)

    return make


def _made_in(namespace: int) -> socket.socket:
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            if _libc.setns(namespace, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            made.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make, name="hecaton-network")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
