"""Tells systemd how the worker is doing, for `hecaton-gpu status`."""

from __future__ import annotations

import os
import socket


def notify(text: str) -> None:
    """Tell systemd in one line what this service is doing; nothing happens when it does not run as a service."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(f"STATUS={' '.join(text.split())}".encode(), address)
